//! `import_model`: a language model of Hugging Face as a policy.
//! Knows nothing of training.

use std::path::Path;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::imports::Published;
use crate::kind::{Stage, Summary, input, output};
use crate::model::Policy;
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

impl Stage for ImportModel {
    const NAME: &'static str = "import_model";
    const VERSION: u32 = 3;
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
        if let Some(folder) = source.paths.first().map(Path::new) {
            look.tell("source", self.how().look_at(folder));
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let folder = cx.path("source")?.to_owned();
        let (trunk, vocabulary) = self.how().open(cx, &folder)?;
        let parameters = trunk.params.numel() as f64;
        Policy { trunk }.save(&cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        Ok(Summary::from([("model/parameters".into(), parameters)]))
    }
}

impl ImportModel {
    fn how(&self) -> Published<'_> {
        Published { context: self.context, pad_token: &self.pad_token, reward: false }
    }
}
