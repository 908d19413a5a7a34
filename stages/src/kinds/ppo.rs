//! `ppo`: proximal policy optimisation with a learned critic (Schulman et al. 2017; Ziegler et al.
//! 2019). Knows nothing of how the reward came about.
//!
//! One update: draw a response to each of a batch of prompts; its log-probabilities under the
//! policy and the frozen reference; score it; spread the score and the KL over the tokens; the
//! critic's values; advantages by GAE; several epochs of clipped steps of policy and critic.

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use crate::context::Context;
use crate::data::Example;
use crate::kind::{Stage, Summary, check_range};
use crate::model::{Gradient, Packed, Policy, ValueModel, to_f32};
use crate::on_policy::{
    self, Environment, OnPolicy, PolicyTrainer, RewardSources, Rollout, StepLoss, Terms,
    UpdateStats, ValueStep, check_memory, epochs, open_policy, read_prompts,
};
use crate::preflight::Preflight;
use crate::resume::StateDict;
use crate::rl::{KlEstimator, gae, token_rewards, value_loss, whiten};
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

impl Stage for Ppo {
    const NAME: &'static str = "ppo";
    const VERSION: u32 = 4;
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
        self.on_policy.check_ahead(look, false);
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.check_params()?;
        let settings = &self.on_policy;
        settings.rewards.check_combine(false)?;
        let (policy, vocabulary) = open_policy(cx, settings)?;
        let prompts = read_prompts(cx, settings, &vocabulary, &policy)?;
        let mut scorer = RewardSources::open(cx, &settings.rewards, &vocabulary)?;
        let mut critic = match scorer.model() {
            Some(reward) => ValueModel::from_reward(reward),
            None => ValueModel::at_zero(&policy),
        };
        critic.trunk.compute = policy.trunk.compute;
        check_memory(cx, settings, &policy, Some(&critic), scorer.weights(), &prompts)?;
        let (vocabulary, prompts) = (&vocabulary, &prompts);
        let environment = Environment { vocabulary, prompts, scorer: &mut scorer };
        self.optimize(cx, &policy, &critic, environment)
    }
}

impl Ppo {
    fn check_params(&self) -> Result<()> {
        self.on_policy.check()?;
        check_range("gamma", self.gamma, 0.0, 1.0)?;
        check_range("lam", self.lam, 0.0, 1.0)
    }

    /// Trains the policy over all updates and writes the outputs.
    ///
    /// # Errors
    /// When a figure is no number or a file cannot be written.
    pub fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        critic: &ValueModel,
        environment: Environment,
    ) -> Result<Summary> {
        let mut critic = CriticTrainer::new(self, critic);
        let more = critic.state_dict();
        let mut trainer = PolicyTrainer::new(cx, &self.on_policy, policy, environment, more)?;
        while trainer.next_update()?.is_some() {
            let responses = trainer.draw(1, 0);
            let log_probs = trainer.actor.log_probs(&responses);
            let reference = trainer.actor.reference_log_probs(&responses);
            let scores = trainer.actor.score(&responses)?;
            let rollout = Rollout::new(responses, log_probs, reference, scores);
            let rewards = self.rewards(&rollout, trainer.beta());
            let values = critic.values(&rollout);
            let targets = self.advantages(&rollout, &rewards, values);
            let stats = self.epochs(&mut trainer, &mut critic, &rollout, &targets)?;
            let explained = [("val/explained_variance", targets.explained_variance())];
            trainer.record(cx, &rollout, &stats, &explained)?;
            trainer.adapt_beta(&rollout);
            trainer.checkpoint(cx)?;
        }
        trainer.finish(cx)
    }

    /// Reward of each token: `−β` times its KL to the reference, and the score at the last token
    /// of a response.
    pub fn rewards(&self, rollout: &Rollout, beta: f64) -> Vec<f64> {
        let mut rewards = Vec::new();
        for (span, score) in rollout.spans().zip(&rollout.scores) {
            let log_ratios = &rollout.kl_per_token[span];
            let kl: Vec<f64> = log_ratios.iter().map(|l| self.kl_estimator.of_number(*l)).collect();
            rewards.extend(token_rewards(&kl, *score, beta));
        }
        if self.whiten_rewards {
            whiten(&mut rewards, true);
        }
        rewards
    }

    /// Advantages and returns by GAE, response by response; the advantages are whitened over the
    /// whole rollout.
    pub fn advantages(&self, rollout: &Rollout, rewards: &[f64], values: Vec<f32>) -> Targets {
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        for span in rollout.spans() {
            let values: Vec<f64> = values[span.clone()].iter().map(|v| f64::from(*v)).collect();
            let (advantage, gain) = gae(&rewards[span], &values, self.gamma, self.lam);
            advantages.extend(advantage);
            returns.extend(gain);
        }
        if self.whiten_advantages {
            whiten(&mut advantages, false);
        }
        Targets { values, advantages, returns }
    }

    /// The epochs of one update: a step of the policy, unless the critic still warms up, and a step
    /// of the critic for each minibatch.
    fn epochs(
        &self,
        trainer: &mut PolicyTrainer,
        critic: &mut CriticTrainer,
        rollout: &Rollout,
        targets: &Targets,
    ) -> Result<UpdateStats> {
        let (update, factor) = (trainer.state.update, trainer.schedule_factor());
        let what = StepLoss { advantages: &targets.advantages, terms: Terms::Tokens, kl: None };
        let mut stats = UpdateStats::default();
        let size = self.on_policy.minibatch as usize;
        epochs(&self.on_policy, update, rollout.rows.len(), size, |chosen| {
            let mut moved = 0.0;
            if update >= u64::from(self.critic_warmup) {
                moved = trainer.step(rollout, chosen, what, &mut stats)?;
            }
            stats.add_value_step(critic.step(rollout, targets, chosen, factor)?);
            Ok(moved)
        })?;
        Ok(stats)
    }
}

/// What the critic makes of a rollout; one number a token each.
#[derive(Debug)]
pub struct Targets {
    /// Values before the update.
    pub values: Vec<f32>,
    pub advantages: Vec<f64>,
    /// What the values are moved to: advantage + value.
    pub returns: Vec<f64>,
}

impl Targets {
    /// `1 − Var(return − value) / Var(return)`: 1 for a critic that is always right, 0 for one that
    /// knows the mean only.
    fn explained_variance(&self) -> f64 {
        let residual: Vec<f64> =
            self.returns.iter().zip(&self.values).map(|(r, v)| r - f64::from(*v)).collect();
        1.0 - (std(&residual) / std(&self.returns).max(1e-8)).powi(2)
    }
}

/// The critic in training: the values it gives to tokens, and its steps towards their returns.
pub struct CriticTrainer<'a> {
    ppo: &'a Ppo,
    critic: &'a ValueModel,
    optimizer: Trainer,
}

impl<'a> CriticTrainer<'a> {
    /// An optimizer for `critic`.
    pub fn new(ppo: &'a Ppo, critic: &'a ValueModel) -> Self {
        let optimizer = Trainer::new(critic.trunk.trainable(), &ppo.on_policy.optimizer);
        Self { ppo, critic, optimizer }
    }

    /// What a checkpoint must hold of it.
    fn state_dict(&self) -> StateDict {
        self.optimizer.state_dict("critic", self.critic.trunk.trainable())
    }

    /// Value before each token of a rollout.
    pub fn values(&self, rollout: &Rollout) -> Vec<f32> {
        let device = self.critic.trunk.params.flat.device();
        let mut values = Vec::new();
        no_grad(|| {
            let settings = &self.ppo.on_policy;
            for rows in rollout.rows.chunks(settings.compute.rows(settings.minibatch as usize)) {
                let packed = Packed::new(&rows.iter().collect::<Vec<_>>(), device);
                values.extend(to_f32(&self.critic.values(&packed)));
            }
        });
        values
    }

    /// One step down the clipped value loss of the responses at `chosen`, part by part. `factor`:
    /// the learning rate as a share of `critic_lr`.
    fn step(
        &mut self,
        rollout: &Rollout,
        targets: &Targets,
        chosen: &[usize],
        factor: f64,
    ) -> Result<ValueStep> {
        let Ppo { on_policy, vf_clip, vf_coef, critic_lr, .. } = self.ppo;
        let tokens: usize =
            chosen.iter().map(|i| rollout.offsets[i + 1] - rollout.offsets[*i]).sum();
        if tokens == 0 {
            bail!("invariant: a response has a token");
        }
        let device = self.critic.trunk.params.flat.device();
        let returns: Vec<f32> = targets.returns.iter().map(|x| *x as f32).collect();
        let mut clipped = 0.0;
        let parts = chosen.chunks(on_policy.compute.rows(chosen.len())).map(|part| {
            let rows: Vec<&Example> = part.iter().map(|i| &rollout.rows[*i]).collect();
            let packed = Packed::new(&rows, device);
            let old = rollout.gather(&targets.values, part, device);
            let goal = rollout.gather(&returns, part, device);
            let weights = old.ones_like() / tokens as f64;
            self.critic.backward_values(&packed, |values| {
                let (loss, count) = value_loss(values, &old, &goal, &weights, *vf_clip);
                clipped += count;
                loss * *vf_coef
            })
        });
        let total = Gradient::total(parts).expect("invariant: a minibatch has a response");
        let loss = total.loss.double_value(&[]) / vf_coef.max(1e-12);
        self.optimizer.step(self.critic.trunk.trainable(), total.flat, critic_lr * factor)?;
        Ok(ValueStep { loss, clipped, tokens: tokens as f64 })
    }
}
