//! `score`: a reward model scores answers.
//! Knows nothing of who wrote them.

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use crate::context::Context;
use crate::data::{Column, Examples, Room};
use crate::kind::{Stage, Summary, input, output};
use crate::model::{Packed, RewardModel};
use crate::stats::{mean, std};

/// Params of `score`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Score {
    /// Answers that are scored together.
    #[schemars(range(min = 1))]
    batch: u32,
}

impl Default for Score {
    fn default() -> Self {
        Self { batch: 64 }
    }
}

impl Stage for Score {
    const NAME: &'static str = "score";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "give every answer its reward";
    const FIGURES: &'static [&'static str] = &["answers", "reward/mean", "reward/std"];

    fn inputs() -> Vec<InputDoc> {
        vec![
            input("model", &["model/reward"], "the model that scores"),
            input(
                "answers",
                &["dataset/prompt_completion"],
                "what it scores; an answer whose `finished` is false is read without its end",
            ),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        let doc = "the same rows with `score`; without those that do not fit the context";
        vec![output("answers", "dataset/prompt_completion", "parquet", doc)]
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let folder = cx.path("model")?.to_owned();
        let model = RewardModel::open(&folder)?.to(cx.device());
        let vocabulary = cx.vocabulary(&folder)?;
        let table = cx.table("answers")?;
        let (prompts, answers) = (table.prompts()?, table.contents("completion")?);
        let finished = table.bools("finished", true)?;
        let rows = (0..table.rows()).map(|i| (&prompts[i], &answers[i], finished[i]));
        let context = model.trunk.config.context as usize;
        let examples = Examples::new(&vocabulary, Room::new(context), rows)?;
        cx.warn_if(examples.warning(context))?;
        let mut scores = Vec::with_capacity(examples.rows.len());
        for chunk in examples.rows.chunks(self.batch.max(1) as usize) {
            let packed =
                Packed::new(&chunk.iter().collect::<Vec<_>>(), model.trunk.params.flat.device());
            let rewards = no_grad(|| model.rewards(&packed));
            scores.extend((0..chunk.len()).map(|i| rewards.double_value(&[i as i64])));
        }
        let mut out = table.take(&examples.sources);
        out.set("score", Column::floats(scores.iter().copied()))?;
        cx.write_table("answers", &out)?;
        Ok(Summary::from([
            ("answers".into(), scores.len() as f64),
            ("reward/mean".into(), mean(&scores)),
            ("reward/std".into(), std(&scores)),
        ]))
    }
}
