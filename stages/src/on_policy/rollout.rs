//! The responses of one update and what is known of them.
//! Knows nothing of how they are drawn or what is learned from them.

use tch::{Device, Tensor};

use crate::data::Example;
use crate::stats::mean;

/// One update's responses and what is known of them. Lists of tokens are ragged: see `offsets`.
#[derive(Debug)]
pub struct Rollout {
    pub rows: Vec<Example>,
    /// Row of each response's prompt.
    pub prompts: Vec<usize>,
    pub finished: Vec<bool>,
    /// First token of each row in the ragged lists, and their length at the end.
    pub offsets: Vec<usize>,
    /// Score of each row before any penalty.
    pub raw_scores: Vec<f64>,
    /// The score that counts.
    pub scores: Vec<f64>,
    /// Log-probability of each token when drawn, and under the reference.
    pub old: Vec<f32>,
    pub reference: Vec<f32>,
    /// `old − reference`, one a token.
    pub kl_per_token: Vec<f64>,
    /// Mean over tokens, nats.
    pub entropy: f64,
    /// Seconds of drawing and of scoring.
    pub seconds: [f64; 2],
    /// The responses were drawn from the reference, not from the policy.
    pub off_policy: bool,
}

impl Rollout {
    /// KL of the policy to the reference, nats a response: the mean of the sums over tokens, or of
    /// `r·ln r − r + 1` with the ratio r of the response where the reference drew it.
    pub fn kl(&self) -> f64 {
        let weighted = |l: f64| {
            let ratio = l.clamp(-20.0, 20.0).exp();
            ratio * l - ratio + 1.0
        };
        let rows = self.row_kl().into_iter();
        mean(&rows.map(|l| if self.off_policy { weighted(l) } else { l }).collect::<Vec<_>>())
    }

    /// KL of each response, the sum over its tokens, nats.
    pub fn row_kl(&self) -> Vec<f64> {
        self.offsets.windows(2).map(|w| self.kl_per_token[w[0]..w[1]].iter().sum()).collect()
    }

    /// One number a response, less β times its KL.
    pub fn less_kl(&self, per_row: &[f64], beta: f64) -> Vec<f64> {
        per_row.iter().zip(self.row_kl()).map(|(x, kl)| x - beta * kl).collect()
    }

    /// Number of tokens of each response.
    pub fn lengths(&self) -> Vec<usize> {
        self.offsets.windows(2).map(|w| w[1] - w[0]).collect()
    }

    /// A list of one number a response as one a token.
    pub fn spread(&self, per_row: &[f64]) -> Vec<f64> {
        let lengths = self.lengths();
        per_row.iter().zip(lengths).flat_map(|(x, n)| std::iter::repeat_n(*x, n)).collect()
    }

    /// The tokens of the rows at `chosen`, `[n]`, on `device`.
    pub fn gather(&self, list: &[f32], chosen: &[usize], device: Device) -> Tensor {
        let parts: Vec<f32> = chosen
            .iter()
            .flat_map(|i| list[self.offsets[*i]..self.offsets[i + 1]].iter().copied())
            .collect();
        Tensor::from_slice(&parts).to_device(device)
    }

    /// The responses at `chosen` alone.
    #[must_use]
    pub fn keep(&self, chosen: &[usize]) -> Self {
        fn rows<T: Clone>(list: &[T], chosen: &[usize]) -> Vec<T> {
            chosen.iter().map(|i| list[*i].clone()).collect()
        }
        fn tokens<T: Copy>(list: &[T], offsets: &[usize], chosen: &[usize]) -> Vec<T> {
            let of = |i: &usize| list[offsets[*i]..offsets[i + 1]].iter().copied();
            chosen.iter().flat_map(of).collect()
        }
        let lengths = self.lengths();
        let mut offsets = vec![0];
        offsets.extend(chosen.iter().scan(0, |end, i| {
            *end += lengths[*i];
            Some(*end)
        }));
        Self {
            rows: rows(&self.rows, chosen),
            prompts: rows(&self.prompts, chosen),
            finished: rows(&self.finished, chosen),
            raw_scores: rows(&self.raw_scores, chosen),
            scores: rows(&self.scores, chosen),
            old: tokens(&self.old, &self.offsets, chosen),
            reference: tokens(&self.reference, &self.offsets, chosen),
            kl_per_token: tokens(&self.kl_per_token, &self.offsets, chosen),
            offsets,
            ..*self
        }
    }

    /// Both, one after the other.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        let end = self.old.len();
        let (n, m) = (self.old.len() as f64, other.old.len() as f64);
        self.entropy = (self.entropy * n + other.entropy * m) / (n + m).max(1.0);
        self.rows.extend(other.rows);
        self.prompts.extend(other.prompts);
        self.finished.extend(other.finished);
        self.raw_scores.extend(other.raw_scores);
        self.scores.extend(other.scores);
        self.old.extend(other.old);
        self.reference.extend(other.reference);
        self.kl_per_token.extend(other.kl_per_token);
        self.offsets.extend(other.offsets[1..].iter().map(|o| o + end));
        self.seconds = [0, 1].map(|i| self.seconds[i] + other.seconds[i]);
        self
    }
}
