//! The loss of pairs under a policy, its gradient, and what is told of it.
//! Knows nothing of epochs or of where pairs come from.

use tch::{Kind, Tensor, no_grad};

use super::{Dpo, DpoPair, sides};
use crate::model::{Gradient, Packed, Policy};
use crate::rl::{DpoLoss, PairLoss};
use crate::training::{ImplicitRewards, both_sides};

/// Loss and implicit rewards of some pairs.
#[derive(Debug, Clone, Default)]
pub(super) struct PairLosses {
    pub(super) loss: f64,
    /// The part of it that is the chosen answers' likelihood; `None` where there is none.
    likelihood: Option<f64>,
    pub(super) rewards: ImplicitRewards,
}

/// What the losses of parts are divided by: all pairs that are looked at together, and the tokens
/// of the answers that are to become likelier.
#[derive(Debug, Clone, Copy)]
struct Whole {
    pairs: f64,
    tokens: f64,
}

impl Whole {
    fn of<'a>(pairs: impl Iterator<Item = &'a DpoPair>) -> Self {
        pairs.fold(Self { pairs: 0.0, tokens: 0.0 }, |whole, pair| Self {
            pairs: whole.pairs + 1.0,
            tokens: whole.tokens + if pair.tie { 0.0 } else { pair.chosen.completion.len() as f64 },
        })
    }
}

impl Dpo {
    /// Log-probability of each row, `[rows]`, from those of all tokens, `[n]`: their sum, or their
    /// mean for losses of means.
    pub(super) fn row_sums(&self, log_probs: &Tensor, packed: &Packed) -> Tensor {
        match self.loss.by_mean() {
            false => packed.row_sums(log_probs),
            true => packed.row_means(log_probs),
        }
    }

    /// Sum of the preference losses of `pairs`, a scalar, and what they add to the likelihood of
    /// the whole, where that is part of the loss.
    fn losses(
        &self,
        log_probs: &Tensor,
        packed: &Packed,
        pairs: &[&DpoPair],
        whole: Whole,
        look: &mut PairLosses,
    ) -> (Tensor, Option<Tensor>) {
        let (sums, n) = (self.row_sums(log_probs, packed), pairs.len() as i64);
        let device = sums.device();
        let [chosen, rejected] = [0, 1].map(|side| {
            let own: Vec<f32> = pairs.iter().map(|p| p.reference[side] as f32).collect();
            sums.narrow(0, side as i64 * n, n) - Tensor::from_slice(&own).to_device(device)
        });
        let smoothing: Vec<f32> =
            pairs.iter().map(|p| if p.tie { 0.5 } else { self.label_smoothing as f32 }).collect();
        let smoothing = Tensor::from_slice(&smoothing).to_device(device);
        let of = PairLoss { loss: self.loss, beta: self.beta, margin: self.simpo_gamma };
        let preference = of.of([&chosen, &rejected], &smoothing).sum(Kind::Float);
        look.rewards.add([&chosen, &rejected], self.beta);
        let weight = if self.loss == DpoLoss::Orpo { 1.0 } else { self.sft_coef };
        if weight == 0.0 {
            return (preference, None);
        }
        let preferred = packed.by_row(log_probs);
        let preferred = preferred.iter().zip(pairs).filter(|(_, pair)| !pair.tie);
        let sum = preferred.map(|(row, _)| row.sum(Kind::Float)).reduce(|a, b| a + b);
        let likelihood = sum.map(|sum| sum * (-weight / whole.tokens));
        *look.likelihood.get_or_insert(0.0) += likelihood.as_ref().map_or(0.0, number);
        (preference, likelihood)
    }

    /// Gradient of the loss of some pairs, part by part; the loss and the implicit rewards beside
    /// it.
    pub(super) fn gradient(&self, policy: &Policy, pairs: &[&DpoPair]) -> (Gradient, PairLosses) {
        let mut look = PairLosses::default();
        let whole = Whole::of(pairs.iter().copied());
        let parts = pairs.chunks(self.compute.rows(pairs.len())).map(|part| {
            let packed = both_sides(sides(part), policy.trunk.params.flat.device());
            policy.backward(&packed, 1.0, false, |p| {
                let (sum, likelihood) = self.losses(&p.log_probs, &packed, part, whole, &mut look);
                let loss = sum / whole.pairs;
                likelihood.map_or_else(|| loss.shallow_clone(), |likelihood| &loss + likelihood)
            })
        });
        let total = Gradient::total(parts).expect("invariant: a batch has a pair");
        look.loss = number(&total.loss);
        (total, look)
    }

    /// Loss and implicit rewards of pairs, without gradients.
    pub(super) fn look(&self, policy: &Policy, pairs: &[&DpoPair]) -> PairLosses {
        let mut look = PairLosses::default();
        let whole = Whole::of(pairs.iter().copied());
        for part in pairs.chunks(self.looked_at()) {
            no_grad(|| {
                let packed = both_sides(sides(part), policy.trunk.params.flat.device());
                let log_probs = policy.predict(&packed, 1.0, false).log_probs;
                let (sum, likelihood) = self.losses(&log_probs, &packed, part, whole, &mut look);
                look.loss += number(&sum) / whole.pairs + likelihood.as_ref().map_or(0.0, number);
            });
        }
        look
    }
}

impl PairLosses {
    /// Implicit rewards and their margin, and the part of the loss that is likelihood.
    pub(super) fn figures(&self, prefix: &str) -> Vec<(String, f64)> {
        let mut figures = self.rewards.figures(prefix);
        figures.extend(self.likelihood.map(|loss| (format!("{prefix}/sft_loss"), loss)));
        figures
    }
}

/// The number of a scalar.
fn number(scalar: &Tensor) -> f64 {
    scalar.detach().double_value(&[])
}
