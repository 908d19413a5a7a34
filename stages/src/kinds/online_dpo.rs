//! `online_dpo`: direct preference optimisation on pairs that the policy draws anew in every update
//! and a reward compares (Guo et al. 2024). No critic, no labels.
//! Knows nothing of how the reward came about.
//!
//! One update: G responses to each prompt; the best and the worst of each group by score are a
//! pair, or a tie where all are worth the same; steps on DPO's loss of the pairs against the policy
//! as it started.

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::Example;
use crate::kind::{Stage, Summary};
use crate::model::{Gradient, Packed, Policy};
use crate::on_policy::{
    self, Environment, OnPolicy, PolicyTrainer, Rollout, UpdateStats, epochs, improve,
};
use crate::preflight::Preflight;
use crate::rl::{DpoLoss, PairLoss, RatioSums};
use crate::stats::mean;
use crate::training::ImplicitRewards;

/// Params of `online_dpo`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OnlineDpo {
    #[serde(flatten)]
    pub on_policy: OnPolicy,
    /// Responses to each prompt; the best and the worst of them are compared. `batch` counts
    /// responses, so it is a multiple of this; `minibatch` counts the two of each pair.
    #[schemars(range(min = 2))]
    group: u32,
    /// What the margin becomes, as in kind `dpo`: sigmoid, hinge or ipo; its β is kl_coef.
    loss: OnlineLoss,
}

/// Losses that compare with a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnlineLoss {
    #[default]
    Sigmoid,
    Hinge,
    Ipo,
}

impl From<OnlineLoss> for DpoLoss {
    fn from(loss: OnlineLoss) -> Self {
        match loss {
            OnlineLoss::Sigmoid => Self::Sigmoid,
            OnlineLoss::Hinge => Self::Hinge,
            OnlineLoss::Ipo => Self::Ipo,
        }
    }
}

impl Default for OnlineDpo {
    fn default() -> Self {
        Self { on_policy: OnPolicy::default(), group: 2, loss: OnlineLoss::Sigmoid }
    }
}

/// Two responses of a rollout, by their places in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DrawnPair {
    chosen: usize,
    rejected: usize,
    /// Both are worth the same.
    tie: bool,
}

impl Stage for OnlineDpo {
    const NAME: &'static str = "online_dpo";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "improve a policy by DPO on fresh pairs that a reward compares, without a critic";
    const FIGURES: &'static [&'static str] = &[
        "objective/*",
        "policy/*",
        "reward/*",
        "rewards/*",
        "tokens/*",
        "beta",
        "eval/kl",
        "eval/scores",
        "eval/rlhf_reward",
    ];
    const LIVE: &'static [&'static str] = &["objective/scores", "objective/kl"];

    fn inputs() -> Vec<InputDoc> {
        on_policy::inputs("compares responses")
    }

    fn outputs() -> Vec<OutputDoc> {
        on_policy::outputs()
    }

    fn check(&self, look: &mut Preflight) {
        self.on_policy.check_ahead(look, false);
        look.tell("group", self.on_policy.check_group(self.group, 2));
        look.tell("", self.check_loss());
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.on_policy.rewards.check_combine(false)?;
        self.check_loss()?;
        improve(cx, &self.on_policy, |cx, policy, environment| {
            self.optimize(cx, policy, environment)
        })
    }
}

impl OnlineDpo {
    /// Refuses params of a clipped loss, for which DPO's has no place, and a β of nothing.
    fn check_loss(&self) -> Result<()> {
        if self.on_policy.kl_coef <= 0.0 {
            let help =
                "it is DPO's β: how strongly the policy is held near its start; 0.1 is usual";
            return Err(error_with_help("kl_coef must be above 0", help));
        }
        let (own, plain) = (&self.on_policy, OnPolicy::default());
        let changed = [
            ("clip", own.clip != plain.clip),
            ("clip_high", own.clip_high != plain.clip_high),
            ("dual_clip", own.dual_clip != plain.dual_clip),
            ("aggregation", own.aggregation != plain.aggregation),
            ("ent_coef", own.ent_coef != plain.ent_coef),
        ];
        let Some((name, _)) = changed.into_iter().find(|(_, changed)| *changed) else {
            return Ok(());
        };
        let help =
            "leave it out; kl_coef holds the policy near its start, target_kl ends an update";
        Err(error_with_help(format!("{name} does nothing in online_dpo"), help))
    }

    /// Trains the policy over all updates and writes the outputs.
    ///
    /// # Errors
    /// When a figure is no number or a file cannot be written.
    pub fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        environment: Environment,
    ) -> Result<Summary> {
        self.on_policy.check_group(self.group, 2)?;
        let mut trainer = PolicyTrainer::new(cx, &self.on_policy, policy, environment, Vec::new())?;
        while trainer.next_update()?.is_some() {
            let rollout = trainer.rollout(self.group, 0)?;
            let pairs = pairs(&rollout.scores, self.group as usize);
            let (stats, rewards) = self.epochs(&mut trainer, &rollout, &pairs)?;
            let implicit = rewards.figures("rewards");
            let mut figures: Vec<(&str, f64)> =
                implicit.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            figures.extend(compared(&rollout, &pairs));
            trainer.record(cx, &rollout, &stats, &figures)?;
            trainer.adapt_beta(&rollout);
            trainer.checkpoint(cx)?;
        }
        trainer.finish(cx)
    }

    /// All epochs over the pairs of one update.
    fn epochs(
        &self,
        trainer: &mut PolicyTrainer,
        rollout: &Rollout,
        pairs: &[DrawnPair],
    ) -> Result<(UpdateStats, ImplicitRewards)> {
        let (mut stats, mut rewards) = (UpdateStats::default(), ImplicitRewards::default());
        let (update, size) = (trainer.state.update, self.on_policy.minibatch as usize / 2);
        epochs(&self.on_policy, update, pairs.len(), size, |chosen| {
            let chosen: Vec<DrawnPair> = chosen.iter().map(|i| pairs[*i]).collect();
            let (policy, beta) = (trainer.actor.policy, trainer.beta());
            let (gradient, moved) = self.gradient(policy, rollout, &chosen, beta, &mut rewards);
            trainer.apply(gradient, &moved, &mut stats)
        })?;
        Ok((stats, rewards))
    }

    /// Gradient of the mean loss of some pairs, part by part, and how far the probabilities of
    /// their tokens are from those that they were drawn with.
    fn gradient(
        &self,
        policy: &Policy,
        rollout: &Rollout,
        pairs: &[DrawnPair],
        beta: f64,
        rewards: &mut ImplicitRewards,
    ) -> (Gradient, RatioSums) {
        let settings = &self.on_policy;
        let device = policy.trunk.params.flat.device();
        let loss = PairLoss { loss: self.loss.into(), beta, margin: 0.0 };
        let mut moved = RatioSums::default();
        let size = (settings.compute.rows(2 * pairs.len()) / 2).max(1);
        let parts = pairs.chunks(size).map(|part| {
            let places: Vec<usize> =
                part.iter().map(|p| p.chosen).chain(part.iter().map(|p| p.rejected)).collect();
            let examples: Vec<&Example> = places.iter().map(|i| &rollout.rows[*i]).collect();
            let packed = Packed::new(&examples, device);
            policy.backward(&packed, settings.temperature, false, |predicted| {
                let new = &predicted.log_probs;
                let old = rollout.gather(&rollout.old, &places, device);
                moved.add(&RatioSums::of(&(new.detach() - old)));
                let reference = rollout.gather(&rollout.reference, &places, device);
                let ratios = self.row_ratios(&(new - reference), &packed);
                let n = part.len() as i64;
                let [chosen, rejected] = [0, n].map(|first| ratios.narrow(0, first, n));
                rewards.add([&chosen, &rejected], beta);
                let ties: Vec<f32> = part.iter().map(|p| if p.tie { 0.5 } else { 0.0 }).collect();
                let ties = Tensor::from_slice(&ties).to_device(device);
                loss.of([&chosen, &rejected], &ties).sum(Kind::Float) / pairs.len() as f64
            })
        });
        let total = Gradient::total(parts).expect("invariant: a minibatch has a pair");
        (total, moved)
    }

    /// Log-ratio of each response, `[rows]`, from those of all tokens, `[n]`: their sum, or their
    /// mean for losses of means.
    fn row_ratios(&self, tokens: &Tensor, packed: &Packed) -> Tensor {
        match DpoLoss::from(self.loss).by_mean() {
            false => packed.row_sums(tokens),
            true => packed.row_means(tokens),
        }
    }
}

/// The best and the worst response of each group of `size`, the first of equals; of a group whose
/// responses are all worth the same, the first two as a tie.
fn pairs(scores: &[f64], size: usize) -> Vec<DrawnPair> {
    let first = |group: &[f64], better: fn(f64, f64) -> bool| {
        (1..group.len()).fold(0, |at, i| if better(group[i], group[at]) { i } else { at })
    };
    let pair = |(place, group): (usize, &[f64])| {
        let (best, worst) = (first(group, |x, y| x > y), first(group, |x, y| x < y));
        let (chosen, rejected) = if best == worst { (0, 1) } else { (best, worst) };
        let start = place * size;
        DrawnPair { chosen: start + chosen, rejected: start + rejected, tie: best == worst }
    };
    scores.chunks(size).enumerate().map(pair).collect()
}

/// By how much the chosen responses are better, and the share of groups that are no preference.
fn compared(rollout: &Rollout, pairs: &[DrawnPair]) -> [(&'static str, f64); 2] {
    let margin = |p: &DrawnPair| rollout.scores[p.chosen] - rollout.scores[p.rejected];
    let ties = pairs.iter().filter(|p| p.tie).count() as f64;
    [
        ("objective/scores_margin", mean(&pairs.iter().map(margin).collect::<Vec<_>>())),
        ("reward/frac_zero_std", ties / pairs.len() as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(chosen: usize, rejected: usize, tie: bool) -> DrawnPair {
        DrawnPair { chosen, rejected, tie }
    }

    #[test]
    fn the_best_and_the_worst_of_a_group_are_a_pair_and_equals_a_tie() {
        let scores = [0.1, 0.7, 0.7, 0.2, 0.5, 0.5];
        let two = [pair(1, 0, false), pair(2, 3, false), pair(4, 5, true)];
        assert_eq!(pairs(&scores, 2), two);
        assert_eq!(pairs(&scores, 3), [pair(1, 0, false), pair(4, 3, false)]);
        assert_eq!(pairs(&[-1.0, 3.0, -2.0, 3.0], 4), [pair(1, 2, false)]);
    }
}
