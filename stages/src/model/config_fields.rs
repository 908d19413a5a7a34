//! The keys of a `config.json`, with errors that name them; what nobody read is refused.
//! Knows nothing of what keys mean.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::advice::error_with_help;

use super::config::Activation;

/// Keys that change nothing in the forward pass: where a model comes from, how files spell it,
/// what training did at random, settings of generation and of classifiers.
const HARMLESS: [&str; 65] = [
    "_attn_implementation_autoset",
    "_model_name_or_path",
    "_name_or_path",
    "_commit_hash",
    "architectures",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "n_ctx",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "reorder_and_upcast_attn",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// Flags that no supported model sets: each would be other arithmetic.
const NEVER: [&str; 8] = [
    "add_cross_attention",
    "alibi",
    "is_encoder_decoder",
    "lm_head_bias",
    "qk_layernorm",
    "rope_interleaved",
    "tie_encoder_decoder",
    "use_bidirectional_attention",
];

/// The keys of one object, and which of them were read.
pub struct Fields<'a> {
    value: &'a Value,
    /// The object that holds this one, and a dot.
    within: String,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub fn new(value: &'a Value) -> Self {
        Self { value, within: String::new(), read: RefCell::default() }
    }

    /// The object at `key`, if one is there.
    pub fn inner(&self, key: &str) -> Option<Fields<'a>> {
        let value = self.get(key);
        let within = format!("{}{key}.", self.within);
        value.is_object().then(|| Fields { value, within, read: RefCell::default() })
    }

    /// The value at `key`; null when there is none.
    pub fn get(&self, key: &str) -> &'a Value {
        self.read.borrow_mut().insert(key.to_owned());
        &self.value[key]
    }

    /// Whether the key is there, if only with null.
    pub fn has(&self, key: &str) -> bool {
        self.read.borrow_mut().insert(key.to_owned());
        self.value.get(key).is_some()
    }

    pub fn int(&self, key: &str) -> Result<i64> {
        let found = self.get(key).as_i64();
        found.with_context(|| format!("`{}{key}` is missing or no whole number", self.within))
    }

    pub fn int_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.get(key).is_null() { Ok(default) } else { self.int(key) }
    }

    pub fn number(&self, key: &str) -> Result<f64> {
        let found = self.get(key).as_f64();
        found.with_context(|| format!("`{}{key}` is missing or no number", self.within))
    }

    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.maybe(key)?.unwrap_or(default))
    }

    /// A number, or nothing.
    pub fn maybe(&self, key: &str) -> Result<Option<f64>> {
        let value = self.get(key);
        if value.is_null() {
            return Ok(None);
        }
        let found = value.as_f64().with_context(|| format!("`{}{key}` is no number", self.within));
        Ok(Some(found?))
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Vec<f64>> {
        let list = self.get(key).as_array().and_then(|l| l.iter().map(Value::as_f64).collect());
        list.with_context(|| format!("`{}{key}` is missing or no list of numbers", self.within))
    }

    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let value = self.get(key);
        if value.is_null() {
            return Ok(default);
        }
        let found = value.as_bool();
        found.with_context(|| format!("`{}{key}` is neither true nor false", self.within))
    }

    pub fn none(&self, key: &str) -> Result<()> {
        if !self.get(key).is_null() {
            bail!("`{}{key}` is not supported", self.within);
        }
        Ok(())
    }

    /// Refuses a flag that is set to anything but `wanted`.
    pub fn only(&self, key: &str, wanted: bool) -> Result<()> {
        if self.flag_or(key, wanted)? != wanted {
            bail!("`{}{key}` is {}; only {wanted} is supported", self.within, !wanted);
        }
        Ok(())
    }

    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        match self.get(key).as_str().unwrap_or(default) {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            _ => bail!("`{key}` is {}; supported are silu, gelu and gelu_new", self.get(key)),
        }
    }

    /// Refuses keys that nobody read and that may change the arithmetic.
    pub fn finish(&self, of: &str) -> Result<()> {
        for key in NEVER {
            self.only(key, false)?;
        }
        let read = self.read.borrow();
        let keys = self.value.as_object().into_iter().flatten();
        let known = |key: &str| {
            let random = key.ends_with("dropout") || key.ends_with("_pdrop");
            let label = key.starts_with("summary_");
            read.contains(key) || HARMLESS.contains(&key) || random || label
        };
        for (key, value) in keys.filter(|(_, value)| !value.is_null()) {
            if !known(key) {
                let mut shown = value.to_string();
                if shown.len() > 60 {
                    shown = "set".into();
                }
                return Err(error_with_help(
                    format!(
                        "`{}{key}` is {shown}: this key is not known of a {of} model and may \
                         change its arithmetic",
                        self.within
                    ),
                    "where it changes nothing in the forward pass, take it out of the file",
                ));
            }
        }
        Ok(())
    }
}
