//! `import_model`: a language model of Hugging Face as a policy.
//! Knows nothing of training.

use std::path::Path;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::imports::{Published, TemplateParams};
use crate::kind::{Stage, Summary, input, optional, output};
use crate::model::{LowRank, Policy};
use crate::preflight::Preflight;

/// Params of `import_model`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImportModel {
    /// Longest row, tokens; 0: what the config says.
    #[schemars(extend("x-unit" = "count"))]
    context: u32,
    /// Token that fills rows up; empty: that of the folder, or one that ends nothing.
    pad_token: String,
    #[serde(flatten)]
    template: TemplateParams,
}

impl Stage for ImportModel {
    const NAME: &'static str = "import_model";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "read a language model in the format of transformers";
    const FIGURES: &'static [&'static str] = &["model/parameters"];

    fn inputs() -> Vec<InputDoc> {
        vec![
            input(
                "source",
                &["model/huggingface"],
                "a folder with config.json, safetensors and tokenizer.json, or with an adapter of \
                 peft",
            ),
            optional("base", &["model/policy"], "the model that an adapter was trained beside"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("model", "model/policy", "", "the same model, f32")]
    }

    fn check(&self, look: &mut Preflight) {
        self.template.check(look);
        let [source] = look.inputs("source") else { return };
        if let Some(folder) = source.paths.first().map(Path::new).filter(|_| look.sees_inputs()) {
            if LowRank::is_in(folder) {
                look.tell("source", LowRank::check(folder));
                look.tell("base", with_base(!look.inputs("base").is_empty()));
            } else {
                look.tell("source", self.how().look_at(folder));
                look.tell("base", without_base(!look.inputs("base").is_empty()));
            }
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let folder = cx.path("source")?.to_owned();
        let based = !cx.inputs("base").is_empty();
        if LowRank::is_in(&folder) {
            with_base(based)?;
            return add_adapter(cx, &folder, &self.template);
        }
        without_base(based)?;
        let (trunk, vocabulary) = self.how().open(cx, &folder)?;
        let parameters = trunk.params.numel() as f64;
        Policy { trunk }.save(&cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        Ok(Summary::from([("model/parameters".into(), parameters)]))
    }
}

/// Puts the adapter in `folder` beside the weights of port `base`.
fn add_adapter(cx: &mut Context, folder: &Path, template: &TemplateParams) -> Result<Summary> {
    let (base, to) = (cx.path("base")?.to_owned(), cx.output("model")?);
    let vocabulary = cx.vocabulary(&base)?.with_template(&template.change(cx)?)?;
    Policy::save_adapted(&base, folder, &to, &vocabulary)?;
    let parameters = Policy::open(&to)?.trunk.params.numel() as f64;
    cx.note("an adapter beside the weights of its base, whose tokenizer it has")?;
    cx.complete("model", None)?;
    Ok(Summary::from([("model/parameters".into(), parameters)]))
}

fn with_base(connected: bool) -> Result<()> {
    if connected {
        return Ok(());
    }
    Err(error_with_help(
        "the folder holds an adapter of peft, and no `base` is connected",
        "import the model that it was trained beside, and name that stage as `base`",
    ))
}

fn without_base(connected: bool) -> Result<()> {
    if !connected {
        return Ok(());
    }
    Err(error_with_help("`base` is connected, but the folder holds no adapter", "take `base` out"))
}

impl ImportModel {
    fn how(&self) -> Published<'_> {
        Published {
            context: self.context,
            pad_token: &self.pad_token,
            template: &self.template,
            reward: false,
        }
    }
}
