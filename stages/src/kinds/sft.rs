//! `sft`: supervised fine-tuning on people's answers.
//! Knows nothing of rewards.
//!
//! The loss is the mean over the tokens that the assistant writes in the whole batch, those that
//! end its turns included: the sum is divided once, so unequal lengths weigh as they should.

use std::time::Instant;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, no_grad};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Room, Row, Rows, Table, TooLong, Vocabulary, part_of_prompt};
use crate::kind::{Stage, Summary, input, optional, output};
use crate::model::{BatchShape, Lora, Packed, Policy, forecast};
use crate::optim::Schedule;
use crate::preflight::{Lesson, Preflight};
use crate::training::{
    Computation, Defaults, Optimizer, Order, Trainer, check_memory, learning_rate, mean_nll,
    row_due, sample,
};

/// Rows of one forward pass outside training.
const LOOK: usize = 64;

/// Params of `sft`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sft {
    /// How the model is trained.
    train: SftLoop,
    /// Rows that do not fit the context: auto takes the beginning of a prompt away and leaves a
    /// conversation in `messages` out; cut_left takes the oldest turns of a conversation away too;
    /// drop leaves all out; fail stops and names one. An answer is never cut.
    #[schemars(extend("x-later" = true))]
    too_long: TooLong,
    /// Train low-rank adapters instead of all weights.
    lora: Lora,
    /// Names the random streams: the order of rows, and adapters.
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
    #[schemars(range(min = 0.0, max = 10.0))]
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
    /// Put several short rows into a long one (1024 tokens, where the context allows), in which
    /// none sees another.
    packing: bool,
    /// AdamW and clipping.
    optimizer: Optimizer<SftDefaults>,
    /// Precision and memory.
    compute: Computation,
}

/// Defaults of AdamW in `sft`.
#[derive(Debug, Clone)]
pub struct SftDefaults;

impl Defaults for SftDefaults {}

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
            packing: false,
            optimizer: Optimizer::default(),
            compute: Computation::default(),
        }
    }
}

impl Stage for Sft {
    const NAME: &'static str = "sft";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "fine-tune a language model on prompts and their answers";
    const FIGURES: &'static [&'static str] = &["train/*", "eval/loss"];
    const LIVE: &'static [&'static str] = &["eval/loss", "train/loss"];

    fn inputs() -> Vec<InputDoc> {
        let rows = &["dataset/prompt_completion", "dataset/messages"];
        vec![
            input("model", &["model/policy"], "the model to start from"),
            input(
                "demos",
                rows,
                "prompts and the answers to learn, or conversations in column messages",
            ),
            optional("eval_demos", rows, "rows to measure the held-out loss on"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("model", "model/policy", "", "the model after training"),
            output("metrics", "dataset/metrics", "parquet", "losses by step"),
        ]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("lora", self.lora.check());
        look.usual_rate(
            "model",
            "train.lr",
            self.train.lr,
            self.lora.rank > 0,
            Lesson::Demonstrations,
        );
        for port in ["demos", "eval_demos"] {
            let declared = look.inputs(port).first().map(|input| input.port_type.as_str());
            look.rows_of(port, |rows| {
                refuse_both(rows, declared.unwrap_or_default())?;
                Rows::check(rows)
            });
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.lora.check()?;
        let folder = cx.path("model")?.to_owned();
        let mut policy = Policy::open(&folder)?.to(cx.device());
        policy.trunk.compute = self.train.compute.resolve(cx)?;
        policy.trunk.adapt(&self.lora, self.seed);
        let vocabulary = cx.vocabulary(&folder)?;
        let (train, held_out) = self.rows(cx, &vocabulary, policy.trunk.config.context as usize)?;
        let (trunk, shape) = (&policy.trunk, self.shape(&policy, &train));
        let all = train.iter().chain(&held_out);
        let time = all.map(|r| r.tokens.len()).max().unwrap_or(0) as u64;
        let rows = self.looked_at().min(train.len().max(held_out.len())) as u64;
        let seen = BatchShape { rows, time, packed: false, ..shape };
        let adapter = trunk.adapter_size();
        let need = forecast(&trunk.config, &trunk.compute, adapter, shape, Some(seen));
        check_memory(cx, need.merged(&self.lora, &trunk.config))?;
        let (steps, of_last_epoch) = self.optimize(cx, &policy, &train, &held_out)?;
        let seen: Vec<&Row> =
            sample(train.len(), self.train.epochs).into_iter().map(|i| &train[i]).collect();
        let train_loss = self.mean_loss(&policy, seen);
        let eval_loss = match of_last_epoch {
            Some(loss) => loss,
            None if held_out.is_empty() => train_loss,
            None => self.mean_loss(&policy, held_out.iter().collect()),
        };
        cx.metric(steps, &[("train/final_loss", train_loss), ("eval/loss", eval_loss)])?;
        policy.save_trained((&folder, &self.lora), &cx.output("model")?, &vocabulary)?;
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
    /// Rows to train on and held-out rows, perhaps none; the prompts of the two are disjoint.
    fn rows(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        context: usize,
    ) -> Result<(Vec<Row>, Vec<Row>)> {
        let room = Room { too_long: self.too_long, ..Room::new(context) };
        let all = read(cx, "demos", vocabulary, room)?;
        if !cx.inputs("eval_demos").is_empty() {
            return Ok((all.rows, read(cx, "eval_demos", vocabulary, room)?.rows));
        }
        let fraction = self.train.eval_fraction;
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for (row, prompt) in all.rows.iter().zip(&all.prompts) {
            let out = part_of_prompt(prompt, "sft", fraction);
            if out { &mut held_out } else { &mut train }.push(row.clone());
        }
        if train.is_empty() || held_out.is_empty() {
            cx.warn("too few prompts to hold any out: the held-out loss is the training loss")?;
            return Ok((all.rows, Vec::new()));
        }
        Ok((train, held_out))
    }

    /// Rows of one pass outside training.
    fn looked_at(&self) -> usize {
        self.train.compute.rows(LOOK)
    }

    /// The largest batch that may go through the model at once.
    fn shape(&self, policy: &Policy, rows: &[Row]) -> BatchShape {
        let most = |count: fn(&Row) -> usize, n: usize| {
            let mut sizes: Vec<usize> = rows.iter().map(count).collect();
            sizes.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
            sizes.iter().take(n).sum::<usize>() as u64
        };
        let at_once = self.train.compute.rows(self.train.batch.max(1) as usize).min(rows.len());
        let (predicted, longest) = (most(Row::learned, at_once), most(|r| r.tokens.len(), 1));
        if !self.train.packing {
            let (rows, time) = (at_once as u64, longest);
            return BatchShape { rows, time, predicted, packed: false };
        }
        let tokens = most(|r| r.tokens.len(), at_once);
        let time = (packed_width(policy, longest as usize) as u64).min(tokens);
        // Bins are never all full.
        BatchShape { rows: (tokens * 9).div_ceil(time * 8), time, predicted, packed: true }
    }

    /// One batch of rows, packed if that is asked for.
    fn pack(&self, policy: &Policy, rows: &[&Row]) -> Packed {
        let device = policy.trunk.params.flat.device();
        if self.train.packing {
            let longest = rows.iter().map(|r| r.tokens.len()).max().unwrap_or(0);
            Packed::dense_rows(rows, packed_width(policy, longest), device)
        } else {
            Packed::rows(rows, device)
        }
    }

    /// Trains the policy over all epochs. Returns the number of steps, and the held-out loss at the
    /// end of the last epoch.
    fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        rows: &[Row],
        held_out: &[Row],
    ) -> Result<(u64, Option<f64>)> {
        let (settings, params) = (&self.train, policy.trunk.trainable());
        let mut trainer = Trainer::new(params, &settings.optimizer);
        let batch = settings.batch.max(1) as usize;
        let an_epoch = rows.len().div_ceil(batch) as u64;
        let total = an_epoch * u64::from(settings.epochs);
        let mut order = Order::new(self.seed, "shuffle", rows.len());
        let state_dict = trainer.state_dict("model", params);
        let mut state = cx.resume::<State>(&state_dict)?.unwrap_or_default();
        let mut since = (Instant::now(), 0);
        for step in state.step..total {
            let chosen: Vec<&Row> =
                order.batch(step, batch).into_iter().map(|i| &rows[i]).collect();
            let tokens: usize = chosen.iter().map(|row| row.learned()).sum();
            let micro = chosen.chunks(settings.compute.rows(batch));
            let gradient = mean_nll(policy, micro.map(|rows| self.pack(policy, rows)), tokens);
            let lr = learning_rate(
                settings.lr,
                settings.schedule,
                step,
                total,
                settings.warmup,
                settings.min_lr,
            );
            let norm = trainer.step(params, gradient.flat, lr)?;
            state.loss_sum += gradient.loss.double_value(&[]) * tokens as f64;
            state.tokens += tokens as u64;
            since.1 += tokens;
            let ends_epoch = (step + 1) % an_epoch == 0;
            if row_due(step + 1, total) || ends_epoch {
                let mut row = vec![
                    ("train/loss", state.loss_sum / state.tokens as f64),
                    ("train/lr", lr),
                    ("train/grad_norm", norm),
                    ("time/tokens_per_s", since.1 as f64 / since.0.elapsed().as_secs_f64()),
                ];
                if ends_epoch && !held_out.is_empty() {
                    let loss = self.mean_loss(policy, held_out.iter().collect());
                    state.eval_loss = Some(loss);
                    row.push(("eval/loss", loss));
                }
                cx.metric(step + 1, &row)?;
                (state.loss_sum, state.tokens, since) = (0.0, 0, (Instant::now(), 0));
            }
            cx.progress(step + 1, total, "steps")?;
            state.step = step + 1;
            cx.checkpoint(&state, &state_dict)?;
        }
        Ok((total, state.eval_loss))
    }

    /// Mean over all learned tokens of the rows, without gradients, in batches as training has
    /// them.
    fn mean_loss(&self, policy: &Policy, mut rows: Vec<&Row>) -> f64 {
        // Rows of like length waste little.
        rows.sort_by_key(|row| std::cmp::Reverse(row.tokens.len()));
        no_grad(|| {
            let (mut sum, mut tokens) = (0.0, 0);
            for chunk in rows.chunks(self.looked_at()) {
                let packed = self.pack(policy, chunk);
                sum -= packed.log_probs(policy, 1.0).sum(Kind::Double).double_value(&[]);
                tokens += packed.tokens();
            }
            sum / tokens as f64
        })
    }
}

/// Tokens of a row that several texts share. Wider rows cost more in attention, where every pair of
/// columns counts, than they save in padding.
fn packed_width(policy: &Policy, longest: usize) -> usize {
    (policy.trunk.config.context as usize).min(longest.max(1024))
}

/// Where the loop stands; the sums are those since the last row of metrics.
#[derive(Default, Serialize, Deserialize)]
struct State {
    step: u64,
    loss_sum: f64,
    tokens: u64,
    /// At the end of the last epoch.
    eval_loss: Option<f64>,
}

/// The rows of a port, and a warning of what was left out.
fn read(cx: &mut Context, port: &str, vocabulary: &Vocabulary, room: Room) -> Result<Rows> {
    let table = cx.table(port)?;
    refuse_both(&table, &cx.input(port)?.port_type)?;
    let rows = Rows::read(vocabulary, room, &table)?;
    cx.warn_if(rows.warning.clone())?;
    Ok(rows)
}

/// Refuses rows that hold conversations beside what they were declared to be: one of the two would
/// be left out without a word.
fn refuse_both(rows: &Table, declared: &str) -> Result<()> {
    let both = ["messages", "prompt", "completion"].iter().all(|name| rows.column(name).is_some());
    if both && declared == "dataset/prompt_completion" {
        let help = "give the source `as: messages`, or rename the column: `prepare` with \
                    `columns: { chat: messages }`";
        return Err(error_with_help(
            "the rows have `messages` beside `prompt` and `completion`",
            help,
        ));
    }
    Ok(())
}
