//! `import_model`: a language model of Hugging Face as a policy.
//! Knows nothing of training.

use std::path::Path;

use anyhow::{Context as _, Result};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Special, Vocabulary, refuse_others, token_ids};
use crate::kind::{Stage, Summary, input, output};
use crate::model::config::Positions;
use crate::model::{ModelConfig, Policy, Trunk, read_folder};
use crate::preflight::Preflight;

/// Params of `import_model`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportModel {
    /// Longest row, tokens; 0: what the config says.
    #[schemars(extend("x-unit" = "count"))]
    context: u32,
    /// Token that fills rows up; empty: that of the folder, or one that ends nothing.
    pad_token: String,
}

/// Names of tokens that are meant for padding, tried in this order when a folder names none.
const PADDING: [&str; 6] =
    ["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|fim_pad|>", "<unk>"];

impl Stage for ImportModel {
    const NAME: &'static str = "import_model";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "read a language model in the format of transformers";
    const FIGURES: &'static [&'static str] = &["model/parameters"];

    fn inputs() -> Vec<InputDoc> {
        vec![input(
            "source",
            &["model/huggingface"],
            "a folder with config.json, safetensors and tokenizer.json",
        )]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("model", "model/policy", "", "the same model, f32")]
    }

    fn check(&self, look: &mut Preflight) {
        let [source] = look.inputs("source") else { return };
        if let Some(folder) = source.paths.first().map(Path::new).filter(|_| look.sees_inputs()) {
            look.tell("source", self.look_at(folder));
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let folder = cx.path("source")?.to_owned();
        let mut config = self.look_at(&folder)?;
        let vocabulary = self.special_tokens(cx, &folder, &mut config)?;
        config.check()?;
        if vocabulary.size() > config.vocab as usize {
            let message = format!(
                "the tokenizer has {} tokens, the model only {}",
                vocabulary.size(),
                config.vocab
            );
            let help = "resize_token_embeddings of transformers makes room for added tokens";
            return Err(error_with_help(message, help));
        }
        cx.warn_if(vocabulary.trouble_with_template())?;
        let params = read_folder(&folder, &config)
            .with_context(|| format!("cannot import {}", folder.display()))?;
        let parameters = params.numel() as f64;
        cx.note(format!("{} with {parameters} parameters", config.family.architecture(false)))?;
        Policy { trunk: Trunk::new(config, params) }.save(&cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        Ok(Summary::from([("model/parameters".into(), parameters)]))
    }
}

impl ImportModel {
    /// Reads the config and checks all that a folder says without its weights.
    fn look_at(&self, folder: &Path) -> Result<ModelConfig> {
        refuse_pointers(folder)?;
        check_tokenizer(folder)?;
        refuse_other_heads(folder)?;
        self.shape(folder)
    }

    /// The config, with the context that is asked for.
    fn shape(&self, folder: &Path) -> Result<ModelConfig> {
        let path = folder.join("config.json");
        let mut value = json_file(&path)?;
        let asked = i64::from(self.context);
        if asked > 0 && value["max_position_embeddings"].as_i64().is_some_and(|n| asked < n) {
            value["max_position_embeddings"] = json!(asked);
        }
        let config = ModelConfig::shape_from_json(&value)
            .with_context(|| format!("cannot use {}", path.display()))?;
        if asked > config.context
            || (asked > 0 && asked < config.context && config.positions == Positions::Learned)
        {
            let message =
                format!("`context` is {asked}, the model was made for {}", config.context);
            return Err(error_with_help(
                message,
                "leave `context` out, or give a smaller one; a model with \
                 learned positions keeps its own",
            ));
        }
        Ok(config)
    }

    /// Completes the special tokens from all files that may name them.
    fn special_tokens(
        &self,
        cx: &mut Context,
        folder: &Path,
        config: &mut ModelConfig,
    ) -> Result<Vocabulary> {
        let [own, generation, settings] =
            ["config.json", "generation_config.json", "tokenizer_config.json"].map(|name| {
                let path = folder.join(name);
                if path.is_file() { json_file(&path) } else { Ok(Value::Null) }
            });
        let (own, generation, settings) = (own?, generation?, settings?);
        let draft = Vocabulary::imported(
            folder,
            Special { bos: config.bos, eos: config.eos.clone(), pad: config.pad },
        )?;
        let named = |key: &str| {
            let value = &settings[key];
            value.as_str().or(value["content"].as_str()).and_then(|token| draft.id(token))
        };
        config.bos = config.bos.or_else(|| named("bos_token"));
        let more = token_ids(&generation["eos_token_id"]).into_iter().chain(named("eos_token"));
        for id in more {
            if !config.eos.contains(&id) {
                config.eos.push(id);
            }
        }
        if config.eos.is_empty() {
            return Err(error_with_help(
                "no file of the model names a token that ends an answer",
                "set eos_token in tokenizer_config.json or eos_token_id in config.json",
            ));
        }
        let given = [&own, &generation].map(|v| v["pad_token_id"].as_i64().filter(|id| *id >= 0));
        let given = given.into_iter().flatten().next().or_else(|| named("pad_token"));
        config.pad = match (self.pad_token.as_str(), given) {
            ("", Some(id)) => id,
            ("", None) => {
                let id = padding(&draft, config);
                let token = draft.token(id).unwrap_or_else(|| "unused".into());
                cx.note(format!("the model names no padding token; {id} ({token}) is used"))?;
                id
            }
            (token, _) => draft
                .id(token)
                .with_context(|| format!("`pad_token`: the tokenizer has no token `{token}`"))?,
        };
        let special = Special { bos: config.bos, eos: config.eos.clone(), pad: config.pad };
        let mut vocabulary = Vocabulary::imported(folder, special)?;
        let end = vocabulary.special().eos[0];
        if config.pad == end {
            let token = vocabulary.token(end).unwrap_or_default();
            let id = padding(&vocabulary, config);
            let other = vocabulary.token(id).unwrap_or_else(|| "unused".into());
            if self.pad_token.is_empty() {
                cx.note(format!(
                    "`{token}` is both the padding (pad) and the end of an answer (eos), which a \
                     model must learn: token {id} ({other}) fills rows instead"
                ))?;
                config.pad = id;
                vocabulary.fill_with(id)?;
                return Ok(vocabulary);
            }
            return Err(error_with_help(
                format!(
                    "`{token}` is both the padding (pad) and the end of an answer (eos): a model \
                     trained so elsewhere never learns to stop"
                ),
                format!("name another token, which ends nothing, as in pad_token: \"{other}\""),
            ));
        }
        vocabulary.fill_with(config.pad)?;
        Ok(vocabulary)
    }
}

/// Chooses a padding token: one made for it, else a special one that the chat template does not
/// use, else one that no text has, else the first that ends nothing. It is masked in any case.
fn padding(vocabulary: &Vocabulary, config: &ModelConfig) -> i64 {
    let free = |id: &i64| !config.ends(*id) && Some(*id) != config.bos;
    let meant = PADDING.iter().filter_map(|token| vocabulary.id(token)).find(free);
    let special = || vocabulary.idle_special().into_iter().find(free);
    let unused =
        || (vocabulary.size() as i64..config.vocab).find(|id| vocabulary.token(*id).is_none());
    meant.or_else(special).or_else(unused).or_else(|| (0..config.vocab).find(free)).unwrap_or(0)
}

/// Refuses files that stand for others: what a clone without Git LFS leaves.
fn refuse_pointers(folder: &Path) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_file() && ["json", "safetensors", "jinja"].contains(&ending) {
            refuse_others(&path)?;
        }
    }
    Ok(())
}

/// Refuses reward models and others that are no language models.
fn refuse_other_heads(folder: &Path) -> Result<()> {
    let config = json_file(&folder.join("config.json"))?;
    let Some(architecture) = config["architectures"][0].as_str() else { return Ok(()) };
    let what = match architecture {
        a if a.ends_with("ForCausalLM") || a.ends_with("LMHeadModel") => return Ok(()),
        a if a.ends_with("ForSequenceClassification") => "a reward model or another classifier",
        _ => "no language model",
    };
    Err(error_with_help(
        format!("{} is {what} ({architecture})", folder.display()),
        "only language models (…ForCausalLM, …LMHeadModel) are imported; `train_reward` makes a \
         reward model of one",
    ))
}

/// Refuses tokenizers in formats that are not read.
fn check_tokenizer(folder: &Path) -> Result<()> {
    if folder.join("tokenizer.json").is_file() {
        return Ok(());
    }
    Err(error_with_help(
        format!("{} has no tokenizer.json", folder.display()),
        "AutoTokenizer.from_pretrained(…).save_pretrained(…) of transformers writes one from \
         tokenizer.model or vocab.json",
    ))
}

fn json_file(path: &Path) -> Result<Value> {
    let bytes = fs_err::read(path)?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))
}
