//! AdamW over one flat tensor, gradient clipping, and learning-rate schedules.
//! Knows nothing of models or losses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Where AdamW adds its epsilon. The two differ most in the first steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EpsForm {
    // `m̂ / (√v̂ + ε)`, as PyTorch.
    #[default]
    Torch,
    // `√(1−β₂ᵗ)/(1−β₁ᵗ) · m / (√v + ε)`, as TensorFlow 1.
    Tf1,
}

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    pub betas: [f64; 2],
    pub eps: f64,
    pub eps_form: EpsForm,
    pub weight_decay: f64,
}

/// AdamW (Loshchilov and Hutter 2019) with decoupled decay on the first `decaying` values.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    decaying: i64,
    /// First and second moments, `[n]`, and the number of steps taken, `[1]`, on the host: the
    /// whole state. They are changed in place only.
    pub m: Tensor,
    pub v: Tensor,
    pub steps: Tensor,
}

impl AdamW {
    /// An optimizer for `flat`, `[n]`.
    pub fn new(config: AdamWConfig, flat: &Tensor, decaying: i64) -> Self {
        let steps = Tensor::from_slice(&[0_i64]);
        Self { config, decaying, m: flat.zeros_like(), v: flat.zeros_like(), steps }
    }

    /// Number of steps taken.
    pub fn taken(&self) -> i64 {
        self.steps.int64_value(&[0])
    }

    /// One step of size `lr` against the gradient `grad`, `[n]`, on `flat`, `[n]`.
    pub fn step(&mut self, flat: &Tensor, grad: &Tensor, lr: f64) {
        no_grad(|| {
            let AdamWConfig { betas: [b1, b2], eps, eps_form, weight_decay } = self.config;
            let step = self.taken() + 1;
            let _ = self.steps.fill_(step);
            let c1 = 1.0 - b1.powi(step as i32);
            let c2 = 1.0 - b2.powi(step as i32);
            if weight_decay > 0.0 {
                let _ = flat.narrow(0, 0, self.decaying).g_mul_scalar_(1.0 - lr * weight_decay);
            }
            let _ = self.m.lerp_(grad, 1.0 - b1);
            let _ = self.v.lerp_(&grad.square(), 1.0 - b2);
            let (root, eps, size) = match eps_form {
                EpsForm::Torch => (c2.sqrt(), eps, lr / c1),
                EpsForm::Tf1 => (1.0, eps, lr * c2.sqrt() / c1),
            };
            if size == 0.0 {
                return;
            }
            // `size·m / (√v/root + eps)`, with −size inside the denominator: two passes fewer.
            let mut denominator = self.v.sqrt();
            let _ = denominator.g_mul_scalar_(-1.0 / (root * size));
            let _ = denominator.g_add_scalar_(-eps / size);
            let _ = flat.shallow_clone().addcdiv_(&self.m, &denominator);
        });
    }
}

/// Scales `grad`, `[n]`, to a norm of at most `max` (0: leaves it) and returns the norm before.
pub fn clip_gradient(grad: &mut Tensor, max: f64) -> f64 {
    let norm = grad.norm().to_kind(Kind::Double).double_value(&[]);
    if max > 0.0 && norm > max {
        let _ = grad.g_mul_scalar_(max / (norm + 1e-6));
    }
    norm
}

/// How the learning rate moves over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    Constant,
    Linear,
    #[default]
    Cosine,
}

impl Schedule {
    /// Factor on the learning rate at `step` of `total`, counted from 0: a linear rise over the
    /// first `warmup` share of the steps, then the schedule down to `floor`.
    pub fn factor(self, step: u64, total: u64, warmup: f64, floor: f64) -> f64 {
        let rise = (warmup * total as f64).ceil();
        let step = step as f64;
        if step < rise {
            return (step + 1.0) / rise;
        }
        let share = ((step - rise) / (total as f64 - rise).max(1.0)).min(1.0);
        match self {
            Self::Constant => 1.0,
            Self::Linear => floor + (1.0 - floor) * (1.0 - share),
            Self::Cosine => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_and_fall() {
        let at = |s: Schedule, step| s.factor(step, 100, 0.1, 0.1);
        assert_eq!(at(Schedule::Cosine, 0), 0.1);
        assert_eq!(at(Schedule::Cosine, 9), 1.0);
        assert_eq!(at(Schedule::Cosine, 10), 1.0);
        assert!((at(Schedule::Cosine, 55) - 0.55).abs() < 1e-12);
        assert!((at(Schedule::Linear, 100) - 0.1).abs() < 1e-12);
        assert_eq!(at(Schedule::Constant, 99), 1.0);
    }

    #[test]
    fn the_first_step_is_the_learning_rate() {
        // With m̂ = g and v̂ = g², a step of size lr against the sign of the gradient.
        for (form, eps) in [(EpsForm::Torch, 1e-12), (EpsForm::Tf1, 1e-12)] {
            let flat = Tensor::from_slice(&[1.0_f32, 1.0]);
            let grad = Tensor::from_slice(&[0.5_f32, -3.0]);
            let config =
                AdamWConfig { betas: [0.9, 0.999], eps, eps_form: form, weight_decay: 0.0 };
            AdamW::new(config, &flat, 2).step(&flat, &grad, 0.1);
            assert!((flat.double_value(&[0]) - 0.9).abs() < 1e-6);
            assert!((flat.double_value(&[1]) - 1.1).abs() < 1e-6);
        }
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut grad = Tensor::from_slice(&[3.0_f32, 4.0]);
        assert!((clip_gradient(&mut grad, 1.0) - 5.0).abs() < 1e-6);
        assert!((grad.double_value(&[1]) - 0.8).abs() < 1e-5);
        assert!((clip_gradient(&mut grad, 0.0) - 1.0).abs() < 1e-5);
    }
}
