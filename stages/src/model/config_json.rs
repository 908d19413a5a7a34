//! `config.json` of Hugging Face transformers: read with suspicion, written as each architecture
//! spells it. Knows nothing of weights.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::data::token_ids;

use super::config::{Activation, Biases, Family, ModelConfig, Norm, Positions, RopeScaling};

const FAMILIES: [(Family, &str, &str); 6] = [
    (Family::Llama, "llama", "Llama"),
    (Family::Mistral, "mistral", "Mistral"),
    (Family::Qwen2, "qwen2", "Qwen2"),
    (Family::Qwen3, "qwen3", "Qwen3"),
    (Family::Gpt2, "gpt2", "GPT2"),
    (Family::GptNeox, "gpt_neox", "GPTNeoX"),
];

impl Family {
    /// `model_type` in files.
    pub fn model_type(self) -> &'static str {
        self.entry().1
    }

    /// The class of transformers that opens the model.
    pub fn architecture(self, reward: bool) -> String {
        let head = match (reward, self) {
            (true, _) => "ForSequenceClassification",
            (false, Self::Gpt2) => "LMHeadModel",
            (false, _) => "ForCausalLM",
        };
        format!("{}{head}", self.entry().2)
    }

    fn entry(self) -> (Self, &'static str, &'static str) {
        let found = FAMILIES.into_iter().find(|f| f.0 == self);
        found.expect("invariant: every architecture is in the list")
    }
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When a size is missing, or the file asks for arithmetic that this model does not do.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path)?;
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        Self::from_json(&value).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Reads the value of a `config.json`.
    ///
    /// # Errors
    /// As [`ModelConfig::read`].
    pub fn from_json(value: &Value) -> Result<Self> {
        let config = Self::shape_from_json(value)?;
        config.check()?;
        Ok(config)
    }

    /// As [`ModelConfig::from_json`], without the check that everything fits: an import may still
    /// shorten the context and choose the special tokens.
    ///
    /// # Errors
    /// As [`ModelConfig::read`].
    pub fn shape_from_json(value: &Value) -> Result<Self> {
        let fields = Fields(value);
        let model_type = value["model_type"].as_str().unwrap_or_default();
        let Some((family, ..)) = FAMILIES.into_iter().find(|f| f.1 == model_type) else {
            let known = FAMILIES.map(|f| f.1).join(", ");
            bail!("`model_type` is {}; supported are {known}", value["model_type"]);
        };
        fields.none("quantization_config")?;
        let mut config = match family {
            Family::Gpt2 => fields.gpt2()?,
            Family::GptNeox => fields.gpt_neox()?,
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => {
                fields.llama(family)?
            }
        };
        config.family = family;
        config.bos = value["bos_token_id"].as_i64();
        config.eos = token_ids(&value["eos_token_id"]);
        config.pad = value["pad_token_id"].as_i64().filter(|id| *id >= 0).unwrap_or_else(|| {
            // Padding is masked: any token that ends nothing will do.
            (0..).find(|id| !config.eos.contains(id)).unwrap_or(0)
        });
        Ok(config)
    }

    /// `config.json` of the language model, or of a scalar `…ForSequenceClassification`.
    pub fn to_json(&self, reward: bool) -> Value {
        let mut config = json!({
            "architectures": [self.family.architecture(reward)],
            "bos_token_id": self.bos,
            "dtype": "float32",
            "eos_token_id": match self.eos.as_slice() { [one] => json!(one), all => json!(all) },
            "initializer_range": 0.02,
            "model_type": self.family.model_type(),
            "pad_token_id": self.pad,
            "tie_word_embeddings": self.tie_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab,
        });
        merge(
            &mut config,
            match self.family {
                Family::Gpt2 => self.gpt2_json(),
                Family::GptNeox => self.gpt_neox_json(),
                Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => {
                    self.llama_json()
                }
            },
        );
        if reward {
            config["num_labels"] = json!(1);
            config["id2label"] = json!({ "0": "LABEL_0" });
            config["label2id"] = json!({ "LABEL_0": 0 });
        }
        config
    }

    fn llama_json(&self) -> Value {
        let mut config = json!({
            "attention_dropout": 0.0,
            "head_dim": self.head_dim,
            "hidden_act": activation_name(self.activation),
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.context,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.norm_eps,
        });
        merge(&mut config, self.rope_json());
        let own = match self.family {
            Family::Llama => json!({
                "attention_bias": self.biases.qkv,
                "mlp_bias": self.biases.mlp,
                "pretraining_tp": 1,
            }),
            Family::Qwen3 => json!({
                "attention_bias": self.biases.qkv,
                "sliding_window": null,
                "use_sliding_window": false,
            }),
            Family::Qwen2 => json!({ "sliding_window": null, "use_sliding_window": false }),
            Family::Mistral | Family::Gpt2 | Family::GptNeox => json!({ "sliding_window": null }),
        };
        merge(&mut config, own);
        config
    }

    fn gpt2_json(&self) -> Value {
        json!({
            "activation_function": activation_name(self.activation),
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "layer_norm_epsilon": self.norm_eps,
            "n_ctx": self.context,
            "n_embd": self.hidden,
            "n_head": self.heads,
            "n_inner": if self.intermediate == 4 * self.hidden { Value::Null } else { json!(self.intermediate) },
            "n_layer": self.layers,
            "n_positions": self.context,
            "reorder_and_upcast_attn": false,
            "resid_pdrop": 0.0,
            "scale_attn_by_inverse_layer_idx": false,
            "scale_attn_weights": true,
        })
    }

    fn gpt_neox_json(&self) -> Value {
        let mut config = json!({
            "attention_bias": self.biases.qkv,
            "attention_dropout": 0.0,
            "hidden_act": activation_name(self.activation),
            "hidden_dropout": 0.0,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "layer_norm_eps": self.norm_eps,
            "max_position_embeddings": self.context,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "use_parallel_residual": self.parallel,
        });
        merge(&mut config, self.rope_json());
        if let Positions::Rotary { theta, fraction, .. } = self.positions {
            config["rotary_emb_base"] = json!(theta);
            config["rotary_pct"] = json!(fraction);
        }
        config
    }

    /// The rotary keys, in the spelling of transformers 4 (`rope_theta`, `rope_scaling`) and of 5
    /// (`rope_parameters`).
    fn rope_json(&self) -> Value {
        let Positions::Rotary { theta, fraction, scaling } = self.positions else {
            return json!({});
        };
        let mut scaling = match scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear { factor } => json!({ "factor": factor, "rope_type": "linear" }),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                json!({
                    "factor": factor,
                    "high_freq_factor": high_freq_factor,
                    "low_freq_factor": low_freq_factor,
                    "original_max_position_embeddings": original_context,
                    "rope_type": "llama3",
                })
            }
        };
        let mut parameters = json!({ "rope_theta": theta, "rope_type": "default" });
        if fraction < 1.0 || self.family == Family::GptNeox {
            parameters["partial_rotary_factor"] = json!(fraction);
        }
        if scaling.is_object() {
            merge(&mut parameters, scaling.clone());
            scaling["rope_theta"] = json!(theta);
            if fraction < 1.0 {
                scaling["partial_rotary_factor"] = json!(fraction);
            }
        }
        json!({ "rope_parameters": parameters, "rope_scaling": scaling, "rope_theta": theta })
    }
}

/// The keys of a `config.json`, with errors that name them.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn int(&self, key: &str) -> Result<i64> {
        self.0[key].as_i64().with_context(|| format!("`{key}` is missing or no whole number"))
    }

    fn int_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.0[key].is_null() { Ok(default) } else { self.int(key) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.0[key].is_null() {
            return Ok(default);
        }
        self.0[key].as_f64().with_context(|| format!("`{key}` is no number"))
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        if self.0[key].is_null() {
            return Ok(default);
        }
        self.0[key].as_bool().with_context(|| format!("`{key}` is neither true nor false"))
    }

    fn none(&self, key: &str) -> Result<()> {
        if !self.0[key].is_null() {
            bail!("`{key}` is not supported");
        }
        Ok(())
    }

    /// Refuses a flag that is set to anything but `wanted`.
    fn only(&self, key: &str, wanted: bool) -> Result<()> {
        if self.flag_or(key, wanted)? != wanted {
            bail!("`{key}` is {}; only {wanted} is supported", !wanted);
        }
        Ok(())
    }

    fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        match self.0[key].as_str().unwrap_or(default) {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            _ => bail!("`{key}` is {}; supported are silu, gelu and gelu_new", self.0[key]),
        }
    }

    /// Llama, and those that differ from it in a few places.
    fn llama(&self, family: Family) -> Result<ModelConfig> {
        let (hidden, heads) = (self.int("hidden_size")?, self.int("num_attention_heads")?);
        let context = self.int("max_position_embeddings")?;
        self.window(context, matches!(family, Family::Qwen2 | Family::Qwen3))?;
        let bias = self.flag_or("attention_bias", false)?;
        let biases = match family {
            Family::Llama => Biases { qkv: bias, o: bias, mlp: self.flag_or("mlp_bias", false)? },
            Family::Qwen2 => Biases { qkv: true, ..Biases::default() },
            Family::Qwen3 => Biases { qkv: bias, o: bias, mlp: false },
            Family::Mistral | Family::Gpt2 | Family::GptNeox => Biases::default(),
        };
        Ok(ModelConfig {
            vocab: self.int("vocab_size")?,
            hidden,
            layers: self.int("num_hidden_layers")?,
            heads,
            kv_heads: self.int_or("num_key_value_heads", heads)?,
            head_dim: self.int_or("head_dim", hidden / heads.max(1))?,
            intermediate: self.int("intermediate_size")?,
            context,
            positions: self.whole_rotary()?,
            norm_eps: self.number_or("rms_norm_eps", 1e-6)?,
            activation: self.activation("hidden_act", "silu")?,
            biases,
            qk_norm: family == Family::Qwen3,
            tie_embeddings: self.flag_or("tie_word_embeddings", false)?,
            ..ModelConfig::default()
        })
    }

    fn gpt2(&self) -> Result<ModelConfig> {
        self.only("scale_attn_weights", true)?;
        self.only("scale_attn_by_inverse_layer_idx", false)?;
        self.only("add_cross_attention", false)?;
        let (hidden, heads) = (self.int("n_embd")?, self.int("n_head")?);
        Ok(ModelConfig {
            vocab: self.int("vocab_size")?,
            hidden,
            layers: self.int("n_layer")?,
            heads,
            kv_heads: heads,
            head_dim: hidden / heads.max(1),
            intermediate: self.int_or("n_inner", 4 * hidden)?,
            context: self.int("n_positions")?,
            positions: Positions::Learned,
            norm: Norm::Layer,
            norm_eps: self.number_or("layer_norm_epsilon", 1e-5)?,
            activation: self.activation("activation_function", "gelu_new")?,
            gated: false,
            biases: Biases { qkv: true, o: true, mlp: true },
            tie_embeddings: self.flag_or("tie_word_embeddings", true)?,
            ..ModelConfig::default()
        })
    }

    fn gpt_neox(&self) -> Result<ModelConfig> {
        let (hidden, heads) = (self.int("hidden_size")?, self.int("num_attention_heads")?);
        let bias = self.flag_or("attention_bias", true)?;
        Ok(ModelConfig {
            vocab: self.int("vocab_size")?,
            hidden,
            layers: self.int("num_hidden_layers")?,
            heads,
            kv_heads: heads,
            head_dim: hidden / heads.max(1),
            intermediate: self.int("intermediate_size")?,
            context: self.int("max_position_embeddings")?,
            positions: self.rotary("rotary_emb_base", "rotary_pct", 0.25)?,
            norm: Norm::Layer,
            norm_eps: self.number_or("layer_norm_eps", 1e-5)?,
            activation: self.activation("hidden_act", "gelu")?,
            gated: false,
            biases: Biases { qkv: bias, o: bias, mlp: true },
            parallel: self.flag_or("use_parallel_residual", true)?,
            tie_embeddings: self.flag_or("tie_word_embeddings", false)?,
            ..ModelConfig::default()
        })
    }

    /// Refuses attention over a part of the context only.
    fn window(&self, context: i64, has_switch: bool) -> Result<()> {
        if has_switch && !self.flag_or("use_sliding_window", false)? {
            return Ok(());
        }
        match self.0["sliding_window"].as_i64() {
            Some(window) if window < context => bail!(
                "`sliding_window` {window} is shorter than the context of {context} tokens, which \
                 is not supported: set `context` to {window} or less"
            ),
            _ => Ok(()),
        }
    }

    /// Rotary positions: from `rope_parameters` (transformers 5), or from `rope_scaling` and the
    /// keys of this architecture (transformers 4); where both are there they must agree.
    fn rotary(&self, theta: &str, fraction: &str, whole: f64) -> Result<Positions> {
        let nested = ["rope_scaling", "rope_parameters"].map(|key| Fields(&self.0[key]));
        let within = nested.iter().find(|f| f.0.is_object());
        let inner = |key: &str| within.map_or(&Value::Null, |f| &f.0[key]);
        let either = |old: &str, new: &str, default: f64| -> Result<f64> {
            match (self.0[old].as_f64(), inner(new).as_f64()) {
                (Some(a), Some(b)) if a != b => {
                    bail!("`{old}` is {a}, but `{new}` of the rotary positions is {b}")
                }
                (_, new) => self.number_or(old, new.unwrap_or(default)),
            }
        };
        Ok(Positions::Rotary {
            theta: either(theta, "rope_theta", 10_000.0)?,
            fraction: either(fraction, "partial_rotary_factor", whole)?,
            scaling: within.map_or(Ok(RopeScaling::None), Fields::scaling)?,
        })
    }

    /// Rotary positions on all of a head: these architectures rotate no part of it, whatever
    /// `partial_rotary_factor` says.
    fn whole_rotary(&self) -> Result<Positions> {
        let found = self.rotary("rope_theta", "partial_rotary_factor", 1.0)?;
        match found {
            Positions::Rotary { fraction, scaling, .. }
                if fraction < 1.0 && scaling != RopeScaling::None =>
            {
                bail!("`partial_rotary_factor` {fraction} with scaled positions is not supported")
            }
            Positions::Rotary { theta, scaling, .. } => {
                Ok(Positions::Rotary { theta, fraction: 1.0, scaling })
            }
            other => Ok(other),
        }
    }

    fn scaling(&self) -> Result<RopeScaling> {
        let name = self.0["rope_type"].as_str().or(self.0["type"].as_str()).unwrap_or("default");
        let number = |key: &str| {
            let found = self.0[key].as_f64().filter(|x| *x > 0.0);
            found.with_context(|| format!("`{key}` of the rotary positions is missing"))
        };
        match name {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_context: number("original_max_position_embeddings")? as i64,
            }),
            _ => bail!("`rope_type` is {name}; supported are default, linear and llama3"),
        }
    }
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
    }
}

/// Adds the keys of one object to another.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
