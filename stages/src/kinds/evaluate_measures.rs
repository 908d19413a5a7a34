//! What `evaluate` computes of answers: scores, win rates, losses, and the table of figures.
//! Knows nothing of buckets or of the order of things.

use anyhow::Result;
use tch::{Kind, no_grad};

use crate::data::{Column, Example, Examples, Table, Vocabulary};
use crate::model::{Packed, Policy, Scorer};
use crate::stats::{Estimate, wilson};

/// One answer and what is known of it.
pub struct Judged {
    pub text: String,
    pub finished: bool,
    pub tokens: usize,
    pub holds: Vec<bool>,
    pub gold: f64,
    pub reward: f64,
    /// Nats from the baseline: Σ k1 over the answer; NaN without a baseline.
    pub kl: f64,
}

/// All answers of one policy, `samples` to a prompt, prompt after prompt.
pub struct Answers {
    pub name: String,
    pub baseline: Option<usize>,
    pub judged: Vec<Judged>,
    /// Mean loss of given completions, by row of the prompts; empty when there are none.
    pub completion_loss: Vec<f64>,
}

/// A row of the evaluation table.
pub struct Figure {
    pub policy: String,
    pub bucket: String,
    pub name: String,
    pub estimate: Estimate,
}

/// Fills in rewards and the KL to the baseline, batch by batch.
pub fn score(
    judged: &mut [Judged],
    examples: &[Example],
    policy: &Policy,
    baseline: Option<&Policy>,
    reward: Option<&Scorer>,
    temperature: f64,
) {
    no_grad(|| {
        for (judged, examples) in judged.chunks_mut(64).zip(examples.chunks(64)) {
            let packed =
                Packed::new(&examples.iter().collect::<Vec<_>>(), policy.0.params.flat.device());
            if let Some(reward) = reward {
                let rewards = reward.rewards(&packed);
                for (b, j) in judged.iter_mut().enumerate() {
                    j.reward = rewards.double_value(&[b as i64]);
                }
            }
            if let Some(baseline) = baseline {
                let own = packed.log_probs(policy, temperature);
                let k1 = own - packed.log_probs(baseline, temperature);
                for (j, span) in judged.iter_mut().zip(packed.offsets.windows(2)) {
                    let (start, n) = (span[0] as i64, (span[1] - span[0]) as i64);
                    j.kl = k1.narrow(0, start, n).sum(Kind::Double).double_value(&[]);
                }
            }
        }
    });
}

/// Share of answers that beat the baseline's to the same prompt with the same noise; ties half.
pub fn win_rate(
    mine: &Answers,
    theirs: &Answers,
    rows: &[usize],
    samples: usize,
    value: &dyn Fn(&Judged) -> f64,
) -> Estimate {
    let places = rows.iter().flat_map(|r| r * samples..(r + 1) * samples);
    let wins: f64 = places
        .map(|i| {
            let gap = value(&mine.judged[i]) - value(&theirs.judged[i]);
            if gap.abs() < 1e-9 { 0.5 } else { f64::from(u8::from(gap > 0.0)) }
        })
        .sum();
    wilson(wins, (rows.len() * samples) as u64)
}

/// Mean loss of each row's given completion; empty when the prompts have none.
pub fn completion_losses(
    policy: &Policy,
    vocabulary: &Vocabulary,
    prompts: &Table,
) -> Result<Vec<f64>> {
    if prompts.column("completion").is_none() {
        return Ok(Vec::new());
    }
    let (texts, completions) = (prompts.texts("prompt")?, prompts.texts("completion")?);
    let rows = texts.iter().zip(&completions).map(|(p, c)| (*p, *c, true));
    let examples = Examples::new(vocabulary, policy.0.config.context as usize, rows)?;
    let mut losses = vec![0.0; texts.len()];
    for (row, source) in examples.rows.iter().zip(&examples.sources) {
        losses[*source] = super::sft::mean_loss(policy, &[row.into()]);
    }
    Ok(losses)
}

pub fn table_of(figures: &[Figure]) -> Result<Table> {
    Table::new(vec![
        ("policy", Column::text(figures.iter().map(|f| f.policy.as_str()))),
        ("bucket", Column::text(figures.iter().map(|f| f.bucket.as_str()))),
        ("name", Column::text(figures.iter().map(|f| f.name.as_str()))),
        ("value", Column::floats(figures.iter().map(|f| f.estimate.value))),
        ("low", Column::floats(figures.iter().map(|f| f.estimate.low))),
        ("high", Column::floats(figures.iter().map(|f| f.estimate.high))),
        ("n", Column::ints(figures.iter().map(|f| f.estimate.n as i64))),
    ])
}
