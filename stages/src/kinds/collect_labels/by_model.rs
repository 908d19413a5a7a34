//! Labels by a reward model: the answer with the higher reward is the better one.
//! Knows nothing of how the model was trained.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use super::enough;
use super::rows::{Label, Labeler, is_tie, table};
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{LeftOut, Room, Table};
use crate::kind::{Summary, check_range};
use crate::model::{Packed, RewardModel};
use crate::stats::mean;
use preflow::label::ReadyWhen;

/// A reward model compares: it prefers a to b with probability σ(reward a − reward b).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ByModel {
    /// Rewards closer than this are a tie.
    #[schemars(range(min = 0.0, max = 1e6))]
    tie_below: f64,
    /// Answers that are scored together.
    #[schemars(range(min = 1))]
    batch: u32,
}

impl Default for ByModel {
    fn default() -> Self {
        Self { tie_below: 0.0, batch: 64 }
    }
}

impl ByModel {
    /// Labels of all pairs whose answers room the model.
    ///
    /// # Errors
    /// When no model is connected, or there are too few pairs.
    pub fn collect(&self, cx: &mut Context, ready: &ReadyWhen) -> Result<Summary> {
        check_range("labeler.model.tie_below", self.tie_below, 0.0, 1e6)?;
        if cx.inputs("reward").is_empty() {
            let help = "connect it: `reward: STAGE`";
            return Err(error_with_help(
                "input `reward` is not connected: labeler `model` is one",
                help,
            ));
        }
        let pairs = super::pairs(cx)?;
        enough(&pairs, ready)?;
        cx.warn(format!(
            "LABELS BY A MODEL: no person compared these {} pairs; a reward model did",
            pairs.rows()
        ))?;
        let labels = self.compare(cx, &pairs)?;
        if labels.is_empty() {
            let help = "use a model with a longer context, or sample shorter answers";
            return Err(error_with_help("no pair fits the context of the reward model", help));
        }
        let by = Labeler { simulated: true, name: Some("model") };
        cx.write_table("labels", &table(&pairs, &labels, by)?)?;
        let count = |c: &str| labels.iter().filter(|l| l.choice == c).count() as f64;
        let sure: Vec<f64> = labels.iter().filter_map(|l| l.certainty).collect();
        Ok(Summary::from([
            ("labels".into(), labels.len() as f64),
            ("labels/ties".into(), labels.iter().filter(|l| is_tie(l.choice)).count() as f64),
            ("labels/first_share".into(), count("a") / (count("a") + count("b")).max(1.0)),
            ("labels/certainty".into(), mean(&sure)),
            ("labels/simulated".into(), 1.0),
        ]))
    }

    fn compare(&self, cx: &mut Context, pairs: &Table) -> Result<Vec<Label>> {
        let folder = cx.path("reward")?.to_owned();
        let model = RewardModel::open(&folder)?.to(cx.device());
        let vocabulary = cx.vocabulary(&folder)?;
        let (prompts, a, b) =
            (pairs.prompts()?, pairs.contents("response_a")?, pairs.contents("response_b")?);
        let ends = [pairs.bools("finished_a", true)?, pairs.bools("finished_b", true)?];
        let room = Room::new(model.trunk.config.context as usize);
        let mut left = LeftOut::default();
        let (mut examples, mut used) = (Vec::new(), Vec::new());
        for i in 0..pairs.rows() {
            let both = [(&a[i], ends[0][i]), (&b[i], ends[1][i])];
            let fit = room.rows(&vocabulary, &prompts[i], &both)?;
            let Some(rows) = left.keep(room, i, fit)? else { continue };
            examples.extend(rows);
            used.push(i);
        }
        cx.warn_if(left.warning(room.context))?;
        let mut rewards = Vec::with_capacity(examples.len());
        for rows in examples.chunks(self.batch.max(1) as usize) {
            let device = model.trunk.params.flat.device();
            let packed = Packed::new(&rows.iter().collect::<Vec<_>>(), device);
            let scores = no_grad(|| model.rewards(&packed));
            rewards.extend((0..rows.len()).map(|i| scores.double_value(&[i as i64])));
            let done = used.get(rewards.len() / 2).copied().unwrap_or(pairs.rows());
            cx.progress(done as u64, pairs.rows() as u64, "pairs")?;
        }
        let labels = used.iter().zip(rewards.chunks(2)).map(|(row, rewards)| {
            let delta = rewards[0] - rewards[1];
            let choice = match delta {
                d if d == 0.0 || d.abs() < self.tie_below => "tie",
                d if d > 0.0 => "a",
                _ => "b",
            };
            let certainty = Some(1.0 / (1.0 + (-delta.abs()).exp()));
            Label { certainty, ..Label::single(*row, choice) }
        });
        Ok(labels.collect())
    }
}
