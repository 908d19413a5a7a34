//! What training on a policy's own responses tells of itself: figures by update, alarms, and
//! samples of its answers. Knows nothing of how the policy moves.

use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::rollout::Rollout;
use super::settings::OnPolicy;
use crate::context::{Context, error_with_help};
use crate::data::{Column, Table, Vocabulary};
use crate::prompts::Prompts;
use crate::rl::RatioSums;
use crate::stats::{correlation, mean, quantile, std};

/// Prompts whose answers are kept as the policy moves.
const SHOWN: usize = 5;

/// Means over the steps of one update.
#[derive(Debug)]
pub struct Stepped {
    start: Instant,
    pub sums: RatioSums,
    pub policy_loss: Vec<f64>,
    pub grad_norm: Vec<f64>,
    pub value_loss: Vec<f64>,
    /// Tokens whose clipped value counts, and all tokens.
    pub value_clip: [f64; 2],
}

impl Default for Stepped {
    /// No step yet; the clock starts.
    fn default() -> Self {
        Self {
            start: Instant::now(),
            sums: RatioSums::default(),
            policy_loss: Vec::new(),
            grad_norm: Vec::new(),
            value_loss: Vec::new(),
            value_clip: [0.0; 2],
        }
    }
}

impl Stepped {
    /// One step of the policy.
    pub fn add(&mut self, sums: &RatioSums, loss: f64, grad_norm: f64) {
        self.sums.add(sums);
        self.policy_loss.push(loss);
        self.grad_norm.push(grad_norm);
    }

    /// Seconds since the first step began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// The figures of one update, named as TRL names them where it has them.
pub fn figures(
    rollout: &Rollout,
    stepped: &Stepped,
    beta: f64,
    lr: f64,
) -> Vec<(&'static str, f64)> {
    let (kl, score) = (rollout.kl(), mean(&rollout.scores));
    let mut lengths: Vec<f64> = rollout.lengths().iter().map(|n| *n as f64).collect();
    let corr = correlation(&rollout.raw_scores, &lengths);
    lengths.sort_by(f64::total_cmp);
    let distinct: std::collections::BTreeSet<_> =
        rollout.rows.iter().map(|r| &r.completion).collect();
    let prompts: std::collections::BTreeSet<_> = rollout.prompts.iter().collect();
    let ended = rollout.finished.iter().filter(|f| **f).count() as f64;
    let n = rollout.rows.len() as f64;
    let mut all = vec![
        ("objective/kl", kl),
        ("objective/entropy", rollout.entropy),
        ("objective/scores", score),
        ("objective/rlhf_reward", score - beta * kl),
        ("objective/non_score_reward", -beta * kl),
        ("tokens/eos_rate", ended / n),
        ("tokens/len_mean", mean(&lengths)),
        ("tokens/len_p90", quantile(&lengths, 0.9)),
        ("tokens/distinct_ratio", distinct.len() as f64 / n),
        ("tokens/distinct_per_prompt", distinct.len() as f64 / prompts.len() as f64),
        ("reward/mean", mean(&rollout.raw_scores)),
        ("reward/std", std(&rollout.raw_scores)),
        ("reward/corr_with_length", corr),
        ("beta", beta),
    ];
    if stepped.sums.terms > 0.0 {
        all.extend([
            ("policy/approxkl", stepped.sums.approx_kl()),
            ("policy/clipfrac", stepped.sums.clip_fraction()),
            ("policy/ratio", stepped.sums.ratio_mean()),
            ("policy/ratio_var", stepped.sums.ratio_variance()),
            ("policy/loss", mean(&stepped.policy_loss)),
            ("policy/grad_norm", mean(&stepped.grad_norm)),
            ("policy/lr", lr),
        ]);
    }
    if stepped.value_clip[1] > 0.0 {
        all.extend([
            ("val/loss", mean(&stepped.value_loss)),
            ("val/clipfrac", stepped.value_clip[0] / stepped.value_clip[1]),
        ]);
    }
    all
}

/// One answer as the policy moves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    update: u64,
    prompt: String,
    response: String,
    score: f64,
}

/// Answers to a few prompts as the policy moves.
#[derive(Debug)]
pub struct Samples {
    /// Rows of the prompts to show.
    pub prompts: Vec<usize>,
    every: u64,
    pub rows: Vec<Sample>,
}

impl Samples {
    /// The prompts to show, spread over the list, and when.
    pub fn new(settings: &OnPolicy, prompts: &[usize]) -> Self {
        let shown = SHOWN.min(prompts.len());
        let every = match settings.sample_every {
            0 => (u64::from(settings.updates) / 5).max(1),
            n => u64::from(n),
        };
        let prompts = (0..shown).map(|i| prompts[i * prompts.len() / shown]).collect();
        Self { prompts, every, rows: Vec::new() }
    }

    /// Whether answers are to be kept before `update`, of which there are `last`.
    pub fn wants(&self, update: u64, last: u64) -> bool {
        let kept = self.rows.last().is_some_and(|r| r.update == update);
        !kept && (update.is_multiple_of(self.every) || update == last)
    }

    /// Keeps answers.
    ///
    /// # Errors
    /// When an answer cannot be decoded.
    pub fn keep(
        &mut self,
        update: u64,
        rollout: &Rollout,
        vocabulary: &Vocabulary,
        prompts: &Prompts,
    ) -> Result<()> {
        for ((row, example), score) in
            rollout.prompts.iter().zip(&rollout.rows).zip(&rollout.scores)
        {
            let response = vocabulary.decode(&example.completion)?.trim().to_owned();
            let prompt = prompts.text(*row)?.to_owned();
            self.rows.push(Sample { update, prompt, response, score: *score });
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
            ("source", Column::text(self.rows.iter().map(|_| "policy"))),
            ("bucket", Column::text(self.rows.iter().map(|_| "train"))),
            ("prompt", Column::text(self.rows.iter().map(|r| r.prompt.as_str()))),
            ("response", Column::text(self.rows.iter().map(|r| r.response.as_str()))),
            ("score", Column::floats(self.rows.iter().map(|r| r.score))),
        ])
    }
}

/// A figure, what is bad about it, and what to say then.
type Sign = (&'static str, fn(f64) -> bool, &'static str);

/// Signs that training goes wrong.
const SIGNS: [Sign; 5] = [
    (
        "objective/kl",
        |x| x < -0.1,
        "the KL is negative: the policy draws otherwise than it is scored",
    ),
    (
        "tokens/eos_rate",
        |x| x < 0.5,
        "fewer than half of the responses end: raise max_tokens, or see eos.penalty",
    ),
    (
        "tokens/distinct_per_prompt",
        |x| x < 0.2,
        "most prompts get the same response: the policy has collapsed; raise kl_coef",
    ),
    ("reward/corr_with_length", |x| x.abs() > 0.6, "the reward follows the length of the response"),
    (
        "val/explained_variance",
        |x| x < 0.0,
        "the critic explains less than a constant would: raise critic_lr or critic_warmup",
    ),
];

/// Stops on numbers that are none, and warns of signs that training goes wrong.
///
/// # Errors
/// When a figure is not finite.
pub fn alarms(cx: &mut Context, update: u64, figures: &[(&str, f64)]) -> Result<()> {
    let get = |name: &str| figures.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    if let Some((name, value)) = figures.iter().find(|(_, v)| !v.is_finite()) {
        let message = format!("`{name}` is {value} after update {}", update + 1);
        let help = "the last checkpoint is kept; try a smaller lr or a larger kl_coef";
        return Err(error_with_help(message, help));
    }
    if !(update + 1).is_multiple_of(10) {
        return Ok(());
    }
    for (name, is_bad, text) in SIGNS {
        if let Some(value) = get(name).filter(|v| is_bad(*v)) {
            cx.warn(format!("update {}: {name} is {value:.3}; {text}", update + 1))?;
        }
    }
    Ok(())
}
