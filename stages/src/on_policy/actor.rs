//! The policy at work on its prompts: it draws responses, and their log-probabilities and scores
//! are found. Knows nothing of how the policy learns from them.

use std::time::Instant;

use anyhow::Result;
use tch::no_grad;

use super::rewards::Scorer;
use super::rollout::{LogProbs, Responses, Rollout, Scores};
use super::settings::OnPolicy;
use crate::data::{Example, Vocabulary};
use crate::model::{Packed, Policy, to_f32};
use crate::prompts::Prompts;
use crate::sampling::{SamplingConfig, generate};
use crate::stats::mean;

/// What a policy acts in: the prompts that it answers, and what scores its responses.
pub struct Environment<'a> {
    /// The policy's tokenizer.
    pub vocabulary: &'a Vocabulary,
    pub prompts: &'a Prompts,
    pub scorer: &'a mut dyn Scorer,
}

/// The policy in training, with the frozen reference that its KL is measured to.
pub struct Actor<'a> {
    pub settings: &'a OnPolicy,
    pub policy: &'a Policy,
    pub reference: Policy,
    pub environment: Environment<'a>,
}

impl Actor<'_> {
    /// One response to the prompt of each of `rows`. `step` names the noise: two draws of a stage
    /// have two steps.
    pub fn draw(&self, rows: Vec<usize>, step: u64) -> Responses {
        let start = Instant::now();
        let prompts = self.environment.prompts;
        let tokens: Vec<Vec<i64>> = rows.iter().map(|i| prompts.tokens[*i].clone()).collect();
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        let sampling = SamplingConfig {
            temperature: self.settings.temperature,
            top_k: 0,
            top_p: 1.0,
            max_tokens: self.settings.max_tokens as usize,
            seed: self.settings.seed,
            step,
        };
        let drawn = generate(self.policy, &tokens, &keys, &sampling);
        Responses::new(prompts, rows, drawn, start)
    }

    /// Log-probabilities of the response tokens under the policy as it is now.
    pub fn log_probs(&self, responses: &Responses) -> LogProbs {
        log_probs(self.policy, &responses.rows, self.settings, true)
    }

    /// Log-probabilities of the response tokens under the reference; no entropy is taken.
    pub fn reference_log_probs(&self, responses: &Responses) -> LogProbs {
        log_probs(&self.reference, &responses.rows, self.settings, false)
    }

    /// Scores of the responses: as they are given, and as they count after the penalty for a
    /// response that does not end (`eos`) and the bounds of `score_clip`.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn score(&mut self, responses: &Responses) -> Result<Scores> {
        let Environment { prompts, scorer, .. } = &mut self.environment;
        let found = scorer.scores_by_name(prompts, &responses.candidates())?;
        let OnPolicy { eos, score_clip, .. } = self.settings;
        let counted = |raw: &[f64]| -> Vec<f64> {
            let each = raw.iter().zip(&responses.finished).map(|(score, finished)| {
                let score = eos.mode.apply(*score, *finished, eos.penalty);
                if *score_clip > 0.0 { score.clamp(-score_clip, *score_clip) } else { score }
            });
            each.collect()
        };
        let mut parts = found.parts;
        for part in &mut parts {
            part.counted = counted(&part.raw);
        }
        Ok(Scores { counted: counted(&found.total), raw: found.total, parts })
    }

    /// Draws a response to the prompt of each of `rows`; returns it with log-probabilities and
    /// score.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn rollout(&mut self, rows: Vec<usize>, step: u64) -> Result<Rollout> {
        let responses = self.draw(rows, step);
        self.rollout_of(responses)
    }

    /// Finds log-probabilities and scores of responses that are there already.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn rollout_of(&mut self, responses: Responses) -> Result<Rollout> {
        let log_probs = self.log_probs(&responses);
        let reference = self.reference_log_probs(&responses);
        let scores = self.score(&responses)?;
        Ok(Rollout::new(responses, log_probs, reference, scores))
    }
}

/// Log-probabilities of the response tokens of `rows` under `model`, minibatch by minibatch and
/// without gradients.
fn log_probs(
    model: &Policy,
    rows: &[Example],
    settings: &OnPolicy,
    with_entropy: bool,
) -> LogProbs {
    let (mut tokens, mut entropies) = (Vec::new(), Vec::new());
    let device = model.trunk.params.flat.device();
    no_grad(|| {
        for chunk in rows.chunks(settings.compute.rows(settings.minibatch as usize)) {
            let packed = Packed::new(&chunk.iter().collect::<Vec<_>>(), device);
            let predicted = model.predict(&packed, settings.temperature, with_entropy);
            tokens.extend(to_f32(&predicted.log_probs));
            entropies.extend(predicted.entropy.iter().flat_map(to_f32).map(f64::from));
        }
    });
    LogProbs { tokens, entropy: mean(&entropies) }
}
