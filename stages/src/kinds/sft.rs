//! `sft`: supervised fine-tuning on people's answers.
//! Knows nothing of rewards.
//!
//! The loss is the mean over the completion tokens of the whole batch, `<eos>` included: the sum
//! is divided once, so unequal lengths weigh as they should.

use std::time::Instant;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, no_grad};

use super::train::{Defaults, Optimizer, Trainer, rate};
use crate::context::Context;
use crate::data::{Example, Examples, Table, Vocabulary, part_of_prompt};
use crate::kind::{Stage, Summary, input, optional, output};
use crate::model::{Packed, Policy};
use crate::optim::Schedule;
use crate::rng::Stream;

/// Params of `sft`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sft {
    /// How the model is trained.
    train: SftLoop,
    /// Names the random streams: the order of rows.
    seed: u64,
}

/// How a model is fine-tuned.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SftLoop {
    /// Times that every row is seen.
    epochs: u32,
    /// Rows of one step.
    #[schemars(range(min = 1))]
    batch: u32,
    /// Learning rate at its highest.
    lr: f64,
    /// How it falls: constant, linear or cosine.
    schedule: Schedule,
    /// Share of the steps over which it rises.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    warmup: f64,
    /// Learning rate at the end, as a share of the highest.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    min_lr: f64,
    /// Share of the prompts held out when `eval_demos` is not connected.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    eval_fraction: f64,
    /// AdamW and clipping.
    optimizer: Optimizer<AdamWDefaults>,
}

/// Where AdamW starts in `sft`.
#[derive(Debug, Clone)]
pub struct AdamWDefaults;

impl Defaults for AdamWDefaults {}

impl Default for SftLoop {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch: 16,
            lr: 5e-4,
            schedule: Schedule::Cosine,
            warmup: 0.05,
            min_lr: 0.1,
            eval_fraction: 0.1,
            optimizer: Optimizer::default(),
        }
    }
}

impl Stage for Sft {
    const NAME: &'static str = "sft";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "fine-tune a language model on prompts and their answers";

    fn inputs() -> Vec<InputDoc> {
        let rows = &["dataset/prompt_completion"];
        vec![
            input("model", &["model/policy"], "the model to start from"),
            input("demos", rows, "prompts and the answers to learn"),
            optional("eval_demos", rows, "rows to measure the held-out loss on"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("model", "model/policy", "", "opens as LlamaForCausalLM"),
            output("metrics", "dataset/metrics", "parquet", "losses by step"),
        ]
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let folder = cx.path("model")?.to_owned();
        let policy = Policy::open(&folder)?;
        let vocabulary = cx.vocabulary(&folder)?;
        let (train, held_out) = self.rows(cx, &vocabulary, policy.0.config.context as usize)?;
        let steps = self.optimize(cx, &policy, &train, &held_out)?;
        let (train_loss, eval_loss) = (mean_loss(&policy, &train), mean_loss(&policy, &held_out));
        cx.metric(steps, &[("train/final_loss", train_loss), ("eval/loss", eval_loss)])?;
        policy.save(&cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        cx.write_metrics()?;
        Ok(Summary::from([
            ("train/loss".into(), train_loss),
            ("eval/loss".into(), eval_loss),
            ("train/rows".into(), train.len() as f64),
            ("train/steps".into(), steps as f64),
        ]))
    }
}

impl Sft {
    /// Rows to train on and held-out rows; the prompts of the two are disjoint.
    fn rows(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        context: usize,
    ) -> Result<(Vec<Example>, Vec<Example>)> {
        let demos = cx.table("demos")?;
        let all = examples(cx, vocabulary, context, &demos)?;
        if !cx.inputs("eval_demos").is_empty() {
            let eval = cx.table("eval_demos")?;
            let eval = examples(cx, vocabulary, context, &eval)?;
            return Ok((all.rows, eval.rows));
        }
        let prompts = demos.texts("prompt")?;
        let fraction = self.train.eval_fraction;
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for (row, source) in all.rows.iter().zip(&all.sources) {
            let out = part_of_prompt(prompts[*source], "sft", fraction);
            if out { &mut held_out } else { &mut train }.push(row.clone());
        }
        if train.is_empty() || held_out.is_empty() {
            cx.warn("too few prompts to hold any out: the held-out loss is the training loss")?;
            return Ok((all.rows.clone(), all.rows));
        }
        Ok((train, held_out))
    }

    /// The loop. Returns the number of steps.
    fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        rows: &[Example],
        held_out: &[Example],
    ) -> Result<u64> {
        let (settings, params) = (&self.train, &policy.0.params);
        let mut trainer = Trainer::new(params, &settings.optimizer);
        let batch = settings.batch.max(1) as usize;
        let an_epoch = rows.len().div_ceil(batch) as u64;
        let total = an_epoch * u64::from(settings.epochs);
        let mut step = 0;
        for epoch in 0..settings.epochs {
            let order =
                Stream::new(self.seed, "shuffle", u64::from(epoch), 0).permutation(rows.len());
            let since = Instant::now();
            let (mut loss_sum, mut tokens, mut norm) = (0.0, 0, 0.0);
            for chunk in order.chunks(batch) {
                let chosen: Vec<&Example> = chunk.iter().map(|i| &rows[*i]).collect();
                let packed = Packed::new(&chosen, params.flat.device());
                let loss = -packed.log_probs(policy, 1.0).sum(Kind::Float) / packed.tokens() as f64;
                let lr = rate(
                    settings.lr,
                    settings.schedule,
                    step,
                    total,
                    settings.warmup,
                    settings.min_lr,
                );
                norm = trainer.step(params, params.gradient(&loss), lr)?;
                loss_sum += loss.double_value(&[]) * packed.tokens() as f64;
                tokens += packed.tokens();
                step += 1;
                cx.progress(step, total, "steps")?;
            }
            cx.metric(
                step,
                &[
                    ("train/loss", loss_sum / tokens as f64),
                    ("train/grad_norm", norm),
                    ("eval/loss", mean_loss(policy, held_out)),
                    ("time/tokens_per_s", tokens as f64 / since.elapsed().as_secs_f64()),
                ],
            )?;
        }
        Ok(step)
    }
}

fn examples(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    context: usize,
    table: &Table,
) -> Result<Examples> {
    let (prompts, completions) = (table.texts("prompt")?, table.texts("completion")?);
    let rows = prompts.iter().zip(&completions).map(|(p, c)| (*p, *c, true));
    let examples = Examples::new(vocabulary, context, rows)?;
    cx.warn_if(examples.warning(context))?;
    Ok(examples)
}

/// Mean over all completion tokens of `rows`, without gradients.
pub fn mean_loss(policy: &Policy, rows: &[Example]) -> f64 {
    no_grad(|| {
        let (mut sum, mut tokens) = (0.0, 0);
        for chunk in rows.chunks(64) {
            let packed =
                Packed::new(&chunk.iter().collect::<Vec<_>>(), policy.0.params.flat.device());
            sum -= packed.log_probs(policy, 1.0).sum(Kind::Double).double_value(&[]);
            tokens += packed.tokens();
        }
        sum / tokens as f64
    })
}
