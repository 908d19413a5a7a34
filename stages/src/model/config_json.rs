//! `config.json` of Hugging Face transformers: read with suspicion, written as each architecture
//! spells it. Knows nothing of weights.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::advice::error_with_help;
use crate::data::token_ids;

use super::config::{Family, ModelConfig};
use super::config_fields::Fields;
use super::{config_read, config_write};

const FAMILIES: [(Family, &str, &str); 13] = [
    (Family::Llama, "llama", "Llama"),
    (Family::Mistral, "mistral", "Mistral"),
    (Family::Qwen2, "qwen2", "Qwen2"),
    (Family::Qwen3, "qwen3", "Qwen3"),
    (Family::Gemma2, "gemma2", "Gemma2"),
    (Family::Gemma3, "gemma3_text", "Gemma3"),
    (Family::Phi3, "phi3", "Phi3"),
    (Family::Olmo2, "olmo2", "Olmo2"),
    (Family::SmolLm3, "smollm3", "SmolLM3"),
    (Family::StableLm, "stablelm", "StableLm"),
    (Family::Granite, "granite", "Granite"),
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
            (true, Self::Gemma3) => "TextForSequenceClassification",
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
        let fields = Fields::new(value);
        let model_type = fields.get("model_type").as_str().unwrap_or_default();
        let Some((family, ..)) = FAMILIES.into_iter().find(|f| f.1 == model_type) else {
            let known = FAMILIES.map(|f| f.1).join(", ");
            return Err(error_with_help(
                format!("`model_type` is {}; supported are {known}", value["model_type"]),
                "mixtures of experts and models that see images are not supported; take a model \
                 of one of these types",
            ));
        };
        fields.none("quantization_config")?;
        let mut config = config_read::read(&fields, family)?;
        config.family = family;
        config.bos = fields.get("bos_token_id").as_i64();
        config.eos = token_ids(fields.get("eos_token_id"));
        let pad = fields.get("pad_token_id").as_i64().filter(|id| *id >= 0);
        config.pad = pad.unwrap_or_else(|| {
            // Padding is masked: any token that ends nothing will do.
            (0..).find(|id| !config.eos.contains(id)).unwrap_or(0)
        });
        fields.finish(model_type)?;
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
        config_write::merge(&mut config, config_write::keys(self));
        if reward {
            config["num_labels"] = json!(1);
            config["id2label"] = json!({ "0": "LABEL_0" });
            config["label2id"] = json!({ "LABEL_0": 0 });
        }
        config
    }
}
