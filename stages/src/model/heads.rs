//! What reads the hidden states: the output layer of a policy, the scalar of a reward model or of
//! a value model; and the folders they are kept in. Knows nothing of losses.

use std::path::Path;

use anyhow::{Context as _, Result};
use tch::Tensor;

use super::{
    Lora, LowRank, ModelConfig, Packed, ParamSpec, Params, Trunk, entropy, read_weights,
    token_log_probs, write_weights,
};
use crate::data::Vocabulary;
use crate::rng::Stream;

/// What a policy says of the completion tokens of a batch.
#[derive(Debug)]
pub struct Predicted {
    /// Log-probability of each token, `[n]`.
    pub log_probs: Tensor,
    /// Entropy of the distribution it was drawn from, nats, `[n]`; only when asked for.
    pub entropy: Option<Tensor>,
}

/// A loss and its gradient.
#[derive(Debug)]
pub struct Gradient {
    /// Scalar, without graph.
    pub loss: Tensor,
    /// `[n]`, in the order of the weights that training moves: see [`Trunk::trainable`].
    pub flat: Tensor,
}

impl Gradient {
    /// Losses and gradients of the parts of one step, added up; `None` of no parts.
    pub fn total(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        parts
            .into_iter()
            .reduce(|sum, part| Self { loss: sum.loss + part.loss, flat: sum.flat + part.flat })
    }
}

/// What is added to the logit of a token that is never drawn. Finite, so that an entropy with it is
/// a number.
const NEVER: f32 = -1e30;

/// A language model: a trunk, and an output layer that gives logits.
#[derive(Debug)]
pub struct Policy {
    pub trunk: Trunk,
}

/// A model of what an answer is worth: a trunk, and a head with one number, read at the last token.
#[derive(Debug)]
pub struct RewardModel {
    pub trunk: Trunk,
}

/// A model of the reward to come, PPO's critic: a trunk, and a head with one number, read before
/// each token of an answer.
#[derive(Debug)]
pub struct ValueModel {
    pub trunk: Trunk,
}

impl Policy {
    /// Logits of the next token, `[…, vocab]`, of hidden states `[…, hidden]`.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let trunk = &self.trunk;
        let mut logits = trunk.cast(hidden).linear(&trunk.head(), None::<Tensor>);
        if trunk.config.logit_divisor != 1.0 {
            logits /= trunk.config.logit_divisor;
        }
        if let Some(cap) = trunk.config.logit_cap {
            logits = (logits / cap).tanh() * cap;
        }
        match &trunk.absent {
            Some(absent) => logits + absent.to_kind(trunk.compute.kind),
            None => logits,
        }
    }

    /// From here on ids that the tokenizer does not have get no probability: many published models
    /// have more rows in their output layer than tokens. Copies of this policy do likewise.
    ///
    /// A model that learns to continue texts needs no such thing, and its losses are those of all
    /// rows.
    pub fn draw_only_known(&mut self, vocabulary: &Vocabulary) {
        let known = |id: i64| vocabulary.token(id).is_some();
        let add: Vec<f32> =
            (0..self.trunk.config.vocab).map(|id| if known(id) { 0.0 } else { NEVER }).collect();
        let any = add.iter().any(|x| *x != 0.0);
        let device = self.trunk.params.flat.device();
        self.trunk.absent = any.then(|| Tensor::from_slice(&add).to_device(device));
    }

    /// Log-probabilities of the completion tokens at `temperature`, and their entropy if asked for.
    pub fn predict(&self, batch: &Packed, temperature: f64, with_entropy: bool) -> Predicted {
        let hidden = batch.hidden(&self.trunk);
        // Without a graph the logits of one part are gone before the next are made.
        if self.in_parts(batch) && !hidden.requires_grad() {
            return self.judge_in_parts(&hidden, batch, temperature, with_entropy);
        }
        self.judge(&hidden, &batch.targets, temperature, with_entropy)
    }

    /// As [`Policy::predict`], of hidden states, `[n, hidden]`, and targets, `[n]`.
    pub(super) fn judge(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        temperature: f64,
        with_entropy: bool,
    ) -> Predicted {
        let logits = self.logits(hidden);
        let log_probs = token_log_probs(&logits, targets, temperature);
        Predicted { log_probs, entropy: with_entropy.then(|| entropy(&logits, temperature)) }
    }

    /// The scalar `loss` of what this policy predicts, and its gradient. This is the one place
    /// where the loss of a policy becomes a gradient.
    pub fn backward(
        &self,
        batch: &Packed,
        temperature: f64,
        with_entropy: bool,
        loss: impl FnOnce(&Predicted) -> Tensor,
    ) -> Gradient {
        if self.trunk.compute.checkpoint || self.in_parts(batch) {
            return self.backward_sparing(batch, temperature, with_entropy, loss);
        }
        let loss = loss(&self.predict(batch, temperature, with_entropy));
        let flat = self.trunk.trainable().gradient(&loss);
        Gradient { loss: loss.detach(), flat }
    }

    /// This policy as it is now, frozen: what the KL of training is measured to. With an adapter it
    /// is the model without it, and takes no memory.
    #[must_use]
    pub fn reference(&self) -> Self {
        if self.trunk.adapter.is_some() {
            Self { trunk: self.trunk.without_adapter() }
        } else {
            self.duplicate()
        }
    }

    /// This model with its weights on `device`.
    #[must_use]
    pub fn to(self, device: tch::Device) -> Self {
        Self { trunk: self.trunk.to(device) }
    }

    /// Opens a `model/policy` folder.
    ///
    /// # Errors
    /// When a file is missing or its parts do not fit each other.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self { trunk: open(folder, false)? })
    }

    /// Writes a `model/policy` folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, vocabulary: &Vocabulary) -> Result<()> {
        save(&self.trunk, folder, vocabulary, false)
    }

    /// As [`Policy::save`], of a policy opened from `base` and adapted by `lora`, which may ask to
    /// keep the adapters apart from the base's weights.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_trained(
        &self,
        (base, lora): (&Path, &Lora),
        folder: &Path,
        vocabulary: &Vocabulary,
    ) -> Result<()> {
        match &self.trunk.adapter {
            Some(adapter) if lora.keep => {
                let added = LowRank::of(adapter, &self.trunk.params.specs);
                save_beside(base, &self.trunk.config, added, folder, vocabulary)
            }
            _ => self.save(folder, vocabulary),
        }
    }

    /// Writes a `model/policy` folder of the model in `base` and an adapter of others for it.
    ///
    /// # Errors
    /// When a file cannot be written, or the adapter does not fit.
    pub fn save_adapted(
        base: &Path,
        adapter: &Path,
        folder: &Path,
        vocabulary: &Vocabulary,
    ) -> Result<()> {
        let config = ModelConfig::read(&base.join("config.json"))?;
        let added = LowRank::open(adapter, &ParamSpec::list(&config, false))?.unwrap_or_default();
        save_beside(base, &config, added, folder, vocabulary)
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { trunk: self.trunk.duplicate() }
    }
}

impl RewardModel {
    /// A policy's trunk with a fresh head: weight ~ N(0, 1/√(hidden+1)), bias 0.
    pub fn from_policy(policy: &Policy, seed: u64) -> Self {
        let (config, from) = (&policy.trunk.config, &policy.trunk.params);
        let specs = ParamSpec::list(config, true);
        let tensors: Vec<Tensor> = specs
            .iter()
            .map(|spec| {
                let same = from.specs.iter().position(|s| s.parts == spec.parts);
                match same {
                    Some(i) => from.tensors[i].detach().reshape([-1]),
                    None => fresh_head(spec, seed).to_device(from.flat.device()),
                }
            })
            .collect();
        let flat = Tensor::cat(&tensors, 0);
        let mut trunk = Trunk::new(config.clone(), Params::from_flat(specs, flat));
        trunk.compute = policy.trunk.compute;
        Self { trunk }
    }

    /// Rewards, `[batch]`: the score at the last token of each row.
    pub fn rewards(&self, batch: &Packed) -> Tensor {
        score(&self.trunk, &batch.last_hidden(&self.trunk))
    }

    /// The scalar `loss` of the rewards, `[batch]`, its gradient, and that of `more` (a parameter
    /// beside the model) when the loss depends on it.
    pub fn backward_rewards(
        &self,
        batch: &Packed,
        more: Option<&Tensor>,
        loss: impl FnOnce(&Tensor) -> Tensor,
    ) -> (Gradient, Option<Tensor>) {
        if self.trunk.compute.checkpoint {
            let ((loss, more), flat) =
                self.trunk.backward(batch, Some(&batch.last), |hidden, sums| {
                    let loss = loss(&score(&self.trunk, hidden));
                    let leaves: Vec<&Tensor> = [hidden].into_iter().chain(more).collect();
                    let mut found = sums.add(&loss, &leaves);
                    let more = found.drain(1..).flatten().next();
                    let grad =
                        found.pop().flatten().unwrap_or_else(|| hidden.zeros_like().detach());
                    ((loss.detach(), more), grad)
                });
            return (Gradient { loss, flat }, more);
        }
        let loss = loss(&self.rewards(batch));
        let (flat, more) = match more {
            Some(more) => self.trunk.trainable().gradient_and(&loss, more),
            None => (self.trunk.trainable().gradient(&loss), None),
        };
        (Gradient { loss: loss.detach(), flat }, more)
    }

    /// Adds `delta` to the bias, so every reward moves by it.
    pub fn shift(&mut self, delta: f64) {
        let n = self.trunk.params.numel();
        let _ = self.trunk.params.flat.narrow(0, n - 1, 1).g_add_scalar_(delta);
    }

    /// This model with its weights on `device`.
    #[must_use]
    pub fn to(self, device: tch::Device) -> Self {
        Self { trunk: self.trunk.to(device) }
    }

    /// Opens a `model/reward` folder.
    ///
    /// # Errors
    /// When a file is missing or its parts do not fit each other.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self { trunk: open(folder, true)? })
    }

    /// Writes a `model/reward` folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, vocabulary: &Vocabulary) -> Result<()> {
        save(&self.trunk, folder, vocabulary, true)
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { trunk: self.trunk.duplicate() }
    }
}

impl ValueModel {
    /// A policy's trunk with a head of zeros: it expects nothing yet.
    pub fn at_zero(policy: &Policy) -> Self {
        let trunk = RewardModel::from_policy(policy, 0).trunk;
        tch::no_grad(|| {
            let weight = &trunk.params.tensors[trunk.index.head.weight];
            let _ = weight.shallow_clone().zero_();
        });
        Self { trunk }
    }

    /// A copy of a reward model, which shares nothing with it.
    pub fn from_reward(reward: &RewardModel) -> Self {
        Self { trunk: reward.trunk.duplicate() }
    }

    /// Value at the place before each completion token, `[n]`: what a critic expects.
    pub fn values(&self, batch: &Packed) -> Tensor {
        score(&self.trunk, &batch.hidden(&self.trunk))
    }

    /// The scalar `loss` of the values, `[n]`, and its gradient.
    pub fn backward_values(
        &self,
        batch: &Packed,
        loss: impl FnOnce(&Tensor) -> Tensor,
    ) -> Gradient {
        if self.trunk.compute.checkpoint {
            let (loss, flat) = self.trunk.backward(batch, batch.places.as_ref(), |hidden, sums| {
                let loss = loss(&score(&self.trunk, hidden));
                let grad = sums.add(&loss, &[hidden]).into_iter().flatten().next();
                (loss.detach(), grad.unwrap_or_else(|| hidden.zeros_like().detach()))
            });
            return Gradient { loss, flat };
        }
        let loss = loss(&self.values(batch));
        let flat = self.trunk.trainable().gradient(&loss);
        Gradient { loss: loss.detach(), flat }
    }
}

/// One number a hidden state: `[…]` of `[…, hidden]`.
fn score(trunk: &Trunk, hidden: &Tensor) -> Tensor {
    let trained = |i: usize| trunk.adapter.as_ref().and_then(|a| a.in_place_of(i));
    let tensor = |i: usize| trained(i).unwrap_or(&trunk.params.tensors[i]);
    let head = trunk.index.head;
    hidden.linear(tensor(head.weight), head.bias.map(tensor)).squeeze_dim(-1)
}

fn fresh_head(spec: &ParamSpec, seed: u64) -> Tensor {
    let width = spec.numel();
    let mut stream = Stream::new(seed, "head", 0, 0);
    let std = if spec.decays() { 1.0 / ((width + 1) as f64).sqrt() } else { 0.0 };
    let values: Vec<f32> = (0..width).map(|_| (stream.normal() * std) as f32).collect();
    Tensor::from_slice(&values)
}

fn open(folder: &Path, reward: bool) -> Result<Trunk> {
    let context = || format!("cannot open the model in {}", folder.display());
    let config = ModelConfig::read(&folder.join("config.json")).with_context(context)?;
    let specs = ParamSpec::list(&config, reward);
    let flat = read_weights(&folder.join("model.safetensors"), &specs).with_context(context)?;
    let params = Params::from_flat(specs, flat);
    if let Some(adapter) = LowRank::open(folder, &params.specs)? {
        adapter.add_to(&params);
    }
    Ok(Trunk::new(config, params))
}

/// The files of a model folder besides its weights.
fn save_shape(
    config: &ModelConfig,
    folder: &Path,
    vocabulary: &Vocabulary,
    reward: bool,
) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    let config = serde_json::to_string_pretty(&config.to_json(reward))?;
    fs_err::write(folder.join("config.json"), config + "\n")?;
    vocabulary.save(folder)
}

/// A model folder with the weights in `base`, and beside them what is added to them: what `base`
/// adds already, then `added`.
fn save_beside(
    base: &Path,
    config: &ModelConfig,
    added: LowRank,
    folder: &Path,
    vocabulary: &Vocabulary,
) -> Result<()> {
    save_shape(config, folder, vocabulary, false)?;
    let [from, to] = [base, folder].map(|folder| folder.join("model.safetensors"));
    // What is equal to an input takes no room of its own once it is published.
    fs_err::copy(from, to)?;
    let before = LowRank::open(base, &ParamSpec::list(config, false))?.unwrap_or_default();
    before.then(added).write(folder, config, false)
}

fn save(trunk: &Trunk, folder: &Path, vocabulary: &Vocabulary, reward: bool) -> Result<()> {
    save_shape(&trunk.config, folder, vocabulary, reward)?;
    let merged = trunk.merged();
    write_weights(&folder.join("model.safetensors"), merged.as_ref().unwrap_or(&trunk.params))
}
