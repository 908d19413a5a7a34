//! `grpo`: group relative policy optimisation (Shao et al. 2024), with the options of Dr. GRPO (Liu
//! et al. 2025) and DAPO (Yu et al. 2025). No critic. Knows nothing of how the reward came about.
//!
//! One update: G responses to each prompt; advantage = score against the mean of the group, by its
//! spread if asked; clipped steps token by token; the KL is in the loss.

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::data::Vocabulary;
use crate::kind::{Stage, Summary};
use crate::model::Policy;
use crate::on_policy::{self, OnPolicy, PolicyTrainer, Rollout, Scorer, StepLoss};
use crate::preflight::Preflight;
use crate::prompts::Prompts;
use crate::rl::{KlEstimator, grpo_advantages, overlong_penalty};

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
            kl_estimator: KlEstimator::K2,
            dynamic_sampling: 0,
            overlong_buffer: 0,
            overlong_penalty: 1.0,
        }
    }
}

impl Stage for Grpo {
    const NAME: &'static str = "grpo";
    const VERSION: u32 = 2;
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
        self.on_policy.check_ahead(look);
        look.tell("group", self.on_policy.check_group(self.group, 2));
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.on_policy.improve(cx, |cx, policy, vocabulary, scorer, prompts| {
            self.optimize(cx, policy, vocabulary, scorer, prompts)
        })
    }
}

impl Grpo {
    /// The loop.
    ///
    /// # Errors
    /// When a figure is no number or a file cannot be written.
    pub fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        vocabulary: &Vocabulary,
        scorer: &mut dyn Scorer,
        prompts: &Prompts,
    ) -> Result<Summary> {
        self.on_policy.check_group(self.group, 2)?;
        let mut trainer =
            PolicyTrainer::new(cx, &self.on_policy, policy, prompts, scorer, Vec::new())?;
        while let Some(update) = trainer.next(vocabulary, scorer)? {
            let (rollout, flat_groups) = self.groups(&mut trainer, scorer)?;
            let advantages: Vec<f64> = self
                .rewards(&rollout)
                .chunks(self.group as usize)
                .flat_map(|group| grpo_advantages(group, self.scale_by_std))
                .collect();
            let advantages = rollout.spread(&advantages);
            let kl = (trainer.kl.beta != 0.0).then_some((trainer.kl.beta, self.kl_estimator));
            let what = StepLoss { advantages: &advantages, sequence: false, kl };
            let stepped = trainer.learn(update, &rollout, what)?;
            let zero = [("reward/frac_zero_std", flat_groups)];
            trainer.close(cx, scorer, &rollout, &stepped, &zero)?;
        }
        trainer.finish(cx, vocabulary, scorer)
    }

    /// Responses in groups, and the share of groups without spread among all that were drawn.
    fn groups(
        &self,
        trainer: &mut PolicyTrainer,
        scorer: &mut dyn Scorer,
    ) -> Result<(Rollout, f64)> {
        let size = self.group as usize;
        let wanted = self.on_policy.batch as usize;
        let mut rollout = trainer.rollout(scorer, self.group, 0)?;
        let flat = |r: &Rollout| -> Vec<bool> {
            self.rewards(r).chunks(size).map(|g| g.iter().all(|x| *x == g[0])).collect()
        };
        let (mut without, mut all) = (0, 0);
        let mut count = |flags: &[bool]| {
            without += flags.iter().filter(|f| **f).count();
            all += flags.len();
        };
        let flags = flat(&rollout);
        count(&flags);
        if self.dynamic_sampling > 0 {
            let first = rollout.keep(&(0..size).collect::<Vec<_>>());
            rollout = with_spread(&rollout, &flags, size);
            for attempt in 1..=u64::from(self.dynamic_sampling) {
                if rollout.rows.len() >= wanted {
                    break;
                }
                let more = trainer.rollout(scorer, self.group, attempt)?;
                let flags = flat(&more);
                count(&flags);
                rollout = rollout.join(with_spread(&more, &flags, size));
            }
            // Nothing to learn from at all: a group that teaches nothing keeps the figures defined.
            if rollout.rows.is_empty() {
                rollout = first;
            }
            let most = rollout.rows.len().min(wanted);
            rollout = rollout.keep(&(0..most).collect::<Vec<_>>());
        }
        Ok((rollout, without as f64 / all as f64))
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
