//! `ppo`: proximal policy optimisation with a learned critic (Schulman et al. 2017; Ziegler et al.
//! 2019). Knows nothing of how the reward came about.
//!
//! One update: draw a response to each of a batch of prompts; score it; its log-probabilities under
//! the policy and the frozen reference, and its values; spread the score and the KL over the
//! tokens; advantages by GAE; several epochs of clipped steps of policy and critic.

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use crate::context::Context;
use crate::data::{Example, Vocabulary};
use crate::kind::{Stage, Summary, check_range};
use crate::model::{Gradient, Packed, Policy, ValueModel, to_f32};
use crate::on_policy::{
    self, OnPolicy, PolicyTrainer, RewardSources, Rollout, Scorer, StepLoss, Stepped,
};
use crate::preflight::Preflight;
use crate::prompts::Prompts;
use crate::rl::{KlEstimator, gae, value_loss, whiten};
use crate::stats::std;
use crate::training::Trainer;

/// Params of `ppo`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ppo {
    #[serde(flatten)]
    pub on_policy: OnPolicy,
    /// Estimator of the KL in the reward of each token: k1, k2 or k3.
    kl_estimator: KlEstimator,
    /// Learning rate of the critic at its highest.
    #[schemars(range(min = 0.0, max = 10.0))]
    critic_lr: f64,
    /// Updates at the start in which only the critic learns.
    critic_warmup: u32,
    /// The critic's values count while they stay this close to those before; 0: not clipped.
    #[schemars(range(min = 0.0, max = 1e6))]
    vf_clip: f64,
    /// Weight of the value loss.
    #[schemars(range(min = 0.0, max = 1e6))]
    vf_coef: f64,
    /// Discount of later rewards.
    #[schemars(range(min = 0.0, max = 1.0))]
    gamma: f64,
    /// λ of generalised advantage estimation.
    #[schemars(range(min = 0.0, max = 1.0))]
    lam: f64,
    /// Scale the advantages of an update to mean 0 and variance 1.
    whiten_advantages: bool,
    /// Scale the rewards of an update to variance 1; their mean stays.
    whiten_rewards: bool,
}

impl Default for Ppo {
    fn default() -> Self {
        Self {
            on_policy: OnPolicy::default(),
            kl_estimator: KlEstimator::K1,
            critic_lr: 1e-3,
            critic_warmup: 0,
            vf_clip: 0.2,
            vf_coef: 0.1,
            gamma: 1.0,
            lam: 0.95,
            whiten_advantages: true,
            whiten_rewards: false,
        }
    }
}

/// What the critic says of a rollout, and what follows; one a token.
#[derive(Debug)]
pub struct Targets {
    pub values: Vec<f32>,
    pub advantages: Vec<f64>,
    pub returns: Vec<f64>,
}

impl Stage for Ppo {
    const NAME: &'static str = "ppo";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "improve a policy against a reward by PPO with a critic";
    const FIGURES: &'static [&'static str] = on_policy::FIGURES;
    const LIVE: &'static [&'static str] = &["objective/scores", "objective/kl"];

    fn inputs() -> Vec<InputDoc> {
        on_policy::inputs("scores responses; also how the critic starts")
    }

    fn outputs() -> Vec<OutputDoc> {
        on_policy::outputs()
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("", self.check_params());
        self.on_policy.check_ahead(look);
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.check_params()?;
        let folder = cx.path("policy")?.to_owned();
        let vocabulary = cx.vocabulary(&folder)?;
        let policy = self.on_policy.open(cx, &folder, &vocabulary)?;
        let prompts = self.on_policy.prompts(cx, &vocabulary, &policy)?;
        let mut scorer = RewardSources::open(cx, &self.on_policy.rewards, &vocabulary)?;
        let mut critic = match scorer.model() {
            Some(reward) => ValueModel::from_reward(reward),
            None => ValueModel::at_zero(&policy),
        };
        critic.trunk.compute = policy.trunk.compute;
        self.on_policy.check_memory(cx, &policy, Some(&critic), scorer.weights(), &prompts)?;
        self.optimize(cx, &policy, &critic, &vocabulary, &mut scorer, &prompts)
    }
}

impl Ppo {
    fn check_params(&self) -> Result<()> {
        self.on_policy.check()?;
        check_range("gamma", self.gamma, 0.0, 1.0)?;
        check_range("lam", self.lam, 0.0, 1.0)
    }

    /// The loop.
    ///
    /// # Errors
    /// When a figure is no number or a file cannot be written.
    pub fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        critic: &ValueModel,
        vocabulary: &Vocabulary,
        scorer: &mut dyn Scorer,
        prompts: &Prompts,
    ) -> Result<Summary> {
        let mut critic_trainer = Trainer::new(critic.trunk.trainable(), &self.on_policy.optimizer);
        let more = critic_trainer.state_dict("critic", critic.trunk.trainable());
        let mut trainer = PolicyTrainer::new(cx, &self.on_policy, policy, prompts, scorer, more)?;
        while let Some(update) = trainer.next(vocabulary, scorer)? {
            let rollout = trainer.rollout(scorer, 1, 0)?;
            let targets = self.targets(critic, &rollout, trainer.kl.beta);
            let mut stepped = Stepped::default();
            let factor = trainer.factor(update);
            self.on_policy.epochs(update, rollout.rows.len(), |chosen| {
                let mut moved = 0.0;
                if update >= u64::from(self.critic_warmup) {
                    let what =
                        StepLoss { advantages: &targets.advantages, sequence: false, kl: None };
                    let lr = self.on_policy.lr * factor;
                    moved = trainer.step(&rollout, chosen, what, lr, &mut stepped)?;
                }
                self.critic_step(
                    critic,
                    &mut critic_trainer,
                    &rollout,
                    &targets,
                    chosen,
                    factor,
                    &mut stepped,
                )?;
                Ok(moved)
            })?;
            let residual: Vec<f64> = targets
                .returns
                .iter()
                .zip(&targets.values)
                .map(|(r, v)| r - f64::from(*v))
                .collect();
            let explained = 1.0 - (std(&residual) / std(&targets.returns).max(1e-8)).powi(2);
            trainer.close(
                cx,
                scorer,
                &rollout,
                &stepped,
                &[("val/explained_variance", explained)],
            )?;
        }
        trainer.finish(cx, vocabulary, scorer)
    }

    /// Values, rewards of the tokens, GAE row by row, and whitening over the whole rollout.
    pub fn targets(&self, critic: &ValueModel, rollout: &Rollout, beta: f64) -> Targets {
        let mut values = Vec::new();
        no_grad(|| {
            for rows in rollout.rows.chunks(self.on_policy.minibatch as usize) {
                let device = critic.trunk.params.flat.device();
                let packed = Packed::new(&rows.iter().collect::<Vec<_>>(), device);
                values.extend(to_f32(&critic.values(&packed)));
            }
        });
        let spans: Vec<(usize, usize)> = rollout.offsets.windows(2).map(|w| (w[0], w[1])).collect();
        let mut rewards: Vec<f64> = Vec::new();
        for ((a, b), score) in spans.iter().zip(&rollout.scores) {
            let kl: Vec<f64> = rollout.kl_per_token[*a..*b]
                .iter()
                .map(|l| self.kl_estimator.of_number(*l))
                .collect();
            rewards.extend(crate::rl::token_rewards(&kl, *score, beta));
        }
        if self.whiten_rewards {
            whiten(&mut rewards, true);
        }
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        for (a, b) in spans {
            let values: Vec<f64> = values[a..b].iter().map(|v| f64::from(*v)).collect();
            let (advantage, gain) = gae(&rewards[a..b], &values, self.gamma, self.lam);
            advantages.extend(advantage);
            returns.extend(gain);
        }
        if self.whiten_advantages {
            whiten(&mut advantages, false);
        }
        Targets { values, advantages, returns }
    }

    /// One step of the critic over the responses at `chosen`, part by part.
    #[expect(clippy::too_many_arguments, reason = "one call; a struct would only rename them")]
    fn critic_step(
        &self,
        critic: &ValueModel,
        trainer: &mut Trainer,
        rollout: &Rollout,
        targets: &Targets,
        chosen: &[usize],
        factor: f64,
        stepped: &mut Stepped,
    ) -> Result<()> {
        let s = &self.on_policy;
        let tokens: usize =
            chosen.iter().map(|i| rollout.offsets[i + 1] - rollout.offsets[*i]).sum();
        if tokens == 0 {
            bail!("invariant: a response has a token");
        }
        let size = s.compute.rows(chosen.len());
        let returns: Vec<f32> = targets.returns.iter().map(|x| *x as f32).collect();
        let parts = chosen.chunks(size).map(|part| {
            let rows: Vec<&Example> = part.iter().map(|i| &rollout.rows[*i]).collect();
            let device = critic.trunk.params.flat.device();
            let packed = Packed::new(&rows, device);
            let (old, goal) = (
                rollout.gather(&targets.values, part, device),
                rollout.gather(&returns, part, device),
            );
            let weights = (old.ones_like()) / tokens as f64;
            critic.backward_values(&packed, |values| {
                let (loss, clipped) = value_loss(values, &old, &goal, &weights, self.vf_clip);
                stepped.value_clip[0] += clipped;
                loss * self.vf_coef
            })
        });
        let total = Gradient::total(parts).expect("invariant: a minibatch has a response");
        stepped.value_clip[1] += tokens as f64;
        stepped.value_loss.push(total.loss.double_value(&[]) / self.vf_coef.max(1e-12));
        trainer.step(critic.trunk.trainable(), total.flat, self.critic_lr * factor)?;
        Ok(())
    }
}
