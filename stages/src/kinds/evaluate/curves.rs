//! Curves over the distance from the reference: best-of-n by the reward model, and Gao's laws of
//! over-optimisation. Knows nothing of how answers are drawn.

use super::measures::{Answers, Figure, Judged, bare};
use crate::stats::{Estimate, Law, best_of_kl, best_of_weights, bootstrap, mean};

/// Sizes of the curve: 1, 2, 4, … up to `n`, and `n` itself.
pub fn sizes(n: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..).map(|i| 1 << i).take_while(|k| *k < n).collect();
    sizes.push(n.max(1));
    sizes
}

/// What each answer counts in the unbiased estimate of the best of `k` by reward, prompt after
/// prompt.
pub fn weights(answers: &Answers, k: usize) -> Vec<f64> {
    let n = answers.samples;
    let by_rank = best_of_weights(n, k);
    let mut out = vec![0.0; answers.judged.len()];
    for (row, judged) in answers.judged.chunks_exact(n).enumerate() {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| judged[*a].reward.total_cmp(&judged[*b].reward));
        for (weight, place) in by_rank.iter().zip(order) {
            out[row * n + place] = *weight;
        }
    }
    out
}

/// A measure whose growth with optimisation is followed.
type Measure = (&'static str, fn(&Judged) -> f64);

const REWARD: Measure = ("reward", |j| j.reward);
const GOLD: Measure = ("gold", |j| j.gold);

/// The curves of one evaluation.
pub struct Curves<'a> {
    /// Name of the policy that KL is measured to.
    pub reference: &'a str,
    /// The best-of-n draws, with no weights.
    pub draws: Option<&'a Answers>,
    /// All policies, and where the reference stands among them.
    pub answers: &'a [Answers],
    pub place: usize,
    pub has_gold: bool,
    pub has_reward: bool,
    pub bootstrap: u32,
    pub seed: u64,
}

impl Curves<'_> {
    fn measures(&self) -> impl Iterator<Item = Measure> {
        let reward = self.has_reward.then_some(REWARD);
        reward.into_iter().chain(self.has_gold.then_some(GOLD))
    }

    /// The figures of one bucket.
    pub fn figures(&self, bucket: &str, rows: &[usize], out: &mut Vec<Figure>) {
        if rows.is_empty() {
            return;
        }
        let mut push = |policy: &str, name: String, estimate: Estimate| {
            let (policy, bucket) = (policy.to_owned(), bucket.to_owned());
            out.push(Figure { policy, bucket, name, estimate });
        };
        if let Some(draws) = self.draws {
            let sizes = sizes(draws.samples);
            for k in &sizes {
                let most = bare(best_of_kl(*k), rows.len());
                push(&draws.name, format!("best_of_{k}/kl_at_most"), most);
            }
            for (name, value) in self.measures() {
                let mut points = Vec::new();
                for k in &sizes {
                    let estimate = self.best_of(draws, rows, *k, value);
                    points.push((best_of_kl(*k).sqrt(), estimate.value));
                    push(&draws.name, format!("best_of_{k}/{name}"), estimate);
                }
                let start = points[0].1;
                let gains: Vec<(f64, f64)> =
                    points[1..].iter().map(|(d, r)| (*d, r - start)).collect();
                fit(Law::BestOf, &gains, &format!("best_of_fit/{name}"), &draws.name, &mut push);
            }
        }
        for (name, value) in self.measures() {
            let start = mean(&self.answers[self.place].means(rows, &value));
            let after = self.answers[self.place + 1..].iter();
            let points = after.filter(|a| a.weights.is_empty()).map(|a| {
                let kl = mean(&a.means(rows, &|j| j.kl));
                (kl.max(0.0).sqrt(), mean(&a.means(rows, &value)) - start)
            });
            let gains: Vec<(f64, f64)> = points.collect();
            let label = format!("policy_fit/{name}");
            fit(Law::Reinforced, &gains, &label, self.reference, &mut push);
        }
    }

    fn best_of(
        &self,
        draws: &Answers,
        rows: &[usize],
        k: usize,
        value: fn(&Judged) -> f64,
    ) -> Estimate {
        let n = draws.samples;
        let by_rank = best_of_weights(n, k);
        let best = rows.iter().map(|row| {
            let mut answers: Vec<&Judged> = draws.to(*row).iter().collect();
            answers.sort_by(|a, b| a.reward.total_cmp(&b.reward));
            let terms = by_rank.iter().zip(answers).filter(|(w, _)| **w > 0.0);
            terms.map(|(w, j)| w * value(j)).sum()
        });
        bootstrap(&best.collect::<Vec<f64>>(), self.bootstrap, self.seed)
    }
}

/// Coefficients and peak of a law, as figures without intervals.
fn fit(
    law: Law,
    gains: &[(f64, f64)],
    label: &str,
    policy: &str,
    push: &mut dyn FnMut(&str, String, Estimate),
) {
    let Some(fitted) = law.fit(gains) else { return };
    let n = gains.len();
    push(policy, format!("{label}/alpha"), bare(fitted.alpha, n));
    push(policy, format!("{label}/beta"), bare(fitted.beta, n));
    if let Some(peak) = fitted.peak() {
        push(policy, format!("{label}/peak"), bare(peak, n));
    }
}
