//! `dpo`: direct preference optimisation (Rafailov et al. 2023) and the losses of its family, of
//! which ORPO and SimPO need no reference. No reward model, no drawing.
//! Knows nothing of who compared.

mod loss;

use std::time::Instant;

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Example, Room, TooLong, Vocabulary, check_labels, part_of_prompt};
use crate::kind::{Stage, Summary, check_range, input, optional, output};
use crate::model::{BatchShape, Lora, Policy, forecast, to_f64};
use crate::optim::Schedule;
use crate::preflight::{Lesson, Preflight};
use crate::rl::DpoLoss;
use crate::stats::wilson;
use crate::training::{
    Computation, Defaults, EpochFigures, HeldOutFigures, Optimizer, Order, Preference, Trainer,
    both_sides, check_memory, learning_rate, preferences, row_due, sample, too_few,
};

/// Pairs of one forward pass outside training.
const LOOK: usize = 64;

/// Params of `dpo`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// How strongly the policy is held near its start; smaller lets it go further.
    #[schemars(range(min = 1e-09, max = 1e6))]
    beta: f64,
    /// What the margin becomes: sigmoid (DPO), hinge (SLiC), robust (labels wrong at the rate of
    /// label_smoothing), ipo, or without a reference orpo and simpo (usual beta 2 to 10).
    loss: DpoLoss,
    /// Margin that simpo aims at, its γ; the others have none.
    #[schemars(range(min = 0.0, max = 1e6), extend("x-later" = true))]
    simpo_gamma: f64,
    /// Weight of the chosen answers' likelihood beside the loss, a mean over their tokens; orpo has
    /// it in itself.
    #[schemars(range(min = 0.0, max = 1000.0), extend("x-later" = true))]
    sft_coef: f64,
    /// Probability that a label is the wrong way round.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    label_smoothing: f64,
    /// What a tie does: drop leaves it out, half counts it as half a preference either way.
    ties: DpoTies,
    /// Times that every pair is seen.
    #[schemars(range(min = 1))]
    epochs: u32,
    /// Pairs of one step.
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
    /// Share of the prompts held out when `eval_labels` is not connected.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    eval_fraction: f64,
    /// Keep the weights of the epoch with the lowest held-out loss instead of the last.
    keep_best: bool,
    /// Pairs that do not fit the context: auto and cut_left take the beginning of the prompt away,
    /// drop leaves them out, fail stops and names one. An answer is never cut.
    #[schemars(extend("x-later" = true))]
    too_long: TooLong,
    /// Adapters beside the policy's frozen weights, which are then the reference as they are.
    lora: Lora,
    /// How steps are computed; a pair counts as one row.
    compute: Computation,
    /// AdamW and clipping.
    optimizer: Optimizer<DpoDefaults>,
    /// Names the random streams: the order of pairs.
    seed: u64,
}

/// Defaults of AdamW in `dpo`.
#[derive(Debug, Clone)]
pub struct DpoDefaults;

impl Defaults for DpoDefaults {
    const BETAS: [f64; 2] = [0.9, 0.999];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DpoTies {
    #[default]
    Drop,
    Half,
}

impl Default for Dpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            loss: DpoLoss::Sigmoid,
            simpo_gamma: 0.5,
            sft_coef: 0.0,
            label_smoothing: 0.0,
            ties: DpoTies::Drop,
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

/// A pair, with the log-probabilities of both answers under the reference.
pub struct DpoPair {
    pub chosen: Example,
    pub rejected: Example,
    pub tie: bool,
    /// Log-probabilities under the reference: summed over tokens, or their means for losses of
    /// means; 0 for losses without a reference.
    pub reference: [f64; 2],
}

impl DpoPair {
    fn new(Preference { chosen, rejected, tie, .. }: Preference, reference: [f64; 2]) -> Self {
        Self { chosen, rejected, tie, reference }
    }
}

/// Where the loop stands.
#[derive(Default, Serialize, Deserialize)]
struct State {
    step: u64,
    #[serde(default)]
    epochs: EpochFigures,
}

impl Stage for Dpo {
    const NAME: &'static str = "dpo";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str =
        "improve a policy directly from preferences, without a reward model";
    const FIGURES: &'static [&'static str] =
        &["train/*", "eval/accuracy*", "eval/loss", "eval/pairs"];
    const LIVE: &'static [&'static str] = &["eval/loss", "train/loss"];

    fn inputs() -> Vec<InputDoc> {
        vec![
            input("policy", &["model/policy"], "the policy to start from and to stay near"),
            input("labels", &["dataset/labels"], "the preferences"),
            optional("eval_labels", &["dataset/labels"], "preferences to measure accuracy on"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("model", "model/policy", "", "the improved policy"),
            output("metrics", "dataset/metrics", "parquet", "losses, margins and accuracy by step"),
        ]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("lora", self.lora.check());
        look.usual_rate("policy", "lr", self.lr, self.lora.rank > 0, Lesson::Preferences);
        look.tell("loss", self.check_loss());
        for port in ["labels", "eval_labels"] {
            look.rows_of(port, check_labels);
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        check_range("beta", self.beta, 1e-9, 1e6)?;
        check_range("label_smoothing", self.label_smoothing, 0.0, 0.5)?;
        self.lora.check()?;
        self.check_loss()?;
        let folder = cx.path("policy")?.to_owned();
        let vocabulary = cx.vocabulary(&folder)?;
        let mut policy = Policy::open(&folder)?.to(cx.device());
        policy.trunk.compute = self.compute.resolve(cx)?;
        policy.trunk.adapt(&self.lora, self.seed);
        let (train, held_out) = self.rows(cx, &vocabulary, &policy)?;
        self.check_memory(cx, &policy, &train)?;
        let summary = self.optimize(cx, &policy, &train, &held_out)?;
        policy.save_trained((&folder, &self.lora), &cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        cx.write_metrics()?;
        Ok(summary)
    }
}

impl Dpo {
    /// Checks that the numbers go with the loss.
    fn check_loss(&self) -> Result<()> {
        let (message, help) = match self.loss {
            DpoLoss::Orpo if self.sft_coef != 0.0 => (
                "orpo has the likelihood of the chosen answers in it already",
                "leave sft_coef out; beta weighs the other part",
            ),
            DpoLoss::Simpo if self.ties == DpoTies::Half => {
                ("a tie has no margin that simpo could aim at", "leave ties out: ties: drop")
            }
            DpoLoss::Robust if self.label_smoothing >= 0.5 => (
                "where half of all labels are wrong there is nothing to learn",
                "label_smoothing is the rate at which they are wrong, below 0.5",
            ),
            _ => return Ok(()),
        };
        Err(error_with_help(message, help))
    }

    /// Pairs to train on and held out; the prompts of the two are disjoint.
    fn rows(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        policy: &Policy,
    ) -> Result<(Vec<DpoPair>, Vec<DpoPair>)> {
        let context = policy.trunk.config.context as usize;
        let labels = cx.table("labels")?;
        let prompts = labels.keys("prompt")?;
        let room = Room { too_long: self.too_long, ..Room::new(context) };
        let all = preferences(cx, vocabulary, room, &labels)?;
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let connected = !cx.inputs("eval_labels").is_empty();
        for pair in all {
            let out = !connected && part_of_prompt(&prompts[pair.row], "dpo", self.eval_fraction);
            if out { &mut held_out } else { &mut train }.push(pair);
        }
        if connected {
            let eval = cx.table("eval_labels")?;
            held_out = preferences(cx, vocabulary, room, &eval)?;
            let seen: std::collections::BTreeSet<&String> = prompts.iter().collect();
            let both = eval.keys("prompt")?.iter().filter(|p| seen.contains(p)).count();
            cx.warn_if(
                (both > 0).then(|| {
                    format!("{both} held-out pairs are about prompts that are trained on")
                }),
            )?;
        }
        if self.ties == DpoTies::Drop {
            train.retain(|p| !p.tie);
        }
        held_out.retain(|p| !p.tie);
        if train.is_empty() {
            let message = format!("of {} labels none is left to learn from", labels.rows());
            return Err(error_with_help(
                message,
                "collect labels that are no ties, on more prompts",
            ));
        }
        if held_out.is_empty() {
            cx.warn("too few prompts to hold any out: nothing is measured on unseen ones")?;
        }
        cx.warn_if(too_few(held_out.len(), "pairs"))?;
        if !self.loss.has_reference() {
            let pair = |pair| DpoPair::new(pair, [0.0; 2]);
            let pairs = |all: Vec<Preference>| all.into_iter().map(pair).collect();
            return Ok((pairs(train), pairs(held_out)));
        }
        let reference = policy.reference();
        Ok((self.pairs(&reference, train), self.pairs(&reference, held_out)))
    }

    /// Tells how much memory a step needs, and refuses one that needs more than is free.
    fn check_memory(&self, cx: &mut Context, policy: &Policy, train: &[DpoPair]) -> Result<()> {
        let rows = 2 * self.compute.rows(self.batch.max(1) as usize) as u64;
        let sides = || train.iter().flat_map(|p| [&p.chosen, &p.rejected]);
        let most = |f: fn(&Example) -> usize| sides().map(f).max().unwrap_or(0) as u64;
        let shape = BatchShape {
            rows,
            time: most(|e| e.prompt.len() + e.completion.len()),
            predicted: rows * most(|e| e.completion.len()),
            packed: false,
        };
        let trunk = &policy.trunk;
        let rows = 2 * self.looked_at().min(train.len()) as u64;
        let seen = Some(BatchShape { rows, ..shape });
        let adapter = trunk.adapter_size();
        let mut need = forecast(&trunk.config, &trunk.compute, adapter, shape, seen);
        need.weights += 4 * trunk.trainable().numel() as u64;
        check_memory(cx, need.merged(&self.lora, &trunk.config))
    }

    /// Pairs of one pass outside training.
    fn looked_at(&self) -> usize {
        self.compute.rows(LOOK)
    }

    /// Finds the log-probabilities under the reference of the answers of preferences.
    pub fn pairs(&self, reference: &Policy, preferences: Vec<Preference>) -> Vec<DpoPair> {
        let mut out = Vec::with_capacity(preferences.len());
        let mut left = preferences.into_iter();
        loop {
            let chunk: Vec<Preference> = left.by_ref().take(self.looked_at()).collect();
            if chunk.is_empty() {
                return out;
            }
            let sides = chunk.iter().map(|p| (&p.chosen, &p.rejected));
            let packed = both_sides(sides, reference.trunk.params.flat.device());
            let sums = no_grad(|| {
                to_f64(&self.row_sums(&reference.predict(&packed, 1.0, false).log_probs, &packed))
            });
            let (chosen, rejected) = sums.split_at(chunk.len());
            for ((pair, c), r) in chunk.into_iter().zip(chosen).zip(rejected) {
                out.push(DpoPair::new(pair, [*c, *r]));
            }
        }
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
        train: &[DpoPair],
        held_out: &[DpoPair],
    ) -> Result<Summary> {
        let params = policy.trunk.trainable();
        let mut trainer = Trainer::new(params, &self.optimizer);
        let batch = self.batch.max(1) as usize;
        let an_epoch = train.len().div_ceil(batch) as u64;
        let total = an_epoch * u64::from(self.epochs);
        let mut order = Order::new(self.seed, "shuffle", train.len());
        let best = params.flat.copy();
        let mut state_dict = trainer.state_dict("policy", params);
        state_dict.push(("best".into(), best.shallow_clone()));
        let mut state = cx.resume::<State>(&state_dict)?.unwrap_or_default();
        let mut since = (Instant::now(), 0);
        for step in state.step..total {
            let rows: Vec<&DpoPair> =
                order.batch(step, batch).into_iter().map(|i| &train[i]).collect();
            let (gradient, look) = self.gradient(policy, &rows);
            let lr = learning_rate(self.lr, self.schedule, step, total, self.warmup, 0.0);
            let norm = trainer.step(params, gradient.flat, lr)?;
            since.1 += rows.len();
            if row_due(step + 1, total) {
                let mut figures = look.figures("rewards");
                figures.extend([
                    ("train/loss".to_owned(), look.loss),
                    ("train/lr".to_owned(), lr),
                    ("train/grad_norm".to_owned(), norm),
                    (
                        "time/pairs_per_s".to_owned(),
                        since.1 as f64 / since.0.elapsed().as_secs_f64(),
                    ),
                ]);
                since = (Instant::now(), 0);
                send(cx, step + 1, &figures)?;
            }
            if (step + 1) % an_epoch == 0 && !held_out.is_empty() {
                let look = self.look(policy, &held_out.iter().collect::<Vec<_>>());
                let mut figures = look.figures("eval");
                figures.push(("eval/loss".to_owned(), look.loss));
                send(cx, step + 1, &figures)?;
                let accuracy = look.rewards.accuracy();
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
        self.summary(policy, train, held_out, kept)
    }

    /// `kept`: what the held-out pairs said of these weights already.
    fn summary(
        &self,
        policy: &Policy,
        train: &[DpoPair],
        held_out: &[DpoPair],
        kept: Option<HeldOutFigures>,
    ) -> Result<Summary> {
        let again = sample(train.len(), self.epochs).into_iter().map(|i| &train[i]);
        let seen = self.look(policy, &again.collect::<Vec<_>>());
        let mut summary = Summary::from([
            ("train/loss".to_owned(), seen.loss),
            ("train/accuracy".to_owned(), seen.rewards.accuracy()),
            ("train/pairs".to_owned(), train.len() as f64),
        ]);
        if !held_out.is_empty() {
            let unseen = kept.unwrap_or_else(|| {
                let look = self.look(policy, &held_out.iter().collect::<Vec<_>>());
                HeldOutFigures { loss: look.loss, accuracy: look.rewards.accuracy() }
            });
            let right = unseen.accuracy * held_out.len() as f64;
            let accuracy = wilson(right, held_out.len() as u64);
            summary.extend([
                ("eval/loss".to_owned(), unseen.loss),
                ("eval/accuracy".to_owned(), accuracy.value),
                ("eval/accuracy_low".to_owned(), accuracy.low),
                ("eval/accuracy_high".to_owned(), accuracy.high),
                ("eval/pairs".to_owned(), held_out.len() as f64),
            ]);
        }
        Ok(summary)
    }
}

fn send(cx: &mut Context, step: u64, figures: &[(String, f64)]) -> Result<()> {
    let values: Vec<(&str, f64)> = figures.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    cx.metric(step, &values)
}

fn sides<'a>(pairs: &'a [&DpoPair]) -> impl Iterator<Item = (&'a Example, &'a Example)> {
    pairs.iter().map(|p| (&p.chosen, &p.rejected))
}
