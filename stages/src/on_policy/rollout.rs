//! The responses of one update and what is known of them.
//! Knows nothing of how they are drawn or what is learned from them.

use std::ops::Range;
use std::time::Instant;

use tch::{Device, Tensor};

use super::rewards::{Candidate, PartScores};
use crate::data::Example;
use crate::prompts::Prompts;
use crate::sampling::Response;
use crate::stats::mean;

/// Responses to prompts, drawn or given, before anything else is known of them.
#[derive(Debug)]
pub struct Responses {
    /// Tokens of each prompt and its response.
    pub rows: Vec<Example>,
    /// Row of each response's prompt.
    pub prompts: Vec<usize>,
    /// Which of them ended by themselves.
    pub finished: Vec<bool>,
    /// When drawing began, and when it was done.
    drawn: [Instant; 2],
}

impl Responses {
    /// `responses` to the prompts in rows `rows`; drawing began at `start` and is done.
    pub fn new(
        prompts: &Prompts,
        rows: Vec<usize>,
        responses: Vec<Response>,
        start: Instant,
    ) -> Self {
        let finished = responses.iter().map(|r| r.finished).collect();
        let examples = rows
            .iter()
            .zip(responses)
            .map(|(i, r)| Example { prompt: prompts.tokens[*i].clone(), completion: r.tokens });
        Self { rows: examples.collect(), prompts: rows, finished, drawn: [start, Instant::now()] }
    }

    /// The responses as a scorer takes them.
    pub fn candidates(&self) -> Vec<Candidate<'_>> {
        let each = self.prompts.iter().zip(&self.rows).zip(&self.finished);
        each.map(|((row, example), finished)| Candidate { row: *row, example, finished: *finished })
            .collect()
    }
}

/// Log-probabilities of all response tokens under one model.
#[derive(Debug)]
pub struct LogProbs {
    /// Ragged: one a token, row after row.
    pub tokens: Vec<f32>,
    /// Mean entropy of the distributions that they are taken from, nats; 0 when not asked for.
    pub entropy: f64,
}

/// Scores of responses, one each.
#[derive(Debug)]
pub struct Scores {
    /// As the scorer gives them.
    pub raw: Vec<f64>,
    /// After the penalty for not ending, and clipped.
    pub counted: Vec<f64>,
    /// Those of each named reward.
    pub parts: Vec<PartScores>,
}

/// Responses with their log-probabilities and scores. Lists of tokens are ragged: see `offsets`.
#[derive(Debug)]
pub struct Rollout {
    /// Tokens of each prompt and its response.
    pub rows: Vec<Example>,
    /// Row of each response's prompt.
    pub prompts: Vec<usize>,
    /// Which of them ended by themselves.
    pub finished: Vec<bool>,
    /// First token of each response in the ragged lists, and their length at the end.
    pub offsets: Vec<usize>,
    /// Score of each response before any penalty.
    pub raw_scores: Vec<f64>,
    /// Score of each response that counts.
    pub scores: Vec<f64>,
    /// Scores of each named reward.
    pub parts: Vec<PartScores>,
    /// Log-probability of each token under the policy that drew it.
    pub old: Vec<f32>,
    /// Log-probability of each token under the reference.
    pub reference: Vec<f32>,
    /// `old − reference`, one a token: an unbiased estimate of the KL to the reference, nats.
    pub kl_per_token: Vec<f64>,
    /// Mean entropy of the policy over the tokens, nats.
    pub entropy: f64,
    /// Seconds of drawing, and of finding out the rest.
    pub seconds: [f64; 2],
    /// The responses were drawn from the reference, not from the policy.
    pub off_policy: bool,
}

impl Rollout {
    /// Responses with what was found out of them.
    pub fn new(
        responses: Responses,
        log_probs: LogProbs,
        reference: LogProbs,
        scores: Scores,
    ) -> Self {
        let Responses { rows, prompts, finished, drawn: [start, end] } = responses;
        let mut offsets = vec![0];
        offsets.extend(rows.iter().scan(0, |end, row| {
            *end += row.completion.len();
            Some(*end)
        }));
        let both = log_probs.tokens.iter().zip(&reference.tokens);
        Self {
            kl_per_token: both.map(|(p, r): (&f32, &f32)| f64::from(p - r)).collect(),
            rows,
            prompts,
            finished,
            offsets,
            raw_scores: scores.raw,
            scores: scores.counted,
            parts: scores.parts,
            old: log_probs.tokens,
            reference: reference.tokens,
            entropy: log_probs.entropy,
            seconds: [(end - start).as_secs_f64(), end.elapsed().as_secs_f64()],
            off_policy: false,
        }
    }

    /// The same responses, as drawn from the reference and scored as they are.
    #[must_use]
    pub fn drawn_by_reference(mut self) -> Self {
        self.old.clone_from(&self.reference);
        self.scores.clone_from(&self.raw_scores);
        self.off_policy = true;
        self
    }

    /// Places of each response's tokens in the ragged lists.
    pub fn spans(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|w| w[0]..w[1])
    }

    /// KL(policy ‖ reference), nats a response: the mean over responses of the sum over tokens.
    ///
    /// Of responses that the reference drew it is the mean of `r·ln r − r + 1`, where r is the
    /// ratio of policy to reference of a whole response: unbiased, and never negative.
    pub fn kl(&self) -> f64 {
        let mut rows = self.row_kl();
        if self.off_policy {
            for kl in &mut rows {
                let ratio = kl.clamp(-20.0, 20.0).exp();
                *kl = ratio * *kl - ratio + 1.0;
            }
        }
        mean(&rows)
    }

    /// KL of each response, the sum over its tokens, nats.
    pub fn row_kl(&self) -> Vec<f64> {
        self.spans().map(|span| self.kl_per_token[span].iter().sum()).collect()
    }

    /// `per_row`, one number a response, less β times the response's KL.
    pub fn less_kl(&self, per_row: &[f64], beta: f64) -> Vec<f64> {
        per_row.iter().zip(self.row_kl()).map(|(x, kl)| x - beta * kl).collect()
    }

    /// Number of tokens of each response.
    pub fn lengths(&self) -> Vec<usize> {
        self.spans().map(|span| span.len()).collect()
    }

    /// Repeats `per_row`, one number a response, for every token of the response.
    pub fn spread(&self, per_row: &[f64]) -> Vec<f64> {
        let lengths = self.lengths();
        per_row.iter().zip(lengths).flat_map(|(x, n)| std::iter::repeat_n(*x, n)).collect()
    }

    /// Values of a ragged list for the responses at `chosen`, `[n]`, on `device`.
    pub fn gather(&self, list: &[f32], chosen: &[usize], device: Device) -> Tensor {
        let parts: Vec<f32> = chosen
            .iter()
            .flat_map(|i| list[self.offsets[*i]..self.offsets[i + 1]].iter().copied())
            .collect();
        Tensor::from_slice(&parts).to_device(device)
    }

    /// A rollout of the responses at `chosen`, in that order.
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
            parts: self.parts.iter().map(|part| part.keep(chosen)).collect(),
            old: tokens(&self.old, &self.offsets, chosen),
            reference: tokens(&self.reference, &self.offsets, chosen),
            kl_per_token: tokens(&self.kl_per_token, &self.offsets, chosen),
            offsets,
            ..*self
        }
    }

    /// A rollout of the responses of both, those of `other` at the end.
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
        for (part, more) in self.parts.iter_mut().zip(other.parts) {
            part.raw.extend(more.raw);
            part.counted.extend(more.counted);
        }
        self.old.extend(other.old);
        self.reference.extend(other.reference);
        self.kl_per_token.extend(other.kl_per_token);
        self.offsets.extend(other.offsets[1..].iter().map(|o| o + end));
        self.seconds = [0, 1].map(|i| self.seconds[i] + other.seconds[i]);
        self
    }
}
