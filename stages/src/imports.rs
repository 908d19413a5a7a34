//! What the kinds share that import models of others: what a folder of transformers says, its
//! special tokens, its weights. Knows nothing of what a model is imported for.

use std::path::Path;

use anyhow::{Context as _, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Special, TemplateChange, Vocabulary, check_template, refuse_others, token_ids};
use crate::model::config::Positions;
use crate::model::{ModelConfig, Trunk, read_folder};
use crate::preflight::Preflight;

/// Names of tokens that are meant for padding, tried in this order when a folder names none.
const PADDING: [&str; 6] =
    ["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|fim_pad|>", "<unk>"];

/// Port at which the file of [`TemplateParams::chat_template`] stands.
const TEMPLATE_PORT: &str = "chat_template";

/// Params: a chat template in place of the folder's, or arguments of it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TemplateParams {
    /// File with a chat template (Jinja) in place of the folder's.
    #[schemars(extend(
        "x-source" = {"port": "chat_template", "type": "file"}, "x-later" = true
    ))]
    chat_template: String,
    /// Arguments that the chat template gets, as in `{ enable_thinking: false }`. Those of a row
    /// (column `chat_template_kwargs`) count more.
    #[schemars(extend("x-later" = true))]
    chat_template_kwargs: Map<String, Value>,
}

impl TemplateParams {
    /// Refuses a file that is no chat template, before the stage runs.
    pub fn check(&self, look: &mut Preflight) {
        if let [file] = look.inputs(TEMPLATE_PORT)
            && let [path] = file.paths.as_slice()
        {
            let read = read_template(Path::new(path));
            look.tell(TEMPLATE_PORT, read.and_then(|text| check_template(&text)));
        }
    }

    /// What they change.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn change(&self, cx: &Context) -> Result<TemplateChange> {
        let source = match cx.inputs(TEMPLATE_PORT) {
            [] => None,
            _ => Some(read_template(cx.path(TEMPLATE_PORT)?)?),
        };
        Ok(TemplateChange { source, arguments: self.chat_template_kwargs.clone() })
    }
}

fn read_template(path: &Path) -> Result<String> {
    refuse_others(path)?;
    Ok(fs_err::read_to_string(path)?)
}

/// How a folder that others wrote is read.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// Longest row, tokens; 0: what the config says.
    pub context: u32,
    /// Token that fills rows up; empty: that of the folder, or one that ends nothing.
    pub pad_token: &'a str,
    pub template: &'a TemplateParams,
    /// A classifier with one label instead of a language model.
    pub reward: bool,
}

impl Published<'_> {
    /// Reads the config and checks all that a folder says without its weights.
    ///
    /// # Errors
    /// When the folder is no model of this kind, or asks for what is not supported.
    pub fn look_at(&self, folder: &Path) -> Result<ModelConfig> {
        refuse_pointers(folder)?;
        check_tokenizer(folder)?;
        let config = json_file(&folder.join("config.json"))?;
        if self.reward {
            refuse_no_reward(folder, &config)?
        } else {
            refuse_other_heads(folder, &config)?
        }
        self.shape(folder)
    }

    /// The model of a folder and its tokenizer.
    ///
    /// # Errors
    /// As [`Published::look_at`], and when weights or tokens do not fit.
    pub fn open(&self, cx: &mut Context, folder: &Path) -> Result<(Trunk, Vocabulary)> {
        let mut config = self.look_at(folder)?;
        let change = self.template.change(cx)?;
        let vocabulary = self.special_tokens(cx, folder, &mut config, &change)?;
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
        if vocabulary.has_template() {
            cx.note("a prompt that is a text is one message of the user to the chat template")?;
        }
        cx.warn_if(vocabulary.trouble_with_template())?;
        let params = read_folder(folder, &config, self.reward)
            .with_context(|| format!("cannot import {}", folder.display()))?;
        let name = config.family.architecture(self.reward);
        cx.note(format!("{name} with {} parameters", params.numel()))?;
        Ok((Trunk::new(config, params), vocabulary))
    }

    /// The config, with the context that is asked for.
    fn shape(&self, folder: &Path) -> Result<ModelConfig> {
        let path = folder.join("config.json");
        let asked = i64::from(self.context);
        let cannot = || format!("cannot use {}", path.display());
        let mut config = ModelConfig::shape_from_json(&json_file(&path)?).with_context(cannot)?;
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
        if asked > 0 {
            config.context = asked;
        }
        config.check_positions().with_context(cannot)?;
        Ok(config)
    }

    /// Completes the special tokens from all files that may name them.
    fn special_tokens(
        &self,
        cx: &mut Context,
        folder: &Path,
        config: &mut ModelConfig,
        change: &TemplateChange,
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
        )?
        .with_template(change)?;
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
        config.pad = match (self.pad_token, given) {
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
        let mut vocabulary = Vocabulary::imported(folder, special)?.with_template(change)?;
        let end = vocabulary.special().eos[0];
        if config.pad == end {
            let token = vocabulary.token(end).unwrap_or_default();
            let id = padding(&vocabulary, config);
            let other = vocabulary.token(id).unwrap_or_else(|| "unused".into());
            if self.reward && self.pad_token.is_empty() {
                return Err(error_with_help(
                    format!(
                        "`{token}` is both the padding (pad) and the end of an answer (eos): \
                         transformers reads such a reward model at the token before the end, here \
                         it is read at the end"
                    ),
                    format!("if that is how it was trained, say so: pad_token: \"{other}\""),
                ));
            }
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
fn refuse_other_heads(folder: &Path, config: &Value) -> Result<()> {
    let Some(architecture) = config["architectures"][0].as_str() else { return Ok(()) };
    let (what, help) = match architecture {
        a if a.ends_with("ForCausalLM") || a.ends_with("LMHeadModel") => return Ok(()),
        a if a.ends_with("ForSequenceClassification") => (
            "a reward model or another classifier",
            "`kind: import_reward` imports reward models; `train_reward` makes one of a language \
             model",
        ),
        _ => (
            "no language model",
            "only language models (…ForCausalLM, …LMHeadModel) are imported here",
        ),
    };
    Err(error_with_help(format!("{} is {what} ({architecture})", folder.display()), help))
}

/// Refuses what is no classifier with one label.
fn refuse_no_reward(folder: &Path, config: &Value) -> Result<()> {
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    if !architecture.ends_with("ForSequenceClassification") {
        return Err(error_with_help(
            format!("{} is no reward model (`architectures`: {architecture})", folder.display()),
            "only …ForSequenceClassification with one label is read here; `kind: import_model` \
             imports language models",
        ));
    }
    // Files name the labels; two are what transformers assumes where they do not.
    let named = config["id2label"].as_object().map(|labels| labels.len() as i64);
    let labels = named.or(config["num_labels"].as_i64()).unwrap_or(2);
    if labels != 1 {
        return Err(error_with_help(
            format!("{} has {labels} labels; a reward model has one", folder.display()),
            "a model with num_labels=1 gives one number, the reward",
        ));
    }
    Ok(())
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
