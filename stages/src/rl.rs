//! Formulas of preference learning and policy optimisation, each with its source.
//! Knows nothing of files, events, models or batches.
//!
//! Ragged lists hold the response tokens of all rows one after the other, so there is no filling
//! and no mask: `[n]` is the number of response tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Estimators of KL(π‖ρ) from samples of π (Schulman 2020). `log_ratio` is `log π − log ρ`, `[n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlEstimator {
    /// `l`: unbiased; what the reward uses.
    K1,
    /// `l²/2`: the one whose gradient, as a loss on samples of π, is that of KL(π‖ρ).
    K2,
    /// `exp(−l) − 1 + l`: unbiased and never negative; for reports.
    K3,
}

impl KlEstimator {
    /// One estimate a token, `[n]`.
    pub fn of(self, log_ratio: &Tensor) -> Tensor {
        match self {
            Self::K1 => log_ratio.shallow_clone(),
            Self::K2 => log_ratio.square() * 0.5,
            Self::K3 => (-log_ratio).exp() - 1.0 + log_ratio,
        }
    }
}

/// β that follows the KL towards a target (Ziegler et al. 2019, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveKl {
    pub beta: f64,
    /// Nats a response.
    pub target: f64,
    /// Episodes over which β may double.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Moves β after `episodes` episodes whose mean KL was `kl` nats a response.
    pub fn update(&mut self, kl: f64, episodes: f64) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.beta *= 1.0 + error * episodes / self.horizon;
    }
}

/// What becomes of the score of a response that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EosMode {
    // The score is the penalty.
    #[default]
    Replace,
    // The penalty is added to the score.
    Subtract,
}

impl EosMode {
    /// The score of a response after the penalty for not ending.
    pub fn apply(self, score: f64, finished: bool, penalty: f64) -> f64 {
        match self {
            _ if finished => score,
            Self::Replace => penalty,
            Self::Subtract => score + penalty,
        }
    }
}

/// Rewards of the tokens of one response: `−β·k1` each, and the score at the last one (EOS, or
/// where the length ran out). `k1` is one number a token.
pub fn token_rewards(k1: &[f64], score: f64, beta: f64) -> Vec<f64> {
    let mut rewards: Vec<f64> = k1.iter().map(|k| -beta * k).collect();
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    rewards
}

/// Generalised advantage estimation (Schulman et al. 2016) of one response that is terminal after
/// its last token. Returns advantages and returns, one a token.
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
    }
    let returns = advantages.iter().zip(values).map(|(a, v)| a + v).collect();
    (advantages, returns)
}

/// Scales to variance 1 (biased) and, unless `keep_mean`, mean 0; fewer than two stay as they are.
pub fn whiten(xs: &mut [f64], keep_mean: bool) {
    let n = xs.len() as f64;
    if xs.len() < 2 {
        return;
    }
    let mean = xs.iter().sum::<f64>() / n;
    let variance = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + 1e-8).sqrt();
    for x in xs {
        *x = (*x - mean) * scale + if keep_mean { mean } else { 0.0 };
    }
}

/// The clipped policy loss and what to report of it.
#[derive(Debug)]
pub struct PolicyLoss {
    /// Scalar, with gradient.
    pub loss: Tensor,
    /// `½·mean(log-ratio²)`.
    pub approx_kl: f64,
    /// Share of tokens whose clipped side counts.
    pub clip_fraction: f64,
    pub ratio_mean: f64,
    pub ratio_max: f64,
}

/// Clipped surrogate (Schulman et al. 2017, eq. 7), mean over tokens. All arguments `[n]`;
/// `advantages` and `old` without gradient. The exponent is held within ±20.
pub fn policy_loss(new: &Tensor, old: &Tensor, advantages: &Tensor, clip: f64) -> PolicyLoss {
    let log_ratio = (new - old).clamp(-20.0, 20.0);
    let ratio = log_ratio.exp();
    let free = -advantages * &ratio;
    let clipped = -advantages * ratio.clamp(1.0 - clip, 1.0 + clip);
    let number = |t: Tensor| t.to_kind(Kind::Double).double_value(&[]);
    let log_ratio = log_ratio.detach();
    PolicyLoss {
        loss: free.maximum(&clipped).mean(Kind::Float),
        approx_kl: number(log_ratio.square().mean(Kind::Float)) * 0.5,
        clip_fraction: number(clipped.detach().gt_tensor(&free.detach()).mean(Kind::Float)),
        ratio_mean: number(ratio.detach().mean(Kind::Float)),
        ratio_max: number(ratio.detach().max()),
    }
}

/// Clipped value loss (Schulman's PPO baselines), `½·mean(max(…))`; all arguments `[n]`. Returns
/// the scalar and the share of tokens whose clipped side counts.
pub fn value_loss(new: &Tensor, old: &Tensor, returns: &Tensor, clip: f64) -> (Tensor, f64) {
    let held = old + (new - old).clamp(-clip, clip);
    let free = (new - returns).square();
    let clipped = (held - returns).square();
    let fraction = clipped.detach().gt_tensor(&free.detach()).mean(Kind::Float);
    (free.maximum(&clipped).mean(Kind::Float) * 0.5, fraction.double_value(&[]))
}

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

/// Advantages of k samples of one prompt against the mean of the others (Kool et al. 2019).
pub fn rloo_advantages(rewards: &[f64]) -> Vec<f64> {
    let k = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / k;
    rewards.iter().map(|r| k / (k - 1.0) * (r - mean)).collect()
}

/// Advantages of one group by its mean and unbiased spread (Shao et al. 2024); 0 without spread.
pub fn grpo_advantages(rewards: &[f64]) -> Vec<f64> {
    let k = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / k;
    let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (k - 1.0)).sqrt();
    let of = |r: &f64| if std == 0.0 { 0.0 } else { (r - mean) / (std + 1e-4) };
    rewards.iter().map(of).collect()
}

/// DPO (Rafailov et al. 2023), `−log σ(β·h)`, `[n]` of h = the policy's log-ratio of the chosen
/// minus that of the rejected response, both summed over tokens.
pub fn dpo_loss(h: &Tensor, beta: f64) -> Tensor {
    preference_loss(&(h * beta))
}
