//! What `ppo` tells of itself: figures by update, alarms, and samples of its answers.
//! Knows nothing of how the policy moves.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::ppo::{Models, Ppo, Rollout};
use crate::context::{Context, advise};
use crate::data::{Column, Table, Vocabulary};
use crate::sampling::generate;
use crate::stats::{correlation, mean, quantile, std};

/// Prompts whose answers are kept as the policy moves.
const SHOWN: usize = 5;

/// Means over the steps of one update.
#[derive(Default)]
pub struct Stepped {
    pub approx_kl: Vec<f64>,
    pub clip_fraction: Vec<f64>,
    pub ratio: Vec<f64>,
    pub policy_loss: Vec<f64>,
    pub value_loss: Vec<f64>,
    pub value_clip: Vec<f64>,
    pub grad_norm: Vec<f64>,
}

/// The figures of one update, named as TRL names them where it has them.
pub fn figures(
    rollout: &Rollout,
    stepped: &Stepped,
    beta: f64,
    lr: f64,
) -> Vec<(&'static str, f64)> {
    let (kl, score) = (rollout.kl(), mean(&rollout.scores));
    let mut lengths: Vec<f64> = rollout.rows.iter().map(|r| r.completion.len() as f64).collect();
    let corr = correlation(&rollout.raw_scores, &lengths);
    lengths.sort_by(f64::total_cmp);
    let distinct: std::collections::BTreeSet<_> =
        rollout.rows.iter().map(|r| &r.completion).collect();
    let ended = rollout.finished.iter().filter(|f| **f).count() as f64;
    let n = rollout.rows.len() as f64;
    let residual: Vec<f64> =
        rollout.returns.iter().zip(&rollout.values).map(|(r, v)| r - f64::from(*v)).collect();
    let explained = 1.0 - (std(&residual) / std(&rollout.returns).max(1e-8)).powi(2);
    vec![
        ("objective/kl", kl),
        ("objective/entropy", rollout.entropy),
        ("objective/scores", score),
        ("objective/rlhf_reward", score - beta * kl),
        ("objective/non_score_reward", -beta * kl),
        ("policy/approxkl", mean(&stepped.approx_kl)),
        ("policy/clipfrac", mean(&stepped.clip_fraction)),
        ("policy/ratio", mean(&stepped.ratio)),
        ("policy/loss", mean(&stepped.policy_loss)),
        ("policy/grad_norm", mean(&stepped.grad_norm)),
        ("policy/lr", lr),
        ("val/loss", mean(&stepped.value_loss)),
        ("val/clipfrac", mean(&stepped.value_clip)),
        ("val/explained_variance", explained),
        ("tokens/eos_rate", ended / n),
        ("tokens/len_mean", mean(&lengths)),
        ("tokens/len_p90", quantile(&lengths, 0.9)),
        ("tokens/distinct_ratio", distinct.len() as f64 / n),
        ("reward/mean", mean(&rollout.raw_scores)),
        ("reward/std", std(&rollout.raw_scores)),
        ("reward/corr_with_length", corr),
        ("beta", beta),
    ]
}

/// One answer as the policy moves.
#[derive(Clone, Serialize, Deserialize)]
pub struct Sample {
    update: u64,
    prompt: String,
    response: String,
    score: f64,
}

/// Answers to a few prompts as the policy moves.
pub struct Samples {
    prompts: Vec<usize>,
    every: u64,
    pub rows: Vec<Sample>,
}

impl Samples {
    /// The prompts to show, spread over the list, and when.
    pub fn new(ppo: &Ppo, prompts: usize) -> Self {
        let shown = SHOWN.min(prompts);
        let every = match ppo.sample_every {
            0 => (u64::from(ppo.updates) / 5).max(1),
            n => u64::from(n),
        };
        let prompts = (0..shown).map(|i| i * prompts / shown).collect();
        Self { prompts, every, rows: Vec::new() }
    }

    /// Draws and keeps answers when `update` is one to keep; the noise is the same every time.
    ///
    /// # Errors
    /// When an answer cannot be decoded.
    pub fn keep(
        &mut self,
        ppo: &Ppo,
        update: u64,
        models: &Models,
        vocabulary: &Vocabulary,
        texts: &[&str],
        prompts: &[Vec<i64>],
    ) -> Result<()> {
        if !update.is_multiple_of(self.every) && update != u64::from(ppo.updates) {
            return Ok(());
        }
        let rows: Vec<Vec<i64>> = self.prompts.iter().map(|i| prompts[*i].clone()).collect();
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        // Step u64::MAX is no update's: the same noise at every time.
        let responses = generate(&models.policy, &rows, &keys, &ppo.sampler(u64::MAX));
        let drawn: Vec<String> =
            responses.iter().map(|r| vocabulary.decode(&r.tokens)).collect::<Result<_>>()?;
        let scores = ppo.score(models, rows, responses, 0.0).scores;
        for ((place, text), score) in self.prompts.iter().zip(drawn).zip(scores) {
            let (prompt, response) = (texts[*place].to_owned(), text.trim().to_owned());
            self.rows.push(Sample { update, prompt, response, score });
        }
        Ok(())
    }

    /// All that was kept.
    ///
    /// # Errors
    /// Never, as the columns are of one length.
    pub fn table(&self) -> Result<Table> {
        Table::new(vec![
            ("step", Column::ints(self.rows.iter().map(|r| r.update as i64))),
            ("source", Column::text(self.rows.iter().map(|_| "ppo"))),
            ("bucket", Column::text(self.rows.iter().map(|_| "train"))),
            ("prompt", Column::text(self.rows.iter().map(|r| r.prompt.as_str()))),
            ("response", Column::text(self.rows.iter().map(|r| r.response.as_str()))),
            ("score", Column::floats(self.rows.iter().map(|r| r.score))),
        ])
    }
}

/// Stops on numbers that are none, and warns of signs that training goes wrong.
///
/// # Errors
/// When a figure is not finite.
pub fn alarms(cx: &mut Context, update: u64, figures: &[(&str, f64)]) -> Result<()> {
    let get = |name: &str| figures.iter().find(|(n, _)| *n == name).map_or(0.0, |(_, v)| *v);
    if let Some((name, value)) = figures.iter().find(|(_, v)| !v.is_finite()) {
        let message = format!("`{name}` is {value} after update {}", update + 1);
        return Err(advise(message, "try a smaller lr or a larger kl_coef"));
    }
    if !(update + 1).is_multiple_of(10) {
        return Ok(());
    }
    if get("objective/kl") < -0.1 {
        cx.warn("the KL is negative: the policy draws otherwise than it is scored")?;
    }
    if get("tokens/eos_rate") < 0.5 {
        cx.warn("fewer than half of the responses end: raise max_tokens, or see eos.penalty")?;
    }
    if get("tokens/distinct_ratio") < 0.2 {
        cx.warn("most responses are the same: the policy has collapsed; raise kl_coef")?;
    }
    if get("reward/corr_with_length").abs() > 0.6 {
        cx.warn("the reward follows the length of the response")?;
    }
    Ok(())
}
