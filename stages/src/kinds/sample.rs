//! `sample`: a policy answers prompts.
//! Knows nothing of what the answers are for.

use anyhow::Result;
use preflow::protocol::{Event, InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::data::{Column, TooLong, Vocabulary};
use crate::kind::{Stage, Summary, check_range, input, output};
use crate::model::Policy;
use crate::preflight::Preflight;
use crate::prompts::Prompts;
use crate::sampling::{Response, SamplingConfig, generate, generate_streaming};

/// What the next token may complete, or change: part of a character, a joint between two, a choice
/// of a picture.
const OPEN_ENDS: [char; 3] = [char::REPLACEMENT_CHARACTER, '\u{200D}', '\u{FE0F}'];

/// Params of `sample`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// Answers to each prompt.
    #[schemars(range(min = 1, max = 10000))]
    n: u32,
    /// Divides the logits; 0 takes the most likely token.
    #[schemars(range(min = 0.0, max = 100.0))]
    temperature: f64,
    /// Draw from the k most likely tokens only; 0: from all.
    top_k: u32,
    /// Draw from the most likely tokens that together have this probability; 1: from all.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    top_p: f64,
    /// Longest answer, tokens.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    max_tokens: u32,
    /// Prompts that leave no room for max_tokens: auto and cut_left take their beginning away, drop
    /// leaves them out, fail stops and names one.
    #[schemars(extend("x-later" = true))]
    too_long: TooLong,
    /// Names the random streams: the draws.
    seed: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            n: 1,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 24,
            too_long: TooLong::Auto,
            seed: 0,
        }
    }
}

impl Stage for Sample {
    const NAME: &'static str = "sample";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "answer prompts";
    const FIGURES: &'static [&'static str] = &["answers", "tokens/eos_rate"];

    fn inputs() -> Vec<InputDoc> {
        let prompts = &["dataset/prompt", "dataset/prompt_completion"];
        vec![
            input("model", &["model/policy"], "the model that answers"),
            input("prompts", prompts, "what it answers; further columns travel along"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output(
            "answers",
            "dataset/prompt_completion",
            "parquet",
            "an answer a row, with `finished` (it ended by itself) and `tokens`",
        )]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("top_p", check_range("top_p", self.top_p, 1e-6, 1.0));
        look.room_to_answer("model", self.max_tokens.into());
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        check_range("temperature", self.temperature, 0.0, 100.0)?;
        check_range("top_p", self.top_p, 1e-6, 1.0)?;
        let folder = cx.path("model")?.to_owned();
        let mut policy = Policy::open(&folder)?.to(cx.device());
        let vocabulary = cx.vocabulary(&folder)?;
        policy.draw_only_known(&vocabulary);
        let mut max_tokens = self.max_tokens as usize;
        if cx.task().execution.stream {
            // A chat has no pipeline file to mend: half the context is for what was said before.
            max_tokens = max_tokens.min((policy.trunk.config.context as usize / 2).max(1));
        }
        let asked = cx.table("prompts")?;
        let Prompts { table: prompts, tokens: encoded, .. } =
            Prompts::new(cx, &vocabulary, &policy, asked, max_tokens, self.too_long)?;
        let n = self.n.max(1) as usize;
        let places: Vec<usize> = (0..encoded.len()).flat_map(|p| vec![p; n]).collect();
        let rows: Vec<Vec<i64>> = places.iter().map(|p| encoded[*p].clone()).collect();
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        let sampling = SamplingConfig {
            temperature: self.temperature,
            top_k: self.top_k as usize,
            top_p: self.top_p,
            max_tokens,
            seed: self.seed,
            step: 0,
        };
        let responses = match rows.as_slice() {
            [row] if cx.task().execution.stream => {
                vec![spoken(cx, &vocabulary, &policy, row, &sampling)?]
            }
            _ => generate(&policy, &rows, &keys, &sampling),
        };
        let mut answers = Vec::with_capacity(rows.len());
        for response in &responses {
            answers.push(vocabulary.decode(&response.tokens)?.trim().to_owned());
        }
        let mut table = prompts.take(&places);
        let like = table.require("prompt")?;
        let answers = Column::answers(answers.iter().map(String::as_str), like);
        table.set("completion", answers)?;
        table.set("finished", Column::bools(responses.iter().map(|r| r.finished)))?;
        table.set("tokens", Column::ints(responses.iter().map(|r| r.tokens.len() as i64)))?;
        cx.write_table("answers", &table)?;
        let ended = responses.iter().filter(|r| r.finished).count() as f64;
        Ok(Summary::from([
            ("answers".into(), responses.len() as f64),
            ("tokens/eos_rate".into(), ended / responses.len() as f64),
        ]))
    }
}

/// Draws one response and tells its text piece by piece, while it is drawn.
fn spoken(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    policy: &Policy,
    prompt: &[i64],
    sampling: &SamplingConfig,
) -> Result<Response> {
    let mut told = 0;
    generate_streaming(policy, prompt, sampling, &mut |tokens| {
        let text = vocabulary.decode(tokens)?;
        let whole = text.trim_end_matches(OPEN_ENDS);
        let from = told.max(whole.len() - whole.trim_start().len());
        let Some(piece) = whole.get(from..).filter(|piece| !piece.is_empty()) else {
            return Ok(());
        };
        told = whole.len();
        cx.emit(&Event::Text { text: piece.to_owned() })
    })
}
