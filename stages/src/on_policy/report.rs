//! What training on a policy's own responses tells of itself: figures by update, alarms, and
//! samples of its answers. Knows nothing of how the policy moves.

use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::rewards::PartScores;
use super::rollout::Rollout;
use super::settings::OnPolicy;
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Column, Table, Vocabulary};
use crate::prompts::Prompts;
use crate::rl::{EosMode, RatioSums};
use crate::stats::{correlation, mean, quantile, std};

/// Number of prompts whose answers are sampled in the course of training.
const SHOWN: usize = 5;

/// Statistics over the steps of one update, gathered step by step.
#[derive(Debug)]
pub struct UpdateStats {
    start: Instant,
    ratios: RatioSums,
    policy_loss: Vec<f64>,
    grad_norm: Vec<f64>,
    value_loss: Vec<f64>,
    /// Tokens whose clipped value counts, and all tokens.
    value_clip: [f64; 2],
}

/// Statistics of one step of a critic.
#[derive(Debug)]
pub struct ValueStep {
    /// Mean over the tokens of the minibatch.
    pub loss: f64,
    /// Tokens whose clipped value counts.
    pub clipped: f64,
    pub tokens: f64,
}

impl Default for UpdateStats {
    /// No step yet; the clock starts.
    fn default() -> Self {
        Self {
            start: Instant::now(),
            ratios: RatioSums::default(),
            policy_loss: Vec::new(),
            grad_norm: Vec::new(),
            value_loss: Vec::new(),
            value_clip: [0.0; 2],
        }
    }
}

impl UpdateStats {
    /// Adds one step of the policy; `grad_norm` is that before clipping.
    pub fn add_policy_step(&mut self, ratios: &RatioSums, loss: f64, grad_norm: f64) {
        self.ratios.add(ratios);
        self.policy_loss.push(loss);
        self.grad_norm.push(grad_norm);
    }

    /// Adds one step of the critic.
    pub fn add_value_step(&mut self, step: ValueStep) {
        self.value_loss.push(step.loss);
        self.value_clip[0] += step.clipped;
        self.value_clip[1] += step.tokens;
    }

    /// Seconds since the first step began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// Metrics of one update, named as in TRL where it has them.
pub fn figures(
    rollout: &Rollout,
    stats: &UpdateStats,
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
    if stats.ratios.terms > 0.0 {
        all.extend([
            ("policy/approxkl", stats.ratios.approx_kl()),
            ("policy/clipfrac", stats.ratios.clip_fraction()),
            ("policy/ratio", stats.ratios.ratio_mean()),
            ("policy/ratio_var", stats.ratios.ratio_variance()),
            ("policy/loss", mean(&stats.policy_loss)),
            ("policy/grad_norm", mean(&stats.grad_norm)),
            ("policy/lr", lr),
        ]);
    }
    if stats.value_clip[1] > 0.0 {
        all.extend([
            ("val/loss", mean(&stats.value_loss)),
            ("val/clipfrac", stats.value_clip[0] / stats.value_clip[1]),
        ]);
    }
    all
}

/// A warning where most responses of the first update are cut off before they end: what the policy
/// then learns is to be short.
pub fn cut_off(settings: &OnPolicy, finished: &[bool]) -> Option<String> {
    let cut = finished.iter().filter(|f| !**f).count();
    let OnPolicy { eos, max_tokens, .. } = settings;
    let (what, also) = match eos.mode {
        EosMode::Replace => (
            "are worth the penalty alone, whatever they say (eos.mode: replace)",
            "; eos: { mode: subtract } keeps scores",
        ),
        EosMode::Subtract => ("pay the penalty of eos", ""),
        EosMode::Keep => ("are scored as far as they go", ""),
    };
    (2 * cut > finished.len()).then(|| {
        format!(
            "{cut} of the first {} responses do not end within {max_tokens} tokens, and {what}: a \
             larger max_tokens teaches what the reward says{also}",
            finished.len()
        )
    })
}

/// Mean and spread of each named reward.
pub fn named_figures(rollout: &Rollout) -> Vec<(String, f64)> {
    let of = |part: &PartScores| {
        let name = &part.name;
        let figures = [("mean", mean(&part.raw)), ("std", std(&part.raw))];
        figures.map(|(figure, value)| (format!("reward/{name}/{figure}"), value))
    };
    rollout.parts.iter().flat_map(of).collect()
}

/// The answer to one prompt before one update.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SampleRow {
    update: u64,
    prompt: String,
    response: String,
    score: f64,
}

/// Answers to the same few prompts in the course of training, for output `samples`.
#[derive(Debug)]
pub struct Samples {
    /// Rows of the prompts to show.
    pub prompts: Vec<usize>,
    every: u64,
    pub rows: Vec<SampleRow>,
}

impl Samples {
    /// Chooses some of `prompts`, evenly spaced, and how often they are answered.
    pub fn new(settings: &OnPolicy, prompts: &[usize]) -> Self {
        let shown = SHOWN.min(prompts.len());
        let every = match settings.sample_every {
            0 => (u64::from(settings.updates) / 5).max(1),
            n => u64::from(n),
        };
        let prompts = (0..shown).map(|i| prompts[i * prompts.len() / shown]).collect();
        Self { prompts, every, rows: Vec::new() }
    }

    /// Whether the prompts are to be answered before `update`; there are `last` updates.
    pub fn wants(&self, update: u64, last: u64) -> bool {
        let kept = self.rows.last().is_some_and(|r| r.update == update);
        !kept && (update.is_multiple_of(self.every) || update == last)
    }

    /// Adds the answers of a rollout over [`Samples::prompts`].
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
            let prompt = prompts.all[*row].content.transcript().into_owned();
            self.rows.push(SampleRow { update, prompt, response, score: *score });
        }
        Ok(())
    }

    /// Output `samples`: all answers kept.
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

/// A metric, whether a value of it is bad, and the warning then.
type Sign = (&'static str, fn(f64) -> bool, &'static str);

/// What shows that training goes wrong.
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

/// Refuses metrics that are not finite and, every ten updates, warns of what shows that training
/// goes wrong.
///
/// # Errors
/// When a figure is not finite.
pub fn alarms(cx: &mut Context, update: u64, figures: &[(&str, f64)]) -> Result<()> {
    if let Some((name, value)) = figures.iter().find(|(_, v)| !v.is_finite()) {
        let message = format!("`{name}` is {value} after update {}", update + 1);
        let help = "the last checkpoint is kept; try a smaller lr or a larger kl_coef";
        return Err(error_with_help(message, help));
    }
    if !(update + 1).is_multiple_of(10) {
        return Ok(());
    }
    for (name, is_bad, text) in SIGNS {
        let found = figures.iter().find(|(n, _)| *n == name);
        if let Some((_, value)) = found.filter(|(_, v)| is_bad(*v)) {
            cx.warn(format!("update {}: {name} is {value:.3}; {text}", update + 1))?;
        }
    }
    Ok(())
}
