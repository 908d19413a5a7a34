//! Formulas of preference learning and policy optimisation, each with its source.
//! Knows nothing of files, events, models or batches.
//!
//! Ragged lists hold the response tokens of all rows one after the other, so there is no padding
//! and no mask: `[n]` is the number of response tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

mod preference;

pub use preference::{
    DpoLoss, PairLoss, half_tie_loss, kto_kl, kto_losses, preference_loss, rao_kupper_losses,
};

/// Estimators of KL(π‖ρ) from samples of π (Schulman 2020). `log_ratio` is `log π − log ρ`, `[n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    // `l`: unbiased; what the reward uses.
    #[default]
    K1,
    // `l²/2`: the one whose gradient, as a loss on samples of π, is that of KL(π‖ρ).
    K2,
    // `exp(−l) − 1 + l`: unbiased and never negative; for reports. As a loss its gradient is that
    // of KL(ρ‖π).
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

    /// One estimate of one log-ratio.
    pub fn of_number(self, log_ratio: f64) -> f64 {
        match self {
            Self::K1 => log_ratio,
            Self::K2 => log_ratio * log_ratio * 0.5,
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
    // Nothing.
    Keep,
}

impl EosMode {
    /// The score of a response after the penalty for not ending.
    pub fn apply(self, score: f64, finished: bool, penalty: f64) -> f64 {
        match self {
            Self::Keep => score,
            _ if finished => score,
            Self::Replace => penalty,
            Self::Subtract => score + penalty,
        }
    }
}

/// Rewards of the tokens of one response: `−β·KL` each, and the score at the last one (EOS, or
/// where the length ran out). `kl_per_token` is one number a token.
pub fn token_rewards(kl_per_token: &[f64], score: f64, beta: f64) -> Vec<f64> {
    let mut rewards: Vec<f64> = kl_per_token.iter().map(|k| -beta * k).collect();
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

/// How the losses of tokens become one number. It decides how much long responses weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    // Mean over all tokens of the minibatch (PPO, DAPO).
    #[default]
    TokenMean,
    // Mean over responses of the mean over their tokens (GRPO).
    SeqMean,
    // Sum over tokens, divided by responses times the longest response allowed (Dr. GRPO).
    SeqSumConst,
}

impl Aggregation {
    /// Weight of each token, `[Σ lengths]`, of a minibatch of responses of these lengths: the loss
    /// is the weighted sum, so it can be summed over parts of the minibatch.
    pub fn weights(self, lengths: &[usize], longest: usize) -> Vec<f32> {
        let (rows, tokens) = (lengths.len() as f64, lengths.iter().sum::<usize>() as f64);
        let weight = |n: &usize| match self {
            Self::TokenMean => 1.0 / tokens,
            Self::SeqMean => 1.0 / (rows * *n as f64),
            Self::SeqSumConst => 1.0 / (rows * longest as f64),
        };
        lengths.iter().flat_map(|n| std::iter::repeat_n(weight(n) as f32, *n)).collect()
    }
}

/// How far the ratio of new to old probabilities may move before it stops counting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// The ratio is held above `1 − low`.
    pub low: f64,
    /// The ratio is held below `1 + high` (DAPO sets it apart from `low`).
    pub high: f64,
    /// Largest loss of a negative advantage, in multiples of it (Ye et al. 2020); 0: no bound.
    pub dual: f64,
}

impl Clip {
    /// The same on both sides, no dual clip.
    pub fn symmetric(clip: f64) -> Self {
        Self { low: clip, high: clip, dual: 0.0 }
    }
}

/// What a ratio of new to old probabilities is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RatioOf {
    // Each token (PPO).
    #[default]
    Token,
    // The whole response, by the mean log-ratio of its tokens (Zheng et al. 2025, GSPO).
    Sequence,
}

/// The clipped policy loss and what to report of it.
#[derive(Debug)]
pub struct PolicyLoss {
    /// Scalar, with gradient.
    pub loss: Tensor,
    pub sums: RatioSums,
}

/// Sums over the terms of policy losses.
#[derive(Debug, Clone, Copy, Default)]
pub struct RatioSums {
    pub terms: f64,
    /// Of the squared log-ratio.
    pub square: f64,
    /// Of `ratio − 1 − log ratio`.
    pub k3: f64,
    /// Of terms whose clipped side counts.
    pub clipped: f64,
    pub ratio: f64,
    pub ratio_square: f64,
    /// The largest ratio.
    pub ratio_max: f64,
}

impl RatioSums {
    /// Of log-ratios of new to old probabilities, `[n]`; nothing is clipped.
    pub fn of(log_ratio: &Tensor) -> Self {
        let ratio = log_ratio.exp();
        Self {
            terms: ratio.numel() as f64,
            square: total(&log_ratio.square()),
            k3: total(&(&ratio - 1.0 - log_ratio)),
            clipped: 0.0,
            ratio: total(&ratio),
            ratio_square: total(&ratio.square()),
            ratio_max: ratio.max().double_value(&[]),
        }
    }

    /// Adds the sums of another part.
    pub fn add(&mut self, other: &Self) {
        self.terms += other.terms;
        self.square += other.square;
        self.k3 += other.k3;
        self.clipped += other.clipped;
        self.ratio += other.ratio;
        self.ratio_square += other.ratio_square;
        self.ratio_max = self.ratio_max.max(other.ratio_max);
    }

    /// `½·mean(log-ratio²)`.
    pub fn approx_kl(&self) -> f64 {
        0.5 * self.square / self.terms
    }

    /// `mean(ratio − 1 − log ratio)`, what `target_kl` is compared with.
    pub fn approx_kl_k3(&self) -> f64 {
        self.k3 / self.terms
    }

    pub fn clip_fraction(&self) -> f64 {
        self.clipped / self.terms
    }

    pub fn ratio_mean(&self) -> f64 {
        self.ratio / self.terms
    }

    pub fn ratio_variance(&self) -> f64 {
        (self.ratio_square / self.terms - self.ratio_mean().powi(2)).max(0.0)
    }
}

/// Clipped surrogate (Schulman et al. 2017, eq. 7), `Σ weight·max(−A·r, −A·clip(r))`. All arguments
/// `[n]`, of tokens or of whole responses; all but `new` without gradient. The exponent is held
/// within ±20.
pub fn policy_loss(
    new: &Tensor,
    old: &Tensor,
    advantages: &Tensor,
    weights: &Tensor,
    clip: Clip,
) -> PolicyLoss {
    let log_ratio = (new - old).clamp(-20.0, 20.0);
    let ratio = log_ratio.exp();
    let free = -advantages * &ratio;
    let clipped = -advantages * ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
    let mut losses = free.maximum(&clipped);
    if clip.dual > 0.0 {
        let held = losses.minimum(&(-advantages * clip.dual));
        losses = held.where_self(&advantages.lt(0.0), &losses);
    }
    let held = total(&clipped.detach().gt_tensor(&free.detach()));
    PolicyLoss {
        loss: (losses * weights).sum(Kind::Float),
        sums: RatioSums { clipped: held, ..RatioSums::of(&log_ratio.detach()) },
    }
}

/// Sum in double precision.
fn total(list: &Tensor) -> f64 {
    list.to_kind(Kind::Double).sum(Kind::Double).double_value(&[])
}

/// Clipped value loss (Schulman's PPO baselines), `½·Σ weight·max(…)`; all arguments `[n]`; `clip`
/// 0: not clipped. Returns the scalar and the number of tokens whose clipped side counts.
pub fn value_loss(
    new: &Tensor,
    old: &Tensor,
    returns: &Tensor,
    weights: &Tensor,
    clip: f64,
) -> (Tensor, f64) {
    let free = (new - returns).square();
    if clip <= 0.0 {
        return ((free * weights).sum(Kind::Float) * 0.5, 0.0);
    }
    let held = old + (new - old).clamp(-clip, clip);
    let clipped = (held - returns).square();
    let count = clipped.detach().gt_tensor(&free.detach()).sum(Kind::Double);
    ((free.maximum(&clipped) * weights).sum(Kind::Float) * 0.5, count.double_value(&[]))
}

/// Advantages of k samples of one prompt against the mean of the others (Kool et al. 2019); 0 of
/// one sample.
pub fn rloo_advantages(rewards: &[f64]) -> Vec<f64> {
    let k = rewards.len() as f64;
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let mean = rewards.iter().sum::<f64>() / k;
    rewards.iter().map(|r| k / (k - 1.0) * (r - mean)).collect()
}

/// Advantages of one group by its mean and unbiased spread (Shao et al. 2024), or by its mean alone
/// (Liu et al. 2025, Dr. GRPO); 0 without spread.
pub fn grpo_advantages(rewards: &[f64], by_spread: bool) -> Vec<f64> {
    let k = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / k;
    if !by_spread {
        return rewards.iter().map(|r| r - mean).collect();
    }
    let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (k - 1.0)).sqrt();
    let of = |r: &f64| if std > 0.0 { (r - mean) / (std + 1e-4) } else { 0.0 };
    rewards.iter().map(of).collect()
}

/// Advantages by several rewards that are made comparable before they are added (Liu et al. 2026,
/// GDPO): each by the mean and spread of its group of `size` responses, then their weighted sum by
/// mean and spread over all responses. `rewards`: weight, and one number a response.
pub fn grpo_advantages_of_many(rewards: &[(f64, &[f64])], size: usize) -> Vec<f64> {
    let responses = rewards.first().map_or(0, |(_, scores)| scores.len());
    let mut sum = vec![0.0; responses];
    for (weight, scores) in rewards {
        let advantages = scores.chunks(size).flat_map(|group| grpo_advantages(group, true));
        for (sum, advantage) in sum.iter_mut().zip(advantages) {
            *sum += weight * advantage;
        }
    }
    grpo_advantages(&sum, true)
}

/// What is taken off the reward of a response of `tokens` tokens when the last `buffer` of the
/// `longest` allowed are to be left free: 0 to 1, linear (Yu et al. 2025, DAPO); `buffer` 0:
/// nothing.
pub fn overlong_penalty(tokens: usize, longest: usize, buffer: usize) -> f64 {
    let free = longest.saturating_sub(buffer);
    if buffer == 0 { 0.0 } else { tokens.saturating_sub(free) as f64 / buffer as f64 }
}
