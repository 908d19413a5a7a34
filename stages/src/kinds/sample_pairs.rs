//! `sample_pairs`: two different answers to a prompt, ready to be compared.
//! Knows nothing of who compares them.

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use preflow::votes::pair_id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::data::{Column, Table, TooLong, Vocabulary};
use crate::kind::{Stage, Summary, check_range, input, optional, output};
use crate::model::Policy;
use crate::preflight::Preflight;
use crate::prompts::{Prompts, same_tokenizer};
use crate::rng::Stream;
use crate::sampling::{SamplingConfig, generate_telling};

/// Params of `sample_pairs`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplePairs {
    /// Number of pairs; the prompts are used again and again, in random order.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    pairs: u64,
    /// Divides the logits; 1 draws from the model as it is.
    #[schemars(range(min = 1e-06, max = 100.0))]
    temperature: f64,
    /// Draw from the k most likely tokens only; 0: from all.
    top_k: u32,
    /// Draw from the most likely tokens that together have this probability; 1: from all.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    top_p: f64,
    /// Longest answer, tokens.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    max_tokens: u32,
    /// Fresh draws of the second answer while it equals the first; 0 keeps such pairs.
    resample: u32,
    /// Prompts that leave no room for max_tokens: auto and cut_left take their beginning away, drop
    /// leaves them out, fail stops and names one.
    #[schemars(extend("x-later" = true))]
    too_long: TooLong,
    /// Names the random streams: the order of prompts and the draws.
    seed: u64,
}

impl Default for SamplePairs {
    fn default() -> Self {
        Self {
            pairs: 1000,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 24,
            resample: 4,
            too_long: TooLong::Auto,
            seed: 0,
        }
    }
}

/// A drawn answer.
#[derive(Clone)]
struct Drawn {
    text: String,
    finished: bool,
    /// Number of tokens, for the speed of drawing.
    tokens: usize,
}

impl Stage for SamplePairs {
    const NAME: &'static str = "sample_pairs";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "draw two different answers to each prompt, to be compared";
    const FIGURES: &'static [&'static str] = &["pairs*", "tokens/eos_rate"];

    fn inputs() -> Vec<InputDoc> {
        let prompts = &["dataset/prompt", "dataset/prompt_completion"];
        vec![
            input("policy", &["model/policy"], "the model that answers"),
            input("prompts", prompts, "what it answers; further columns travel along"),
            optional("against", &["model/policy"], "gives the second answer instead"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("pairs", "dataset/pairs", "parquet", "two answers a row")]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("top_p", check_range("top_p", self.top_p, 1e-6, 1.0));
        look.room_to_answer("policy", self.max_tokens.into());
        look.usual_length("policy", self.max_tokens.into());
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        check_range("temperature", self.temperature, 1e-6, 100.0)?;
        check_range("top_p", self.top_p, 1e-6, 1.0)?;
        let folder = cx.path("policy")?.to_owned();
        let mut policy = Policy::open(&folder)?.to(cx.device());
        let vocabulary = cx.vocabulary(&folder)?;
        policy.draw_only_known(&vocabulary);
        let against = if cx.inputs("against").is_empty() {
            None
        } else {
            let folder = cx.path("against")?.to_owned();
            same_tokenizer(("policy", &vocabulary), ("against", &cx.vocabulary(&folder)?))?;
            let mut against = Policy::open(&folder)?.to(cx.device());
            against.draw_only_known(&vocabulary);
            Some(against)
        };
        let asked = cx.table("prompts")?;
        let room = self.max_tokens as usize;
        let Prompts { table: prompts, tokens, .. } =
            Prompts::new(cx, &vocabulary, &policy, asked, room, self.too_long)?;
        let rows = self.order(tokens.len());
        let encoded: Vec<Vec<i64>> = rows.iter().map(|row| tokens[*row].clone()).collect();
        let start = std::time::Instant::now();
        let total = 2 * rows.len() as u64;
        let told = &mut |ended| cx.progress(ended, total, "answers");
        let first = self.draw(&policy, &vocabulary, &encoded, 0, None, told)?;
        let tokens: usize = first.iter().map(|answer| answer.tokens).sum();
        let rate = tokens as f64 / start.elapsed().as_secs_f64();
        cx.metric(1, &[("time/tokens_per_s", rate)])?;
        let other = against.as_ref().unwrap_or(&policy);
        let told = &mut |ended| cx.progress(rows.len() as u64 + ended, total, "answers");
        let second = self.second(other, &vocabulary, &encoded, &first, told)?;
        self.write(cx, &prompts, &rows, &first, &second)
    }
}

impl SamplePairs {
    /// Row of each pair's prompt: all prompts in random order, again and again.
    fn order(&self, prompts: usize) -> Vec<usize> {
        let rounds = (self.pairs as usize).div_ceil(prompts) as u64;
        (0..rounds)
            .flat_map(|round| Stream::new(self.seed, "order", round, 0).permutation(prompts))
            .take(self.pairs as usize)
            .collect()
    }

    /// Draws one answer to each prompt, or to those at `only`. `step` names the noise.
    fn draw(
        &self,
        policy: &Policy,
        vocabulary: &Vocabulary,
        prompts: &[Vec<i64>],
        step: u64,
        only: Option<&[usize]>,
        told: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Drawn>> {
        let sampling = SamplingConfig {
            temperature: self.temperature,
            top_k: self.top_k as usize,
            top_p: self.top_p,
            max_tokens: self.max_tokens as usize,
            seed: self.seed,
            step,
        };
        let all: Vec<usize> = (0..prompts.len()).collect();
        let places = only.unwrap_or(&all);
        let rows: Vec<Vec<i64>> = places.iter().map(|i| prompts[*i].clone()).collect();
        let keys: Vec<u64> = places.iter().map(|i| *i as u64).collect();
        let answers = generate_telling(policy, &rows, &keys, &sampling, told)?;
        let text = |r: crate::sampling::Response| {
            let text = vocabulary.decode(&r.tokens)?.trim().to_owned();
            Ok(Drawn { text, finished: r.finished, tokens: r.tokens.len() })
        };
        answers.into_iter().map(text).collect()
    }

    /// Second answers: those equal to the first are drawn again, `resample` times at most.
    fn second(
        &self,
        policy: &Policy,
        vocabulary: &Vocabulary,
        prompts: &[Vec<i64>],
        first: &[Drawn],
        told: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Drawn>> {
        let mut second = self.draw(policy, vocabulary, prompts, 1, None, told)?;
        for attempt in 0..u64::from(self.resample) {
            let equal: Vec<usize> =
                (0..first.len()).filter(|i| first[*i].text == second[*i].text).collect();
            if equal.is_empty() {
                break;
            }
            let fresh =
                self.draw(policy, vocabulary, prompts, 2 + attempt, Some(&equal), &mut |_| Ok(()))?;
            for (i, drawn) in equal.into_iter().zip(fresh) {
                second[i] = drawn;
            }
        }
        Ok(second)
    }

    fn write(
        &self,
        cx: &mut Context,
        prompts: &Table,
        rows: &[usize],
        first: &[Drawn],
        second: &[Drawn],
    ) -> Result<Summary> {
        let texts = prompts.keys("prompt")?;
        let mut seen = std::collections::BTreeSet::new();
        let mut keep = Vec::new();
        let mut pairs = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let pair = pair_id(&texts[*row], &first[i].text, &second[i].text);
            let equal = self.resample > 0 && first[i].text == second[i].text;
            if !equal && seen.insert(pair.clone()) {
                keep.push(i);
                pairs.push(pair);
            }
        }
        if keep.is_empty() {
            bail!("the model gives one and the same answer to every prompt: nothing to compare");
        }
        let kept: Vec<usize> = keep.iter().map(|i| rows[*i]).collect();
        let asked = prompts.take(&kept);
        let asked = asked.require("prompt")?;
        let text = |of: &[Drawn]| Column::answers(keep.iter().map(|i| of[*i].text.as_str()), asked);
        let finished = |of: &[Drawn]| Column::bools(keep.iter().map(|i| of[*i].finished));
        let mut table = Table::new(vec![
            ("pair", Column::text(pairs)),
            ("prompt", asked.clone()),
            ("response_a", text(first)),
            ("response_b", text(second)),
            ("finished_a", finished(first)),
            ("finished_b", finished(second)),
        ])?;
        let further = prompts.take(&kept);
        for (name, column) in further.columns() {
            if table.column(name).is_none() {
                table.set(name, column.clone())?;
            }
        }
        cx.write_table("pairs", &table)?;
        let dropped = rows.len() - keep.len();
        cx.note(format!(
            "{} pairs; {dropped} with equal answers or seen before dropped",
            keep.len()
        ))?;
        let ended = first.iter().chain(second).filter(|d| d.finished).count();
        cx.warn_if((ended < rows.len()).then(|| {
            format!(
                "{} of {} answers do not end within {} tokens: people and reward models would \
                 compare beginnings; raise max_tokens",
                2 * rows.len() - ended,
                2 * rows.len(),
                self.max_tokens
            )
        }))?;
        Ok(Summary::from([
            ("pairs".into(), keep.len() as f64),
            ("pairs/dropped".into(), dropped as f64),
            ("tokens/eos_rate".into(), ended as f64 / (2 * rows.len()) as f64),
        ]))
    }
}
