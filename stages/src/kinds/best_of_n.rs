//! `best_of_n`: draws n responses to each prompt and keeps the one with the highest reward: the
//! baseline that training must beat, and data for fine-tuning. Knows nothing of how the reward
//! came about.

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::data::{Column, Example, TooLong, Vocabulary};
use crate::kind::{Stage, Summary, check_range, output};
use crate::model::Policy;
use crate::on_policy::{self, Candidate, RewardSources, Rewards, Scorer};
use crate::preflight::Preflight;
use crate::prompts::Prompts;
use crate::sampling::{SamplingConfig, generate};
use crate::stats::{best_of_kl, bootstrap, mean};

/// Params of `best_of_n`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BestOfN {
    /// Responses of which one is kept.
    #[schemars(range(min = 1))]
    n: u32,
    /// Kept responses to each prompt, each the best of n of its own.
    #[schemars(range(min = 1))]
    samples: u32,
    /// Divides the logits.
    #[schemars(range(min = 1e-06, max = 100.0))]
    temperature: f64,
    /// Longest response, tokens.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    max_tokens: u32,
    /// What a response is worth.
    rewards: Rewards,
    /// Names the random streams: the draws.
    seed: u64,
}

impl Default for BestOfN {
    fn default() -> Self {
        Self {
            n: 4,
            samples: 1,
            temperature: 1.0,
            max_tokens: 24,
            rewards: Rewards::default(),
            seed: 0,
        }
    }
}

/// One kept response.
struct Kept {
    row: usize,
    text: String,
    finished: bool,
    score: f64,
    /// Mean score of the n.
    mean: f64,
}

impl Stage for BestOfN {
    const NAME: &'static str = "best_of_n";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str =
        "draw n responses to each prompt and keep the one with the best reward";
    const FIGURES: &'static [&'static str] = &["objective/kl_bound", "reward/*"];

    fn inputs() -> Vec<InputDoc> {
        on_policy::inputs("scores responses")
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("responses", "dataset/prompt_completion", "parquet", "the kept responses"),
            output("metrics", "dataset/metrics", "parquet", "what the choice gains"),
        ]
    }

    fn check(&self, look: &mut Preflight) {
        look.room_to_answer("policy", self.max_tokens.into());
        look.usual_length("policy", self.max_tokens.into());
        self.rewards.check(look, false);
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        check_range("temperature", self.temperature, 1e-6, 100.0)?;
        if self.n == 0 || self.samples == 0 {
            bail!("n and samples must be 1 or more");
        }
        self.rewards.check_combine(false)?;
        let folder = cx.path("policy")?.to_owned();
        let vocabulary = cx.vocabulary(&folder)?;
        let mut policy = Policy::open(&folder)?.to(cx.device());
        policy.draw_only_known(&vocabulary);
        let table = cx.table("prompts")?;
        let prompts =
            Prompts::new(cx, &vocabulary, &policy, table, self.max_tokens as usize, TooLong::Auto)?;
        let mut scorer = RewardSources::open(cx, &self.rewards, &vocabulary)?;
        let kept = self.draw(cx, &policy, &vocabulary, &mut scorer, &prompts)?;
        self.write(cx, &prompts, &kept)
    }
}

impl BestOfN {
    fn draw(
        &self,
        cx: &mut Context,
        policy: &Policy,
        vocabulary: &Vocabulary,
        scorer: &mut dyn Scorer,
        prompts: &Prompts,
    ) -> Result<Vec<Kept>> {
        let (n, samples) = (self.n as usize, self.samples as usize);
        let sampling = SamplingConfig {
            temperature: self.temperature,
            top_k: 0,
            top_p: 1.0,
            max_tokens: self.max_tokens as usize,
            seed: self.seed,
            step: 0,
        };
        let each = n * samples;
        let rows: Vec<usize> = (0..prompts.tokens.len()).collect();
        let mut out = Vec::new();
        let group = (1024 / each).max(1);
        for chunk in rows.chunks(group) {
            let places: Vec<usize> =
                chunk.iter().flat_map(|row| std::iter::repeat_n(*row, each)).collect();
            let tokens: Vec<Vec<i64>> =
                places.iter().map(|row| prompts.tokens[*row].clone()).collect();
            let keys: Vec<u64> =
                places.iter().enumerate().map(|(i, row)| (row * each + i % each) as u64).collect();
            let responses = generate(policy, &tokens, &keys, &sampling);
            let finished: Vec<bool> = responses.iter().map(|r| r.finished).collect();
            let examples: Vec<Example> = tokens
                .into_iter()
                .zip(responses)
                .map(|(prompt, r)| Example { prompt, completion: r.tokens })
                .collect();
            let candidates: Vec<Candidate> = (0..places.len())
                .map(|i| Candidate { row: places[i], example: &examples[i], finished: finished[i] })
                .collect();
            let scores = scorer.scores(prompts, &candidates)?;
            for (i, group) in scores.chunks(n).enumerate() {
                // The first of equals.
                let best = (0..group.len()).rev().max_by(|a, b| group[*a].total_cmp(&group[*b]));
                let place = i * n + best.unwrap_or(0);
                out.push(Kept {
                    row: places[place],
                    text: vocabulary.decode(&examples[place].completion)?.trim().to_owned(),
                    finished: finished[place],
                    score: scores[place],
                    mean: mean(group),
                });
            }
            cx.progress(out.len() as u64 / samples as u64, rows.len() as u64, "prompts")?;
        }
        Ok(out)
    }

    fn write(&self, cx: &mut Context, prompts: &Prompts, kept: &[Kept]) -> Result<Summary> {
        let rows: Vec<usize> = kept.iter().map(|k| k.row).collect();
        let mut table = prompts.table.take(&rows);
        let answers =
            Column::answers(kept.iter().map(|k| k.text.as_str()), table.require("prompt")?);
        table.set("completion", answers)?;
        table.set("finished", Column::bools(kept.iter().map(|k| k.finished)))?;
        table.set("score", Column::floats(kept.iter().map(|k| k.score)))?;
        table.set("mean_score", Column::floats(kept.iter().map(|k| k.mean)))?;
        table.set("n", Column::ints(kept.iter().map(|_| i64::from(self.n))))?;
        cx.write_table("responses", &table)?;
        let gains: Vec<f64> = kept.iter().map(|k| k.score - k.mean).collect();
        let gain = bootstrap(&gains, 2000, self.seed);
        let scores: Vec<f64> = kept.iter().map(|k| k.score).collect();
        let values = [
            ("reward/best", mean(&scores)),
            ("reward/gain", gain.value),
            ("reward/gain_low", gain.low),
            ("reward/gain_high", gain.high),
            ("objective/kl_bound", best_of_kl(self.n as usize)),
        ];
        cx.metric(0, &values)?;
        cx.write_metrics()?;
        Ok(values.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect())
    }
}
