//! Which parameters a model has, under which names files know them, and where each stands.
//! Knows nothing of their values.

use super::config::{Family, ModelConfig, Norm, NormPlace, Positions, QkNorm};
use super::part::{Init, ParamSpec, Part, Stored};

/// Places of a weight and its bias in the list of parameters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linear {
    pub weight: usize,
    pub bias: Option<usize>,
}

/// Places of the parameters of one layer.
#[derive(Debug, Clone, Default)]
pub struct Block {
    pub attention_norm: Option<Linear>,
    /// The norm of what attention adds.
    pub attention_post: Option<Linear>,
    /// Queries, keys and values under one another.
    pub qkv: Linear,
    pub q_norm: Option<usize>,
    pub k_norm: Option<usize>,
    pub o: Linear,
    pub mlp_norm: Option<Linear>,
    /// The norm of what the MLP adds.
    pub mlp_post: Option<Linear>,
    /// The projection that is activated and, in a gated MLP, the other one below it.
    pub up: Linear,
    pub down: Linear,
}

/// Places of all weights of a model in its list of parameters.
#[derive(Debug, Clone, Default)]
pub struct WeightIndex {
    pub embed: usize,
    /// The table of learned positions.
    pub positions: Option<usize>,
    pub blocks: Vec<Block>,
    pub norm: Linear,
    /// The output layer of a policy, which may be the embedding, or the one number of a reward or
    /// value model.
    pub head: Linear,
}

/// Names of the parts of one architecture, without `.weight` and `.bias`.
struct Names {
    embed: &'static str,
    positions: &'static str,
    layer: &'static str,
    /// One name for a fused projection, or three.
    qkv: &'static [&'static str],
    o: &'static str,
    /// One name, or two for a gated MLP whose projections are apart.
    up: &'static [&'static str],
    down: &'static str,
    /// Before attention, after it, before the MLP, after it.
    norms: [&'static str; 4],
    norm: &'static str,
    head: &'static str,
}

const LLAMA: Names = Names {
    embed: "model.embed_tokens",
    positions: "",
    layer: "model.layers.",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    o: "self_attn.o_proj",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    norms: ["input_layernorm", "", "post_attention_layernorm", ""],
    norm: "model.norm",
    head: "lm_head",
};

/// Names of Llama, with norms of what is added.
const GEMMA: Names = Names {
    norms: [
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ],
    ..LLAMA
};

const OLMO2: Names =
    Names { norms: ["", "post_attention_layernorm", "", "post_feedforward_layernorm"], ..LLAMA };

const PHI3: Names = Names { qkv: &["self_attn.qkv_proj"], up: &["mlp.gate_up_proj"], ..LLAMA };

const GPT2: Names = Names {
    embed: "transformer.wte",
    positions: "transformer.wpe",
    layer: "transformer.h.",
    qkv: &["attn.c_attn"],
    o: "attn.c_proj",
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    norms: ["ln_1", "", "ln_2", ""],
    norm: "transformer.ln_f",
    head: "lm_head",
};

const GPT_NEOX: Names = Names {
    embed: "gpt_neox.embed_in",
    positions: "",
    layer: "gpt_neox.layers.",
    qkv: &["attention.query_key_value"],
    o: "attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    norms: ["input_layernorm", "", "post_attention_layernorm", ""],
    norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
};

/// What tensors of the bare model lack in front: `transformer.`, `gpt_neox.` or `model.`.
pub fn prefix(family: Family) -> &'static str {
    let name = names(family).embed;
    name.split_inclusive('.').next().unwrap_or_default()
}

/// The name of the output layer's weight.
pub fn head_name(family: Family) -> String {
    format!("{}.weight", names(family).head)
}

fn names(family: Family) -> &'static Names {
    match family {
        Family::Gpt2 => &GPT2,
        Family::GptNeox => &GPT_NEOX,
        Family::Gemma2 | Family::Gemma3 => &GEMMA,
        Family::Olmo2 => &OLMO2,
        Family::Phi3 => &PHI3,
        _ => &LLAMA,
    }
}

impl ParamSpec {
    /// The parameters of a model in storage order: see [`parameters`].
    pub fn list(config: &ModelConfig, reward: bool) -> Vec<Self> {
        parameters(config, reward).0
    }
}

/// The parameters of a model in storage order and the place of each: matrices first, so that those
/// which decay are one stretch. `reward`: with a scalar head instead of the output layer.
pub fn parameters(config: &ModelConfig, reward: bool) -> (Vec<ParamSpec>, WeightIndex) {
    let mut list = List { config, names: names(config.family), specs: Vec::new() };
    let mut index = WeightIndex::default();
    list.matrices(&mut index, reward);
    list.vectors(&mut index, reward);
    (list.specs, index)
}

/// The list while it grows.
struct List<'a> {
    config: &'a ModelConfig,
    names: &'static Names,
    specs: Vec<ParamSpec>,
}

impl List<'_> {
    fn matrices(&mut self, index: &mut WeightIndex, reward: bool) {
        let (c, names) = (self.config, self.names);
        let (d, f) = (c.hidden, c.intermediate);
        let std = Init::Normal(0.02);
        // Residual branches start smaller, by the depth (GPT-2).
        let residual = Init::Normal(0.02 / (2.0 * c.layers as f64).sqrt());
        index.embed = self.one(format!("{}.weight", names.embed), vec![c.vocab, d], std);
        if c.positions == Positions::Learned {
            let name = format!("{}.weight", names.positions);
            index.positions = Some(self.one(name, vec![c.context, d], std));
        }
        for i in 0..c.layers {
            let block = Block {
                qkv: self.matrix(i, names.qkv, &c.qkv_widths(), d, std),
                o: self.matrix(i, &[names.o], &[d], c.query_width(), residual),
                up: self.matrix(i, names.up, &up_sides(c), d, std),
                down: self.matrix(i, &[names.down], &[d], f, residual),
                ..Block::default()
            };
            index.blocks.push(block);
        }
        index.head.weight = if reward {
            // Ziegler et al. 2019: N(0, 1/√(d+1)).
            let std = 1.0 / ((d + 1) as f64).sqrt();
            self.one("score.weight".into(), vec![1, d], Init::Normal(std))
        } else if c.tie_embeddings {
            index.embed
        } else {
            self.one(head_name(c.family), vec![c.vocab, d], std)
        };
    }

    fn vectors(&mut self, index: &mut WeightIndex, reward: bool) {
        let (c, names) = (self.config, self.names);
        let d = c.hidden;
        for (i, block) in (0..c.layers).zip(&mut index.blocks) {
            let at = |tail: &str| format!("{}{i}.{tail}", names.layer);
            let (before, after) =
                (c.norm_place != NormPlace::After, c.norm_place != NormPlace::Before);
            let mut norm =
                |place: usize, there: bool| there.then(|| self.norm(&at(names.norms[place])));
            block.attention_norm = norm(0, before);
            block.attention_post = norm(1, after);
            block.mlp_norm = norm(2, before);
            block.mlp_post = norm(3, after);
            let [q, k, _] = c.qkv_widths();
            let widths = match c.qk_norm {
                QkNorm::None => None,
                QkNorm::Head => Some([c.head_dim, c.head_dim]),
                QkNorm::Width => Some([q, k]),
            };
            if let Some([q, k]) = widths {
                let mut gain = |tail, width| self.one(at(tail), vec![width], one(c));
                block.q_norm = Some(gain("self_attn.q_norm.weight", q));
                block.k_norm = Some(gain("self_attn.k_norm.weight", k));
            }
            if c.biases.qkv {
                block.qkv.bias = Some(self.bias(i, names.qkv, &c.qkv_widths()));
            }
            if c.biases.o {
                block.o.bias = Some(self.bias(i, &[names.o], &[d]));
            }
            if c.biases.mlp {
                block.up.bias = Some(self.bias(i, names.up, &up_sides(c)));
                block.down.bias = Some(self.bias(i, &[names.down], &[d]));
            }
        }
        index.norm = self.norm(names.norm);
        if reward {
            index.head.bias = Some(self.one("score.bias".into(), vec![1], Init::Zeros));
        }
    }

    fn norm(&mut self, name: &str) -> Linear {
        let d = self.config.hidden;
        let weight = self.one(format!("{name}.weight"), vec![d], one(self.config));
        let bias = (self.config.norm == Norm::Layer)
            .then(|| self.one(format!("{name}.bias"), vec![d], Init::Zeros));
        Linear { weight, bias }
    }

    /// A matrix of layer `i` with `sides` rows, stacked, and `columns` columns.
    fn matrix(
        &mut self,
        i: i64,
        names: &[&str],
        sides: &[i64],
        columns: i64,
        init: Init,
    ) -> Linear {
        let fused = names.len() < sides.len();
        let stored = match self.config.family {
            // Its linear layers are convolutions, stored as input × output.
            Family::Gpt2 => Stored::Transposed,
            Family::GptNeox if fused => Stored::ByHead(self.config.heads),
            _ => Stored::Plain,
        };
        let parts = self.parts(i, names, sides, "weight", stored, Some(columns));
        Linear { weight: self.push(ParamSpec::new(parts, init)), bias: None }
    }

    fn bias(&mut self, i: i64, names: &[&str], sides: &[i64]) -> usize {
        let by_head = names.len() < sides.len() && self.config.family == Family::GptNeox;
        let stored = if by_head { Stored::ByHead(self.config.heads) } else { Stored::Plain };
        let parts = self.parts(i, names, sides, "bias", stored, None);
        self.push(ParamSpec::new(parts, Init::Zeros))
    }

    fn parts(
        &self,
        i: i64,
        names: &[&str],
        sides: &[i64],
        tail: &str,
        stored: Stored,
        columns: Option<i64>,
    ) -> Vec<Part> {
        let all = [sides.iter().sum()];
        let sides = if names.len() < sides.len() { &all } else { sides };
        let part = |(name, rows): (&&str, &i64)| Part {
            name: format!("{}{i}.{name}.{tail}", self.names.layer),
            shape: [*rows].into_iter().chain(columns).collect(),
            stored,
        };
        names.iter().zip(sides).map(part).collect()
    }

    fn one(&mut self, name: String, shape: Vec<i64>, init: Init) -> usize {
        self.push(ParamSpec::new(vec![Part { name, shape, stored: Stored::Plain }], init))
    }

    fn push(&mut self, spec: ParamSpec) -> usize {
        self.specs.push(spec);
        self.specs.len() - 1
    }
}

/// Rows of the projections that an MLP begins with.
fn up_sides(c: &ModelConfig) -> Vec<i64> {
    vec![c.intermediate; if c.gated { 2 } else { 1 }]
}

/// How the gain 1 is stored.
fn one(c: &ModelConfig) -> Init {
    if c.gain_from_one { Init::Zeros } else { Init::Ones }
}
