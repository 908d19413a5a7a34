//! The way of a policy through its updates: what it is held near, which prompts come next, samples,
//! held-out prompts, checkpoints and outputs. Knows nothing of how advantages come about.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::report::{Sample, Samples, Stepped, alarms, figures};
use super::rewards::Scorer;
use super::rollout::Rollout;
use super::settings::{OnPolicy, StepLoss};
use crate::context::{Context, error_with_help};
use crate::data::{Vocabulary, part_of_prompt};
use crate::kind::Summary;
use crate::model::Policy;
use crate::prompts::Prompts;
use crate::resume::StateDict;
use crate::rl::AdaptiveKl;
use crate::sampling::Response;
use crate::stats::mean;
use crate::training::{Order, Trainer};

/// Most held-out prompts that are answered at one look.
const HELD_OUT: usize = 128;

/// Step number of draws that belong to no update: the samples shown, and the held-out prompts.
const SHOWN_STEP: u64 = u64::MAX;
const HELD_OUT_STEP: u64 = u64::MAX - 1;

/// The policy in training, what it is held near, and where the loop stands.
pub struct PolicyTrainer<'a> {
    pub settings: &'a OnPolicy,
    pub policy: &'a Policy,
    pub reference: Policy,
    pub prompts: &'a Prompts,
    pub trainer: Trainer,
    pub kl: AdaptiveKl,
    pub state: State,
    samples: Samples,
    order: Order,
    /// Prompts to learn from, and prompts to look at.
    train: Vec<usize>,
    held_out: Vec<usize>,
    best: Tensor,
    state_dict: StateDict,
    /// Hashes of the reference and of what judges.
    frozen: [u64; 2],
}

/// Where the loop stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    pub update: u64,
    /// Prompts used so far.
    prompts: u64,
    /// The weight of the KL, which may move; `None` before the first update.
    beta: Option<f64>,
    /// A moving baseline, for kinds that have one.
    pub baseline: Option<f64>,
    best: Option<f64>,
    samples: Vec<Sample>,
    summary: Summary,
}

impl<'a> PolicyTrainer<'a> {
    /// Starts, or goes on from a checkpoint. `more`: further tensors of the loop's state.
    ///
    /// # Errors
    /// When all prompts were held out.
    pub fn new(
        cx: &mut Context,
        settings: &'a OnPolicy,
        policy: &'a Policy,
        prompts: &'a Prompts,
        scorer: &dyn Scorer,
        more: StateDict,
    ) -> Result<Self> {
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for row in 0..prompts.tokens.len() {
            let out = part_of_prompt(prompts.text(row)?, "on_policy", settings.eval_fraction);
            if out { &mut held_out } else { &mut train }.push(row);
        }
        if train.is_empty() || (settings.keep_best && held_out.is_empty()) {
            let message = format!(
                "{} prompts cannot be split into some to learn from and some to look at",
                prompts.tokens.len()
            );
            return Err(error_with_help(message, "give it more prompts, or change eval_fraction"));
        }
        held_out.truncate(HELD_OUT);
        // Before anything moves: the reference is the policy as it was given.
        let reference = policy.reference();
        let params = policy.trunk.trainable();
        let trainer = Trainer::new(params, &settings.optimizer);
        let best = if settings.keep_best { params.flat.copy() } else { Tensor::from(0.0_f32) };
        let mut state_dict = trainer.state_dict("policy", params);
        state_dict.push(("best".into(), best.shallow_clone()));
        state_dict.extend(more);
        let mut state = cx.resume::<State>(&state_dict)?.unwrap_or_default();
        let mut samples = Samples::new(settings, &train);
        samples.rows = std::mem::take(&mut state.samples);
        let beta = state.beta.unwrap_or(settings.kl_coef);
        let kl = AdaptiveKl { beta, target: settings.kl_target, horizon: settings.kl_horizon };
        let order = Order::new(settings.seed, "prompts", train.len());
        let frozen = [reference.trunk.params.fingerprint(), scorer.fingerprint()];
        Ok(Self {
            settings,
            policy,
            reference,
            prompts,
            trainer,
            kl,
            state,
            samples,
            order,
            train,
            held_out,
            best,
            state_dict,
            frozen,
        })
    }

    /// The update to make next, if any; samples and held-out prompts are looked at on the way.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn next(
        &mut self,
        vocabulary: &Vocabulary,
        scorer: &mut dyn Scorer,
    ) -> Result<Option<u64>> {
        let (update, last) = (self.state.update, u64::from(self.settings.updates));
        if self.samples.wants(update, last) {
            let rows = self.samples.prompts.clone();
            let rollout = self.settings.rollout(
                self.policy,
                &self.reference,
                scorer,
                self.prompts,
                rows,
                SHOWN_STEP,
            )?;
            self.samples.keep(update, &rollout, vocabulary, self.prompts)?;
        }
        Ok((update < last).then_some(update))
    }

    /// Responses to the next prompts, `group` to each. `attempt` tells several rollouts of one
    /// update apart.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn rollout(
        &mut self,
        scorer: &mut dyn Scorer,
        group: u32,
        attempt: u64,
    ) -> Result<Rollout> {
        let count = u64::from(self.settings.batch / group);
        let places = self.state.prompts..self.state.prompts + count;
        self.state.prompts += count;
        let rows: Vec<usize> = places
            .flat_map(|i| std::iter::repeat_n(self.train[self.order.at(i)], group as usize))
            .collect();
        let step = self.state.update + (attempt << 40);
        self.settings.rollout(self.policy, &self.reference, scorer, self.prompts, rows, step)
    }

    /// The next responses of a list, which holds one by row of the prompts.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn rollout_of(&mut self, scorer: &mut dyn Scorer, given: &[Response]) -> Result<Rollout> {
        let count = u64::from(self.settings.batch);
        let places = self.state.prompts..self.state.prompts + count;
        self.state.prompts += count;
        let rows: Vec<usize> = places.map(|i| self.train[self.order.at(i)]).collect();
        let responses = rows.iter().map(|i| given[*i].clone()).collect();
        self.settings.look(self.policy, &self.reference, scorer, self.prompts, rows, responses)
    }

    /// The learning rate of an update, as a share of the highest.
    pub fn factor(&self, update: u64) -> f64 {
        let s = self.settings;
        s.schedule.factor(update, u64::from(s.updates), s.warmup, 0.0)
    }

    /// One step of the policy over the responses at `chosen`. Returns how far it is from where it
    /// drew, nats a token.
    ///
    /// # Errors
    /// When the gradient is not finite.
    pub fn step(
        &mut self,
        rollout: &Rollout,
        chosen: &[usize],
        what: StepLoss,
        lr: f64,
        stepped: &mut Stepped,
    ) -> Result<f64> {
        let (gradient, sums) = self.settings.policy_gradient(self.policy, rollout, chosen, what);
        let norm = self.trainer.step(self.policy.trunk.trainable(), gradient.flat, lr)?;
        stepped.add(&sums, gradient.loss.double_value(&[]), norm);
        Ok(sums.approx_kl_k3())
    }

    /// All steps of the policy over the responses of an update.
    ///
    /// # Errors
    /// When a gradient is not finite.
    pub fn learn(&mut self, update: u64, rollout: &Rollout, what: StepLoss) -> Result<Stepped> {
        let lr = self.settings.lr * self.factor(update);
        let mut stepped = Stepped::default();
        self.settings.epochs(update, rollout.rows.len(), |chosen| {
            self.step(rollout, chosen, what, lr, &mut stepped)
        })?;
        Ok(stepped)
    }

    /// Ends an update: figures, alarms, a look at the held-out prompts, a checkpoint.
    ///
    /// # Errors
    /// When a figure is no number; the last checkpoint is that of the update before.
    pub fn close(
        &mut self,
        cx: &mut Context,
        scorer: &mut dyn Scorer,
        rollout: &Rollout,
        stepped: &Stepped,
        more: &[(&'static str, f64)],
    ) -> Result<()> {
        let (update, updates) = (self.state.update, u64::from(self.settings.updates));
        let lr = self.settings.lr * self.factor(update);
        let mut all = figures(rollout, stepped, self.kl.beta, lr);
        all.extend_from_slice(more);
        alarms(cx, update, &all)?;
        let every = match self.settings.eval_every {
            0 => (updates / 5).max(1),
            n => u64::from(n),
        };
        let looks = (update + 1).is_multiple_of(every) || update + 1 == updates;
        if looks && !self.held_out.is_empty() {
            all.extend(self.look(scorer)?);
        }
        self.state.summary.extend(all.iter().map(|(n, v)| ((*n).to_owned(), *v)));
        let [drawn, scored] = rollout.seconds;
        let seconds = drawn + scored + stepped.seconds();
        all.extend([
            ("time/gen", drawn),
            ("time/score", scored),
            ("time/train", stepped.seconds()),
            ("time/tokens_per_s", rollout.old.len() as f64 / seconds),
        ]);
        cx.metric(update + 1, &all)?;
        if self.settings.kl_target > 0.0 {
            self.kl.update(rollout.kl(), rollout.rows.len() as f64);
        }
        cx.progress(update + 1, updates, "updates")?;
        self.state.update = update + 1;
        self.state.beta = Some(self.kl.beta);
        self.state.samples.clone_from(&self.samples.rows);
        cx.checkpoint(&self.state, &self.state_dict)
    }

    /// Reward and KL on the held-out prompts, with the same noise every time.
    fn look(&mut self, scorer: &mut dyn Scorer) -> Result<[(&'static str, f64); 3]> {
        let rollout = self.settings.rollout(
            self.policy,
            &self.reference,
            scorer,
            self.prompts,
            self.held_out.clone(),
            HELD_OUT_STEP,
        )?;
        let (score, kl) = (mean(&rollout.scores), rollout.kl());
        let reward = score - self.settings.kl_coef * kl;
        if self.settings.keep_best && self.state.best.is_none_or(|best| reward > best) {
            self.state.best = Some(reward);
            no_grad(|| self.best.copy_(&self.policy.trunk.trainable().flat));
        }
        Ok([("eval/scores", score), ("eval/kl", kl), ("eval/rlhf_reward", reward)])
    }

    /// Writes the outputs, the best weights if they were asked for.
    ///
    /// # Errors
    /// When a file cannot be written, or a model moved that must not.
    pub fn finish(
        self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        scorer: &dyn Scorer,
    ) -> Result<Summary> {
        if self.frozen != [self.reference.trunk.params.fingerprint(), scorer.fingerprint()] {
            bail!("the reference or the reward model moved: this is a defect of preflow");
        }
        if self.settings.keep_best && self.state.best.is_some() {
            no_grad(|| self.policy.trunk.trainable().flat.shallow_clone().copy_(&self.best));
        }
        self.policy.save(&cx.output("model")?, vocabulary)?;
        cx.complete("model", None)?;
        cx.write_metrics()?;
        cx.write_table("samples", &self.samples.table()?)?;
        Ok(self.state.summary)
    }
}
