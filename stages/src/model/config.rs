//! The shape of a decoder, as data: what differs between the architectures that are supported.
//! Knows nothing of weights or of the files that spell it; see `config_json` for those.

use anyhow::{Result, bail};

use crate::advice::error_with_help;
use crate::data::{BOS, EOS, PAD};

/// An architecture of transformers: decides the names in files, not the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
    Phi3,
    Olmo2,
    SmolLm3,
    StableLm,
    Granite,
    Gpt2,
    GptNeox,
}

/// How a token's place reaches attention.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    Rotary(Rope),
    /// A learned vector a position, added to the embedding.
    Learned,
}

/// Rotary positions (Su et al. 2021) on the first `fraction` of every head.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub fraction: f64,
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched for a context longer than the one trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// A larger base for rows longer than the context: within it, nothing is stretched.
    Dynamic {
        factor: f64,
    },
    /// YaRN (Peng et al. 2023): dimensions that turn fewer than `beta_slow` times in the original
    /// context are divided by `factor`, those that turn more than `beta_fast` times are kept, a
    /// ramp lies between; queries and keys grow by `attention_factor`.
    Yarn {
        factor: f64,
        attention_factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original_context: i64,
        /// The ends of the ramp are whole dimensions.
        truncate: bool,
    },
    /// LongRoPE (Ding et al. 2024): every frequency divided by a factor of its own, `short` while
    /// rows are no longer than the original context; queries and keys grow by `attention_factor`.
    LongRope {
        short: Vec<f64>,
        long: Vec<f64>,
        attention_factor: f64,
        original_context: i64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context: i64,
    },
}

/// What one layer does differently from the others of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerKind {
    /// Its tokens see the last [`ModelConfig::window`] tokens only.
    pub windowed: bool,
    /// Its queries and keys carry no positions.
    pub unrotated: bool,
}

/// Which norm of queries and keys comes before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Over each head, with one gain for all.
    Head,
    /// Over all heads together.
    Width,
}

/// Where attention and MLP have their norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// On what they read.
    Before,
    /// On what they add.
    After,
    Around,
}

/// What norms compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// `x / √(mean(x²) + eps) · gain` (Zhang and Sennrich 2019).
    Rms,
    /// Mean and variance, with gain and bias (Ba et al. 2016).
    Layer,
}

/// The nonlinearity of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// `x · Φ(x)`.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    pub qkv: bool,
    pub o: bool,
    pub mlp: bool,
}

/// Shape of a model. [`ModelConfig::default`] is a Llama without sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub family: Family,
    pub vocab: i64,
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    /// Heads of keys and values, each shared by `heads / kv_heads` queries.
    pub kv_heads: i64,
    /// Width of one attention head.
    pub head_dim: i64,
    pub intermediate: i64,
    pub context: i64,
    pub positions: Positions,
    /// Rotary positions of layers with a window, where they have their own.
    pub window_rope: Option<Rope>,
    /// Tokens that a layer with a window sees, itself included.
    pub window: Option<i64>,
    /// What each layer does differently; empty: nothing.
    pub layer_kinds: Vec<LayerKind>,
    pub norm: Norm,
    pub norm_eps: f64,
    pub norm_place: NormPlace,
    /// Gains of norms are stored as what they differ from 1.
    pub gain_from_one: bool,
    pub activation: Activation,
    /// The MLP multiplies what it activates with a second projection (SwiGLU).
    pub gated: bool,
    pub biases: Biases,
    pub qk_norm: QkNorm,
    /// Scale of the products of queries and keys; `None`: 1/√head_dim.
    pub attention_scale: Option<f64>,
    /// Those products end softly here: `cap · tanh(x / cap)`.
    pub attention_cap: Option<f64>,
    /// Multiplies token embeddings.
    pub embed_scale: f64,
    /// Multiplies what attention and MLP add.
    pub residual_scale: f64,
    /// Divides logits.
    pub logit_divisor: f64,
    /// Logits end softly here.
    pub logit_cap: Option<f64>,
    /// Attention and MLP read the same input, and both are added to it.
    pub parallel: bool,
    /// The output layer is the embedding.
    pub tie_embeddings: bool,
    /// Starts a document; `None`: nothing does.
    pub bos: Option<i64>,
    /// Tokens that end an answer, the usual one first.
    pub eos: Vec<i64>,
    /// Fills rows up; masked, so any valid id that ends nothing will do.
    pub pad: i64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            family: Family::Llama,
            vocab: 0,
            hidden: 0,
            layers: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            intermediate: 0,
            context: 0,
            positions: Positions::rotary(10_000.0),
            window_rope: None,
            window: None,
            layer_kinds: Vec::new(),
            norm: Norm::Rms,
            norm_eps: 1e-6,
            norm_place: NormPlace::Before,
            gain_from_one: false,
            activation: Activation::Silu,
            gated: true,
            biases: Biases::default(),
            qk_norm: QkNorm::None,
            attention_scale: None,
            attention_cap: None,
            embed_scale: 1.0,
            residual_scale: 1.0,
            logit_divisor: 1.0,
            logit_cap: None,
            parallel: false,
            tie_embeddings: false,
            bos: Some(BOS),
            eos: vec![EOS],
            pad: PAD,
        }
    }
}

impl Positions {
    /// Rotary positions over whole heads, not stretched.
    pub fn rotary(theta: f64) -> Self {
        Self::Rotary(Rope { theta, fraction: 1.0, scaling: RopeScaling::None })
    }
}

impl ModelConfig {
    /// Width of all queries together.
    pub fn query_width(&self) -> i64 {
        self.heads * self.head_dim
    }

    /// Widths of all queries, all keys and all values.
    pub fn qkv_widths(&self) -> [i64; 3] {
        let kv = self.kv_heads * self.head_dim;
        [self.query_width(), kv, kv]
    }

    /// Dimensions of a head that are rotated; 0 without rotary positions.
    pub fn rotary_dim(&self) -> i64 {
        match self.positions {
            Positions::Rotary(Rope { fraction, .. }) => (self.head_dim as f64 * fraction) as i64,
            Positions::Learned => 0,
        }
    }

    /// What layer `i` does differently from the others.
    pub fn layer_kind(&self, i: usize) -> LayerKind {
        self.layer_kinds.get(i).copied().unwrap_or_default()
    }

    /// Whether a layer has a window that is shorter than the context.
    pub fn has_window(&self) -> bool {
        let windowed = self.layer_kinds.iter().any(|kind| kind.windowed);
        windowed && self.window.is_some_and(|window| window < self.context)
    }

    /// Whether `token` ends an answer.
    pub fn ends(&self, token: i64) -> bool {
        self.eos.contains(&token)
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// Names the two sizes that do not.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab", self.vocab, 1 << 20),
            ("hidden", self.hidden, 1 << 16),
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, 1 << 10),
            ("kv_heads", self.kv_heads, 1 << 10),
            ("head_dim", self.head_dim, 1 << 10),
            ("intermediate", self.intermediate, 1 << 18),
            ("context", self.context, 1 << 20),
        ];
        for (name, size, limit) in sizes {
            if !(1..=limit).contains(&size) {
                bail!("model.{name} must lie between 1 and {limit}, not {size}");
            }
        }
        if self.heads % self.kv_heads != 0 {
            bail!("heads {} must be a multiple of kv_heads {}", self.heads, self.kv_heads);
        }
        self.check_positions()?;
        let ids = self.bos.iter().chain(&self.eos).chain([&self.pad]);
        for id in ids {
            if !(0..self.vocab).contains(id) {
                bail!("token {id} is not among the {} of the vocabulary", self.vocab);
            }
        }
        if self.eos == [self.pad] {
            bail!(
                "token {0} is both the padding (pad) and the end (eos): a model trained so never \
                 learns to stop",
                self.pad
            );
        }
        Ok(())
    }

    /// Checks that rotary positions and windows fit the sizes.
    ///
    /// # Errors
    /// Says which does not.
    pub fn check_positions(&self) -> Result<()> {
        let own = match &self.positions {
            Positions::Rotary(rope) => Some(rope),
            Positions::Learned => None,
        };
        for Rope { theta, fraction, scaling } in own.into_iter().chain(&self.window_rope) {
            let turned = (self.head_dim as f64 * fraction) as i64;
            if turned < 2 || turned % 2 != 0 || *fraction > 1.0 {
                bail!("{fraction} of head_dim {} is no even number to rotate", self.head_dim);
            }
            if !theta.is_finite() || *theta <= 0.0 {
                bail!("rope_theta must be a positive number, not {theta}");
            }
            if let RopeScaling::LongRope { short, original_context, .. } = scaling {
                if short.len() as i64 * 2 != turned {
                    bail!("`short_factor` has {} numbers, not {}", short.len(), turned / 2);
                }
                if self.context > *original_context {
                    return Err(error_with_help(
                        format!(
                            "with `rope_type` longrope, positions beyond {original_context} \
                             tokens change those of all the batch; that is not supported"
                        ),
                        format!("set `context` of import_model to {original_context} or less"),
                    ));
                }
            }
        }
        if ![0, self.layers].contains(&(self.layer_kinds.len() as i64)) {
            bail!("{} kinds of layers for {} layers", self.layer_kinds.len(), self.layers);
        }
        if self.layer_kinds.iter().any(|kind| kind.windowed) && self.window.is_none_or(|w| w < 1) {
            bail!("a layer has a sliding window, but `sliding_window` is no positive number");
        }
        Ok(())
    }
}
