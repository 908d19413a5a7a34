//! The loss of the policy over a minibatch of its responses, and its gradient.
//! Knows nothing of how advantages come about.

use tch::{Kind, Tensor};

use super::rollout::Rollout;
use super::settings::OnPolicy;
use crate::data::Example;
use crate::model::{Gradient, Packed, Policy, Predicted};
use crate::rl::{Clip, KlEstimator, RatioSums, policy_loss};

/// The terms of a policy loss, each with a ratio of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    /// Tokens, weighed as `aggregation` says.
    Tokens,
    /// Responses, which weigh alike; their ratio is the product of those of their tokens.
    Responses,
    /// Responses, which weigh as their tokens do together; their ratio is the geometric mean of
    /// those of their tokens (GSPO).
    Means,
}

/// What the loss of one step is made of, beside the policy's own log-probabilities.
#[derive(Debug, Clone, Copy)]
pub struct StepLoss<'a> {
    /// Advantage of each token of the rollout, or of each response where that is one term.
    pub advantages: &'a [f64],
    pub terms: Terms,
    /// Weight and estimator of a KL to the reference in the loss.
    pub kl: Option<(f64, KlEstimator)>,
}

/// The gradient of the loss over the responses at `chosen`, part by part: the clipped surrogate,
/// plus the KL of `what`, less the entropy times `ent_coef`.
pub fn policy_gradient(
    settings: &OnPolicy,
    policy: &Policy,
    rollout: &Rollout,
    chosen: &[usize],
    what: StepLoss,
) -> (Gradient, RatioSums) {
    let lengths: Vec<usize> =
        chosen.iter().map(|i| rollout.offsets[i + 1] - rollout.offsets[*i]).collect();
    let weights = settings.aggregation.weights(&lengths, settings.max_tokens as usize);
    let size = settings.compute.rows(chosen.len());
    let device = policy.trunk.params.flat.device();
    let mut sums = RatioSums::default();
    let mut first_token = 0;
    let parts = chosen.chunks(size).zip(lengths.chunks(size)).map(|(part, lengths)| {
        let tokens: usize = lengths.iter().sum();
        let weights = &weights[first_token..first_token + tokens];
        let weights = Tensor::from_slice(weights).to_device(device);
        first_token += tokens;
        let rows: Vec<&Example> = part.iter().map(|i| &rollout.rows[*i]).collect();
        let packed = Packed::new(&rows, device);
        let with_entropy = settings.ent_coef != 0.0;
        policy.backward(&packed, settings.temperature, with_entropy, |predicted| {
            let part = Part { rollout, rows: part, of: chosen.len(), weights: &weights };
            let (loss, own) = part.loss(settings, predicted, what);
            sums.add(&own);
            loss
        })
    });
    let total = Gradient::total(parts).expect("invariant: a minibatch has a response");
    (total, sums)
}

/// Responses of a minibatch that go through the model together.
struct Part<'a> {
    rollout: &'a Rollout,
    /// Places of the responses in the rollout.
    rows: &'a [usize],
    /// Responses of the whole minibatch.
    of: usize,
    /// Weight of each token in the loss, `[n]`.
    weights: &'a Tensor,
}

impl Part<'_> {
    /// What these responses add to the minibatch's loss, a scalar.
    fn loss(
        &self,
        settings: &OnPolicy,
        predicted: &Predicted,
        what: StepLoss,
    ) -> (Tensor, RatioSums) {
        let (rollout, rows, weights) = (self.rollout, self.rows, self.weights);
        let (new, device) = (&predicted.log_probs, predicted.log_probs.device());
        let old = rollout.gather(&rollout.old, rows, device);
        let clip = clip(settings);
        let policy = if what.terms == Terms::Tokens {
            let advantages: Vec<f32> = what.advantages.iter().map(|a| *a as f32).collect();
            let advantages = rollout.gather(&advantages, rows, device);
            policy_loss(new, &old, &advantages, weights, clip)
        } else {
            let advantages: Vec<f32> = rows.iter().map(|i| what.advantages[*i] as f32).collect();
            let advantages = Tensor::from_slice(&advantages).to_device(device);
            let (new, old) = (self.row_sums(new), self.row_sums(&old));
            if what.terms == Terms::Means {
                let lengths: Vec<f32> = self.lengths().iter().map(|n| *n as f32).collect();
                let lengths = Tensor::from_slice(&lengths).to_device(device);
                let weights = self.row_sums(weights);
                policy_loss(&(new / &lengths), &(old / lengths), &advantages, &weights, clip)
            } else {
                let each = vec![1.0 / self.of as f32; rows.len()];
                let each = Tensor::from_slice(&each).to_device(device);
                policy_loss(&new, &old, &advantages, &each, clip)
            }
        };
        let mut loss = policy.loss;
        if let Some((beta, estimator)) = what.kl {
            let reference = rollout.gather(&rollout.reference, rows, device);
            let kl = estimator.of(&(new - reference)) * weights;
            loss += kl.sum(Kind::Float) * beta;
        }
        if let Some(entropy) = &predicted.entropy {
            loss -= (entropy * weights).sum(Kind::Float) * settings.ent_coef;
        }
        (loss, policy.sums)
    }

    /// Number of tokens of each response.
    fn lengths(&self) -> Vec<i64> {
        let offsets = &self.rollout.offsets;
        self.rows.iter().map(|i| (offsets[i + 1] - offsets[*i]) as i64).collect()
    }

    /// Sum of a list over the tokens of each response: `[rows]` of `[n]`.
    fn row_sums(&self, list: &Tensor) -> Tensor {
        let sums = list.split_with_sizes(self.lengths(), 0);
        let sums: Vec<Tensor> = sums.iter().map(|row| row.sum(Kind::Float)).collect();
        Tensor::stack(&sums, 0)
    }
}

/// Bounds of the ratio: `clip_high` is that of `clip` unless it is set.
fn clip(settings: &OnPolicy) -> Clip {
    let high = if settings.clip_high > 0.0 { settings.clip_high } else { settings.clip };
    Clip { low: settings.clip, high, dual: settings.dual_clip }
}
