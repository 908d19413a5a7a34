//! The shape of a model, as `config.json` of Hugging Face transformers spells it.
//! Knows nothing of weights.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::data::{BOS, EOS, PAD};

/// Shape of a Llama model.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    pub vocab: i64,
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub intermediate: i64,
    pub context: i64,
    pub rope_theta: f64,
    pub norm_eps: f64,
    /// The output layer is the embedding.
    pub tie_embeddings: bool,
}

impl LlamaConfig {
    /// Width of one attention head.
    pub fn head_dim(&self) -> i64 {
        self.hidden / self.heads
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
            ("intermediate", self.intermediate, 1 << 18),
            ("context", self.context, 1 << 20),
        ];
        for (name, size, limit) in sizes {
            if !(1..=limit).contains(&size) {
                bail!("model.{name} must lie between 1 and {limit}, not {size}");
            }
        }
        if self.hidden % self.heads != 0 || self.head_dim() % 2 != 0 {
            bail!("hidden {} must be an even multiple of heads {}", self.hidden, self.heads);
        }
        if self.heads % self.kv_heads != 0 {
            bail!("heads {} must be a multiple of kv_heads {}", self.heads, self.kv_heads);
        }
        Ok(())
    }

    /// `config.json` of a `LlamaForCausalLM`, or of a scalar `LlamaForSequenceClassification`.
    pub fn to_json(&self, reward: bool) -> Value {
        let architecture =
            if reward { "LlamaForSequenceClassification" } else { "LlamaForCausalLM" };
        let mut config = json!({
            "architectures": [architecture],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": BOS,
            "dtype": "float32",
            "eos_token_id": EOS,
            "head_dim": self.head_dim(),
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.context,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": PAD,
            "pretraining_tp": 1,
            "rms_norm_eps": self.norm_eps,
            "rope_parameters": { "rope_theta": self.rope_theta, "rope_type": "default" },
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab,
        });
        if reward {
            config["num_labels"] = json!(1);
            config["id2label"] = json!({ "0": "LABEL_0" });
            config["label2id"] = json!({ "LABEL_0": 0 });
        }
        config
    }

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
    /// As [`LlamaConfig::read`].
    pub fn from_json(value: &Value) -> Result<Self> {
        let int = |key: &str| {
            value[key].as_i64().with_context(|| format!("`{key}` is missing or no whole number"))
        };
        let expect = |key: &str, wanted: Value| {
            let found = &value[key];
            if !found.is_null() && *found != wanted {
                bail!("`{key}` is {found}; only {wanted} is supported");
            }
            Ok(())
        };
        expect("model_type", json!("llama"))?;
        expect("hidden_act", json!("silu"))?;
        expect("attention_bias", json!(false))?;
        expect("mlp_bias", json!(false))?;
        expect("rope_scaling", Value::Null)?;
        for (key, id) in [("pad_token_id", PAD), ("bos_token_id", BOS), ("eos_token_id", EOS)] {
            expect(key, json!(id))?;
        }
        let heads = int("num_attention_heads")?;
        let config = Self {
            vocab: int("vocab_size")?,
            hidden: int("hidden_size")?,
            layers: int("num_hidden_layers")?,
            heads,
            kv_heads: value["num_key_value_heads"].as_i64().unwrap_or(heads),
            intermediate: int("intermediate_size")?,
            context: int("max_position_embeddings")?,
            rope_theta: value["rope_theta"]
                .as_f64()
                .or(value["rope_parameters"]["rope_theta"].as_f64())
                .unwrap_or(10_000.0),
            norm_eps: value["rms_norm_eps"].as_f64().unwrap_or(1e-6),
            tie_embeddings: value["tie_word_embeddings"].as_bool().unwrap_or(false),
        };
        config.check()?;
        expect("head_dim", json!(config.head_dim()))?;
        Ok(config)
    }
}
