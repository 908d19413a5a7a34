//! `export`: a model as a folder that `transformers` opens.
//! Knows nothing of training.

use std::path::Path;

use anyhow::{Context as _, Result};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::Vocabulary;
use crate::kind::{Stage, Summary, input, output};
use crate::model::{LowRank, ModelConfig, ParamSpec, Policy, RewardModel, Trunk, write_shards};

/// Params of `export`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// What is written: transformers, the whole model; peft, the adapters that `lora: { keep: true
    /// }` kept, for the base that they were trained beside.
    form: Form,
    /// Type of the weights: float32, or bfloat16 at half the size.
    dtype: Dtype,
    /// Largest file of weights, bytes; 0: one file.
    #[schemars(extend("x-unit" = "count"))]
    max_shard_size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Form {
    Transformers,
    Peft,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Dtype {
    Float32,
    Bfloat16,
}

impl Default for Export {
    fn default() -> Self {
        Self { form: Form::Transformers, dtype: Dtype::Float32, max_shard_size: 5_000_000_000 }
    }
}

/// The template of models whose tokenizer was made by the kind `tokenizer`.
const TEMPLATE: &str = "\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<bot>' }}
        {%- generation %}
        {{- message.content + eos_token }}
        {%- endgeneration %}
    {%- elif message.role == 'user' %}
        {{- '<user>' + message.content }}
    {%- else %}
        {{- message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<bot>' }}
{%- endif %}
";

impl Stage for Export {
    const NAME: &'static str = "export";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "write a model in the format of transformers";
    const FIGURES: &'static [&'static str] = &["model/parameters"];

    fn inputs() -> Vec<InputDoc> {
        vec![input("model", &["model/policy", "model/reward"], "the model to write")]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output(
            "folder",
            "model/huggingface",
            "",
            "from_pretrained opens it, with its tokenizer",
        )]
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let (from, to) = (cx.path("model")?.to_owned(), cx.output("folder")?);
        let vocabulary = cx.vocabulary(&from)?;
        let config: Value = serde_json::from_slice(&fs_err::read(from.join("config.json"))?)
            .context("config.json is not JSON")?;
        let architecture = config["architectures"][0].as_str().unwrap_or_default();
        let reward = architecture.ends_with("ForSequenceClassification");
        if self.form == Form::Peft {
            let parameters = self.write_adapter(&from, &to, &vocabulary)?;
            cx.complete("folder", None)?;
            return Ok(Summary::from([("model/parameters".into(), parameters)]));
        }
        let trunk =
            if reward { RewardModel::open(&from)?.trunk } else { Policy::open(&from)?.trunk };
        fs_err::create_dir_all(&to)?;
        let half = self.dtype == Dtype::Bfloat16;
        write_shards(&to, &trunk.params, half, self.max_shard_size)?;
        let mut config = trunk.config.to_json(reward);
        if half {
            config["dtype"] = json!("bfloat16");
            config["torch_dtype"] = json!("bfloat16");
        }
        write_json(&to.join("config.json"), &config)?;
        if !reward {
            let generation = json!({
                "_from_model_config": true,
                "bos_token_id": config["bos_token_id"],
                "eos_token_id": config["eos_token_id"],
                "pad_token_id": config["pad_token_id"],
            });
            write_json(&to.join("generation_config.json"), &generation)?;
        }
        vocabulary.save(&to)?;
        if vocabulary.is_own() {
            write_json(&to.join("tokenizer_config.json"), &own_settings(&vocabulary, &trunk))?;
            fs_err::write(to.join("chat_template.jinja"), TEMPLATE)?;
        }
        cx.complete("folder", None)?;
        Ok(Summary::from([("model/parameters".into(), trunk.params.numel() as f64)]))
    }
}

impl Export {
    /// Writes the adapters in `from`. Returns the number of their weights.
    fn write_adapter(&self, from: &Path, to: &Path, vocabulary: &Vocabulary) -> Result<f64> {
        let config = ModelConfig::read(&from.join("config.json"))?;
        let Some(adapter) = LowRank::open(from, &ParamSpec::list(&config, false))? else {
            return Err(error_with_help(
                "this model has no adapters apart from its weights",
                "form: peft writes what a stage with lora: { rank: …, keep: true } kept",
            ));
        };
        fs_err::create_dir_all(to)?;
        adapter.write(to, &config, self.dtype == Dtype::Bfloat16)?;
        vocabulary.save(to)?;
        Ok(adapter.numel() as f64)
    }
}

/// `tokenizer_config.json` for a tokenizer of the kind `tokenizer`.
fn own_settings(vocabulary: &Vocabulary, trunk: &Trunk) -> Value {
    let special = vocabulary.special();
    let token = |id: Option<i64>| id.and_then(|id| vocabulary.token(id));
    json!({
        "bos_token": token(special.bos),
        "clean_up_tokenization_spaces": false,
        "eos_token": token(special.eos.first().copied()),
        "model_max_length": trunk.config.context,
        "pad_token": token(Some(special.pad)),
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}

fn write_json(path: &std::path::Path, value: &Value) -> Result<()> {
    Ok(fs_err::write(path, serde_json::to_string_pretty(value)? + "\n")?)
}
