//! `pretrain`: next-token prediction from scratch.
//! Knows nothing of prompts, answers or rewards.
//!
//! Documents stand one after the other, each in `<bos>…<eos>`, cut into rows of the context's
//! length; attention may look across the borders of documents within a row.

use std::time::Instant;

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, no_grad};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{SPECIAL, TokenRows, TokenWriter, Vocabulary, part_of_prompt};
use crate::kind::{Stage, Summary, check_range, input, optional, output};
use crate::model::config::Positions;
use crate::model::{BatchShape, ModelConfig, Packed, Policy, Trunk, forecast};
use crate::optim::Schedule;
use crate::preflight::Preflight;
use crate::training::{
    Computation, Defaults, Optimizer, Order, Trainer, check_memory, learning_rate, mean_nll,
};

/// Params of `pretrain`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pretrain {
    /// Shape of the model; left out where `base` is connected, whose shape it then is.
    model: ModelShape,
    /// How it is trained.
    train: PretrainLoop,
    /// Names the random streams: the first weights and the order of rows.
    seed: u64,
}

/// Shape of a model.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ModelShape {
    /// Architecture; llama is the only one so far.
    arch: Arch,
    /// Number of blocks.
    #[schemars(range(min = 1))]
    layers: u32,
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    hidden: u32,
    /// Attention heads.
    #[schemars(range(min = 1))]
    heads: u32,
    /// Heads of keys and values, each shared by heads/kv_heads queries; 0: as many as heads.
    kv_heads: u32,
    /// Longest row, tokens.
    #[schemars(extend("x-unit" = "count"))]
    context: u32,
    /// Width of the gated layer; 0: 8/3 of hidden, rounded up to a multiple of 32.
    intermediate: u32,
    /// Use the embedding as the output layer.
    tie_embeddings: bool,
    /// Base of the rotary positions.
    #[schemars(range(min = 1.0, max = 1e12))]
    rope_theta: f64,
    /// Epsilon of the norms.
    #[schemars(range(min = 0.0, max = 1.0))]
    norm_eps: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Arch {
    #[default]
    Llama,
}

impl Default for ModelShape {
    fn default() -> Self {
        Self {
            arch: Arch::Llama,
            layers: 4,
            hidden: 128,
            heads: 4,
            kv_heads: 0,
            context: 128,
            intermediate: 0,
            tie_embeddings: true,
            rope_theta: 10_000.0,
            norm_eps: 1e-6,
        }
    }
}

/// How a model is pretrained.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PretrainLoop {
    /// Tokens to train on in all; the text is repeated when it has fewer.
    #[schemars(extend("x-unit" = "count"))]
    tokens: u64,
    /// Tokens of one step.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    batch_tokens: u64,
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
    /// Share of the documents held out to measure perplexity when `eval_text` is not connected.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    eval_fraction: f64,
    /// AdamW and clipping.
    optimizer: Optimizer<PretrainDefaults>,
    /// Precision and memory.
    compute: Computation,
}

/// Defaults of AdamW in `pretrain`.
#[derive(Debug, Clone)]
pub struct PretrainDefaults;

impl Defaults for PretrainDefaults {
    const WEIGHT_DECAY: f64 = 0.1;
}

impl Default for PretrainLoop {
    fn default() -> Self {
        Self {
            tokens: 1_000_000,
            batch_tokens: 4096,
            lr: 1e-3,
            schedule: Schedule::Cosine,
            warmup: 0.02,
            min_lr: 0.1,
            eval_fraction: 0.02,
            optimizer: Optimizer::default(),
            compute: Computation::default(),
        }
    }
}

impl Stage for Pretrain {
    const NAME: &'static str = "pretrain";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "train a language model on text, from scratch or further";
    const FIGURES: &'static [&'static str] =
        &["train/*", "eval/loss", "eval/perplexity", "model/parameters"];
    const LIVE: &'static [&'static str] = &["train/loss", "eval/loss"];

    fn inputs() -> Vec<InputDoc> {
        vec![
            input("text", &["dataset/text"], "documents, one a row"),
            optional(
                "tokenizer",
                &["tokenizer"],
                "what cuts them into tokens; needed to train from scratch",
            ),
            optional(
                "base",
                &["model/policy"],
                "a model to train further, with its own tokenizer, instead of a fresh one",
            ),
            optional("eval_text", &["dataset/text"], "documents to measure perplexity on"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("model", "model/policy", "", "a fresh one opens as LlamaForCausalLM"),
            output("metrics", "dataset/metrics", "parquet", "losses by step"),
        ]
    }

    fn check(&self, look: &mut Preflight) {
        let connected = |port: &str| !look.inputs(port).is_empty();
        let (tokenizer, base) = (connected("tokenizer"), connected("base"));
        look.tell(if tokenizer && base { "tokenizer" } else { "" }, one_of(tokenizer, base));
        if base {
            look.tell("model", self.check_no_shape());
        } else {
            // Any vocabulary will do.
            look.tell("model", self.model.config(SPECIAL.len()));
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let connected = |port: &str| !cx.inputs(port).is_empty();
        one_of(connected("tokenizer"), connected("base"))?;
        let base = if connected("base") { Some(cx.path("base")?.to_owned()) } else { None };
        let (vocabulary, config) = match &base {
            Some(folder) => {
                self.check_no_shape()?;
                (cx.vocabulary(folder)?, ModelConfig::read(&folder.join("config.json"))?)
            }
            None => {
                let vocabulary = Vocabulary::open(cx.path("tokenizer")?)?;
                let config = self.model.config(vocabulary.size())?;
                (vocabulary, config)
            }
        };
        let (train, held_out) = self.rows(cx, &vocabulary, config.context as usize)?;
        let compute = self.train.compute.resolve(cx)?;
        check_memory(cx, forecast(&config, &compute, 0, self.shape(&config), None))?;
        let policy = match &base {
            Some(folder) => Policy::open(folder)?,
            None => Policy { trunk: Trunk::init(config, false, self.seed) },
        };
        let mut policy = policy.to(cx.device());
        policy.trunk.compute = compute;
        cx.note(format!(
            "{} parameters; {} rows to train on, {} held out",
            policy.trunk.params.numel(),
            train.count(),
            held_out.count()
        ))?;
        let train_loss = self.optimize(cx, &policy, &train)?;
        let eval_loss = mean_loss(&policy, &held_out, 64)?;
        cx.metric(
            self.steps(&policy.trunk.config),
            &[("eval/loss", eval_loss), ("eval/perplexity", eval_loss.exp())],
        )?;
        policy.save(&cx.output("model")?, &vocabulary)?;
        cx.complete("model", None)?;
        cx.write_metrics()?;
        Ok(Summary::from([
            ("train/loss".into(), train_loss),
            ("eval/loss".into(), eval_loss),
            ("eval/perplexity".into(), eval_loss.exp()),
            ("model/parameters".into(), policy.trunk.params.numel() as f64),
        ]))
    }
}

/// Refuses a stage with neither a tokenizer nor a model to go on from, or with both.
fn one_of(tokenizer: bool, base: bool) -> Result<()> {
    match (tokenizer, base) {
        (true, true) => Err(error_with_help(
            "`tokenizer` and `base` are both connected: a model has its own tokenizer",
            "leave `tokenizer` out to train `base` further, or `base` to train from scratch",
        )),
        (false, false) => Err(error_with_help(
            "neither `tokenizer` nor `base` is connected",
            "connect a tokenizer to train from scratch, or a model to train it further",
        )),
        _ => Ok(()),
    }
}

impl Pretrain {
    /// Refuses a shape beside a model that has one.
    fn check_no_shape(&self) -> Result<()> {
        if self.model == ModelShape::default() {
            return Ok(());
        }
        Err(error_with_help(
            "`model` gives sizes, but `base` has its own",
            "take `model` out; `context` of import_model shortens the rows of an imported model",
        ))
    }

    /// Rows of context + 1 tokens, to train on and held out (split by document).
    fn rows(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        context: usize,
    ) -> Result<(TokenRows, TokenRows)> {
        let file = |cx: &Context, name: &str| TokenWriter::create(&cx.scratch().join(name));
        let (mut train, mut held_out) = (file(cx, "train.tokens")?, file(cx, "held_out.tokens")?);
        let given = !cx.inputs("eval_text").is_empty();
        let fraction = if given { 0.0 } else { self.train.eval_fraction };
        for text in cx.texts("text")? {
            let text = text?;
            let out = part_of_prompt(&text, "pretrain", fraction);
            if out { &mut held_out } else { &mut train }.push(&vocabulary.document(&text)?)?;
        }
        if given {
            for text in cx.texts("eval_text")? {
                held_out.push(&vocabulary.document(&text?)?)?;
            }
        }
        let (train, held_out) = (train.rows(context)?, held_out.rows(context)?);
        if train.count() == 0 {
            let help = "give it more text, or a smaller model.context";
            let message = format!(
                "the text has only {} tokens to train on, less than one row of {context}",
                train.tokens()
            );
            return Err(error_with_help(message, help));
        }
        if held_out.count() == 0 {
            cx.warn(
                "too little text to hold any out: the held-out loss is that of the training rows",
            )?;
            let mut some = file(cx, "held_out.tokens")?;
            for i in 0..train.count().min(64) {
                some.push(&train.row(i)?[usize::from(i > 0)..])?;
            }
            return Ok((train, some.rows(context)?));
        }
        Ok((train, held_out))
    }

    fn batch_rows(&self, config: &ModelConfig) -> usize {
        (self.train.batch_tokens / config.context as u64).max(1) as usize
    }

    /// The largest batch that goes through the model at once.
    fn shape(&self, config: &ModelConfig) -> BatchShape {
        let rows = self.train.compute.rows(self.batch_rows(config)) as u64;
        let time = config.context as u64;
        BatchShape { rows, time, predicted: rows * time, packed: false }
    }

    fn steps(&self, config: &ModelConfig) -> u64 {
        let tokens = self.batch_rows(config) as u64 * config.context as u64;
        self.train.tokens.div_ceil(tokens).max(1)
    }

    /// Trains the policy over all steps. Returns the mean loss over the last tenth of them.
    fn optimize(&self, cx: &mut Context, policy: &Policy, rows: &TokenRows) -> Result<f64> {
        let settings = &self.train;
        let params = policy.trunk.trainable();
        let mut trainer = Trainer::new(params, &settings.optimizer);
        let (batch, steps) =
            (self.batch_rows(&policy.trunk.config), self.steps(&policy.trunk.config));
        let report_every = (steps / 50).max(1);
        let mut order = Order::new(self.seed, "shuffle", rows.count());
        let state_dict = trainer.state_dict("model", params);
        let mut state = cx.resume::<State>(&state_dict)?.unwrap_or_default();
        let mut since = Instant::now();
        for step in state.step..steps {
            let lr = learning_rate(
                settings.lr,
                settings.schedule,
                step,
                steps,
                settings.warmup,
                settings.min_lr,
            );
            let places = step * batch as u64..(step + 1) * batch as u64;
            let chosen: Vec<Vec<i64>> =
                places.map(|i| rows.row(order.at(i))).collect::<Result<_>>()?;
            let chosen: Vec<&[i64]> = chosen.iter().map(Vec::as_slice).collect();
            let tokens = batch * policy.trunk.config.context as usize;
            let micro = chosen.chunks(settings.compute.rows(batch));
            let packed = micro.map(|rows| Packed::dense(rows, params.flat.device()));
            let gradient = mean_nll(policy, packed, tokens);
            let norm = trainer.step(params, gradient.flat, lr)?;
            let reports = (step + 1) % report_every == 0 || step + 1 == steps;
            let late = step >= steps - steps.div_ceil(10);
            if reports || late {
                let loss = gradient.loss.double_value(&[]);
                if late {
                    state.last_losses.push(loss);
                }
                if reports {
                    let seconds = since.elapsed().as_secs_f64() / report_every as f64;
                    since = Instant::now();
                    cx.metric(
                        step + 1,
                        &[
                            ("train/loss", loss),
                            ("train/lr", lr),
                            ("train/grad_norm", norm),
                            ("time/tokens_per_s", tokens as f64 / seconds),
                        ],
                    )?;
                }
            }
            cx.progress(step + 1, steps, "steps")?;
            state.step = step + 1;
            cx.checkpoint(&state, &state_dict)?;
        }
        Ok(crate::stats::mean(&state.last_losses))
    }
}

/// Where the loop stands.
#[derive(Default, Serialize, Deserialize)]
struct State {
    step: u64,
    last_losses: Vec<f64>,
}

impl ModelShape {
    fn config(&self, vocab: usize) -> Result<ModelConfig> {
        let Arch::Llama = self.arch;
        let wide = (u64::from(self.hidden) * 8).div_ceil(3).div_ceil(32) * 32;
        let config = ModelConfig {
            vocab: vocab as i64,
            hidden: i64::from(self.hidden),
            layers: i64::from(self.layers),
            heads: i64::from(self.heads),
            kv_heads: i64::from(if self.kv_heads == 0 { self.heads } else { self.kv_heads }),
            intermediate: if self.intermediate == 0 {
                wide as i64
            } else {
                i64::from(self.intermediate)
            },
            head_dim: i64::from(self.hidden / self.heads.max(1)),
            context: i64::from(self.context),
            positions: Positions::rotary(self.rope_theta),
            norm_eps: self.norm_eps,
            tie_embeddings: self.tie_embeddings,
            ..ModelConfig::default()
        };
        if self.heads == 0 || !self.hidden.is_multiple_of(2 * self.heads) {
            let (hidden, heads) = (self.hidden, self.heads);
            bail!("model.hidden {hidden} must be an even multiple of heads {heads}");
        }
        config.check()?;
        if config.context < 8 {
            bail!("model.context must be 8 or more, not {}", config.context);
        }
        check_range("model.norm_eps", self.norm_eps, 0.0, 1.0)?;
        Ok(config)
    }
}

/// Mean loss over all rows, without gradients.
fn mean_loss(policy: &Policy, rows: &TokenRows, batch: usize) -> Result<f64> {
    let mut sum = 0.0;
    for start in (0..rows.count()).step_by(batch) {
        let end = (start + batch).min(rows.count());
        let chunk: Vec<Vec<i64>> = (start..end).map(|i| rows.row(i)).collect::<Result<_>>()?;
        let chunk: Vec<&[i64]> = chunk.iter().map(Vec::as_slice).collect();
        let packed = Packed::dense(&chunk, policy.trunk.params.flat.device());
        let loss = no_grad(|| -packed.log_probs(policy, 1.0).mean(Kind::Float));
        sum += loss.double_value(&[]) * chunk.len() as f64;
    }
    Ok(sum / rows.count() as f64)
}
