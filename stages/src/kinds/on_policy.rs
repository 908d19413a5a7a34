//! What all kinds that improve a policy on its own responses share: params, the responses of one
//! update and what is known of them, the steps over them, and where the loop stands.
//! Knows nothing of how advantages come about.

use std::time::Instant;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use super::compute::{Computation, check_memory};
use super::on_policy_report::{Sample, Samples, Stepped, alarms, figures};
use super::rewards::{Candidate, Judge, Prompts, Rewards};
use super::train::{Defaults, Optimizer, Order, Trainer, encode_prompts, to_f32, within};
use crate::context::{Context, advise};
use crate::data::{Example, Vocabulary, part_of_prompt};
use crate::kind::Summary;
use crate::model::{BatchShape, Gradient, Lora, Packed, Policy, Predicted, Scorer, forecast};
use crate::optim::Schedule;
use crate::resume::Named;
use crate::rl::{AdaptiveKl, Aggregation, Clip, EosMode, KlEstimator, RatioSums, policy_loss};
use crate::rng::Stream;
use crate::sampling::{Response, Sampler, generate};
use crate::stats::mean;

/// Most held-out prompts that are answered at one look.
const HELD_OUT: usize = 128;

/// Step number of draws that belong to no update: the samples shown, and the held-out prompts.
pub const SHOWN_STEP: u64 = u64::MAX;
const HELD_OUT_STEP: u64 = u64::MAX - 1;

/// Params that all kinds share which improve a policy on its own responses.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OnPolicy {
    /// Weight β of the KL to the starting policy.
    pub kl_coef: f64,
    /// KL that β is moved towards, nats a response; 0: β stays.
    pub kl_target: f64,
    /// Episodes over which β may double when kl_target is set.
    pub kl_horizon: f64,
    /// Times that fresh responses are drawn.
    #[schemars(range(min = 1))]
    pub updates: u32,
    /// Responses of one update.
    #[schemars(range(min = 1))]
    pub batch: u32,
    /// Responses of one step.
    #[schemars(range(min = 1))]
    pub minibatch: u32,
    /// Times that the responses of one update are used.
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Learning rate of the policy at its highest.
    pub lr: f64,
    /// How it falls over the updates: constant, linear or cosine.
    pub schedule: Schedule,
    /// Share of the updates over which it rises.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    pub warmup: f64,
    /// The policy's probabilities count while they stay within 1 ± clip of those it drew with.
    pub clip: f64,
    /// Another bound upwards; 0: the same as clip.
    pub clip_high: f64,
    /// Largest loss of a negative advantage, in multiples of it; 0: no bound.
    pub dual_clip: f64,
    /// Ends the epochs of an update when the policy has moved this far from where it drew, nats a
    /// token; 0: never.
    pub target_kl: f64,
    /// What the losses of tokens become: token_mean, seq_mean or seq_sum_const.
    pub aggregation: Aggregation,
    /// Weight of the entropy, which is raised.
    pub ent_coef: f64,
    /// Divides the logits, in drawing and in every log-probability.
    pub temperature: f64,
    /// Longest response, tokens.
    #[schemars(extend("x-unit" = "count"))]
    pub max_tokens: u32,
    /// What a response that does not end by itself is worth.
    pub eos: EosPenalty,
    /// Bounds the score on both sides; 0: not bounded.
    pub score_clip: f64,
    /// What a response is worth.
    pub rewards: Rewards,
    /// Adapters beside the policy's frozen weights, which are then the reference as they are.
    pub lora: Lora,
    /// How steps of the policy are computed.
    pub compute: Computation,
    /// AdamW and clipping.
    pub optimizer: Optimizer<AdamWDefaults>,
    /// Share of the prompts that are only looked at: their reward tells what was learned.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    pub eval_fraction: f64,
    /// Updates between two looks at the held-out prompts; 0: five times in all.
    pub eval_every: u32,
    /// Keep the weights with the highest held-out reward (less the KL) instead of the last.
    pub keep_best: bool,
    /// Updates between two samples that are kept; 0: six times in all.
    pub sample_every: u32,
    /// Names the random streams: the order of prompts and rows, and the draws.
    pub seed: u64,
}

/// What happens to the score of a response without an end.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EosPenalty {
    /// replace: the penalty is the score; subtract: it is added to the score; keep: nothing.
    mode: EosMode,
    /// The penalty, a negative number.
    penalty: f64,
}

impl Default for EosPenalty {
    fn default() -> Self {
        Self { mode: EosMode::Replace, penalty: -1.0 }
    }
}

/// Where AdamW starts.
#[derive(Debug, Clone)]
pub struct AdamWDefaults;

impl Defaults for AdamWDefaults {
    const BETAS: [f64; 2] = [0.9, 0.999];
    const EPS: f64 = 1e-5;
}

impl Default for OnPolicy {
    fn default() -> Self {
        Self {
            kl_coef: 0.05,
            kl_target: 0.0,
            kl_horizon: 10_000.0,
            updates: 30,
            batch: 64,
            minibatch: 32,
            epochs: 2,
            lr: 3e-4,
            schedule: Schedule::Linear,
            warmup: 0.0,
            clip: 0.2,
            clip_high: 0.0,
            dual_clip: 0.0,
            target_kl: 0.0,
            aggregation: Aggregation::TokenMean,
            ent_coef: 0.0,
            temperature: 1.0,
            max_tokens: 24,
            eos: EosPenalty::default(),
            score_clip: 0.0,
            rewards: Rewards::default(),
            lora: Lora::default(),
            compute: Computation::default(),
            optimizer: Optimizer::default(),
            eval_fraction: 0.0,
            eval_every: 0,
            keep_best: false,
            sample_every: 0,
            seed: 0,
        }
    }
}

/// One update's responses and what is known of them. Lists of tokens are ragged: see `offsets`.
#[derive(Debug)]
pub struct Rollout {
    pub rows: Vec<Example>,
    /// Row of each response's prompt.
    pub prompts: Vec<usize>,
    pub finished: Vec<bool>,
    /// First token of each row in the ragged lists, and their length at the end.
    pub offsets: Vec<usize>,
    /// Score of each row before any penalty.
    pub raw_scores: Vec<f64>,
    /// The score that counts.
    pub scores: Vec<f64>,
    /// Log-probability of each token when drawn, and under the reference.
    pub old: Vec<f32>,
    pub reference: Vec<f32>,
    /// `old − reference`, one a token.
    pub k1: Vec<f64>,
    /// Mean over tokens, nats.
    pub entropy: f64,
    /// Seconds of drawing and of scoring.
    pub seconds: [f64; 2],
    /// The responses were drawn from the reference, not from the policy.
    pub off_policy: bool,
}

impl Rollout {
    /// KL of the policy to the reference, nats a response: the mean of the summed k1, or of
    /// `r·ln r − r + 1` with the ratio r of the response where the reference drew it.
    pub fn kl(&self) -> f64 {
        let weighted = |l: f64| {
            let ratio = l.clamp(-20.0, 20.0).exp();
            ratio * l - ratio + 1.0
        };
        let rows = self.row_kl().into_iter();
        mean(&rows.map(|l| if self.off_policy { weighted(l) } else { l }).collect::<Vec<_>>())
    }

    /// Summed k1 of each response, nats.
    pub fn row_kl(&self) -> Vec<f64> {
        self.offsets.windows(2).map(|w| self.k1[w[0]..w[1]].iter().sum()).collect()
    }

    /// Number of tokens of each response.
    pub fn lengths(&self) -> Vec<usize> {
        self.offsets.windows(2).map(|w| w[1] - w[0]).collect()
    }

    /// A list of one number a response as one a token.
    pub fn spread(&self, per_row: &[f64]) -> Vec<f64> {
        let lengths = self.lengths();
        per_row.iter().zip(lengths).flat_map(|(x, n)| std::iter::repeat_n(*x, n)).collect()
    }

    /// The tokens of the rows at `chosen`, `[n]`, on `device`.
    pub fn gather(&self, list: &[f32], chosen: &[usize], device: Device) -> Tensor {
        let parts: Vec<f32> = chosen
            .iter()
            .flat_map(|i| list[self.offsets[*i]..self.offsets[i + 1]].iter().copied())
            .collect();
        Tensor::from_slice(&parts).to_device(device)
    }
}

/// What the loss of one step is made of, beside the policy's own log-probabilities.
#[derive(Debug, Clone, Copy)]
pub struct StepLoss<'a> {
    /// Advantage of each token of the rollout, or of each response when `sequence`.
    pub advantages: &'a [f64],
    /// The ratio is that of whole responses instead of tokens.
    pub sequence: bool,
    /// Weight and estimator of a KL in the loss.
    pub kl: Option<(f64, KlEstimator)>,
}

impl OnPolicy {
    /// Checks the params that no schema can.
    ///
    /// # Errors
    /// Names the param.
    pub fn check(&self) -> Result<()> {
        within("temperature", self.temperature, 1e-6, 100.0)?;
        within("eos.penalty", self.eos.penalty, -1e6, 0.0)?;
        within("score_clip", self.score_clip, 0.0, f64::MAX)?;
        within("clip", self.clip, 0.0, 100.0)?;
        within("clip_high", self.clip_high, 0.0, 1e6)?;
        within("target_kl", self.target_kl, 0.0, 1e6)?;
        if self.dual_clip != 0.0 {
            within("dual_clip (0 turns it off)", self.dual_clip, 1.0, 1e6)?;
        }
        if self.kl_target > 0.0 {
            within("kl_horizon", self.kl_horizon, 1.0, f64::MAX)?;
        }
        if self.batch == 0 || self.minibatch == 0 || self.epochs == 0 || self.updates == 0 {
            bail!("updates, batch, minibatch and epochs must be 1 or more");
        }
        if self.keep_best && self.eval_fraction == 0.0 {
            let help = "for example eval_fraction: 10%";
            return Err(advise("keep_best needs held-out prompts to be best on", help));
        }
        Ok(())
    }

    /// Bounds of the ratio.
    pub fn bounds(&self) -> Clip {
        let high = if self.clip_high > 0.0 { self.clip_high } else { self.clip };
        Clip { low: self.clip, high, dual: self.dual_clip }
    }

    /// Opens the policy, with its adapters if it is to have any.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(&self, cx: &mut Context, folder: &std::path::Path) -> Result<Policy> {
        let mut policy = Policy::open(folder)?;
        policy.0.compute = self.compute.resolve(cx)?;
        policy.0.adapt(&self.lora, self.seed);
        Ok(policy)
    }

    /// Says what training takes, and refuses what does not fit: the policy in training, `critic`
    /// too where there is one, and beside them models of `frozen` weights.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn check_memory(
        &self,
        cx: &mut Context,
        policy: &Policy,
        critic: Option<&Scorer>,
        frozen: i64,
        prompts: &Prompts,
    ) -> Result<()> {
        let rows = self.compute.rows(self.minibatch as usize) as u64;
        let longest = prompts.tokens.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let answer = u64::from(self.max_tokens);
        let shape =
            BatchShape { rows, time: longest + answer, predicted: rows * answer, packed: false };
        let trunk = &policy.0;
        let mut need = forecast(&trunk.config, &trunk.compute, trunk.adapter_size(), shape);
        // With adapters the reference is the policy's own frozen weights.
        let reference = if self.lora.rank > 0 { 0 } else { trunk.params.numel() };
        let best = if self.keep_best { trunk.trainable().numel() } else { 0 };
        need.weights += 4 * (reference + best + frozen) as u64;
        if let Some(critic) = critic {
            let own = forecast(&critic.0.config, &critic.0.compute, 0, shape);
            need.weights += own.weights;
            need.moments += own.moments;
            need.gradient = need.gradient.max(own.gradient);
            need.activations = need.activations.max(own.activations);
        }
        check_memory(cx, need)
    }

    /// The prompts of port `prompts`, as rows and tokens.
    ///
    /// # Errors
    /// When there are none, or no room is left for them.
    pub fn prompts(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        policy: &Policy,
    ) -> Result<Prompts> {
        let table = cx.table("prompts")?;
        let texts = table.texts("prompt")?;
        let tokens = encode_prompts(cx, vocabulary, policy, &texts, self.max_tokens as usize)?;
        Ok(Prompts { table, tokens })
    }

    /// How responses are drawn at an update.
    pub fn sampler(&self, step: u64) -> Sampler {
        Sampler {
            temperature: self.temperature,
            top_k: 0,
            top_p: 1.0,
            max_tokens: self.max_tokens as usize,
            seed: self.seed,
            step,
        }
    }

    /// Draws a response to the prompt of each row of `rows`, and finds out all about it.
    ///
    /// # Errors
    /// When the judge fails.
    pub fn rollout(
        &self,
        policy: &Policy,
        reference: &Policy,
        judge: &mut dyn Judge,
        prompts: &Prompts,
        rows: Vec<usize>,
        step: u64,
    ) -> Result<Rollout> {
        let start = Instant::now();
        let tokens: Vec<Vec<i64>> = rows.iter().map(|i| prompts.tokens[*i].clone()).collect();
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        let responses = generate(policy, &tokens, &keys, &self.sampler(step));
        let drawn = start.elapsed().as_secs_f64();
        let mut rollout = self.look(policy, reference, judge, prompts, rows, responses)?;
        rollout.seconds = [drawn, start.elapsed().as_secs_f64() - drawn];
        Ok(rollout)
    }

    /// Scores and log-probabilities of responses to the prompts of `rows`.
    ///
    /// # Errors
    /// When the judge fails.
    pub fn look(
        &self,
        policy: &Policy,
        reference: &Policy,
        judge: &mut dyn Judge,
        prompts: &Prompts,
        rows: Vec<usize>,
        responses: Vec<Response>,
    ) -> Result<Rollout> {
        let finished: Vec<bool> = responses.iter().map(|r| r.finished).collect();
        let examples: Vec<Example> = rows
            .iter()
            .zip(responses)
            .map(|(i, r)| Example { prompt: prompts.tokens[*i].clone(), completion: r.tokens })
            .collect();
        let candidates: Vec<Candidate> = rows
            .iter()
            .zip(&examples)
            .zip(&finished)
            .map(|((row, example), finished)| Candidate { row: *row, example, finished: *finished })
            .collect();
        let raw_scores = judge.scores(prompts, &candidates)?;
        let (mut old, mut ours, mut entropies) = (Vec::new(), Vec::new(), Vec::new());
        let mut offsets = vec![0];
        let device = policy.0.params.flat.device();
        no_grad(|| {
            for chunk in examples.chunks(self.minibatch as usize) {
                let packed = Packed::new(&chunk.iter().collect::<Vec<_>>(), device);
                let predicted = policy.predict(&packed, self.temperature, true);
                old.extend(to_f32(&predicted.log_probs));
                entropies.extend(predicted.entropy.iter().flat_map(to_f32).map(f64::from));
                ours.extend(to_f32(&reference.predict(&packed, self.temperature, false).log_probs));
                let before = offsets.last().copied().unwrap_or(0);
                offsets.extend(packed.offsets[1..].iter().map(|o| before + o));
            }
        });
        let penalised = raw_scores.iter().zip(&finished).map(|(score, finished)| {
            let score = self.eos.mode.apply(*score, *finished, self.eos.penalty);
            if self.score_clip > 0.0 {
                score.clamp(-self.score_clip, self.score_clip)
            } else {
                score
            }
        });
        Ok(Rollout {
            scores: penalised.collect(),
            k1: old.iter().zip(&ours).map(|(p, r): (&f32, &f32)| f64::from(p - r)).collect(),
            rows: examples,
            prompts: rows,
            finished,
            offsets,
            raw_scores,
            old,
            reference: ours,
            entropy: mean(&entropies),
            seconds: [0.0; 2],
            off_policy: false,
        })
    }

    /// Calls `step` with the responses of each minibatch of each epoch, and stops the epochs when
    /// the policy has moved by `target_kl`: `step` returns how far.
    ///
    /// # Errors
    /// Those of `step`.
    pub fn epochs(
        &self,
        update: u64,
        rows: usize,
        mut step: impl FnMut(&[usize]) -> Result<f64>,
    ) -> Result<()> {
        for epoch in 0..u64::from(self.epochs) {
            let order = Stream::new(self.seed, "minibatch", update, epoch).permutation(rows);
            let mut moved = Vec::new();
            for chunk in order.chunks(self.minibatch as usize) {
                moved.push(step(chunk)?);
            }
            if self.target_kl > 0.0 && mean(&moved) > self.target_kl {
                break;
            }
        }
        Ok(())
    }

    /// The gradient of the clipped loss over the responses at `chosen`, part by part.
    pub fn policy_gradient(
        &self,
        policy: &Policy,
        rollout: &Rollout,
        chosen: &[usize],
        what: StepLoss,
    ) -> (Gradient, RatioSums) {
        let lengths: Vec<usize> =
            chosen.iter().map(|i| rollout.offsets[i + 1] - rollout.offsets[*i]).collect();
        let weights = self.aggregation.weights(&lengths, self.max_tokens as usize);
        let size = self.compute.rows(chosen.len());
        let mut sums = RatioSums::default();
        let mut total: Option<Gradient> = None;
        let mut first_token = 0;
        for (part, lengths) in chosen.chunks(size).zip(lengths.chunks(size)) {
            let tokens: usize = lengths.iter().sum();
            let weights = &weights[first_token..first_token + tokens];
            let weights = Tensor::from_slice(weights).to_device(policy.0.params.flat.device());
            first_token += tokens;
            let rows: Vec<&Example> = part.iter().map(|i| &rollout.rows[*i]).collect();
            let packed = Packed::new(&rows, policy.0.params.flat.device());
            let gradient =
                policy.backward(&packed, self.temperature, self.ent_coef != 0.0, |predicted| {
                    let loss = self.loss(predicted, rollout, part, chosen.len(), &weights, what);
                    sums.add(&loss.1);
                    loss.0
                });
            total = Some(match total {
                None => gradient,
                Some(sum) => {
                    Gradient { loss: sum.loss + gradient.loss, flat: sum.flat + gradient.flat }
                }
            });
        }
        (total.expect("invariant: a minibatch has a response"), sums)
    }

    /// The part of a minibatch's loss that the responses at `part` add; the whole has `rows`.
    fn loss(
        &self,
        predicted: &Predicted,
        rollout: &Rollout,
        part: &[usize],
        rows: usize,
        weights: &Tensor,
        what: StepLoss,
    ) -> (Tensor, RatioSums) {
        let (new, device) = (&predicted.log_probs, predicted.log_probs.device());
        let tensor = |list: &[f32]| Tensor::from_slice(list).to_device(device);
        let old = rollout.gather(&rollout.old, part, device);
        let policy = if what.sequence {
            let advantages: Vec<f32> = part.iter().map(|i| what.advantages[*i] as f32).collect();
            let each = tensor(&vec![1.0 / rows as f32; part.len()]);
            let (new, old) = (sum_rows(new, rollout, part), sum_rows(&old, rollout, part));
            policy_loss(&new, &old, &tensor(&advantages), &each, self.bounds())
        } else {
            let advantages: Vec<f32> = what.advantages.iter().map(|a| *a as f32).collect();
            let advantages = rollout.gather(&advantages, part, device);
            policy_loss(new, &old, &advantages, weights, self.bounds())
        };
        let mut loss = policy.loss;
        if let Some((beta, estimator)) = what.kl {
            let reference = rollout.gather(&rollout.reference, part, device);
            let kl = estimator.of(&(new - reference)) * weights;
            loss += kl.sum(Kind::Float) * beta;
        }
        if let Some(entropy) = &predicted.entropy {
            loss -= (entropy * weights).sum(Kind::Float) * self.ent_coef;
        }
        (loss, policy.sums)
    }
}

impl Rollout {
    /// The responses at `chosen` alone.
    #[must_use]
    pub fn keep(&self, chosen: &[usize]) -> Self {
        fn rows<T: Clone>(list: &[T], chosen: &[usize]) -> Vec<T> {
            chosen.iter().map(|i| list[*i].clone()).collect()
        }
        fn tokens<T: Copy>(list: &[T], offsets: &[usize], chosen: &[usize]) -> Vec<T> {
            let of = |i: &usize| list[offsets[*i]..offsets[i + 1]].iter().copied();
            chosen.iter().flat_map(of).collect()
        }
        let lengths = self.lengths();
        let mut offsets = vec![0];
        offsets.extend(chosen.iter().scan(0, |end, i| {
            *end += lengths[*i];
            Some(*end)
        }));
        Self {
            rows: rows(&self.rows, chosen),
            prompts: rows(&self.prompts, chosen),
            finished: rows(&self.finished, chosen),
            raw_scores: rows(&self.raw_scores, chosen),
            scores: rows(&self.scores, chosen),
            old: tokens(&self.old, &self.offsets, chosen),
            reference: tokens(&self.reference, &self.offsets, chosen),
            k1: tokens(&self.k1, &self.offsets, chosen),
            offsets,
            ..*self
        }
    }

    /// Both, one after the other.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        let end = self.old.len();
        let (n, m) = (self.old.len() as f64, other.old.len() as f64);
        self.entropy = (self.entropy * n + other.entropy * m) / (n + m).max(1.0);
        self.rows.extend(other.rows);
        self.prompts.extend(other.prompts);
        self.finished.extend(other.finished);
        self.raw_scores.extend(other.raw_scores);
        self.scores.extend(other.scores);
        self.old.extend(other.old);
        self.reference.extend(other.reference);
        self.k1.extend(other.k1);
        self.offsets.extend(other.offsets[1..].iter().map(|o| o + end));
        self.seconds = [0, 1].map(|i| self.seconds[i] + other.seconds[i]);
        self
    }
}

/// Sums of a ragged list, `[n]`, over the tokens of each row at `part`: `[rows]`.
fn sum_rows(list: &Tensor, rollout: &Rollout, part: &[usize]) -> Tensor {
    let lengths: Vec<i64> =
        part.iter().map(|i| (rollout.offsets[i + 1] - rollout.offsets[*i]) as i64).collect();
    let sums: Vec<Tensor> =
        list.split_with_sizes(lengths, 0).iter().map(|row| row.sum(Kind::Float)).collect();
    Tensor::stack(&sums, 0)
}

/// The policy in training, what it is held near, and where the loop stands.
pub struct Course<'a> {
    pub settings: &'a OnPolicy,
    pub policy: &'a Policy,
    pub reference: Policy,
    pub prompts: &'a Prompts,
    pub trainer: Trainer,
    pub kl: AdaptiveKl,
    pub state: State,
    samples: Samples,
    order: Order,
    /// Prompts to learn from, and prompts to look at.
    train: Vec<usize>,
    held_out: Vec<usize>,
    best: Tensor,
    named: Named,
    /// Hashes of the reference and of what judges.
    frozen: [u64; 2],
}

/// Where the loop stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    pub update: u64,
    /// Prompts used so far.
    prompts: u64,
    /// The weight of the KL, which may move; `None` before the first update.
    beta: Option<f64>,
    /// A moving baseline, for kinds that have one.
    pub baseline: Option<f64>,
    best: Option<f64>,
    samples: Vec<Sample>,
    summary: Summary,
}

impl<'a> Course<'a> {
    /// Starts, or goes on from a checkpoint. `more`: further tensors of the loop's state.
    ///
    /// # Errors
    /// When all prompts were held out.
    pub fn new(
        cx: &mut Context,
        settings: &'a OnPolicy,
        policy: &'a Policy,
        prompts: &'a Prompts,
        judge: &dyn Judge,
        more: Named,
    ) -> Result<Self> {
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for row in 0..prompts.tokens.len() {
            let out = part_of_prompt(prompts.text(row)?, "on_policy", settings.eval_fraction);
            if out { &mut held_out } else { &mut train }.push(row);
        }
        if train.is_empty() || (settings.keep_best && held_out.is_empty()) {
            let message = format!(
                "{} prompts cannot be split into some to learn from and some to look at",
                prompts.tokens.len()
            );
            return Err(advise(message, "give it more prompts, or change eval_fraction"));
        }
        held_out.truncate(HELD_OUT);
        // Before anything moves: the reference is the policy as it was given.
        let reference = policy.reference();
        let params = policy.0.trainable();
        let trainer = Trainer::new(params, &settings.optimizer);
        let best = if settings.keep_best { params.flat.copy() } else { Tensor::from(0.0_f32) };
        let mut named = trainer.named("policy", params);
        named.push(("best".into(), best.shallow_clone()));
        named.extend(more);
        let mut state = cx.resume::<State>(&named)?.unwrap_or_default();
        let mut samples = Samples::new(settings, &train);
        samples.rows = std::mem::take(&mut state.samples);
        let beta = state.beta.unwrap_or(settings.kl_coef);
        let kl = AdaptiveKl { beta, target: settings.kl_target, horizon: settings.kl_horizon };
        let order = Order::new(settings.seed, "prompts", train.len());
        let frozen = [reference.0.params.fingerprint(), judge.fingerprint()];
        Ok(Self {
            settings,
            policy,
            reference,
            prompts,
            trainer,
            kl,
            state,
            samples,
            order,
            train,
            held_out,
            best,
            named,
            frozen,
        })
    }

    /// The update to make next, if any; samples and held-out prompts are looked at on the way.
    ///
    /// # Errors
    /// When the judge fails.
    pub fn next(&mut self, vocabulary: &Vocabulary, judge: &mut dyn Judge) -> Result<Option<u64>> {
        let (update, last) = (self.state.update, u64::from(self.settings.updates));
        if self.samples.wants(update, last) {
            let rows = self.samples.prompts.clone();
            let rollout = self.settings.rollout(
                self.policy,
                &self.reference,
                judge,
                self.prompts,
                rows,
                SHOWN_STEP,
            )?;
            self.samples.keep(update, &rollout, vocabulary, self.prompts)?;
        }
        Ok((update < last).then_some(update))
    }

    /// Responses to the next prompts, `group` to each. `attempt` tells several rollouts of one
    /// update apart.
    ///
    /// # Errors
    /// When the judge fails.
    pub fn rollout(&mut self, judge: &mut dyn Judge, group: u32, attempt: u64) -> Result<Rollout> {
        let count = u64::from(self.settings.batch / group);
        let places = self.state.prompts..self.state.prompts + count;
        self.state.prompts += count;
        let rows: Vec<usize> = places
            .flat_map(|i| std::iter::repeat_n(self.train[self.order.at(i)], group as usize))
            .collect();
        let step = self.state.update + (attempt << 40);
        self.settings.rollout(self.policy, &self.reference, judge, self.prompts, rows, step)
    }

    /// The next responses of a list, which holds one by row of the prompts.
    ///
    /// # Errors
    /// When the judge fails.
    pub fn rollout_of(&mut self, judge: &mut dyn Judge, given: &[Response]) -> Result<Rollout> {
        let count = u64::from(self.settings.batch);
        let places = self.state.prompts..self.state.prompts + count;
        self.state.prompts += count;
        let rows: Vec<usize> = places.map(|i| self.train[self.order.at(i)]).collect();
        let responses = rows.iter().map(|i| given[*i].clone()).collect();
        self.settings.look(self.policy, &self.reference, judge, self.prompts, rows, responses)
    }

    /// The learning rate of an update, as a share of the highest.
    pub fn factor(&self, update: u64) -> f64 {
        let s = self.settings;
        s.schedule.factor(update, u64::from(s.updates), s.warmup, 0.0)
    }

    /// One step of the policy over the responses at `chosen`. Returns how far it is from where it
    /// drew, nats a token.
    ///
    /// # Errors
    /// When the gradient is not finite.
    pub fn step(
        &mut self,
        rollout: &Rollout,
        chosen: &[usize],
        what: StepLoss,
        lr: f64,
        stepped: &mut Stepped,
    ) -> Result<f64> {
        let (gradient, sums) = self.settings.policy_gradient(self.policy, rollout, chosen, what);
        let norm = self.trainer.step(self.policy.0.trainable(), gradient.flat, lr)?;
        stepped.add(&sums, gradient.loss.double_value(&[]), norm);
        Ok(sums.approx_kl_k3())
    }

    /// Ends an update: figures, alarms, a look at the held-out prompts, a checkpoint.
    ///
    /// # Errors
    /// When a figure is no number; the last checkpoint is that of the update before.
    pub fn close(
        &mut self,
        cx: &mut Context,
        judge: &mut dyn Judge,
        rollout: &Rollout,
        stepped: &Stepped,
        more: &[(&'static str, f64)],
    ) -> Result<()> {
        let (update, updates) = (self.state.update, u64::from(self.settings.updates));
        let lr = self.settings.lr * self.factor(update);
        let mut all = figures(rollout, stepped, self.kl.beta, lr);
        all.extend_from_slice(more);
        alarms(cx, update, &all)?;
        let every = match self.settings.eval_every {
            0 => (updates / 5).max(1),
            n => u64::from(n),
        };
        let looks = (update + 1).is_multiple_of(every) || update + 1 == updates;
        if looks && !self.held_out.is_empty() {
            all.extend(self.look(judge)?);
        }
        self.state.summary.extend(all.iter().map(|(n, v)| ((*n).to_owned(), *v)));
        let [drawn, scored] = rollout.seconds;
        let seconds = drawn + scored + stepped.seconds();
        all.extend([
            ("time/gen", drawn),
            ("time/score", scored),
            ("time/train", stepped.seconds()),
            ("time/tokens_per_s", rollout.old.len() as f64 / seconds),
        ]);
        cx.metric(update + 1, &all)?;
        if self.settings.kl_target > 0.0 {
            self.kl.update(rollout.kl(), rollout.rows.len() as f64);
        }
        cx.progress(update + 1, updates, "updates")?;
        self.state.update = update + 1;
        self.state.beta = Some(self.kl.beta);
        self.state.samples.clone_from(&self.samples.rows);
        cx.checkpoint(&self.state, &self.named)
    }

    /// Reward and KL on the held-out prompts, with the same noise every time.
    fn look(&mut self, judge: &mut dyn Judge) -> Result<[(&'static str, f64); 3]> {
        let rollout = self.settings.rollout(
            self.policy,
            &self.reference,
            judge,
            self.prompts,
            self.held_out.clone(),
            HELD_OUT_STEP,
        )?;
        let (score, kl) = (mean(&rollout.scores), rollout.kl());
        let reward = score - self.settings.kl_coef * kl;
        if self.settings.keep_best && self.state.best.is_none_or(|best| reward > best) {
            self.state.best = Some(reward);
            no_grad(|| self.best.copy_(&self.policy.0.trainable().flat));
        }
        Ok([("eval/scores", score), ("eval/kl", kl), ("eval/rlhf_reward", reward)])
    }

    /// Writes the outputs, the best weights if they were asked for.
    ///
    /// # Errors
    /// When a file cannot be written, or a model moved that must not.
    pub fn finish(
        self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        judge: &dyn Judge,
    ) -> Result<Summary> {
        if self.frozen != [self.reference.0.params.fingerprint(), judge.fingerprint()] {
            bail!("the reference or the reward model moved: this is a defect of preflow");
        }
        if self.settings.keep_best && self.state.best.is_some() {
            no_grad(|| self.policy.0.trainable().flat.shallow_clone().copy_(&self.best));
        }
        self.policy.save(&cx.output("model")?, vocabulary)?;
        cx.complete("model", None)?;
        cx.write_metrics()?;
        cx.write_table("samples", &self.samples.table()?)?;
        Ok(self.state.summary)
    }
}
