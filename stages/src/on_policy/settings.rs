//! Params of the kinds that improve a policy on its own responses.
//! Knows nothing of what the loops do with them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rewards::Rewards;
use crate::data::TooLong;
use crate::model::Lora;
use crate::optim::Schedule;
use crate::rl::{Aggregation, EosMode};
use crate::training::{Computation, Defaults, Optimizer};

/// Params that all kinds share which improve a policy on its own responses.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OnPolicy {
    /// Weight β of the KL to the starting policy.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub kl_coef: f64,
    /// KL that β is moved towards, nats a response; 0: β stays.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub kl_target: f64,
    /// Episodes over which β may double when kl_target is set.
    #[schemars(range(min = 1.0, max = 1e12))]
    pub kl_horizon: f64,
    /// Times that fresh responses are drawn.
    #[schemars(range(min = 1))]
    pub updates: u32,
    /// Responses of one update.
    #[schemars(range(min = 1))]
    pub batch: u32,
    /// Responses of one step.
    #[schemars(range(min = 1))]
    pub minibatch: u32,
    /// Times that the responses of one update are used.
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Learning rate of the policy at its highest.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub lr: f64,
    /// How it falls over the updates: constant, linear or cosine.
    pub schedule: Schedule,
    /// Share of the updates over which it rises.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    pub warmup: f64,
    /// The policy's probabilities count while they stay within 1 ± clip of those it drew with.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub clip: f64,
    /// Another bound upwards; 0: the same as clip.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub clip_high: f64,
    /// Largest loss of a negative advantage, in multiples of it; 0: no bound.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub dual_clip: f64,
    /// Ends the epochs of an update when the policy has moved this far from where it drew, nats a
    /// token; 0: never.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub target_kl: f64,
    /// What the losses of tokens become: token_mean, seq_mean or seq_sum_const.
    pub aggregation: Aggregation,
    /// Weight of the entropy, which is raised.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub ent_coef: f64,
    /// Divides the logits, in drawing and in every log-probability.
    #[schemars(range(min = 1e-06, max = 100.0))]
    pub temperature: f64,
    /// Longest response, tokens.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    pub max_tokens: u32,
    /// Prompts that leave no room for max_tokens: auto and cut_left take their beginning away, drop
    /// leaves them out, fail stops and names one.
    #[schemars(extend("x-later" = true))]
    pub too_long: TooLong,
    /// What a response that does not end by itself is worth.
    pub eos: EosPenalty,
    /// Bounds the score on both sides; 0: not bounded.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub score_clip: f64,
    /// What a response is worth.
    pub rewards: Rewards,
    /// Adapters beside the policy's frozen weights, which are then the reference as they are.
    pub lora: Lora,
    /// How steps of the policy are computed.
    pub compute: Computation,
    /// AdamW and clipping.
    pub optimizer: Optimizer<OnPolicyDefaults>,
    /// Share of the prompts that are only looked at: their reward tells what was learned.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    pub eval_fraction: f64,
    /// Updates between two looks at the held-out prompts; 0: five times in all.
    pub eval_every: u32,
    /// Keep the weights with the highest held-out reward (less the KL) instead of the last.
    pub keep_best: bool,
    /// Updates between two samples that are kept; 0: six times in all.
    pub sample_every: u32,
    /// Names the random streams: the order of prompts and rows, and the draws.
    pub seed: u64,
}

/// What happens to the score of a response without an end.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EosPenalty {
    /// replace: the penalty is the score; subtract: it is added to the score; keep: nothing.
    pub(super) mode: EosMode,
    /// The penalty, a negative number.
    #[schemars(range(min = -1e6, max = 0.0))]
    pub(super) penalty: f64,
}

impl Default for EosPenalty {
    fn default() -> Self {
        Self { mode: EosMode::Replace, penalty: -1.0 }
    }
}

/// Defaults of AdamW in the kinds that improve a policy on its own responses.
#[derive(Debug, Clone)]
pub struct OnPolicyDefaults;

impl Defaults for OnPolicyDefaults {
    const BETAS: [f64; 2] = [0.9, 0.999];
    const EPS: f64 = 1e-5;
}

impl Default for OnPolicy {
    fn default() -> Self {
        Self {
            kl_coef: 0.05,
            kl_target: 0.0,
            kl_horizon: 10_000.0,
            updates: 30,
            batch: 64,
            minibatch: 32,
            epochs: 2,
            lr: 3e-4,
            schedule: Schedule::Linear,
            warmup: 0.0,
            clip: 0.2,
            clip_high: 0.0,
            dual_clip: 0.0,
            target_kl: 0.0,
            aggregation: Aggregation::TokenMean,
            ent_coef: 0.0,
            temperature: 1.0,
            max_tokens: 24,
            too_long: TooLong::Auto,
            eos: EosPenalty::default(),
            score_clip: 0.0,
            rewards: Rewards::default(),
            lora: Lora::default(),
            compute: Computation::default(),
            optimizer: Optimizer::default(),
            eval_fraction: 0.0,
            eval_every: 0,
            keep_best: false,
            sample_every: 0,
            seed: 0,
        }
    }
}
