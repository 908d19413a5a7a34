//! `train_reward`: preferences become a scalar reward.
//! Knows nothing of where the preferences come from.
//!
//! The model is a copy of the base with its output layer replaced by one number, read at the last
//! token of the answer. The loss is that of Bradley and Terry; ties enter it as asked.

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::train::{Defaults, Optimizer, Order, Trainer, rate};
use crate::context::{Context, advise};
use crate::data::{Column, Example, Examples, Table, Vocabulary, part_of_prompt};
use crate::kind::{Stage, Summary, input, optional, output};
use crate::model::{Packed, Policy, Scorer};
use crate::optim::{AdamW, Schedule};
use crate::resume::Named;
use crate::rl::{half_tie_loss, preference_loss, rao_kupper_losses};
use crate::stats::{correlation, mean, std, wilson};

/// Params of `train_reward`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainReward {
    /// Times that every pair is seen.
    epochs: u32,
    /// Learning rate at its highest.
    lr: f64,
    /// How it falls: constant, linear or cosine.
    schedule: Schedule,
    /// Share of the steps over which it rises.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    warmup: f64,
    /// Pairs of one step.
    #[schemars(range(min = 1))]
    batch: u32,
    /// What a tie does: drop leaves it out, half counts it as half a preference either way, model
    /// learns how close two answers must be to be a tie (Rao and Kupper).
    ties: Ties,
    /// Move the bias so that the answers of the labels have mean reward 0.
    center: bool,
    /// Share of the prompts held out when `eval_labels` is not connected.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    eval_fraction: f64,
    /// Keep the weights of the epoch with the lowest held-out loss instead of the last.
    keep_best: bool,
    /// AdamW and clipping.
    optimizer: Optimizer<AdamWDefaults>,
    /// Names the random streams: the head and the order of pairs.
    seed: u64,
}

/// Where AdamW starts in `train_reward`.
#[derive(Debug, Clone)]
pub struct AdamWDefaults;

impl Defaults for AdamWDefaults {
    const WEIGHT_DECAY: f64 = 0.01;
}

impl Default for TrainReward {
    fn default() -> Self {
        Self {
            epochs: 2,
            lr: 3e-4,
            schedule: Schedule::Cosine,
            warmup: 0.05,
            batch: 32,
            ties: Ties::Model,
            center: true,
            eval_fraction: 0.1,
            keep_best: true,
            optimizer: Optimizer::default(),
            seed: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Ties {
    Drop,
    Half,
    Model,
}

/// One comparison as tokens.
struct Pair {
    chosen: Example,
    rejected: Example,
    tie: bool,
    /// How often the best guess would be right; known of simulated labels only, else NaN.
    certainty: f64,
}

/// The threshold of a tie, ν = softplus(raw); raw is `[1]`.
struct Threshold(Tensor);

/// Where the loop stands; `losses` are those of the epoch so far.
#[derive(Default, Serialize, Deserialize)]
struct State {
    step: u64,
    losses: Vec<f64>,
    best_loss: Option<f64>,
}

/// What the model says of held-out pairs.
struct Judged {
    loss: f64,
    /// r(chosen) − r(rejected) of the pairs that are no tie.
    deltas: Vec<f64>,
}

impl Stage for TrainReward {
    const NAME: &'static str = "train_reward";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "learn a scalar reward from preferences";

    fn inputs() -> Vec<InputDoc> {
        vec![
            input(
                "base",
                &["model/policy"],
                "the model to start from, usually the one that was sampled",
            ),
            input("labels", &["dataset/labels"], "the preferences"),
            optional("eval_labels", &["dataset/labels"], "preferences to measure accuracy on"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("reward", "model/reward", "", "a model with one scalar output"),
            output("metrics", "dataset/metrics", "parquet", "losses and accuracy by step"),
            output("calibration", "dataset/calibration", "parquet", "confidence against accuracy"),
        ]
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let folder = cx.path("base")?.to_owned();
        let policy = Policy::open(&folder)?;
        let vocabulary = cx.vocabulary(&folder)?;
        let (train, held_out) = self.rows(cx, &vocabulary, policy.0.config.context as usize)?;
        let mut model = Scorer::from_policy(&policy, self.seed);
        let threshold = Threshold::new();
        let steps = self.optimize(cx, &model, &threshold, &train, &held_out)?;
        let rewards = score_all(&model, &train);
        let all: Vec<f64> = rewards.iter().flat_map(|(c, r)| [*c, *r]).collect();
        if self.center {
            model.shift(-mean(&all));
        }
        let judged = self.judge(&model, &threshold, &held_out);
        let mut summary = self.report(cx, steps, &judged, &held_out)?;
        let length =
            |p: &Pair| [p.chosen.completion.len() as f64, p.rejected.completion.len() as f64];
        let lengths: Vec<f64> = train.iter().flat_map(length).collect();
        let extra = [
            ("reward/std", std(&all)),
            ("reward/corr_with_length", correlation(&all, &lengths)),
            ("reward/tie_threshold", threshold.nu()),
        ];
        cx.metric(steps, &extra)?;
        summary.extend(extra.iter().map(|(n, v)| ((*n).to_owned(), *v)));
        model.save(&cx.output("reward")?, &vocabulary)?;
        cx.complete("reward", None)?;
        cx.write_metrics()?;
        Ok(summary)
    }
}

impl TrainReward {
    /// Pairs to train on and held out; the prompts of the two are disjoint.
    fn rows(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        context: usize,
    ) -> Result<(Vec<Pair>, Vec<Pair>)> {
        let labels = cx.table("labels")?;
        let mut all = pairs(cx, vocabulary, context, &labels)?;
        if all.iter().all(|(_, p)| p.tie) {
            let help = "collect more labels, or check what the labeler looks at";
            let message = format!("all {} labels are ties: there is nothing to learn", all.len());
            return Err(advise(message, help));
        }
        if self.ties == Ties::Drop {
            all.retain(|(_, p)| !p.tie);
        }
        let prompts = labels.texts("prompt")?;
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        if cx.inputs("eval_labels").is_empty() {
            for (row, pair) in all {
                let out = part_of_prompt(prompts[row], "reward", self.eval_fraction);
                if out { &mut held_out } else { &mut train }.push(pair);
            }
        } else {
            let eval = cx.table("eval_labels")?;
            held_out = pairs(cx, vocabulary, context, &eval)?.into_iter().map(|(_, p)| p).collect();
            train = all.into_iter().map(|(_, p)| p).collect();
        }
        if train.is_empty() || held_out.iter().all(|p: &Pair| p.tie) {
            let message = format!(
                "{} pairs to train on and {} to measure accuracy on are not enough",
                train.len(),
                held_out.len()
            );
            return Err(advise(message, "collect labels on more prompts, or raise eval_fraction"));
        }
        Ok((train, held_out))
    }

    /// The loop. Returns the number of steps.
    fn optimize(
        &self,
        cx: &mut Context,
        model: &Scorer,
        threshold: &Threshold,
        train: &[Pair],
        held_out: &[Pair],
    ) -> Result<u64> {
        let params = model.0.trainable();
        let mut trainer = Trainer::new(params, &self.optimizer);
        let mut threshold_adamw = threshold.optimizer(&self.optimizer);
        let batch = self.batch.max(1) as usize;
        let an_epoch = train.len().div_ceil(batch) as u64;
        let total = an_epoch * u64::from(self.epochs);
        let mut order = Order::new(self.seed, "shuffle", train.len());
        // The weights of the best epoch; worth something once the state knows its loss.
        let best = params.flat.copy();
        let mut named = trainer.named("model", params);
        named.extend(threshold.named(&threshold_adamw));
        named.push(("best".into(), best.shallow_clone()));
        let mut state = cx.resume::<State>(&named)?.unwrap_or_default();
        for step in state.step..total {
            let (epoch, place) = (step / an_epoch, (step % an_epoch) as usize * batch);
            let start = epoch * train.len() as u64;
            let places = place..(place + batch).min(train.len());
            let rows: Vec<&Pair> = places.map(|i| &train[order.at(start + i as u64)]).collect();
            let packed = both_sides(&rows, params.flat.device());
            let (gradient, threshold_gradient) =
                model.backward_rewards(&packed, Some(&threshold.0), |rewards| {
                    self.loss(&differences(rewards), &rows, threshold).mean(Kind::Float)
                });
            let lr = rate(self.lr, self.schedule, step, total, self.warmup, 0.0);
            let norm = trainer.step(params, gradient.flat, lr)?;
            if let Some(gradient) = threshold_gradient {
                // One number that stands for all pairs: it may move faster than the weights.
                threshold_adamw.step(&threshold.0.detach(), &gradient, lr * 30.0);
            }
            state.losses.push(gradient.loss.double_value(&[]));
            if (step + 1) % 10 == 0 || step + 1 == total {
                let recent = &state.losses[state.losses.len().saturating_sub(10)..];
                cx.metric(
                    step + 1,
                    &[("train/loss", mean(recent)), ("train/lr", lr), ("train/grad_norm", norm)],
                )?;
            }
            cx.progress(step + 1, total, "steps")?;
            if (step + 1) % an_epoch == 0 {
                state.losses.clear();
                let judged = self.judge(model, threshold, held_out);
                let right = judged.deltas.iter().filter(|d| **d > 0.0).count() as f64;
                let accuracy = right / judged.deltas.len() as f64;
                cx.metric(step + 1, &[("eval/loss", judged.loss), ("eval/accuracy", accuracy)])?;
                if state.best_loss.is_none_or(|loss| judged.loss < loss) {
                    state.best_loss = Some(judged.loss);
                    no_grad(|| best.shallow_clone().copy_(&params.flat));
                }
            }
            state.step = step + 1;
            cx.checkpoint(&state, &named)?;
        }
        if self.keep_best && state.best_loss.is_some() {
            no_grad(|| params.flat.shallow_clone().copy_(&best));
        }
        Ok(total)
    }

    /// Loss of each pair, `[batch]`, of its Δ = r(chosen) − r(rejected), `[batch]`.
    fn loss(&self, delta: &Tensor, rows: &[&Pair], threshold: &Threshold) -> Tensor {
        let tie: Vec<f32> = rows.iter().map(|p| f32::from(u8::from(p.tie))).collect();
        let tie = Tensor::from_slice(&tie).to_device(delta.device());
        let (preferred, tied) = match self.ties {
            Ties::Drop | Ties::Half => (preference_loss(delta), half_tie_loss(delta)),
            Ties::Model => rao_kupper_losses(delta, &threshold.0.softplus()),
        };
        preferred * (1.0 - &tie) + tied * tie
    }

    fn judge(&self, model: &Scorer, threshold: &Threshold, pairs: &[Pair]) -> Judged {
        no_grad(|| {
            let (mut loss, mut all) = (0.0, Vec::new());
            for chunk in pairs.chunks(64) {
                let rows: Vec<&Pair> = chunk.iter().collect();
                let batch = both_sides(&rows, model.0.params.flat.device());
                let delta = differences(&model.rewards(&batch));
                loss += self.loss(&delta, &rows, threshold).sum(Kind::Double).double_value(&[]);
                let numbers = to_f64(&delta);
                all.extend(rows.iter().zip(numbers).filter(|(p, _)| !p.tie).map(|(_, d)| d));
            }
            Judged { loss: loss / pairs.len() as f64, deltas: all }
        })
    }

    /// Accuracy, calibration and ceiling on the held-out pairs.
    fn report(
        &self,
        cx: &mut Context,
        step: u64,
        judged: &Judged,
        held_out: &[Pair],
    ) -> Result<Summary> {
        let n = judged.deltas.len() as u64;
        let half = |d: &f64| if *d == 0.0 { 0.5 } else { f64::from(u8::from(*d > 0.0)) };
        let accuracy = wilson(judged.deltas.iter().map(half).sum(), n);
        let (table, ece) = calibration(&judged.deltas)?;
        cx.write_table("calibration", &table)?;
        let certainties: Vec<f64> =
            held_out.iter().filter(|p| !p.tie).map(|p| p.certainty).collect();
        let values = [
            ("eval/loss", judged.loss),
            ("eval/accuracy", accuracy.value),
            ("eval/accuracy_low", accuracy.low),
            ("eval/accuracy_high", accuracy.high),
            ("eval/ece", ece),
            ("eval/pairs", n as f64),
            ("eval/ceiling", mean(&certainties)),
        ];
        let known: Vec<_> = values.into_iter().filter(|(_, v)| v.is_finite()).collect();
        cx.metric(step, &known)?;
        Ok(known.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect())
    }
}

impl Threshold {
    /// ν starts at ½.
    fn new() -> Self {
        Self(Tensor::from_slice(&[(0.5_f32.exp() - 1.0).ln()]).set_requires_grad(true))
    }

    fn optimizer(&self, settings: &Optimizer<AdamWDefaults>) -> AdamW {
        AdamW::new(settings.config(), &self.0.detach(), 0)
    }

    fn named(&self, adamw: &AdamW) -> Named {
        let all = [("raw", self.0.detach()), ("m", adamw.m.shallow_clone())];
        let more = [("v", adamw.v.shallow_clone()), ("steps", adamw.steps.shallow_clone())];
        all.into_iter().chain(more).map(|(n, t)| (format!("threshold.{n}"), t)).collect()
    }

    fn nu(&self) -> f64 {
        no_grad(|| self.0.softplus().double_value(&[0]))
    }
}

/// The labels as tokens, with their row in the table. A tie keeps both answers in either order.
fn pairs(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    context: usize,
    labels: &Table,
) -> Result<Vec<(usize, Pair)>> {
    let prompts = labels.texts("prompt")?;
    let (chosen, rejected) = (labels.texts("chosen")?, labels.texts("rejected")?);
    let ties = labels.bools("tie", false);
    let certainties = labels.floats("certainty", f64::NAN);
    let ends = [labels.bools("finished_a", true), labels.bools("finished_b", true)];
    let second: Vec<bool> = match labels.column("choice") {
        Some(Column::Text(v)) => {
            v.iter().map(|c| c.as_deref().is_some_and(|c| c.starts_with('b'))).collect()
        }
        _ => vec![false; labels.rows()],
    };
    let both = (0..labels.rows()).flat_map(|i| {
        let (c, r) = if second[i] { (1, 0) } else { (0, 1) };
        [(prompts[i], chosen[i], ends[c][i]), (prompts[i], rejected[i], ends[r][i])]
    });
    let examples = Examples::new(vocabulary, context, both)?;
    cx.warn_if(examples.warning(context))?;
    let mut by_source: Vec<Option<Example>> = vec![None; 2 * labels.rows()];
    for (row, source) in examples.rows.into_iter().zip(examples.sources) {
        by_source[source] = Some(row);
    }
    let mut out = Vec::new();
    for i in 0..labels.rows() {
        let (chosen, rejected) = (by_source[2 * i].take(), by_source[2 * i + 1].take());
        if let (Some(chosen), Some(rejected)) = (chosen, rejected) {
            out.push((i, Pair { chosen, rejected, tie: ties[i], certainty: certainties[i] }));
        }
    }
    Ok(out)
}

/// All answers of some pairs in one batch: the chosen ones first.
fn both_sides(rows: &[&Pair], device: tch::Device) -> Packed {
    let sides = rows.iter().map(|p| &p.chosen).chain(rows.iter().map(|p| &p.rejected));
    Packed::new(&sides.collect::<Vec<_>>(), device)
}

/// Δ = r(chosen) − r(rejected), `[n]`, of the rewards of [`both_sides`], `[2n]`.
fn differences(rewards: &Tensor) -> Tensor {
    let n = rewards.size()[0] / 2;
    rewards.narrow(0, 0, n) - rewards.narrow(0, n, n)
}

/// Rewards of both answers of each pair, without gradients.
fn score_all(model: &Scorer, pairs: &[Pair]) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for chunk in pairs.chunks(64) {
        let sides: Vec<&Example> = chunk.iter().flat_map(|p| [&p.chosen, &p.rejected]).collect();
        let packed = Packed::new(&sides, model.0.params.flat.device());
        let rewards = no_grad(|| to_f64(&model.rewards(&packed)));
        out.extend(rewards.chunks_exact(2).map(|r| (r[0], r[1])));
    }
    out
}

/// Numbers on the host, in order.
fn to_f64(x: &Tensor) -> Vec<f64> {
    let x = x.to_device(tch::Device::Cpu).to_kind(Kind::Double).contiguous();
    let mut out = vec![0.0; x.numel()];
    let n = out.len();
    x.copy_data(&mut out, n);
    out
}

/// Ten bins of confidence σ(|Δ|) from ½ to 1 with their accuracy, and the expected calibration
/// error: the mean distance of the two, weighted by the number of pairs (Naeini et al. 2015).
fn calibration(deltas: &[f64]) -> Result<(Table, f64)> {
    let mut bins: Vec<Vec<(f64, f64)>> = vec![Vec::new(); 10];
    for delta in deltas {
        let confidence = 1.0 / (1.0 + (-delta.abs()).exp());
        let bin = (((confidence - 0.5) * 20.0) as usize).min(9);
        bins[bin].push((confidence, f64::from(u8::from(*delta > 0.0))));
    }
    let used: Vec<(usize, f64, f64, usize)> = bins
        .iter()
        .enumerate()
        .filter(|(_, b)| !b.is_empty())
        .map(|(i, b)| {
            let (c, a): (Vec<f64>, Vec<f64>) = b.iter().copied().unzip();
            (i, mean(&c), mean(&a), b.len())
        })
        .collect();
    let total = deltas.len().max(1) as f64;
    let ece = used.iter().map(|(_, c, a, n)| (c - a).abs() * *n as f64 / total).sum();
    let table = Table::new(vec![
        ("bin", Column::ints(used.iter().map(|b| b.0 as i64))),
        ("confidence", Column::floats(used.iter().map(|b| b.1))),
        ("accuracy", Column::floats(used.iter().map(|b| b.2))),
        ("n", Column::ints(used.iter().map(|b| b.3 as i64))),
    ])?;
    Ok((table, ece))
}
