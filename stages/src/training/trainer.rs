//! AdamW with its params, and one step of a model's weights. The loops are written out in each
//! kind.
//! Knows nothing of any one kind.

use std::marker::PhantomData;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::advice::error_with_help;
use crate::model::Params;
use crate::optim::{AdamW, AdamWConfig, EpsForm, Schedule, clip_gradient};
use crate::resume::StateDict;

/// Defaults of AdamW in one kind, for what a pipeline leaves open. They are types and not values so
/// that a pipeline which sets one field of `optimizer` keeps the kind's defaults of the others.
pub trait Defaults: Clone + std::fmt::Debug {
    const BETAS: [f64; 2] = [0.9, 0.95];
    const EPS: f64 = 1e-8;
    const WEIGHT_DECAY: f64 = 0.0;
}

/// AdamW and its surroundings.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound = "D: Defaults")]
#[schemars(bound = "D: Defaults", rename = "Optimizer")]
pub struct Optimizer<D: Defaults> {
    /// Decay rates of AdamW's two moments.
    #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
    betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(range(min = 0.0, max = 1.0))]
    eps: f64,
    /// Where epsilon is added: torch (to the corrected root) or tf1 (to the uncorrected one).
    eps_form: EpsForm,
    /// Decoupled weight decay of the matrices.
    #[schemars(range(min = 0.0, max = 100.0))]
    weight_decay: f64,
    /// Largest norm of a gradient; 0: not clipped.
    #[schemars(range(min = 0.0, max = 1e9))]
    grad_clip: f64,
    #[serde(skip)]
    defaults: PhantomData<D>,
}

impl<D: Defaults> Default for Optimizer<D> {
    fn default() -> Self {
        Self {
            betas: D::BETAS,
            eps: D::EPS,
            eps_form: EpsForm::Torch,
            weight_decay: D::WEIGHT_DECAY,
            grad_clip: 1.0,
            defaults: PhantomData,
        }
    }
}

impl<D: Defaults> Optimizer<D> {
    /// The settings of AdamW itself.
    pub fn config(&self) -> AdamWConfig {
        AdamWConfig {
            betas: self.betas,
            eps: self.eps,
            eps_form: self.eps_form,
            weight_decay: self.weight_decay,
        }
    }
}

/// AdamW over the weights of one model, with its gradient clipping.
pub struct Trainer {
    adamw: AdamW,
    grad_clip: f64,
}

impl Trainer {
    /// An optimizer for `params`.
    pub fn new<D: Defaults>(params: &Params, settings: &Optimizer<D>) -> Self {
        let adamw = AdamW::new(settings.config(), &params.flat, params.decaying());
        Self { adamw, grad_clip: settings.grad_clip }
    }

    /// Weights, moments and step count under `prefix`: what a checkpoint must hold.
    pub fn state_dict(&self, prefix: &str, params: &Params) -> StateDict {
        let AdamW { m, v, steps, .. } = &self.adamw;
        [("weights", &params.flat), ("m", m), ("v", v), ("steps", steps)]
            .map(|(name, t)| (format!("{prefix}.{name}"), t.shallow_clone()))
            .into()
    }

    /// One step of size `lr` down the gradient, `[n]`. Returns the norm before clipping.
    ///
    /// # Errors
    /// When the gradient is not finite: the weights are left as they were.
    pub fn step(&mut self, params: &Params, mut gradient: Tensor, lr: f64) -> Result<f64> {
        let norm = clip_gradient(&mut gradient, self.grad_clip);
        if !norm.is_finite() {
            let help = "a smaller learning rate, more warmup, or grad_clip: 1 usually help";
            let message = format!("the gradient is {norm} at step {}", self.adamw.taken() + 1);
            return Err(error_with_help(message, help));
        }
        self.adamw.step(&params.flat, &gradient, lr);
        Ok(norm)
    }
}

/// The learning rate at `step` of `total`: `lr` times the schedule, see [`Schedule::factor`].
pub fn learning_rate(
    lr: f64,
    schedule: Schedule,
    step: u64,
    total: u64,
    warmup: f64,
    floor: f64,
) -> f64 {
    lr * schedule.factor(step, total, warmup, floor)
}

/// Whether a row of metrics is due after `done` of `total` steps: ten times or more in the course
/// of a stage, after every step of one that has fewer, and every ten steps of a long one.
pub fn row_due(done: u64, total: u64) -> bool {
    done.is_multiple_of((total / 10).clamp(1, 10)) || done == total
}

#[cfg(test)]
mod tests {
    use super::row_due;

    #[test]
    fn there_are_ten_rows_of_metrics_or_one_a_step() {
        for total in 1..400 {
            let rows: Vec<u64> = (1..=total).filter(|done| row_due(*done, total)).collect();
            assert!(rows.len() as u64 >= total.min(10), "{total}: {rows:?}");
            assert_eq!(rows.last(), Some(&total));
            let gaps = [0].iter().chain(&rows).zip(&rows).map(|(a, b)| b - a);
            assert!(gaps.max() <= Some((total / 10).max(1)), "{total}: {rows:?}");
        }
    }
}
