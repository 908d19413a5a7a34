//! `kto`: Kahneman-Tversky optimisation (Ethayarajh et al. 2024), from verdicts on single answers.
//! No pairs, no reward model, no drawing. Knows nothing of who judged.
//!
//! Rows are spread over batches once. The answers of a batch, each behind a prompt that is not its
//! own, tell how far the policy is from the reference: good answers are to go beyond that, bad ones
//! to stay below.

mod loss;

use std::time::Instant;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Room, TooLong, Vocabulary, part_of_prompt};
use crate::kind::{Stage, Summary, check_range, input, optional, output};
use crate::model::{BatchShape, Lora, Policy, forecast};
use crate::optim::Schedule;
use crate::preflight::{Lesson, Preflight};
use crate::rng::Stream;
use crate::stats::wilson;
use crate::training::{
    Computation, Defaults, EpochFigures, HeldOutFigures, Optimizer, Order, Trainer, Verdict,
    check_memory, check_verdicts, learning_rate, row_due, sample_batches, too_few, verdicts,
};

pub use loss::KtoRow;

/// Params of `kto`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kto {
    /// How strongly the policy is held near its start; smaller lets it go further.
    #[schemars(range(min = 1e-09, max = 1e6))]
    beta: f64,
    /// Weight of good answers; number times weight of good and bad ones should be about equal, or
    /// up to a third more for the good ones.
    #[schemars(range(min = 0.0, max = 1e6))]
    desirable_weight: f64,
    /// Weight of bad answers.
    #[schemars(range(min = 0.0, max = 1e6))]
    undesirable_weight: f64,
    /// Times that every answer is seen.
    #[schemars(range(min = 1))]
    epochs: u32,
    /// Answers of one step, which estimate the KL too.
    #[schemars(range(min = 2))]
    batch: u32,
    /// Learning rate at its highest.
    #[schemars(range(min = 0.0, max = 10.0))]
    lr: f64,
    /// How it falls: constant, linear or cosine.
    schedule: Schedule,
    /// Share of the steps over which it rises.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    warmup: f64,
    /// Share of the prompts held out when `eval_verdicts` is not connected.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    eval_fraction: f64,
    /// Keep the weights of the epoch with the lowest held-out loss instead of the last.
    keep_best: bool,
    /// Rows that do not fit the context: auto and cut_left take the beginning of a prompt away,
    /// drop leaves them out, fail stops and names one. An answer is never cut.
    #[schemars(extend("x-later" = true))]
    too_long: TooLong,
    /// Adapters beside the policy's frozen weights, which are then the reference as they are.
    lora: Lora,
    /// How steps are computed.
    compute: Computation,
    /// AdamW and clipping.
    optimizer: Optimizer<KtoDefaults>,
    /// Names the random streams: which answers share a batch, and the order of batches.
    seed: u64,
}

/// Defaults of AdamW in `kto`.
#[derive(Debug, Clone)]
pub struct KtoDefaults;

impl Defaults for KtoDefaults {
    const BETAS: [f64; 2] = [0.9, 0.999];
}

impl Default for Kto {
    fn default() -> Self {
        Self {
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            epochs: 2,
            batch: 32,
            lr: 1e-4,
            schedule: Schedule::Linear,
            warmup: 0.1,
            eval_fraction: 0.1,
            keep_best: false,
            too_long: TooLong::Auto,
            lora: Lora::default(),
            compute: Computation::default(),
            optimizer: Optimizer::default(),
            seed: 0,
        }
    }
}

/// Where the loop stands.
#[derive(Default, Serialize, Deserialize)]
struct State {
    step: u64,
    #[serde(default)]
    epochs: EpochFigures,
}

impl Stage for Kto {
    const NAME: &'static str = "kto";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str =
        "improve a policy directly from verdicts on single answers, without pairs";
    const FIGURES: &'static [&'static str] =
        &["train/*", "eval/accuracy*", "eval/loss", "eval/rows"];
    const LIVE: &'static [&'static str] = &["eval/loss", "train/loss"];

    fn inputs() -> Vec<InputDoc> {
        let verdicts = &["dataset/prompt_completion", "dataset/labels"];
        vec![
            input("policy", &["model/policy"], "the policy to start from and to stay near"),
            input(
                "verdicts",
                verdicts,
                "answers with a column `label` or `verdict` that says which are good; of labels, \
                 chosen answers are good and rejected ones bad",
            ),
            optional("eval_verdicts", verdicts, "verdicts to measure accuracy on"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("model", "model/policy", "", "the improved policy"),
            output("metrics", "dataset/metrics", "parquet", "losses, rewards and the KL by step"),
        ]
    }

    fn check(&self, look: &mut Preflight) {
        look.usual_rate("policy", "lr", self.lr, self.lora.rank > 0, Lesson::Preferences);
        look.tell("batch", self.check());
        for port in ["verdicts", "eval_verdicts"] {
            look.rows_of(port, check_verdicts);
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.check()?;
        let folder = cx.path("policy")?.to_owned();
        let vocabulary = cx.vocabulary(&folder)?;
        let mut policy = Policy::open(&folder)?.to(cx.device());
        policy.trunk.compute = self.compute.resolve(cx)?;
        policy.trunk.adapt(&self.lora, self.seed);
        let (train, held_out) = self.split(cx, &vocabulary, &policy)?;
        self.check_memory(cx, &policy, &train)?;
        let reference = policy.reference();
        let [train, held_out] = [train, held_out].map(|all| self.batches(&reference, all));
        drop(reference);
        self.tell(cx, &train, &held_out)?;
        let summary = self.optimize(cx, &policy, &train, &held_out)?;
        policy.save(&cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        cx.write_metrics()?;
        Ok(summary)
    }
}

impl Kto {
    fn check(&self) -> Result<()> {
        check_range("beta", self.beta, 1e-9, 1e6)?;
        if self.batch < 2 {
            let help = "the KL is estimated from the other answers of a batch";
            return Err(error_with_help("batch must be 2 or more", help));
        }
        Ok(())
    }

    /// Verdicts to train on and held out, in a random order; the prompts of the two are disjoint.
    fn split(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        policy: &Policy,
    ) -> Result<(Vec<Verdict>, Vec<Verdict>)> {
        let context = policy.trunk.config.context as usize;
        let room = Room { too_long: self.too_long, ..Room::new(context) };
        let table = cx.table("verdicts")?;
        let prompts = table.keys("prompt")?;
        let all = verdicts(cx, vocabulary, room, &table)?;
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let connected = !cx.inputs("eval_verdicts").is_empty();
        for verdict in all {
            let out =
                !connected && part_of_prompt(&prompts[verdict.row], "kto", self.eval_fraction);
            if out { &mut held_out } else { &mut train }.push(verdict);
        }
        if connected {
            let eval = cx.table("eval_verdicts")?;
            held_out = verdicts(cx, vocabulary, room, &eval)?;
            let seen: std::collections::BTreeSet<&String> = prompts.iter().collect();
            let both = eval.keys("prompt")?.iter().filter(|p| seen.contains(p)).count();
            cx.warn_if(
                (both > 0)
                    .then(|| format!("{both} held-out answers are to prompts that are trained on")),
            )?;
        }
        if train.len() < 2 {
            let message =
                format!("of {} rows {} are left to learn from", table.rows(), train.len());
            return Err(error_with_help(message, "give it two verdicts or more, on more prompts"));
        }
        if held_out.is_empty() {
            cx.warn("too few prompts to hold any out: nothing is measured on unseen ones")?;
        }
        cx.warn_if(too_few(held_out.len(), "answers"))?;
        let shuffled = |all: Vec<Verdict>| -> Vec<Verdict> {
            let order = Stream::new(self.seed, "batches", 0, 0).permutation(all.len());
            order.into_iter().map(|i| all[i].clone()).collect()
        };
        Ok((shuffled(train), shuffled(held_out)))
    }

    /// Warns of numbers and weights that teach mostly one side, and of batches without a KL.
    fn tell(
        &self,
        cx: &mut Context,
        train: &[Vec<KtoRow>],
        held_out: &[Vec<KtoRow>],
    ) -> Result<()> {
        let rows = || train.iter().flatten();
        let good = rows().filter(|r| r.good).count();
        let bad = rows().count() - good;
        let ratio = good as f64 * self.desirable_weight / (bad as f64 * self.undesirable_weight);
        if good == 0 || bad == 0 {
            let which = if good == 0 { "bad" } else { "good" };
            cx.warn(format!(
                "all {} answers are {which}: there is nothing to tell apart",
                good + bad
            ))?;
        } else if !(0.99..=1.34).contains(&ratio) {
            let weight = self.desirable_weight * good as f64 / bad as f64;
            cx.warn(format!(
                "{good} good and {bad} bad answers at weights {} and {} teach {ratio:.2} times as \
                 much of the good ones: 1 to 1.33 is usual (Ethayarajh et al. 2024), for example \
                 undesirable_weight: {weight:.2}",
                self.desirable_weight, self.undesirable_weight
            ))?;
        }
        let alone = rows().chain(held_out.iter().flatten()).filter(|r| r.alone).count();
        cx.warn_if((alone > 0).then(|| {
            format!(
                "{alone} answers share a batch with answers to their own prompt only: they tell \
                 nothing of the KL; more prompts or a larger batch help"
            )
        }))
    }

    /// Tells how much memory a step needs, and refuses one that needs more than is free.
    fn check_memory(&self, cx: &mut Context, policy: &Policy, train: &[Verdict]) -> Result<()> {
        let rows = self.compute.rows(self.batch as usize).min(train.len()) as u64;
        let most = |f: fn(&Verdict) -> usize| train.iter().map(f).max().unwrap_or_default() as u64;
        let shape = BatchShape {
            rows,
            time: most(|v| v.example.prompt.len() + v.example.completion.len()),
            predicted: rows * most(|v| v.example.completion.len()),
            packed: false,
        };
        let trunk = &policy.trunk;
        let rows = loss::LOOK.min(self.batch as usize).min(train.len()) as u64;
        let seen = Some(BatchShape { rows, ..shape });
        let adapter = trunk.adapter_size();
        let mut need = forecast(&trunk.config, &trunk.compute, adapter, shape, seen);
        need.weights += 4 * trunk.trainable().numel() as u64;
        check_memory(cx, need.merged(&self.lora, &trunk.config))
    }

    /// Trains the policy over all epochs, and reports it. The weights of the best epoch are kept
    /// when `keep_best`.
    ///
    /// # Errors
    /// When a figure is no number or a checkpoint's event cannot be sent.
    pub fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        train: &[Vec<KtoRow>],
        held_out: &[Vec<KtoRow>],
    ) -> Result<Summary> {
        let params = policy.trunk.trainable();
        let mut trainer = Trainer::new(params, &self.optimizer);
        let total = train.len() as u64 * u64::from(self.epochs);
        let mut order = Order::new(self.seed, "shuffle", train.len());
        let best = params.flat.copy();
        let mut state_dict = trainer.state_dict("policy", params);
        state_dict.push(("best".into(), best.shallow_clone()));
        let mut state = cx.resume::<State>(&state_dict)?.unwrap_or_default();
        let mut since = (Instant::now(), 0);
        for step in state.step..total {
            let rows = &train[order.at(step)];
            let (gradient, look) = self.gradient(policy, rows);
            let lr = learning_rate(self.lr, self.schedule, step, total, self.warmup, 0.0);
            let norm = trainer.step(params, gradient.flat, lr)?;
            since.1 += rows.len();
            if row_due(step + 1, total) {
                let mut figures = look.figures("rewards");
                figures.extend(
                    [
                        ("train/loss", look.loss),
                        ("train/kl", look.kl),
                        ("train/lr", lr),
                        ("train/grad_norm", norm),
                        ("time/rows_per_s", since.1 as f64 / since.0.elapsed().as_secs_f64()),
                    ]
                    .map(|(name, value)| (name.to_owned(), value)),
                );
                since = (Instant::now(), 0);
                send(cx, step + 1, &figures)?;
            }
            if (step + 1) % train.len() as u64 == 0 && !held_out.is_empty() {
                let look = self.look(policy, &held_out.iter().collect::<Vec<_>>());
                let mut figures = look.figures("eval");
                figures.push(("eval/loss".to_owned(), look.loss));
                send(cx, step + 1, &figures)?;
                let accuracy = look.accuracy();
                if state.epochs.add(HeldOutFigures { loss: look.loss, accuracy }) {
                    no_grad(|| best.shallow_clone().copy_(&params.flat));
                }
            }
            cx.progress(step + 1, total, "steps")?;
            state.step = step + 1;
            cx.checkpoint(&state, &state_dict)?;
        }
        let kept = state.epochs.kept(self.keep_best);
        if self.keep_best && kept.is_some() {
            no_grad(|| params.flat.shallow_clone().copy_(&best));
        }
        Ok(self.summary(policy, train, held_out, kept))
    }

    /// `kept`: what the held-out rows said of these weights already.
    fn summary(
        &self,
        policy: &Policy,
        train: &[Vec<KtoRow>],
        held_out: &[Vec<KtoRow>],
        kept: Option<HeldOutFigures>,
    ) -> Summary {
        let rows = train.iter().map(Vec::len).sum();
        let again = sample_batches(train.len(), rows, self.epochs).into_iter().map(|i| &train[i]);
        let seen = self.look(policy, &again.collect::<Vec<_>>());
        let mut summary = Summary::from([
            ("train/loss".to_owned(), seen.loss),
            ("train/kl".to_owned(), seen.kl),
            ("train/accuracy".to_owned(), seen.accuracy()),
            ("train/rows".to_owned(), rows as f64),
        ]);
        if !held_out.is_empty() {
            let unseen = kept.unwrap_or_else(|| {
                let look = self.look(policy, &held_out.iter().collect::<Vec<_>>());
                HeldOutFigures { loss: look.loss, accuracy: look.accuracy() }
            });
            let n = held_out.iter().map(Vec::len).sum::<usize>() as f64;
            let accuracy = wilson(unseen.accuracy * n, n as u64);
            summary.extend([
                ("eval/loss".to_owned(), unseen.loss),
                ("eval/accuracy".to_owned(), accuracy.value),
                ("eval/accuracy_low".to_owned(), accuracy.low),
                ("eval/accuracy_high".to_owned(), accuracy.high),
                ("eval/rows".to_owned(), n),
            ]);
        }
        summary
    }
}

fn send(cx: &mut Context, step: u64, figures: &[(String, f64)]) -> Result<()> {
    let values: Vec<(&str, f64)> = figures.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    cx.metric(step, &values)
}
