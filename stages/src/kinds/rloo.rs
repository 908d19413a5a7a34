//! `rloo`: REINFORCE with the other responses to the same prompt as the baseline (Kool et al. 2019;
//! Ahmadian et al. 2024). No critic. Knows nothing of how the reward came about.
//!
//! One update: k responses to each prompt; reward = score − β·KL of the whole response; advantage =
//! reward − mean of the others; steps on the ratio of whole responses, clipped.

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::kind::{Stage, Summary};
use crate::model::Policy;
use crate::on_policy::{self, Environment, OnPolicy, PolicyTrainer, StepLoss, Terms, improve};
use crate::preflight::Preflight;
use crate::rl::rloo_advantages;

/// Params of `rloo`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rloo {
    #[serde(flatten)]
    pub on_policy: OnPolicy,
    /// Responses to each prompt, k; `batch` counts responses, so it is a multiple of this.
    #[schemars(range(min = 2))]
    group: u32,
}

impl Default for Rloo {
    fn default() -> Self {
        Self { on_policy: OnPolicy::default(), group: 4 }
    }
}

impl Stage for Rloo {
    const NAME: &'static str = "rloo";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str =
        "improve a policy against a reward by REINFORCE leave-one-out, without a critic";
    const FIGURES: &'static [&'static str] = on_policy::FIGURES;
    const LIVE: &'static [&'static str] = &["objective/scores", "objective/kl"];

    fn inputs() -> Vec<InputDoc> {
        on_policy::inputs("scores responses")
    }

    fn outputs() -> Vec<OutputDoc> {
        on_policy::outputs()
    }

    fn check(&self, look: &mut Preflight) {
        self.on_policy.check_ahead(look, false);
        look.tell("group", self.on_policy.check_group(self.group, 2));
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.on_policy.rewards.check_combine(false)?;
        improve(cx, &self.on_policy, |cx, policy, environment| {
            self.optimize(cx, policy, environment)
        })
    }
}

impl Rloo {
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
            let rewards = rollout.less_kl(&rollout.scores, trainer.beta());
            let advantages: Vec<f64> =
                rewards.chunks(self.group as usize).flat_map(rloo_advantages).collect();
            let what = StepLoss { advantages: &advantages, terms: Terms::Responses, kl: None };
            let stats = trainer.epochs(&rollout, what)?;
            trainer.record(cx, &rollout, &stats, &[])?;
            trainer.adapt_beta(&rollout);
            trainer.checkpoint(cx)?;
        }
        trainer.finish(cx)
    }
}
