//! `grpo`: group relative policy optimisation (Shao et al. 2024), with the options of Dr. GRPO (Liu
//! et al. 2025), DAPO (Yu et al. 2025) and GSPO (Zheng et al. 2025). No critic.
//! Knows nothing of how the reward came about.
//!
//! One update: G responses to each prompt; advantage = score against the mean of the group, by its
//! spread if asked; clipped steps by tokens or whole responses; the KL is in the loss.

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::kind::{Stage, Summary};
use crate::model::Policy;
use crate::on_policy::{
    self, Combine, Environment, OnPolicy, PolicyTrainer, Rollout, StepLoss, Terms, improve,
};
use crate::preflight::Preflight;
use crate::rl::{KlEstimator, RatioOf, grpo_advantages, grpo_advantages_of_many, overlong_penalty};

/// Params of `grpo`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Grpo {
    #[serde(flatten)]
    pub on_policy: OnPolicy,
    /// Responses to each prompt, G; `batch` counts responses, so it is a multiple of this.
    #[schemars(range(min = 2))]
    group: u32,
    /// Divide the advantages of a group by its standard deviation; false is Dr. GRPO.
    scale_by_std: bool,
    /// What the clipped ratio is of: token; sequence (GSPO), the geometric mean over a response,
    /// for which clip 3e-4, clip_high 4e-4 and aggregation seq_mean are usual.
    #[schemars(extend("x-later" = true))]
    ratio: RatioOf,
    /// Estimator of the KL in the loss: k2, whose gradient is that of the KL; k3 as in the paper,
    /// whose gradient is that of the KL the other way round; k1, which has no effect.
    kl_estimator: KlEstimator,
    /// Further draws while groups whose responses are all worth the same leave the batch short
    /// (DAPO); 0: such groups stay, and teach nothing.
    dynamic_sampling: u32,
    /// Tokens at the end of max_tokens that cost up to overlong_penalty, rising; 0: none do.
    overlong_buffer: u32,
    /// What a response that fills max_tokens loses when overlong_buffer is set.
    #[schemars(range(min = 0.0, max = 1e6))]
    overlong_penalty: f64,
}

impl Default for Grpo {
    fn default() -> Self {
        Self {
            on_policy: OnPolicy::default(),
            group: 8,
            scale_by_std: true,
            ratio: RatioOf::Token,
            kl_estimator: KlEstimator::K2,
            dynamic_sampling: 0,
            overlong_buffer: 0,
            overlong_penalty: 1.0,
        }
    }
}

impl Stage for Grpo {
    const NAME: &'static str = "grpo";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str =
        "improve a policy against a reward by group relative advantages, without a critic";
    const FIGURES: &'static [&'static str] = on_policy::FIGURES;
    const LIVE: &'static [&'static str] = &["objective/scores", "objective/kl"];

    fn inputs() -> Vec<InputDoc> {
        on_policy::inputs("scores responses")
    }

    fn outputs() -> Vec<OutputDoc> {
        on_policy::outputs()
    }

    fn check(&self, look: &mut Preflight) {
        self.on_policy.check_ahead(look, true);
        look.tell("group", self.on_policy.check_group(self.group, 2));
        look.tell("rewards.combine", self.check_combine());
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        improve(cx, &self.on_policy, |cx, policy, environment| {
            self.optimize(cx, policy, environment)
        })
    }
}

impl Grpo {
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
        self.check_combine()?;
        let mut trainer = PolicyTrainer::new(cx, &self.on_policy, policy, environment, Vec::new())?;
        while trainer.next_update()?.is_some() {
            let (rollout, flat_groups) = self.groups(&mut trainer)?;
            let advantages = self.advantages(&rollout);
            let (advantages, terms) = match self.ratio {
                RatioOf::Token => (rollout.spread(&advantages), Terms::Tokens),
                RatioOf::Sequence => (advantages, Terms::Means),
            };
            let kl = (trainer.beta() != 0.0).then_some((trainer.beta(), self.kl_estimator));
            let what = StepLoss { advantages: &advantages, terms, kl };
            let stats = trainer.epochs(&rollout, what)?;
            let zero = [("reward/frac_zero_std", flat_groups)];
            trainer.record(cx, &rollout, &stats, &zero)?;
            trainer.adapt_beta(&rollout);
            trainer.checkpoint(cx)?;
        }
        trainer.finish(cx)
    }

    /// One advantage a response.
    fn advantages(&self, rollout: &Rollout) -> Vec<f64> {
        let size = self.group as usize;
        if self.on_policy.rewards.combine() == Combine::NormalizeThenSum {
            let parts = rollout.parts.iter().map(|part| (part.weight, part.counted.as_slice()));
            return grpo_advantages_of_many(&parts.collect::<Vec<_>>(), size);
        }
        let rewards = self.rewards(rollout);
        rewards.chunks(size).flat_map(|group| grpo_advantages(group, self.scale_by_std)).collect()
    }

    /// Checks that nothing is asked for that named rewards leave out where each is scaled alone.
    fn check_combine(&self) -> Result<()> {
        let scaled = self.on_policy.rewards.combine() == Combine::NormalizeThenSum;
        if scaled && (!self.scale_by_std || self.overlong_buffer > 0) {
            let help = "leave scale_by_std and overlong_buffer as they are by default";
            return Err(error_with_help(
                "normalize_then_sum divides each reward by its spread, and has no room for \
                 overlong_buffer",
                help,
            ));
        }
        self.on_policy.rewards.check_combine(true)
    }

    /// Responses in groups, and the share of groups without spread among all that were drawn.
    fn groups(&self, trainer: &mut PolicyTrainer) -> Result<(Rollout, f64)> {
        let (size, wanted) = (self.group as usize, self.on_policy.batch as usize);
        let drawn = trainer.rollout(self.group, 0)?;
        let mut flat = self.without_spread(&drawn);
        if self.dynamic_sampling == 0 {
            return Ok((drawn, share(&flat)));
        }
        let mut rollout = with_spread(&drawn, &flat, size);
        for attempt in 1..=u64::from(self.dynamic_sampling) {
            if rollout.rows.len() >= wanted {
                break;
            }
            let more = trainer.rollout(self.group, attempt)?;
            let flat_of_more = self.without_spread(&more);
            rollout = rollout.join(with_spread(&more, &flat_of_more, size));
            flat.extend(flat_of_more);
        }
        // Nothing to learn from at all: a group that teaches nothing keeps the figures defined.
        if rollout.rows.is_empty() {
            rollout = drawn.keep(&(0..size).collect::<Vec<_>>());
        }
        let most = rollout.rows.len().min(wanted);
        Ok((rollout.keep(&(0..most).collect::<Vec<_>>()), share(&flat)))
    }

    /// Of each group, whether all its responses are worth the same.
    fn without_spread(&self, rollout: &Rollout) -> Vec<bool> {
        let flat = |rewards: &[f64]| -> Vec<bool> {
            rewards.chunks(self.group as usize).map(|g| g.iter().all(|x| *x == g[0])).collect()
        };
        if self.on_policy.rewards.combine() == Combine::Sum {
            return flat(&self.rewards(rollout));
        }
        // Scaled alone, each reward teaches where it differs.
        let parts = rollout.parts.iter().map(|part| flat(&part.counted));
        parts
            .reduce(|all, more| all.iter().zip(more).map(|(a, b)| *a && b).collect())
            .unwrap_or_default()
    }

    /// Scores less what long responses lose.
    fn rewards(&self, rollout: &Rollout) -> Vec<f64> {
        let (longest, buffer) = (self.on_policy.max_tokens as usize, self.overlong_buffer as usize);
        let lengths = rollout.lengths();
        let each = rollout.scores.iter().zip(lengths);
        each.map(|(score, n)| score - self.overlong_penalty * overlong_penalty(n, longest, buffer))
            .collect()
    }
}

/// The groups of `size` responses that are not flagged.
fn with_spread(rollout: &Rollout, flat: &[bool], size: usize) -> Rollout {
    let rows: Vec<usize> = (0..rollout.rows.len()).filter(|i| !flat[i / size]).collect();
    rollout.keep(&rows)
}

/// Share of the flags that are set.
fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|f| **f).count() as f64 / flags.len() as f64
}
