//! Fits reward models to comparisons: the losses, the loop, and what a fitted model says of pairs.
//! Knows nothing of ports, files or reports.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::params::{RewardDefaults, Ties, TrainReward};
use crate::context::Context;
use crate::data::Example;
use crate::model::{Gradient, Packed, Policy, RewardModel, to_f64};
use crate::optim::AdamW;
use crate::resume::StateDict;
use crate::rl::{half_tie_loss, preference_loss, rao_kupper_losses};
use crate::stats::mean;
use crate::training::{Optimizer, Order, Preference, Trainer, both_sides, learning_rate, row_due};

/// A comparison to be fitted.
#[derive(Clone)]
pub struct Pair {
    pub labelled: Preference,
    /// How much better the chosen answer is; 0 of a tie.
    pub strength: f64,
}

impl Pair {
    /// The chosen and the rejected answer.
    fn sides(&self) -> (&Example, &Example) {
        (&self.labelled.chosen, &self.labelled.rejected)
    }

    /// Whether neither answer was preferred.
    pub fn is_tie(&self) -> bool {
        self.labelled.tie
    }
}

/// One model to be fitted.
pub struct Fit {
    pub seed: u64,
    /// Places of its pairs among those of training.
    pub rows: Vec<usize>,
    /// A point of the learning curve, whose weights nobody keeps.
    pub only_measured: bool,
    /// What stands behind the name of its loss; nothing for the first member.
    pub suffix: String,
}

/// The result of one fit, without its weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fitted {
    /// r(chosen) − r(rejected) of all held-out pairs.
    pub deltas: Vec<f64>,
    /// The threshold of a tie.
    pub nu: f64,
    pub steps: u64,
}

/// Where the loop stands; `losses` are those of the epoch so far.
#[derive(Default, Serialize, Deserialize)]
struct State {
    done: Vec<Fitted>,
    step: u64,
    losses: Vec<f64>,
    best_loss: Option<f64>,
    /// Δ of the held-out pairs after the last epoch, and after the best.
    #[serde(default)]
    last_deltas: Vec<f64>,
    #[serde(default)]
    best_deltas: Vec<f64>,
}

/// The threshold of a tie, ν = softplus(raw); raw is `[1]`.
struct Threshold {
    raw: Tensor,
    adamw: AdamW,
}

impl Threshold {
    fn new(settings: &Optimizer<RewardDefaults>, device: tch::Device) -> Self {
        let raw = Tensor::from_slice(&[Self::start()]).to_device(device).set_requires_grad(true);
        let adamw = AdamW::new(settings.config(), &raw.detach(), 0);
        Self { raw, adamw }
    }

    /// ν starts at ½: the inverse of softplus.
    fn start() -> f32 {
        (0.5_f32.exp() - 1.0).ln()
    }

    fn state_dict(&self) -> StateDict {
        let AdamW { m, v, steps, .. } = &self.adamw;
        [("raw", &self.raw.detach()), ("m", m), ("v", v), ("steps", steps)]
            .map(|(name, t)| (format!("threshold.{name}"), t.shallow_clone()))
            .into()
    }

    fn nu(&self) -> f64 {
        no_grad(|| self.raw.softplus().double_value(&[0]))
    }
}

/// The model before the first step, its head and adapters drawn from `seed`.
fn start(policy: &Policy, stage: &TrainReward, seed: u64) -> RewardModel {
    let mut model = RewardModel::from_policy(policy, seed);
    model.trunk.adapt(&stage.lora, seed);
    model
}

/// Fits the members of an ensemble (and the points of the learning curve) one after the other, with
/// one set of weights, moments and threshold.
struct EnsembleTrainer<'a> {
    policy: &'a Policy,
    model: RewardModel,
    trainer: Trainer,
    threshold: Threshold,
    /// Weights of the epoch with the lowest held-out loss, `[n]`; undefined until an epoch is over.
    best: Tensor,
    /// Weights of the members fitted so far, `[members, n]`.
    members: Tensor,
}

impl<'a> EnsembleTrainer<'a> {
    fn new(policy: &'a Policy, stage: &TrainReward, members: usize) -> Self {
        let model = start(policy, stage, stage.seed);
        let params = model.trunk.trainable();
        let n = params.flat.numel() as i64;
        let kept = if members > 1 { members as i64 } else { 0 };
        Self {
            policy,
            trainer: Trainer::new(params, &stage.optimizer),
            threshold: Threshold::new(&stage.optimizer, params.flat.device()),
            best: params.flat.copy(),
            members: Tensor::zeros([kept, n], (Kind::Float, params.flat.device())),
            model,
        }
    }

    fn state_dict(&self) -> StateDict {
        let mut state_dict = self.trainer.state_dict("model", self.model.trunk.trainable());
        state_dict.extend(self.threshold.state_dict());
        state_dict.push(("best".into(), self.best.shallow_clone()));
        if self.members.numel() > 0 {
            state_dict.push(("members".into(), self.members.shallow_clone()));
        }
        state_dict
    }

    /// Starts a fit: weights, head, moments and threshold as before the first step. `seed` draws
    /// the head.
    fn reset(&self, stage: &TrainReward, seed: u64) {
        let fresh = start(self.policy, stage, seed);
        let params = self.model.trunk.trainable();
        no_grad(|| {
            for (name, tensor) in self.state_dict() {
                let mut tensor = tensor;
                match name.as_str() {
                    "model.weights" => tensor.copy_(&fresh.trunk.trainable().flat),
                    "threshold.raw" => {
                        let _ = tensor.fill_(f64::from(Threshold::start()));
                    }
                    "best" => tensor.copy_(&params.flat),
                    "members" => {}
                    _ => {
                        let _ = tensor.zero_();
                    }
                }
            }
        });
    }
}

/// Fits all of `fits`, going on where an earlier attempt stopped. Returns what is kept of each, and
/// the models of those whose weights are wanted, in order.
///
/// # Errors
/// When a gradient is not finite or an event cannot be sent.
pub fn fit_all(
    cx: &mut Context,
    stage: &TrainReward,
    policy: &Policy,
    fits: &[Fit],
    (train, held_out): (&[Pair], &[Pair]),
) -> Result<(Vec<Fitted>, Vec<RewardModel>)> {
    let members = fits.iter().filter(|f| !f.only_measured).count();
    let mut trainer = EnsembleTrainer::new(policy, stage, members);
    let state_dict = trainer.state_dict();
    let mut state = cx.resume::<State>(&state_dict)?.unwrap_or_default();
    let steps = |fit: &Fit| {
        let an_epoch = fit.rows.len().div_ceil(stage.batch.max(1) as usize) as u64;
        (an_epoch, an_epoch * u64::from(stage.epochs))
    };
    let total: u64 = fits.iter().map(|f| steps(f).1).sum();
    let first = fits.iter().position(|f| !f.only_measured).unwrap_or(0);
    while state.done.len() < fits.len() {
        let place = state.done.len();
        let fit = &fits[place];
        let before: u64 = fits[..place].iter().map(|f| steps(f).1).sum();
        let (an_epoch, end) = steps(fit);
        if state.step == 0 {
            trainer.reset(stage, fit.seed);
        }
        let mut order = Order::new(fit.seed, "shuffle", fit.rows.len());
        for step in state.step..end {
            let batch = order.batch(step, stage.batch.max(1) as usize);
            let rows: Vec<&Pair> = batch.into_iter().map(|i| &train[fit.rows[i]]).collect();
            let (loss, norm) = trainer.step(stage, &rows, step, end)?;
            state.losses.push(loss);
            if row_due(step + 1, end) {
                let recent = &state.losses[state.losses.len().saturating_sub(10)..];
                let lr = stage.learning_rate(step, end);
                let name = format!("train/loss{}", fit.suffix);
                let mut row = vec![(name.as_str(), mean(recent))];
                if place == first {
                    row.extend([("train/lr", lr), ("train/grad_norm", norm)]);
                }
                cx.metric(step + 1, &row)?;
            }
            cx.progress(before + step + 1, total, "steps")?;
            if (step + 1) % an_epoch == 0 {
                state.losses.clear();
                trainer.look(
                    cx,
                    stage,
                    held_out,
                    &mut state,
                    (place == first).then_some(step + 1),
                )?;
            }
            state.step = step + 1;
            // The last boundary of a fit is that after its weights are chosen.
            if step + 1 < end {
                cx.checkpoint(&state, &state_dict)?;
            }
        }
        let member = fits[..place].iter().filter(|f| !f.only_measured).count();
        let fitted =
            trainer.conclude(stage, held_out, &state, end, (!fit.only_measured).then_some(member));
        state = State { done: [state.done, vec![fitted]].concat(), ..State::default() };
        cx.checkpoint(&state, &state_dict)?;
    }
    let models = trainer.models(members);
    Ok((state.done, models))
}

/// Loss of one step, a scalar: the mean over `rows` of the pair loss, and the centring term.
/// `rewards`, `[2n]`, are in the order of [`both_sides`]; `raw` is the threshold before softplus.
fn step_loss(stage: &TrainReward, rewards: &Tensor, rows: &[&Pair], raw: &Tensor) -> Tensor {
    let loss = pair_loss(stage, &differences(rewards), rows, &raw.softplus()).mean(Kind::Float);
    if stage.center_coef <= 0.0 {
        return loss;
    }
    let n = rows.len() as i64;
    let sums = rewards.narrow(0, 0, n) + rewards.narrow(0, n, n);
    loss + sums.square().mean(Kind::Float) * stage.center_coef
}

impl EnsembleTrainer<'_> {
    /// One step down the loss of `rows`. Returns the loss and the norm of its gradient.
    fn step(
        &mut self,
        stage: &TrainReward,
        rows: &[&Pair],
        step: u64,
        end: u64,
    ) -> Result<(f64, f64)> {
        let params = self.model.trunk.trainable();
        let raw = &self.threshold.raw;
        let mut of_threshold: Option<Tensor> = None;
        let parts = rows.chunks(stage.compute.rows(rows.len())).map(|part| {
            let share = part.len() as f64 / rows.len() as f64;
            let packed = both_sides(part.iter().map(|p| p.sides()), params.flat.device());
            let loss = |rewards: &Tensor| step_loss(stage, rewards, part, raw) * share;
            let (one, threshold) = self.model.backward_rewards(&packed, Some(raw), loss);
            of_threshold = match (of_threshold.take(), threshold) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
            one
        });
        let gradient = Gradient::total(parts).expect("invariant: a step has a pair");
        let lr = stage.learning_rate(step, end);
        let norm = self.trainer.step(params, gradient.flat, lr)?;
        if let Some(of_threshold) = of_threshold {
            // One number that stands for all pairs: it may move faster than the weights.
            self.threshold.adamw.step(&raw.detach(), &of_threshold, lr * 30.0);
        }
        Ok((gradient.loss.double_value(&[]), norm))
    }

    /// Ends an epoch: measures the held-out pairs, reports them under `step` if one is given, and
    /// keeps the weights if they are the best.
    fn look(
        &self,
        cx: &mut Context,
        stage: &TrainReward,
        held_out: &[Pair],
        state: &mut State,
        step: Option<u64>,
    ) -> Result<()> {
        let deltas = deltas(&self.model, held_out, stage.looked_at());
        let loss = mean_loss(stage, &deltas, held_out, self.threshold.nu());
        if let Some(step) = step {
            let clear = || held_out.iter().zip(&deltas).filter(|(p, _)| !p.is_tie());
            let right = clear().filter(|(_, d)| **d > 0.0).count() as f64;
            let accuracy = right / clear().count() as f64;
            cx.metric(step, &[("eval/loss", loss), ("eval/accuracy", accuracy)])?;
        }
        if state.best_loss.is_none_or(|best| loss < best) {
            state.best_loss = Some(loss);
            state.best_deltas.clone_from(&deltas);
            no_grad(|| self.best.shallow_clone().copy_(&self.model.trunk.trainable().flat));
        }
        state.last_deltas = deltas;
        Ok(())
    }

    /// Ends a fit: chooses between last and best weights, and keeps those of a member of several.
    fn conclude(
        &self,
        stage: &TrainReward,
        held_out: &[Pair],
        state: &State,
        steps: u64,
        member: Option<usize>,
    ) -> Fitted {
        let flat = &self.model.trunk.trainable().flat;
        no_grad(|| {
            if stage.keep_best && state.best_loss.is_some() {
                flat.shallow_clone().copy_(&self.best);
            }
            if let Some(member) = member
                && self.members.numel() > 0
            {
                self.members.get(member as i64).copy_(flat);
            }
        });
        let known = if stage.keep_best { &state.best_deltas } else { &state.last_deltas };
        let deltas = match known.len() == held_out.len() {
            true => known.clone(),
            // No epoch was measured.
            false => deltas(&self.model, held_out, stage.looked_at()),
        };
        Fitted { deltas, nu: self.threshold.nu(), steps }
    }

    /// The members, their adapters merged in.
    fn models(self, members: usize) -> Vec<RewardModel> {
        let flat = &self.model.trunk.trainable().flat;
        if self.members.numel() == 0 {
            let adapted = self.model.trunk.adapter_size() > 0;
            return vec![if adapted { self.model.duplicate() } else { self.model }];
        }
        let models = (0..members).map(|i| {
            no_grad(|| flat.shallow_clone().copy_(&self.members.get(i as i64)));
            self.model.duplicate()
        });
        models.collect()
    }
}

impl TrainReward {
    fn learning_rate(&self, step: u64, end: u64) -> f64 {
        learning_rate(self.lr, self.schedule, step, end, self.warmup, 0.0)
    }
}

/// Loss of each pair, `[batch]`, of its Δ = r(chosen) − r(rejected), `[batch]`; `nu` is a scalar.
pub fn pair_loss(stage: &TrainReward, delta: &Tensor, rows: &[&Pair], nu: &Tensor) -> Tensor {
    let device = delta.device();
    let column = |f: &dyn Fn(&Pair) -> f64| {
        let values: Vec<f32> = rows.iter().map(|p| f(p) as f32).collect();
        Tensor::from_slice(&values).to_device(device)
    };
    let tie = column(&|p| f64::from(u8::from(p.is_tie())));
    let clear = if stage.margin > 0.0 {
        delta - column(&|p| p.strength) * stage.margin
    } else {
        delta.shallow_clone()
    };
    let (preferred, tied) = match stage.ties {
        Ties::Drop | Ties::Half => (preference_loss(&clear), half_tie_loss(delta)),
        Ties::Model => (rao_kupper_losses(&clear, nu).0, rao_kupper_losses(delta, nu).1),
    };
    preferred * (1.0 - &tie) + tied * tie
}

/// Mean loss of `pairs` with these Δ.
pub fn mean_loss(stage: &TrainReward, deltas: &[f64], pairs: &[Pair], nu: f64) -> f64 {
    let values: Vec<f32> = deltas.iter().map(|d| *d as f32).collect();
    let rows: Vec<&Pair> = pairs.iter().collect();
    let nu = Tensor::from_slice(&[nu as f32]);
    let loss = no_grad(|| pair_loss(stage, &Tensor::from_slice(&values), &rows, &nu));
    loss.mean(Kind::Double).double_value(&[])
}

/// Δ = r(chosen) − r(rejected), `[n]`, of the rewards of [`both_sides`], `[2n]`.
fn differences(rewards: &Tensor) -> Tensor {
    let n = rewards.size()[0] / 2;
    rewards.narrow(0, 0, n) - rewards.narrow(0, n, n)
}

/// Rewards of answers, without gradients, those of `pairs` pairs a pass.
pub fn rewards(model: &RewardModel, answers: &[&Example], pairs: usize) -> Vec<f64> {
    let device = model.trunk.params.flat.device();
    let chunks = answers.chunks(2 * pairs);
    chunks
        .flat_map(|chunk| no_grad(|| to_f64(&model.rewards(&Packed::new(chunk, device)))))
        .collect()
}

/// The chosen and the rejected answer of each pair, in turn.
pub fn sides<'a>(pairs: impl IntoIterator<Item = &'a Pair>) -> Vec<&'a Example> {
    pairs.into_iter().flat_map(|p| [&p.labelled.chosen, &p.labelled.rejected]).collect()
}

/// Rewards of the answers of pairs, in the order of [`sides`]; `at_once` pairs a pass.
pub fn rewards_of_pairs(model: &RewardModel, pairs: &[&Pair], at_once: usize) -> Vec<f64> {
    let device = model.trunk.params.flat.device();
    let of_chunk = |chunk: &[&Pair]| {
        let packed = both_sides(chunk.iter().map(|pair| pair.sides()), device);
        let all = no_grad(|| to_f64(&model.rewards(&packed)));
        let (chosen, rejected) = all.split_at(chunk.len());
        chosen.iter().zip(rejected).flat_map(|(c, r)| [*c, *r]).collect::<Vec<f64>>()
    };
    pairs.chunks(at_once).flat_map(of_chunk).collect()
}

/// Δ = r(chosen) − r(rejected) of each pair; `at_once` pairs a pass.
pub fn deltas(model: &RewardModel, pairs: &[Pair], at_once: usize) -> Vec<f64> {
    let all = rewards_of_pairs(model, &pairs.iter().collect::<Vec<_>>(), at_once);
    all.chunks_exact(2).map(|r| r[0] - r[1]).collect()
}

/// Multiplies the output layer, so every reward is `factor` times what it was.
pub fn scale_head(model: &RewardModel, factor: f64) {
    let mut start = 0;
    for spec in &model.trunk.params.specs {
        if spec.parts.iter().any(|part| part.name.starts_with("score.")) {
            no_grad(|| {
                let _ =
                    model.trunk.params.flat.narrow(0, start, spec.numel()).g_mul_scalar_(factor);
            });
        }
        start += spec.numel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(tie: bool, strength: f64) -> Pair {
        let answer = |token: i64| Example { prompt: vec![1, 3, 4], completion: vec![token, 2] };
        let labelled = Preference { row: 0, chosen: answer(5), rejected: answer(6), tie };
        Pair { labelled, strength }
    }

    /// Loss and gradient of one pair at Δ.
    fn at(stage: &TrainReward, pair: &Pair, delta: f64) -> (f64, f64) {
        let delta = Tensor::from_slice(&[delta as f32]).set_requires_grad(true);
        let nu = Tensor::from_slice(&[0.5_f32]);
        let loss = pair_loss(stage, &delta, &[pair], &nu).sum(Kind::Float);
        loss.backward();
        (loss.double_value(&[]), delta.grad().double_value(&[0]))
    }

    #[test]
    fn invariant_10_losses_have_their_closed_forms() {
        let near = |(loss, slope): (f64, f64), l: f64, s: f64| {
            assert!((loss - l).abs() < 1e-5 && (slope - s).abs() < 1e-5, "{loss} {slope}, {l} {s}");
        };
        let plain = TrainReward { ties: Ties::Half, ..TrainReward::default() };
        // −ln σ(1) and −σ(−1).
        near(at(&plain, &pair(false, 1.0), 1.0), 0.313_262, -0.268_941);
        near(at(&plain, &pair(true, 0.0), 0.0), std::f64::consts::LN_2, 0.0);
        // Ahead by no more than half a unit of margin for each of two of strength: as if level.
        let margin = TrainReward { ties: Ties::Half, margin: 0.5, ..TrainReward::default() };
        near(at(&margin, &pair(false, 2.0), 1.0), std::f64::consts::LN_2, -0.5);
        near(at(&margin, &pair(false, 0.0), 1.0), 0.313_262, -0.268_941);
        // A tie has no margin. Rao and Kupper: P(preferred) = σ(Δ − margin − ν).
        near(at(&margin, &pair(true, 0.0), 0.0), std::f64::consts::LN_2, 0.0);
        let model = TrainReward { margin: 0.5, ..TrainReward::default() };
        near(at(&model, &pair(false, 1.0), 2.0), 0.313_262, -0.268_941);
        for delta in [-100.0, 100.0] {
            let (loss, slope) = at(&model, &pair(false, 1.0), delta);
            assert!(loss.is_finite() && slope.is_finite());
        }
    }
}
