//! Params and small pieces that the training kinds share. Their loops are written out in each.
//! Knows nothing of any one kind.

use std::marker::PhantomData;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::context::{Context, advise};
use crate::data::Vocabulary;
use crate::model::{Params, Policy};
use crate::optim::{AdamW, AdamWConfig, EpsForm, Schedule, clip_gradient};
use crate::resume::Named;
use crate::rng::Stream;

/// What AdamW starts from where a pipeline says nothing. Each kind has its own, and a pipeline that
/// sets one of the fields keeps the kind's others: hence types and not values.
pub trait Defaults: Clone + std::fmt::Debug {
    const BETAS: [f64; 2] = [0.9, 0.95];
    const EPS: f64 = 1e-8;
    const WEIGHT_DECAY: f64 = 0.0;
}

/// AdamW and its surroundings.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound = "D: Defaults")]
#[schemars(bound = "D: Defaults", rename = "Optimizer")]
pub struct Optimizer<D: Defaults> {
    /// Decay rates of AdamW's two moments.
    #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
    betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(range(min = 0.0, max = 1.0))]
    eps: f64,
    /// Where epsilon is added: torch (to the corrected root) or tf1 (to the uncorrected one).
    eps_form: EpsForm,
    /// Decoupled weight decay of the matrices.
    #[schemars(range(min = 0.0, max = 100.0))]
    weight_decay: f64,
    /// Largest norm of a gradient; 0: not clipped.
    #[schemars(range(min = 0.0, max = 1e9))]
    grad_clip: f64,
    #[serde(skip)]
    defaults: PhantomData<D>,
}

impl<D: Defaults> Default for Optimizer<D> {
    fn default() -> Self {
        Self {
            betas: D::BETAS,
            eps: D::EPS,
            eps_form: EpsForm::Torch,
            weight_decay: D::WEIGHT_DECAY,
            grad_clip: 1.0,
            defaults: PhantomData,
        }
    }
}

impl<D: Defaults> Optimizer<D> {
    /// The settings of AdamW itself.
    pub fn config(&self) -> AdamWConfig {
        AdamWConfig {
            betas: self.betas,
            eps: self.eps,
            eps_form: self.eps_form,
            weight_decay: self.weight_decay,
        }
    }
}

/// The weights of a model in training, and how they move.
pub struct Trainer {
    adamw: AdamW,
    grad_clip: f64,
}

impl Trainer {
    /// An optimizer for `params`.
    pub fn new<D: Defaults>(params: &Params, settings: &Optimizer<D>) -> Self {
        let adamw = AdamW::new(settings.config(), &params.flat, params.decaying());
        Self { adamw, grad_clip: settings.grad_clip }
    }

    /// Weights, moments and step count under `prefix`: what a checkpoint must hold.
    pub fn named(&self, prefix: &str, params: &Params) -> Named {
        let AdamW { m, v, steps, .. } = &self.adamw;
        [("weights", &params.flat), ("m", m), ("v", v), ("steps", steps)]
            .map(|(name, t)| (format!("{prefix}.{name}"), t.shallow_clone()))
            .into()
    }

    /// One step of size `lr` down the gradient, `[n]`. Returns the norm before clipping.
    ///
    /// # Errors
    /// When the gradient is not finite: the weights are left as they were.
    pub fn step(&mut self, params: &Params, mut gradient: Tensor, lr: f64) -> Result<f64> {
        let norm = clip_gradient(&mut gradient, self.grad_clip);
        if !norm.is_finite() {
            let help = "a smaller learning rate, more warmup, or grad_clip: 1 usually help";
            let message = format!("the gradient is {norm} at step {}", self.adamw.taken() + 1);
            return Err(advise(message, help));
        }
        self.adamw.step(&params.flat, &gradient, lr);
        Ok(norm)
    }
}

/// Row numbers in random order, a fresh order every time all have been given. It is a function of
/// the place alone, so nothing of it needs saving.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    purpose: &'static str,
    rows: usize,
    /// The order of this epoch is made.
    epoch: Option<u64>,
    permutation: Vec<usize>,
}

impl Order {
    /// An order over `rows` rows, one or more, named by `(seed, purpose)`.
    pub fn new(seed: u64, purpose: &'static str, rows: usize) -> Self {
        Self { seed, purpose, rows, epoch: None, permutation: Vec::new() }
    }

    /// The rows of step `step`, `size` at most: an epoch's last step has those that are left.
    pub fn batch(&mut self, step: u64, size: usize) -> Vec<usize> {
        let an_epoch = self.rows.div_ceil(size) as u64;
        let (epoch, place) = (step / an_epoch, (step % an_epoch) as usize * size);
        let start = epoch * self.rows as u64;
        (place..(place + size).min(self.rows)).map(|i| self.at(start + i as u64)).collect()
    }

    /// The row at place `i` of the endless list.
    pub fn at(&mut self, i: u64) -> usize {
        let (epoch, place) = (i / self.rows as u64, (i % self.rows as u64) as usize);
        if self.epoch != Some(epoch) {
            self.permutation =
                Stream::new(self.seed, self.purpose, epoch, 0).permutation(self.rows);
            self.epoch = Some(epoch);
        }
        self.permutation[place]
    }
}

/// The learning rate at `step` of `total`.
pub fn rate(lr: f64, schedule: Schedule, step: u64, total: u64, warmup: f64, floor: f64) -> f64 {
    lr * schedule.factor(step, total, warmup, floor)
}

/// Prompts as token rows that leave `room` tokens of the context free; warns of those cut.
///
/// # Errors
/// When no room is left for a prompt.
pub fn encode_prompts(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    policy: &Policy,
    prompts: &[&str],
    room: usize,
) -> Result<Vec<Vec<i64>>> {
    let context = policy.0.config.context as usize;
    if room + 4 > context {
        bail!("max_tokens {room} leaves no room for a prompt in a context of {context} tokens");
    }
    let mut cut = 0;
    let mut rows = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let (row, was_cut) = vocabulary.prompt_within(prompt, context - room)?;
        if row.len() > context - room {
            bail!("the chat template alone leaves no room for {room} tokens in {context}");
        }
        cut += usize::from(was_cut);
        rows.push(row);
    }
    cx.warn_if((cut > 0).then(|| {
        format!("{cut} prompts were cut from the left to leave {room} tokens for the response")
    }))?;
    Ok(rows)
}

/// Refuses two models that read different tokens.
///
/// # Errors
/// When the tokenizer files differ in one byte.
pub fn same_tokenizer(a: (&str, &Vocabulary), b: (&str, &Vocabulary)) -> Result<()> {
    if a.1.bytes() != b.1.bytes() {
        let message = format!("the tokenizers of `{}` and `{}` differ", a.0, b.0);
        return Err(advise(message, "train both from one tokenizer stage"));
    }
    Ok(())
}

/// Checks that a number lies in a range.
///
/// # Errors
/// Names the param.
pub fn within(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if !(low..=high).contains(&value) {
        bail!("`{name}` must lie between {low} and {high}, not {value}");
    }
    Ok(())
}

/// Numbers on the host, in order.
pub fn to_f32(x: &Tensor) -> Vec<f32> {
    let x = x.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut out = vec![0.0; x.numel()];
    let n = out.len();
    x.copy_data(&mut out, n);
    out
}

/// Numbers on the host, in order.
pub fn to_f64(x: &Tensor) -> Vec<f64> {
    to_f32(x).into_iter().map(f64::from).collect()
}
