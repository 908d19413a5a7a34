//! Draws the answers that `evaluate` compares, and has them judged.
//! Knows nothing of buckets or figures.

use anyhow::Result;

use super::measures::{Judged, score};
use super::text::Trained;
use crate::context::Context;
use crate::data::{Answer, Example, RuleBook, Table, Vocabulary};
use crate::model::{Policy, RewardModel};
use crate::prompts::encode_prompts;
use crate::sampling::{SamplingConfig, generate_telling};

/// Draws answers of policies and measures them: by rules, by a reward model, by training data.
pub struct Evaluator {
    /// How answers are drawn; `step` is that of the plan.
    pub sampling: SamplingConfig,
    pub vocabulary: Vocabulary,
    pub reward: Option<RewardModel>,
    pub rules: RuleBook,
    pub trained: Option<Trained>,
    /// Answers drawn so far, and all that are to be drawn.
    pub drawn: [u64; 2],
}

/// One set of answers to draw from each policy.
pub struct SamplingPlan<'a> {
    pub prompts: &'a Table,
    pub samples: usize,
    /// Names the noise of the draws: plans with different streams have independent answers.
    pub stream: u64,
    /// Whether rules are applied to the answers.
    pub ruled: bool,
}

/// What is asked of the KL from a policy to the reference.
#[derive(Clone, Copy)]
pub enum Distance<'a> {
    /// It is measured to this reference.
    From(&'a Policy),
    /// The policy is the reference: 0.
    None,
    /// It is not measured: NaN.
    Unknown,
}

impl Evaluator {
    /// The answers of one policy. The noise depends on the prompt's row and the sample alone.
    ///
    /// # Errors
    /// When a prompt does not fit, or a rule names a column that is not there.
    pub fn answer(
        &mut self,
        cx: &mut Context,
        plan: &SamplingPlan,
        policy: &Policy,
        distance: Distance,
    ) -> Result<Vec<Judged>> {
        let asked = plan.prompts.prompts()?;
        let room = self.sampling.max_tokens;
        let encoded = encode_prompts(cx, &self.vocabulary, policy, &asked, room)?;
        let places: Vec<usize> = (0..asked.len()).flat_map(|p| vec![p; plan.samples]).collect();
        let rows: Vec<Vec<i64>> = places.iter().map(|p| encoded[*p].clone()).collect();
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        let sampling = SamplingConfig { step: plan.stream, ..self.sampling };
        let [before, all] = self.drawn;
        let told = &mut |ended| cx.progress(before + ended, all, "answers");
        let responses = generate_telling(policy, &rows, &keys, &sampling, told)?;
        self.drawn[0] += rows.len() as u64;
        let mut judged = Vec::with_capacity(rows.len());
        let mut examples = Vec::with_capacity(rows.len());
        for ((place, prompt), response) in places.into_iter().zip(rows).zip(responses) {
            let text = self.vocabulary.decode(&response.tokens)?.trim().to_owned();
            let answer = Answer { text: &text, finished: response.finished };
            let (holds, gold) = match plan.ruled {
                true => self.rules.judge(answer, plan.prompts, place)?,
                false => (Vec::new(), f64::NAN),
            };
            let trained = self.trained.as_ref();
            judged.push(Judged {
                finished: response.finished,
                tokens: response.tokens.len(),
                holds,
                gold,
                reward: f64::NAN,
                kl: if matches!(distance, Distance::None) { 0.0 } else { f64::NAN },
                copied: trained.map_or(f64::NAN, |t| f64::from(u8::from(t.holds(&text)))),
                shared: trained.map_or(f64::NAN, |t| t.shared(&text)),
                text,
            });
            examples.push(Example { prompt, completion: response.tokens });
        }
        let temperature = match self.sampling.temperature {
            0.0 => 1.0,
            temperature => temperature,
        };
        let reference = match distance {
            Distance::From(reference) => Some(reference),
            _ => None,
        };
        let reward = self.reward.as_ref();
        score(&mut judged, &examples, policy, reference, reward, temperature);
        Ok(judged)
    }
}
