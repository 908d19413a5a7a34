//! The frame of the loops that improve a policy on its own responses: which prompts come next,
//! steps of the policy, samples, held-out prompts, checkpoints and outputs.
//! Knows nothing of how advantages come about.

use std::time::Instant;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::actor::{Actor, Environment};
use super::epochs::epochs;
use super::loss::{StepLoss, policy_gradient};
use super::report::{SampleRow, Samples, UpdateStats, alarms, cut_off, figures, named_figures};
use super::rollout::{Responses, Rollout};
use super::settings::OnPolicy;
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::part_of_prompt;
use crate::kind::Summary;
use crate::model::{Gradient, Policy};
use crate::resume::StateDict;
use crate::rl::{AdaptiveKl, RatioSums};
use crate::sampling::Response;
use crate::stats::mean;
use crate::training::{Order, Trainer};

/// Most held-out prompts that are answered each time.
pub const HELD_OUT: usize = 128;

/// Step number of draws that belong to no update: the samples shown, and the held-out prompts.
const SHOWN_STEP: u64 = u64::MAX;
const HELD_OUT_STEP: u64 = u64::MAX - 1;

/// Trains a policy update by update: the policy at work, its optimizer, and where the loop stands.
pub struct PolicyTrainer<'a> {
    pub actor: Actor<'a>,
    pub state: State,
    optimizer: Trainer,
    kl: AdaptiveKl,
    samples: Samples,
    order: Order,
    /// Rows of the prompts that are trained on.
    train: Vec<usize>,
    /// Rows of the prompts that are only evaluated on.
    held_out: Vec<usize>,
    /// The weights with the highest held-out reward, `[n]`; a scalar when they are not kept.
    best: Tensor,
    /// All tensors of the loop, as a checkpoint holds them.
    state_dict: StateDict,
    /// Hashes of the reference and of the scorer's weights, which must not move.
    frozen: [u64; 2],
}

/// Where the loop stands, as a checkpoint holds it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Updates made.
    pub update: u64,
    /// Prompts used so far.
    prompts: u64,
    /// The weight of the KL, which may move; `None` before the first update.
    beta: Option<f64>,
    /// A moving baseline, for kinds that have one.
    pub baseline: Option<f64>,
    best: Option<f64>,
    samples: Vec<SampleRow>,
    summary: Summary,
}

impl<'a> PolicyTrainer<'a> {
    /// Starts, or goes on from a checkpoint. `more`: further tensors of the loop's state.
    ///
    /// # Errors
    /// When all prompts were held out.
    pub fn new<'e: 'a>(
        cx: &mut Context,
        settings: &'a OnPolicy,
        policy: &'a Policy,
        Environment { vocabulary, prompts, scorer }: Environment<'e>,
        more: StateDict,
    ) -> Result<Self> {
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for row in 0..prompts.tokens.len() {
            let out = part_of_prompt(&prompts.all[row].key(), "on_policy", settings.eval_fraction);
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
        let environment = Environment { vocabulary, prompts, scorer };
        let actor = Actor { settings, policy, reference, environment };
        let frozen = fingerprints(&actor);
        let params = policy.trunk.trainable();
        let optimizer = Trainer::new(params, &settings.optimizer);
        let best = if settings.keep_best { params.flat.copy() } else { Tensor::from(0.0_f32) };
        let mut state_dict = optimizer.state_dict("policy", params);
        state_dict.push(("best".into(), best.shallow_clone()));
        state_dict.extend(more);
        let mut state = cx.resume::<State>(&state_dict)?.unwrap_or_default();
        let mut samples = Samples::new(settings, &train);
        samples.rows = std::mem::take(&mut state.samples);
        let beta = state.beta.unwrap_or(settings.kl_coef);
        let kl = AdaptiveKl { beta, target: settings.kl_target, horizon: settings.kl_horizon };
        let order = Order::new(settings.seed, "prompts", train.len());
        Ok(Self {
            actor,
            state,
            optimizer,
            kl,
            samples,
            order,
            train,
            held_out,
            best,
            state_dict,
            frozen,
        })
    }

    /// The update to make next, if any; answers to a few prompts are kept when they are due.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn next_update(&mut self) -> Result<Option<u64>> {
        let (update, last) = (self.state.update, u64::from(self.actor.settings.updates));
        if self.samples.wants(update, last) {
            let rollout = self.actor.rollout(self.samples.prompts.clone(), SHOWN_STEP)?;
            let Environment { vocabulary, prompts, .. } = self.actor.environment;
            self.samples.keep(update, &rollout, vocabulary, prompts)?;
        }
        Ok((update < last).then_some(update))
    }

    /// β, the weight of the KL to the reference in this update.
    pub fn beta(&self) -> f64 {
        self.kl.beta
    }

    /// Learning rates of this update as a share of the highest.
    pub fn schedule_factor(&self) -> f64 {
        let s = self.actor.settings;
        s.schedule.factor(self.state.update, u64::from(s.updates), s.warmup, 0.0)
    }

    /// Draws responses to the next prompts, `group` to each. `attempt` tells several draws of one
    /// update apart.
    pub fn draw(&mut self, group: u32, attempt: u64) -> Responses {
        let rows = self.next_rows(self.actor.settings.batch / group);
        let rows = rows.into_iter().flat_map(|row| std::iter::repeat_n(row, group as usize));
        self.actor.draw(rows.collect(), self.state.update + (attempt << 40))
    }

    /// As [`PolicyTrainer::draw`], with log-probabilities and scores.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn rollout(&mut self, group: u32, attempt: u64) -> Result<Rollout> {
        let responses = self.draw(group, attempt);
        self.actor.rollout_of(responses)
    }

    /// A rollout of the next responses of a list, which holds one by row of the prompts.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn rollout_of(&mut self, given: &[Response]) -> Result<Rollout> {
        let start = Instant::now();
        let rows = self.next_rows(self.actor.settings.batch);
        let responses = rows.iter().map(|row| given[*row].clone()).collect();
        let prompts = self.actor.environment.prompts;
        self.actor.rollout_of(Responses::new(prompts, rows, responses, start))
    }

    /// Rows of the next `count` prompts to learn from.
    fn next_rows(&mut self, count: u32) -> Vec<usize> {
        let places = self.state.prompts..self.state.prompts + u64::from(count);
        self.state.prompts = places.end;
        places.map(|i| self.train[self.order.at(i)]).collect()
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
        stats: &mut UpdateStats,
    ) -> Result<f64> {
        let (settings, policy) = (self.actor.settings, self.actor.policy);
        let (gradient, sums) = policy_gradient(settings, policy, rollout, chosen, what);
        self.apply(gradient, &sums, stats)
    }

    /// One step of the policy by a gradient that the kind found, with how far the probabilities of
    /// its tokens are from those that they were drawn with. Returns that in nats a token.
    ///
    /// # Errors
    /// When the gradient is not finite.
    pub fn apply(
        &mut self,
        gradient: Gradient,
        moved: &RatioSums,
        stats: &mut UpdateStats,
    ) -> Result<f64> {
        let lr = self.actor.settings.lr * self.schedule_factor();
        let params = self.actor.policy.trunk.trainable();
        let norm = self.optimizer.step(params, gradient.flat, lr)?;
        stats.add_policy_step(moved, gradient.loss.double_value(&[]), norm);
        Ok(moved.approx_kl_k3())
    }

    /// All epochs of the policy over the responses of this update.
    ///
    /// # Errors
    /// When a gradient is not finite.
    pub fn epochs(&mut self, rollout: &Rollout, what: StepLoss) -> Result<UpdateStats> {
        let (settings, update) = (self.actor.settings, self.state.update);
        let mut stats = UpdateStats::default();
        let size = settings.minibatch as usize;
        epochs(settings, update, rollout.rows.len(), size, |chosen| {
            self.step(rollout, chosen, what, &mut stats)
        })?;
        Ok(stats)
    }

    /// Reports an update: figures, alarms and, when it is due, reward and KL on the held-out
    /// prompts.
    ///
    /// # Errors
    /// When a figure is no number; the last checkpoint is that of the update before.
    pub fn record(
        &mut self,
        cx: &mut Context,
        rollout: &Rollout,
        stats: &UpdateStats,
        more: &[(&str, f64)],
    ) -> Result<()> {
        let settings = self.actor.settings;
        let (update, updates) = (self.state.update, u64::from(settings.updates));
        let lr = settings.lr * self.schedule_factor();
        let mut all: Vec<(&str, f64)> = figures(rollout, stats, self.kl.beta, lr);
        all.extend_from_slice(more);
        alarms(cx, update, &all)?;
        if update == 0 {
            cx.warn_if(cut_off(settings, &rollout.finished))?;
        }
        let every = match settings.eval_every {
            0 => (updates / 5).max(1),
            n => u64::from(n),
        };
        let due = (update + 1).is_multiple_of(every) || update + 1 == updates;
        if due && !self.held_out.is_empty() {
            all.extend(self.evaluate()?);
        }
        self.state.summary.extend(all.iter().map(|(n, v)| ((*n).to_owned(), *v)));
        let [drawn, scored] = rollout.seconds;
        let seconds = drawn + scored + stats.seconds();
        all.extend([
            ("time/gen", drawn),
            ("time/score", scored),
            ("time/train", stats.seconds()),
            ("time/tokens_per_s", rollout.old.len() as f64 / seconds),
        ]);
        let named = named_figures(rollout);
        self.state.summary.extend(named.iter().cloned());
        all.extend(named.iter().map(|(name, value)| (name.as_str(), *value)));
        cx.metric(update + 1, &all)
    }

    /// Reward and KL on the held-out prompts, with the same noise every time; keeps the weights
    /// when they are the best so far and the best are wanted.
    fn evaluate(&mut self) -> Result<[(&'static str, f64); 3]> {
        let rollout = self.actor.rollout(self.held_out.clone(), HELD_OUT_STEP)?;
        let settings = self.actor.settings;
        let (score, kl) = (mean(&rollout.scores), rollout.kl());
        let reward = score - settings.kl_coef * kl;
        if settings.keep_best && self.state.best.is_none_or(|best| reward > best) {
            self.state.best = Some(reward);
            no_grad(|| self.best.copy_(&self.actor.policy.trunk.trainable().flat));
        }
        Ok([("eval/scores", score), ("eval/kl", kl), ("eval/rlhf_reward", reward)])
    }

    /// Moves β towards `kl_target`, when that is set.
    pub fn adapt_beta(&mut self, rollout: &Rollout) {
        if self.actor.settings.kl_target > 0.0 {
            self.kl.update(rollout.kl(), rollout.rows.len() as f64);
        }
    }

    /// Ends an update: from here on the loop may be interrupted and go on.
    ///
    /// # Errors
    /// When an event cannot be sent.
    pub fn checkpoint(&mut self, cx: &mut Context) -> Result<()> {
        self.state.update += 1;
        cx.progress(self.state.update, u64::from(self.actor.settings.updates), "updates")?;
        self.state.beta = Some(self.kl.beta);
        self.state.samples.clone_from(&self.samples.rows);
        cx.checkpoint(&self.state, &self.state_dict)
    }

    /// Writes the outputs, the best weights if they were asked for.
    ///
    /// # Errors
    /// When a file cannot be written, or a model moved that must not.
    pub fn finish(self, cx: &mut Context) -> Result<Summary> {
        let Actor { settings, policy, environment, .. } = &self.actor;
        if self.frozen != fingerprints(&self.actor) {
            bail!("the reference or the reward model moved: this is a defect of preflow");
        }
        if settings.keep_best && self.state.best.is_some() {
            no_grad(|| policy.trunk.trainable().flat.shallow_clone().copy_(&self.best));
        }
        let to = cx.output("model")?;
        if settings.lora.keep {
            let base = cx.path("policy")?.to_owned();
            policy.save_trained((&base, &settings.lora), &to, environment.vocabulary)?;
        } else {
            policy.save(&to, environment.vocabulary)?;
        }
        cx.complete("model", None)?;
        cx.write_metrics()?;
        cx.write_table("samples", &self.samples.table()?)?;
        Ok(self.state.summary)
    }
}

/// Hashes of what must not move: the reference, and the scorer's weights.
fn fingerprints(actor: &Actor) -> [u64; 2] {
    [actor.reference.trunk.params.fingerprint(), actor.environment.scorer.fingerprint()]
}
