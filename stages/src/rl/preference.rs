//! Formulas of learning from preferences and verdicts, each with its source.
//! Knows nothing of files, events, models or batches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Loss of a preference, `−log σ(Δ)`, `[n]` of Δ = r(chosen) − r(rejected) (Bradley and Terry).
pub fn preference_loss(delta: &Tensor) -> Tensor {
    (-delta).softplus()
}

/// Loss of a tie as half a preference either way, `[n]`.
pub fn half_tie_loss(delta: &Tensor) -> Tensor {
    (preference_loss(delta) + preference_loss(&-delta)) * 0.5
}

/// Losses of Rao and Kupper (1967) with threshold `nu ≥ 0`, a scalar: of a preference, and of a
/// tie, both `[n]`.
pub fn rao_kupper_losses(delta: &Tensor, nu: &Tensor) -> (Tensor, Tensor) {
    let preferred = (nu - delta).softplus();
    // 1 − σ(Δ−ν) − σ(−Δ−ν) = σ(ν−Δ)·σ(ν+Δ)·(1 − exp(−2ν)), which keeps its digits.
    let scale = -(nu * -2.0).expm1();
    let tied = (delta - nu).softplus() + (-delta - nu).softplus() - scale.clamp_min(1e-12).log();
    (preferred, tied)
}

/// What DPO makes of the log-probabilities of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    // `−log σ(β·h)` (Rafailov et al. 2023).
    #[default]
    Sigmoid,
    // `max(0, 1 − β·h)` (Zhao et al. 2023, SLiC; Liu et al. 2023, RSO).
    Hinge,
    // What `sigmoid` would be without labels that are the wrong way round (Chowdhury et al. 2024).
    Robust,
    // `(h − 1/(2β))²` (Azar et al. 2023).
    Ipo,
    // `−log p − β·log σ(Δ log odds)` (Hong et al. 2024).
    Orpo,
    // `−log σ(β·h − γ)` (Meng et al. 2024).
    Simpo,
}

/// A loss of pairs, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLoss {
    pub loss: DpoLoss,
    pub beta: f64,
    /// SimPO's γ: how far β·h is to go beyond 0.
    pub margin: f64,
}

impl DpoLoss {
    /// Whether it compares with a reference; the others take log-probabilities as they are.
    pub fn has_reference(self) -> bool {
        !matches!(self, Self::Orpo | Self::Simpo)
    }

    /// Whether an answer counts by the mean over its tokens, not by their sum.
    pub fn by_mean(self) -> bool {
        matches!(self, Self::Ipo | Self::Orpo | Self::Simpo)
    }
}

impl PairLoss {
    /// Loss of each pair, `[n]`, of the log-ratios to the reference of chosen and rejected answers,
    /// `[n]` each, summed over tokens or their means ([`DpoLoss::by_mean`]); log-probabilities
    /// where there is no reference. `smoothing`, `[n]`, is the probability that a preference is
    /// the wrong way round (cDPO; ½ makes it a tie); IPO moves its aim by it. ORPO's likelihood
    /// is not in it.
    pub fn of(self, [chosen, rejected]: [&Tensor; 2], smoothing: &Tensor) -> Tensor {
        let h = chosen - rejected;
        let straight = -smoothing + 1.0;
        let both = |s: &Tensor| preference_loss(s) * &straight + preference_loss(&-s) * smoothing;
        match self.loss {
            DpoLoss::Sigmoid => both(&(h * self.beta)),
            DpoLoss::Hinge => {
                let scaled = h * self.beta;
                (-&scaled + 1.0).relu() * straight + (scaled + 1.0).relu() * smoothing
            }
            DpoLoss::Robust => {
                // Of a tie the two losses count alike, whatever the rate of wrong labels.
                let scaled = h * self.beta;
                let scale = (smoothing * -2.0 + 1.0).clamp_min(1e-6);
                let tied = smoothing.ge(0.5);
                let half = smoothing.ones_like() * 0.5;
                let [own, turned] = [straight / &scale, -smoothing / &scale]
                    .map(|weight| half.where_self(&tied, &weight));
                preference_loss(&scaled) * own + preference_loss(&-&scaled) * turned
            }
            DpoLoss::Ipo => {
                let aim = (smoothing * -2.0 + 1.0) / (2.0 * self.beta);
                (h - aim).square()
            }
            DpoLoss::Orpo => both(&(log_odds(chosen) - log_odds(rejected))) * self.beta,
            DpoLoss::Simpo => both(&(h * self.beta - self.margin)),
        }
    }
}

/// `log(p / (1 − p))` of log-probabilities, `[n]`.
fn log_odds(log_probs: &Tensor) -> Tensor {
    // A probability of 1 in f32 has no odds.
    log_probs - (-log_probs.expm1()).clamp_min(1e-12).log()
}

/// The KL that KTO takes for its point of reference, a number: the mean log-ratio of answers to
/// prompts that are not theirs, never below 0 (Ethayarajh et al. 2024, section 4.1).
pub fn kto_kl(log_ratios: &[f64]) -> f64 {
    let mean = log_ratios.iter().sum::<f64>() / log_ratios.len().max(1) as f64;
    mean.max(0.0)
}

/// KTO's losses (Ethayarajh et al. 2024, eq. 8), `[n]`: `w·(1 − σ(±β·(log-ratio − kl)))`, + and the
/// first weight for desirable answers. `desirable`, `[n]`, is 1 for those and 0 for the others.
pub fn kto_losses(
    log_ratios: &Tensor,
    desirable: &Tensor,
    kl: f64,
    beta: f64,
    [desirable_weight, undesirable_weight]: [f64; 2],
) -> Tensor {
    let sign = desirable * 2.0 - 1.0;
    let weights = desirable * (desirable_weight - undesirable_weight) + undesirable_weight;
    weights * (-((log_ratios - kl) * beta * sign).sigmoid() + 1.0)
}
