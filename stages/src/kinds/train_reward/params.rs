//! Params of `train_reward`.
//! Knows nothing of how they are used.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::error_with_help;
use crate::data::TooLong;
use crate::model::Lora;
use crate::optim::Schedule;
use crate::training::{Computation, Defaults, Optimizer};

/// What a tie does to the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    Drop,
    Half,
    Model,
}

/// Params of `train_reward`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainReward {
    /// Times that every pair is seen.
    pub(super) epochs: u32,
    /// Learning rate at its highest.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub(super) lr: f64,
    /// How it falls: constant, linear or cosine.
    pub(super) schedule: Schedule,
    /// Share of the steps over which it rises.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    pub(super) warmup: f64,
    /// Pairs of one step.
    #[schemars(range(min = 1))]
    pub(super) batch: u32,
    /// What a tie does: drop leaves it out, half counts it as half a preference either way, model
    /// learns how close two answers must be to be a tie (Rao and Kupper).
    pub(super) ties: Ties,
    /// Reward by which the chosen answer must be ahead for each unit of the label's strength: the
    /// loss is −ln σ(Δ − margin·strength). 0: any lead will do.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub(super) margin: f64,
    /// Weight of (r(chosen) + r(rejected))² in the loss, which keeps rewards near 0; 0: none, as
    /// `center` does it at the end.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub(super) center_coef: f64,
    /// Move the bias at the end so that the answers of `references`, or without them a sample of
    /// those of the labels, have mean reward 0.
    pub(super) center: bool,
    /// Divide the output layer at the end so that the rewards of the training answers have
    /// standard deviation 1: a KL coefficient then means what the literature means by it.
    /// Accuracy, loss and calibration are those before: they need the scale that was learned.
    pub(super) scale: bool,
    /// Models, alike but for their seeds (seed, seed + 1, …). The first is the reward model, the
    /// others lie in its folder under `members/`. Figures are those of their mean.
    #[schemars(range(min = 1, max = 64))]
    pub(super) members: u32,
    /// Also train on 25, 50 and 75 % of the labels: would more of them help?
    pub(super) learning_curve: bool,
    /// Share of the prompts held out when `eval_labels` is not connected.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    pub(super) eval_fraction: f64,
    /// Accept `eval_labels` about prompts that are trained on: accuracy is then too good.
    pub(super) allow_overlap: bool,
    /// Keep the weights of the epoch with the lowest held-out loss instead of the last.
    pub(super) keep_best: bool,
    /// Pairs that do not fit the context: auto and cut_left take the beginning of the prompt away,
    /// drop leaves them out, fail stops and names one. An answer is never cut.
    #[schemars(extend("x-later" = true))]
    pub(super) too_long: TooLong,
    /// Train low-rank adapters, and the head, instead of all weights.
    pub(super) lora: Lora,
    /// How steps are computed; a pair counts as one row.
    pub(super) compute: Computation,
    /// AdamW and clipping.
    pub(super) optimizer: Optimizer<RewardDefaults>,
    /// Names the random streams: the head and the order of pairs.
    pub(super) seed: u64,
}

impl TrainReward {
    /// Refuses to keep adapters apart: a reward model has a head beside them.
    pub(super) fn check_lora(&self) -> Result<()> {
        if self.lora.keep {
            return Err(error_with_help(
                "`lora.keep`: a reward model is written whole, its head is trained with it",
                "take `keep` out",
            ));
        }
        Ok(())
    }
}

/// Defaults of AdamW in `train_reward`.
#[derive(Debug, Clone)]
pub struct RewardDefaults;

impl Defaults for RewardDefaults {
    const WEIGHT_DECAY: f64 = 0.01;
}

impl Default for TrainReward {
    fn default() -> Self {
        Self {
            epochs: 2,
            lr: 3e-4,
            schedule: Schedule::Cosine,
            warmup: 0.05,
            batch: 32,
            ties: Ties::Model,
            margin: 0.0,
            center_coef: 0.0,
            center: true,
            scale: false,
            members: 1,
            learning_curve: false,
            eval_fraction: 0.1,
            allow_overlap: false,
            keep_best: true,
            too_long: TooLong::Auto,
            lora: Lora::default(),
            compute: Computation::default(),
            optimizer: Optimizer::default(),
            seed: 0,
        }
    }
}
