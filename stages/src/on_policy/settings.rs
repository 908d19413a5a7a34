//! What all kinds that improve a policy on its own responses share: params, drawing, the clipped
//! loss. Knows nothing of how advantages come about or of what the loop keeps.

use std::time::Instant;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::rewards::{Candidate, RewardSources, Rewards, Scorer};
use super::rollout::Rollout;
use crate::context::Context;
use crate::data::{Example, Vocabulary};
use crate::kind::Summary;
use crate::model::{
    BatchShape, Gradient, Lora, Packed, Policy, Predicted, ValueModel, forecast, to_f32,
};
use crate::optim::Schedule;
use crate::prompts::{Prompts, encode_prompts};
use crate::rl::{Aggregation, Clip, EosMode, KlEstimator, RatioSums, policy_loss};
use crate::rng::Stream;
use crate::sampling::{Response, SamplingConfig, generate};
use crate::stats::mean;
use crate::training::{Computation, Defaults, Optimizer, check_memory};

/// Params that all kinds share which improve a policy on its own responses.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OnPolicy {
    /// Weight β of the KL to the starting policy.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub kl_coef: f64,
    /// KL that β is moved towards, nats a response; 0: β stays.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub kl_target: f64,
    /// Episodes over which β may double when kl_target is set.
    #[schemars(range(min = 1.0, max = 1e12))]
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
    #[schemars(range(min = 0.0, max = 10.0))]
    pub lr: f64,
    /// How it falls over the updates: constant, linear or cosine.
    pub schedule: Schedule,
    /// Share of the updates over which it rises.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    pub warmup: f64,
    /// The policy's probabilities count while they stay within 1 ± clip of those it drew with.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub clip: f64,
    /// Another bound upwards; 0: the same as clip.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub clip_high: f64,
    /// Largest loss of a negative advantage, in multiples of it; 0: no bound.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub dual_clip: f64,
    /// Ends the epochs of an update when the policy has moved this far from where it drew, nats a
    /// token; 0: never.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub target_kl: f64,
    /// What the losses of tokens become: token_mean, seq_mean or seq_sum_const.
    pub aggregation: Aggregation,
    /// Weight of the entropy, which is raised.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub ent_coef: f64,
    /// Divides the logits, in drawing and in every log-probability.
    #[schemars(range(min = 1e-06, max = 100.0))]
    pub temperature: f64,
    /// Longest response, tokens.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    pub max_tokens: u32,
    /// What a response that does not end by itself is worth.
    pub eos: EosPenalty,
    /// Bounds the score on both sides; 0: not bounded.
    #[schemars(range(min = 0.0, max = 1e12))]
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
    pub(super) mode: EosMode,
    /// The penalty, a negative number.
    #[schemars(range(min = -1e6, max = 0.0))]
    pub(super) penalty: f64,
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
    /// Bounds of the ratio.
    pub fn bounds(&self) -> Clip {
        let high = if self.clip_high > 0.0 { self.clip_high } else { self.clip };
        Clip { low: self.clip, high, dual: self.dual_clip }
    }

    /// Opens the policy, with its adapters if it is to have any.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(
        &self,
        cx: &mut Context,
        folder: &std::path::Path,
        vocabulary: &Vocabulary,
    ) -> Result<Policy> {
        let mut policy = Policy::open(folder)?.to(cx.device());
        policy.draw_only_known(vocabulary);
        policy.trunk.compute = self.compute.resolve(cx)?;
        policy.trunk.adapt(&self.lora, self.seed);
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
        critic: Option<&ValueModel>,
        frozen: i64,
        prompts: &Prompts,
    ) -> Result<()> {
        let rows = self.compute.rows(self.minibatch as usize) as u64;
        let longest = prompts.tokens.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let answer = u64::from(self.max_tokens);
        let shape =
            BatchShape { rows, time: longest + answer, predicted: rows * answer, packed: false };
        let trunk = &policy.trunk;
        let mut need = forecast(&trunk.config, &trunk.compute, trunk.adapter_size(), shape);
        // With adapters the reference is the policy's own frozen weights.
        let reference = if self.lora.rank > 0 { 0 } else { trunk.params.numel() };
        let best = if self.keep_best { trunk.trainable().numel() } else { 0 };
        need.weights += 4 * (reference + best + frozen) as u64;
        if let Some(critic) = critic {
            let own = forecast(&critic.trunk.config, &critic.trunk.compute, 0, shape);
            need.weights += own.weights;
            need.moments += own.moments;
            need.gradient = need.gradient.max(own.gradient);
            need.activations = need.activations.max(own.activations);
        }
        check_memory(cx, need)
    }

    /// Opens the policy, the prompts and what judges, and hands them to `optimize`.
    ///
    /// # Errors
    /// When something cannot be opened, and those of `optimize`.
    pub fn improve(
        &self,
        cx: &mut Context,
        optimize: impl FnOnce(
            &mut Context,
            &Policy,
            &Vocabulary,
            &mut dyn Scorer,
            &Prompts,
        ) -> Result<Summary>,
    ) -> Result<Summary> {
        self.check()?;
        let folder = cx.path("policy")?.to_owned();
        let vocabulary = cx.vocabulary(&folder)?;
        let policy = self.open(cx, &folder, &vocabulary)?;
        let prompts = self.prompts(cx, &vocabulary, &policy)?;
        let mut scorer = RewardSources::open(cx, &self.rewards, &vocabulary)?;
        self.check_memory(cx, &policy, None, scorer.weights(), &prompts)?;
        optimize(cx, &policy, &vocabulary, &mut scorer, &prompts)
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
    pub fn sampling_config(&self, step: u64) -> SamplingConfig {
        SamplingConfig {
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
    /// When the scorer fails.
    pub fn rollout(
        &self,
        policy: &Policy,
        reference: &Policy,
        scorer: &mut dyn Scorer,
        prompts: &Prompts,
        rows: Vec<usize>,
        step: u64,
    ) -> Result<Rollout> {
        let start = Instant::now();
        let tokens: Vec<Vec<i64>> = rows.iter().map(|i| prompts.tokens[*i].clone()).collect();
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        let responses = generate(policy, &tokens, &keys, &self.sampling_config(step));
        let drawn = start.elapsed().as_secs_f64();
        let mut rollout = self.look(policy, reference, scorer, prompts, rows, responses)?;
        rollout.seconds = [drawn, start.elapsed().as_secs_f64() - drawn];
        Ok(rollout)
    }

    /// Scores and log-probabilities of responses to the prompts of `rows`.
    ///
    /// # Errors
    /// When the scorer fails.
    pub fn look(
        &self,
        policy: &Policy,
        reference: &Policy,
        scorer: &mut dyn Scorer,
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
        let raw_scores = scorer.scores(prompts, &candidates)?;
        let (mut old, mut ours, mut entropies) = (Vec::new(), Vec::new(), Vec::new());
        let mut offsets = vec![0];
        let device = policy.trunk.params.flat.device();
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
            kl_per_token: old
                .iter()
                .zip(&ours)
                .map(|(p, r): (&f32, &f32)| f64::from(p - r))
                .collect(),
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
        let mut first_token = 0;
        let parts = chosen.chunks(size).zip(lengths.chunks(size)).map(|(part, lengths)| {
            let tokens: usize = lengths.iter().sum();
            let weights = &weights[first_token..first_token + tokens];
            let weights = Tensor::from_slice(weights).to_device(policy.trunk.params.flat.device());
            first_token += tokens;
            let rows: Vec<&Example> = part.iter().map(|i| &rollout.rows[*i]).collect();
            let packed = Packed::new(&rows, policy.trunk.params.flat.device());
            policy.backward(&packed, self.temperature, self.ent_coef != 0.0, |predicted| {
                let loss = self.loss(predicted, rollout, part, chosen.len(), &weights, what);
                sums.add(&loss.1);
                loss.0
            })
        });
        let total = Gradient::total(parts).expect("invariant: a minibatch has a response");
        (total, sums)
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

/// Sums of a ragged list, `[n]`, over the tokens of each row at `part`: `[rows]`.
fn sum_rows(list: &Tensor, rollout: &Rollout, part: &[usize]) -> Tensor {
    let lengths: Vec<i64> =
        part.iter().map(|i| (rollout.offsets[i + 1] - rollout.offsets[*i]) as i64).collect();
    let sums: Vec<Tensor> =
        list.split_with_sizes(lengths, 0).iter().map(|row| row.sum(Kind::Float)).collect();
    Tensor::stack(&sums, 0)
}
