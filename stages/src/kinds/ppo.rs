//! `ppo`: proximal policy optimisation against a reward model, held near the start by KL.
//! Knows nothing of how the reward came about.
//!
//! One update: draw a response to each of a batch of prompts; score it; recompute its
//! log-probabilities under the policy and the frozen reference, and its values; spread the score
//! and the KL over the tokens; advantages by GAE; several epochs of clipped steps.

use std::time::Instant;

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::ppo_report::{Sample, Samples, Stepped, alarms, figures};
use super::train::{Defaults, Optimizer, Order, Trainer, encode_prompts, same_tokenizer, within};
use crate::context::Context;
use crate::data::{Example, Table, Vocabulary};
use crate::kind::{Stage, Summary, input, output};
use crate::model::{Packed, Policy, Scorer, entropy, token_log_probs};
use crate::optim::Schedule;
use crate::rl::{AdaptiveKl, EosMode, gae, policy_loss, token_rewards, value_loss, whiten};
use crate::rng::Stream;
use crate::sampling::{Response, Sampler, generate};
use crate::stats::mean;

/// Params of `ppo`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ppo {
    /// Weight β of the KL to the starting policy, in the reward of each token.
    kl_coef: f64,
    /// KL that β is moved towards, nats a response; 0: β stays.
    kl_target: f64,
    /// Episodes over which β may double when kl_target is set.
    kl_horizon: f64,
    /// Times that fresh responses are drawn.
    #[schemars(range(min = 1))]
    pub(super) updates: u32,
    /// Responses of one update.
    #[schemars(range(min = 1))]
    batch: u32,
    /// Responses of one step.
    #[schemars(range(min = 1))]
    minibatch: u32,
    /// Times that the responses of one update are used.
    #[schemars(range(min = 1))]
    epochs: u32,
    /// Learning rate of the policy at its highest.
    lr: f64,
    /// Learning rate of the critic at its highest.
    critic_lr: f64,
    /// How both fall over the updates: constant, linear or cosine.
    schedule: Schedule,
    /// Share of the updates over which both rise.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    warmup: f64,
    /// The policy's probabilities count while they stay within 1 ± clip of those it drew with.
    clip: f64,
    /// The critic's values count while they stay this close to those before.
    vf_clip: f64,
    /// Weight of the value loss.
    vf_coef: f64,
    /// Discount of later rewards.
    #[schemars(range(min = 0.0, max = 1.0))]
    gamma: f64,
    /// λ of generalised advantage estimation.
    #[schemars(range(min = 0.0, max = 1.0))]
    lam: f64,
    /// Divides the logits, in drawing and in every log-probability.
    temperature: f64,
    /// Longest response, tokens.
    #[schemars(extend("x-unit" = "count"))]
    max_tokens: u32,
    /// What a response that does not end by itself is worth.
    eos: EosPenalty,
    /// Scale the advantages of an update to mean 0 and variance 1.
    whiten_advantages: bool,
    /// Scale the rewards of an update to variance 1; their mean stays.
    whiten_rewards: bool,
    /// AdamW and clipping, of policy and critic alike.
    optimizer: Optimizer<AdamWDefaults>,
    /// Updates between two samples that are kept; 0: six times in all.
    pub(super) sample_every: u32,
    /// Names the random streams: the order of prompts and rows, and the draws.
    seed: u64,
}

/// What happens to the score of a response without an end.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct EosPenalty {
    /// replace: the penalty is the score; subtract: it is added to the score.
    mode: EosMode,
    /// The penalty, a negative number.
    penalty: f64,
}

impl Default for EosPenalty {
    fn default() -> Self {
        Self { mode: EosMode::Replace, penalty: -1.0 }
    }
}

/// Where AdamW starts in `ppo`.
#[derive(Debug, Clone)]
pub struct AdamWDefaults;

impl Defaults for AdamWDefaults {
    const BETAS: [f64; 2] = [0.9, 0.999];
    const EPS: f64 = 1e-5;
}

impl Default for Ppo {
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
            critic_lr: 1e-3,
            schedule: Schedule::Linear,
            warmup: 0.0,
            clip: 0.2,
            vf_clip: 0.2,
            vf_coef: 0.1,
            gamma: 1.0,
            lam: 0.95,
            temperature: 1.0,
            max_tokens: 24,
            eos: EosPenalty::default(),
            whiten_advantages: true,
            whiten_rewards: false,
            optimizer: Optimizer::default(),
            sample_every: 0,
            seed: 0,
        }
    }
}

/// The four models. Only `policy` and `critic` ever move.
pub struct Models {
    pub policy: Policy,
    pub reference: Policy,
    pub reward: Scorer,
    pub critic: Scorer,
}

/// One update's responses and what is known of them. Lists of tokens are ragged: see `offsets`.
pub struct Rollout {
    pub rows: Vec<Example>,
    pub finished: Vec<bool>,
    /// First token of each row in the ragged lists, and their length at the end.
    pub offsets: Vec<usize>,
    /// Reward model's score of each row, before any penalty.
    pub raw_scores: Vec<f64>,
    /// The score that counts.
    pub scores: Vec<f64>,
    /// Log-probabilities when drawn, values, advantages and returns, one a token.
    pub old: Vec<f32>,
    pub values: Vec<f32>,
    pub k1: Vec<f64>,
    pub advantages: Vec<f64>,
    pub returns: Vec<f64>,
    pub entropy: f64,
}

/// Where the loop stands.
#[derive(Default, Serialize, Deserialize)]
struct State {
    update: u64,
    /// The weight of the KL, which may move; `None` before the first update.
    beta: Option<f64>,
    samples: Vec<Sample>,
    summary: Summary,
}

impl Stage for Ppo {
    const NAME: &'static str = "ppo";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "improve a policy against a reward model by PPO";

    fn inputs() -> Vec<InputDoc> {
        let prompts = &["dataset/prompt", "dataset/prompt_completion"];
        vec![
            input("policy", &["model/policy"], "the policy to start from and to stay near"),
            input("reward", &["model/reward"], "scores responses; also how the critic starts"),
            input("prompts", prompts, "what the policy answers"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("model", "model/policy", "", "opens as LlamaForCausalLM"),
            output("metrics", "dataset/metrics", "parquet", "reward, KL and health by update"),
            output("samples", "dataset/samples", "parquet", "answers to a few prompts by update"),
        ]
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        self.check()?;
        let (policy_folder, reward_folder) =
            (cx.path("policy")?.to_owned(), cx.path("reward")?.to_owned());
        let vocabulary = cx.vocabulary(&policy_folder)?;
        same_tokenizer(("policy", &vocabulary), ("reward", &cx.vocabulary(&reward_folder)?))?;
        let models = Models::new(Policy::open(&policy_folder)?, Scorer::open(&reward_folder)?);
        let table = cx.table("prompts")?;
        let texts = table.texts("prompt")?;
        let prompts =
            encode_prompts(cx, &vocabulary, &models.policy, &texts, self.max_tokens as usize)?;
        let frozen =
            [models.reference.0.params.fingerprint(), models.reward.0.params.fingerprint()];
        let (samples, summary) = self.optimize(cx, &models, &vocabulary, &texts, &prompts)?;
        if frozen != [models.reference.0.params.fingerprint(), models.reward.0.params.fingerprint()]
        {
            bail!("the reference or the reward model moved: this is a defect of kind `ppo`");
        }
        models.policy.save(&cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        cx.write_metrics()?;
        cx.write_table("samples", &samples)?;
        Ok(summary)
    }
}

impl Models {
    /// The reference is a copy of the policy, the critic one of the reward model with its head.
    pub fn new(policy: Policy, reward: Scorer) -> Self {
        Self { reference: policy.duplicate(), critic: reward.duplicate(), policy, reward }
    }
}

impl Ppo {
    fn check(&self) -> Result<()> {
        within("temperature", self.temperature, 1e-6, 100.0)?;
        within("gamma", self.gamma, 0.0, 1.0)?;
        within("lam", self.lam, 0.0, 1.0)?;
        within("eos.penalty", self.eos.penalty, -1e6, 0.0)?;
        if self.batch == 0 || self.minibatch == 0 || self.epochs == 0 {
            bail!("batch, minibatch and epochs must be 1 or more");
        }
        Ok(())
    }

    /// The loop. Returns the samples by update and the last figures.
    fn optimize(
        &self,
        cx: &mut Context,
        models: &Models,
        vocabulary: &Vocabulary,
        texts: &[&str],
        prompts: &[Vec<i64>],
    ) -> Result<(Table, Summary)> {
        let mut policy_trainer = Trainer::new(&models.policy.0.params, &self.optimizer);
        let mut critic_trainer = Trainer::new(&models.critic.0.params, &self.optimizer);
        let mut kl =
            AdaptiveKl { beta: self.kl_coef, target: self.kl_target, horizon: self.kl_horizon };
        let mut samples = Samples::new(self, texts.len());
        let mut order = Order::new(self.seed, "prompts", prompts.len());
        let updates = u64::from(self.updates);
        let batch = u64::from(self.batch);
        let mut named = policy_trainer.named("policy", models.policy.0.trainable());
        named.extend(critic_trainer.named("critic", models.critic.0.trainable()));
        let mut state = cx.resume::<State>(&named)?.unwrap_or_default();
        if let Some(beta) = state.beta {
            kl.beta = beta;
            samples.rows = std::mem::take(&mut state.samples);
        }
        for update in state.update..updates {
            samples.keep(self, update, models, vocabulary, texts, prompts)?;
            let places = update * batch..(update + 1) * batch;
            let rows: Vec<Vec<i64>> = places.map(|i| prompts[order.at(i)].clone()).collect();
            let start = Instant::now();
            let responses = self.draw(models, &rows, update);
            let drawn = start.elapsed().as_secs_f64();
            let rollout = self.score(models, rows, responses, kl.beta);
            let scored = start.elapsed().as_secs_f64();
            let factor = self.schedule.factor(update, updates, self.warmup, 0.0);
            let stepped = self.train(
                models,
                &rollout,
                update,
                factor,
                [&mut policy_trainer, &mut critic_trainer],
            )?;
            let trained = start.elapsed().as_secs_f64();
            let figures = figures(&rollout, &stepped, kl.beta, self.lr * factor);
            let seconds = [
                ("time/gen", drawn),
                ("time/score", scored - drawn),
                ("time/train", trained - scored),
                ("time/tokens_per_s", rollout.old.len() as f64 / trained),
            ];
            let all: Vec<(&str, f64)> = figures.iter().copied().chain(seconds).collect();
            cx.metric(update + 1, &all)?;
            alarms(cx, update, &figures)?;
            state.summary = figures.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
            if self.kl_target > 0.0 {
                kl.update(rollout.kl(), f64::from(self.batch));
            }
            cx.progress(update + 1, updates, "updates")?;
            state.update = update + 1;
            state.beta = Some(kl.beta);
            state.samples.clone_from(&samples.rows);
            cx.checkpoint(&state, &named)?;
        }
        samples.keep(self, updates, models, vocabulary, texts, prompts)?;
        Ok((samples.table()?, state.summary))
    }

    /// One response to each row.
    fn draw(&self, models: &Models, rows: &[Vec<i64>], update: u64) -> Vec<Response> {
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        generate(&models.policy, rows, &keys, &self.sampler(update))
    }

    pub(super) fn sampler(&self, step: u64) -> Sampler {
        Sampler {
            temperature: self.temperature,
            top_k: 0,
            top_p: 1.0,
            max_tokens: self.max_tokens as usize,
            seed: self.seed,
            step,
        }
    }

    /// Scores, log-probabilities and values of fresh responses, and the advantages from them.
    pub fn score(
        &self,
        models: &Models,
        prompts: Vec<Vec<i64>>,
        responses: Vec<Response>,
        beta: f64,
    ) -> Rollout {
        let finished: Vec<bool> = responses.iter().map(|r| r.finished).collect();
        let tokens = responses.into_iter().map(|r| r.tokens);
        let rows: Vec<Example> = prompts
            .into_iter()
            .zip(tokens)
            .map(|(prompt, completion)| Example { prompt, completion })
            .collect();
        let (mut old, mut reference, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut raw_scores, mut entropies, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        no_grad(|| {
            for chunk in rows.chunks(self.minibatch as usize) {
                let packed = Packed::new(
                    &chunk.iter().collect::<Vec<_>>(),
                    models.policy.0.params.flat.device(),
                );
                let logits = packed.logits(&models.policy);
                old.extend(to_f32(&token_log_probs(&logits, &packed.targets, self.temperature)));
                entropies.extend(to_f32(&entropy(&logits, self.temperature)));
                reference.extend(to_f32(&packed.log_probs(&models.reference, self.temperature)));
                values.extend(to_f32(&models.critic.values(&packed)));
                raw_scores.extend(to_f32(&models.reward.rewards(&packed)));
                let before = offsets.last().copied().unwrap_or(0);
                offsets.extend(packed.offsets[1..].iter().map(|o| before + o));
            }
        });
        let raw_scores: Vec<f64> = raw_scores.into_iter().map(f64::from).collect();
        let ended = raw_scores.iter().zip(&finished);
        let scores: Vec<f64> =
            ended.map(|(s, f)| self.eos.mode.apply(*s, *f, self.eos.penalty)).collect();
        let k1: Vec<f64> = old.iter().zip(&reference).map(|(p, r)| f64::from(p - r)).collect();
        let mut rollout = Rollout {
            rows,
            finished,
            offsets,
            raw_scores,
            scores,
            old,
            values,
            k1,
            advantages: Vec::new(),
            returns: Vec::new(),
            entropy: mean(&entropies.into_iter().map(f64::from).collect::<Vec<_>>()),
        };
        self.advantages(&mut rollout, beta);
        rollout
    }

    /// The steps of one rollout with fresh optimizers, at the full learning rate.
    ///
    /// # Errors
    /// When a gradient is not finite.
    pub fn one_update(&self, models: &Models, rollout: &Rollout) -> Result<()> {
        let mut policy = Trainer::new(&models.policy.0.params, &self.optimizer);
        let mut critic = Trainer::new(&models.critic.0.params, &self.optimizer);
        self.train(models, rollout, 0, 1.0, [&mut policy, &mut critic]).map(drop)
    }

    /// Rewards of the tokens, GAE row by row, and whitening over the whole rollout.
    fn advantages(&self, rollout: &mut Rollout, beta: f64) {
        let spans: Vec<(usize, usize)> = rollout.offsets.windows(2).map(|w| (w[0], w[1])).collect();
        let each = spans.iter().zip(&rollout.scores);
        let mut rewards: Vec<f64> = each
            .flat_map(|((a, b), score)| token_rewards(&rollout.k1[*a..*b], *score, beta))
            .collect();
        if self.whiten_rewards {
            whiten(&mut rewards, true);
        }
        for (a, b) in spans {
            let values: Vec<f64> = rollout.values[a..b].iter().map(|v| f64::from(*v)).collect();
            let (advantages, returns) = gae(&rewards[a..b], &values, self.gamma, self.lam);
            rollout.advantages.extend(advantages);
            rollout.returns.extend(returns);
        }
        if self.whiten_advantages {
            whiten(&mut rollout.advantages, false);
        }
    }

    /// The epochs over one rollout.
    fn train(
        &self,
        models: &Models,
        rollout: &Rollout,
        update: u64,
        factor: f64,
        [policy_trainer, critic_trainer]: [&mut Trainer; 2],
    ) -> Result<Stepped> {
        let mut stepped = Stepped::default();
        for epoch in 0..u64::from(self.epochs) {
            let order =
                Stream::new(self.seed, "minibatch", update, epoch).permutation(rollout.rows.len());
            for chunk in order.chunks(self.minibatch as usize) {
                let rows: Vec<&Example> = chunk.iter().map(|i| &rollout.rows[*i]).collect();
                let packed = Packed::new(&rows, models.policy.0.params.flat.device());
                let old = rollout.gather(&rollout.old, chunk);
                let advantages = rollout.gather(&to_single(&rollout.advantages), chunk);
                let new = packed.log_probs(&models.policy, self.temperature);
                let policy = policy_loss(&new, &old, &advantages, self.clip);
                let params = &models.policy.0.params;
                let norm =
                    policy_trainer.step(params, params.gradient(&policy.loss), self.lr * factor)?;
                let values = rollout.gather(&rollout.values, chunk);
                let returns = rollout.gather(&to_single(&rollout.returns), chunk);
                let (loss, clipped) =
                    value_loss(&models.critic.values(&packed), &values, &returns, self.vf_clip);
                let params = &models.critic.0.params;
                critic_trainer.step(
                    params,
                    params.gradient(&(&loss * self.vf_coef)),
                    self.critic_lr * factor,
                )?;
                stepped.approx_kl.push(policy.approx_kl);
                stepped.clip_fraction.push(policy.clip_fraction);
                stepped.ratio.push(policy.ratio_mean);
                stepped.policy_loss.push(policy.loss.double_value(&[]));
                stepped.value_loss.push(loss.double_value(&[]));
                stepped.value_clip.push(clipped);
                stepped.grad_norm.push(norm);
            }
        }
        Ok(stepped)
    }
}

impl Rollout {
    /// Mean over responses of the summed k1, nats.
    pub fn kl(&self) -> f64 {
        self.k1.iter().sum::<f64>() / self.rows.len() as f64
    }

    /// The tokens of the rows at `chosen`, `[n]`.
    fn gather(&self, list: &[f32], chosen: &[usize]) -> Tensor {
        let parts: Vec<f32> = chosen
            .iter()
            .flat_map(|i| list[self.offsets[*i]..self.offsets[i + 1]].iter().copied())
            .collect();
        Tensor::from_slice(&parts)
    }
}

fn to_single(list: &[f64]) -> Vec<f32> {
    list.iter().map(|x| *x as f32).collect()
}

/// Numbers on the host, in order.
fn to_f32(x: &Tensor) -> Vec<f32> {
    let x = x.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut out = vec![0.0; x.numel()];
    let n = out.len();
    x.copy_data(&mut out, n);
    out
}
