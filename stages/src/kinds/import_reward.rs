//! `import_reward`: a reward model that others trained, or that `export` wrote.
//! Knows nothing of training.

use std::path::Path;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::imports::{Published, TemplateParams};
use crate::kind::{Stage, Summary, input, output};
use crate::model::RewardModel;
use crate::preflight::Preflight;

/// Params of `import_reward`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImportReward {
    /// Longest row, tokens; 0: what the config says.
    #[schemars(extend("x-unit" = "count"))]
    context: u32,
    /// Token that fills rows up; empty: that of the folder, or one that ends nothing.
    pad_token: String,
    #[serde(flatten)]
    template: TemplateParams,
}

impl Stage for ImportReward {
    const NAME: &'static str = "import_reward";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "read a reward model in the format of transformers";
    const FIGURES: &'static [&'static str] = &["model/parameters"];

    fn inputs() -> Vec<InputDoc> {
        vec![input(
            "source",
            &["model/huggingface"],
            "a folder with config.json (…ForSequenceClassification, one label), safetensors and \
             tokenizer.json",
        )]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("reward", "model/reward", "", "the same model, f32")]
    }

    fn check(&self, look: &mut Preflight) {
        self.template.check(look);
        let [source] = look.inputs("source") else { return };
        if let Some(folder) = source.paths.first().map(Path::new) {
            look.tell("source", self.how().look_at(folder));
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let folder = cx.path("source")?.to_owned();
        let (trunk, vocabulary) = self.how().open(cx, &folder)?;
        let parameters = trunk.params.numel() as f64;
        RewardModel { trunk }.save(&cx.output("reward")?, &vocabulary)?;
        cx.complete("reward", None)?;
        Ok(Summary::from([("model/parameters".into(), parameters)]))
    }
}

impl ImportReward {
    fn how(&self) -> Published<'_> {
        Published {
            context: self.context,
            pad_token: &self.pad_token,
            template: &self.template,
            reward: true,
        }
    }
}
