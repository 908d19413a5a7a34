//! The loss of judged answers under a policy, its gradient, and what is told of it.
//! Knows nothing of epochs or of where verdicts come from.

use tch::{Kind, Tensor, no_grad};

use super::Kto;
use crate::data::Example;
use crate::model::{Gradient, Packed, Policy, to_f64};
use crate::rl::{kto_kl, kto_losses};
use crate::stats::mean;
use crate::training::Verdict;

/// Answers of one forward pass outside training.
pub(super) const LOOK: usize = 64;

/// A judged answer, with what the reference says of it.
#[derive(Debug, Clone)]
pub struct KtoRow {
    pub example: Example,
    /// Its prompt with the answer of another row of the batch.
    pub mismatched: Example,
    pub good: bool,
    /// No row of the batch has another prompt: the mismatched answer is to the same prompt.
    pub alone: bool,
    /// Log-probabilities under the reference, summed over tokens: of the answer, and of the
    /// mismatched one.
    pub reference: [f64; 2],
}

/// Loss and implicit rewards of some rows.
#[derive(Debug, Clone, Default)]
pub(super) struct RowLosses {
    pub(super) loss: f64,
    /// The point of reference, nats: a mean over batches.
    pub(super) kl: f64,
    /// Of each row, β times its log-ratio, how far that is above the KL, and the verdict.
    rewards: Vec<(f64, f64, bool)>,
}

impl Kto {
    /// Spreads verdicts over batches, as even as can be, in their order, and finds what the
    /// reference says of them.
    pub fn batches(&self, reference: &Policy, mut all: Vec<Verdict>) -> Vec<Vec<KtoRow>> {
        let (rows, size) = (all.len(), self.batch.max(1) as usize);
        let batches = rows.div_ceil(size);
        let context = reference.trunk.config.context as usize;
        let mut out = Vec::with_capacity(batches);
        // From the end: each takes the tail of what is left.
        for i in (0..batches).rev() {
            let batch = all.split_off(i * rows / batches);
            let mismatched = mismatched(&batch, context);
            let own = log_probs(reference, &batch.iter().map(|v| &v.example).collect::<Vec<_>>());
            let other =
                log_probs(reference, &mismatched.iter().map(|(e, _)| e).collect::<Vec<_>>());
            let rows = batch.into_iter().zip(mismatched).zip(own.into_iter().zip(other));
            let row = |((verdict, (mismatched, alone)), (own, other)): ((Verdict, _), _)| KtoRow {
                example: verdict.example,
                mismatched,
                good: verdict.good,
                alone,
                reference: [own, other],
            };
            out.push(rows.map(row).collect());
        }
        out.reverse();
        out
    }

    /// The KL that a batch's mismatched answers tell.
    fn kl(policy: &Policy, rows: &[KtoRow]) -> f64 {
        let own = log_probs(policy, &rows.iter().map(|r| &r.mismatched).collect::<Vec<_>>());
        kto_kl(&own.iter().zip(rows).map(|(own, row)| own - row.reference[1]).collect::<Vec<_>>())
    }

    /// Sum of the losses of `rows`, a scalar; their rewards are noted in `look`.
    fn loss(
        &self,
        log_probs: &Tensor,
        packed: &Packed,
        rows: &[KtoRow],
        kl: f64,
        look: &mut RowLosses,
    ) -> Tensor {
        let sums = packed.row_sums(log_probs);
        let list = |of: &dyn Fn(&KtoRow) -> f32| {
            let values: Vec<f32> = rows.iter().map(of).collect();
            Tensor::from_slice(&values).to_device(sums.device())
        };
        let ratios = &sums - list(&|r| r.reference[0] as f32);
        let good = list(&|r| f32::from(u8::from(r.good)));
        let seen = to_f64(&ratios.detach());
        let reward = |(ratio, row): (&f64, &KtoRow)| (self.beta * ratio, ratio - kl, row.good);
        look.rewards.extend(seen.iter().zip(rows).map(reward));
        let weights = [self.desirable_weight, self.undesirable_weight];
        kto_losses(&ratios, &good, kl, self.beta, weights).sum(Kind::Float)
    }

    /// Gradient of the mean loss of a batch, part by part; loss, KL and implicit rewards beside it.
    pub(super) fn gradient(&self, policy: &Policy, rows: &[KtoRow]) -> (Gradient, RowLosses) {
        let kl = Self::kl(policy, rows);
        let mut look = RowLosses { kl, ..RowLosses::default() };
        let parts = rows.chunks(self.compute.rows(rows.len())).map(|part| {
            let packed = pack(policy, &part.iter().map(|r| &r.example).collect::<Vec<_>>());
            policy.backward(&packed, 1.0, false, |p| {
                self.loss(&p.log_probs, &packed, part, kl, &mut look) / rows.len() as f64
            })
        });
        let total = Gradient::total(parts).expect("invariant: a batch has a row");
        look.loss = total.loss.double_value(&[]);
        (total, look)
    }

    /// Loss, KL and implicit rewards of batches, without gradients.
    pub(super) fn look(&self, policy: &Policy, batches: &[&Vec<KtoRow>]) -> RowLosses {
        let mut look = RowLosses::default();
        let all: usize = batches.iter().map(|batch| batch.len()).sum();
        for batch in batches {
            let kl = Self::kl(policy, batch);
            look.kl += kl / batches.len() as f64;
            for part in batch.chunks(LOOK) {
                no_grad(|| {
                    let packed = pack(policy, &part.iter().map(|r| &r.example).collect::<Vec<_>>());
                    let log_probs = policy.predict(&packed, 1.0, false).log_probs;
                    let sum = self.loss(&log_probs, &packed, part, kl, &mut look);
                    look.loss += sum.double_value(&[]) / all as f64;
                });
            }
        }
        look
    }
}

impl RowLosses {
    /// Share of rows on their side of the KL: above it where the answer is good, below where it is
    /// bad; at it counts half.
    pub(super) fn accuracy(&self) -> f64 {
        let point = |(_, above, good): &(f64, f64, bool)| match *above {
            0.0 => 0.5,
            above => f64::from(u8::from((above > 0.0) == *good)),
        };
        mean(&self.rewards.iter().map(point).collect::<Vec<_>>())
    }

    /// Implicit rewards of good and bad answers and their margin, named as TRL names them; without
    /// those that no row tells.
    pub(super) fn figures(&self, prefix: &str) -> Vec<(String, f64)> {
        let of = |wanted: bool| {
            let some = self.rewards.iter().filter(|(_, _, good)| *good == wanted);
            let some: Vec<f64> = some.map(|(reward, _, _)| *reward).collect();
            (!some.is_empty()).then(|| mean(&some))
        };
        let (chosen, rejected) = (of(true), of(false));
        let mut figures = vec![(format!("{prefix}/accuracies"), self.accuracy())];
        figures.extend(chosen.map(|x| (format!("{prefix}/chosen"), x)));
        figures.extend(rejected.map(|x| (format!("{prefix}/rejected"), x)));
        let margin = chosen.zip(rejected).map(|(c, r)| c - r);
        figures.extend(margin.map(|x| (format!("{prefix}/margins"), x)));
        figures
    }
}

/// The prompt of each row with the answer of the row before it, the last one's for the first, as
/// TRL turns them; rows with the same prompt are passed over. An answer that is too long behind
/// another prompt loses its end. `true`: the batch has no other prompt.
fn mismatched(batch: &[Verdict], context: usize) -> Vec<(Example, bool)> {
    let n = batch.len();
    let one = |i: usize| {
        let prompt = &batch[i].example.prompt;
        let before = (1..n).map(|back| &batch[(i + n - back) % n].example);
        let other = before.into_iter().find(|e| e.prompt != *prompt);
        let mut completion = other.unwrap_or(&batch[i].example).completion.clone();
        completion.truncate(context.saturating_sub(prompt.len()).max(1));
        (Example { prompt: prompt.clone(), completion }, other.is_none())
    };
    (0..n).map(one).collect()
}

fn pack(policy: &Policy, rows: &[&Example]) -> Packed {
    Packed::new(rows, policy.trunk.params.flat.device())
}

/// Log-probabilities of answers under a policy, summed over tokens, without gradients.
fn log_probs(policy: &Policy, rows: &[&Example]) -> Vec<f64> {
    let chunks = rows.chunks(LOOK);
    let of = |chunk: &[&Example]| {
        no_grad(|| {
            let packed = pack(policy, chunk);
            to_f64(&packed.row_sums(&policy.predict(&packed, 1.0, false).log_probs))
        })
    };
    chunks.flat_map(of).collect()
}
