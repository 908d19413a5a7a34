//! All weights of a model in one flat tensor, and the names under which files know its parts.
//! Knows nothing of what the weights do.

use tch::{Device, Kind, Tensor};

use super::LlamaConfig;
use crate::rng::{Stream, hash};

/// A stretch of rows of a parameter that files know under a name of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub shape: Vec<i64>,
}

/// One parameter: matrices that are multiplied with the same input are one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    pub parts: Vec<Part>,
    /// Shape of the whole: the parts under one another.
    pub shape: Vec<i64>,
    pub init: Init,
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Ones,
    Zeros,
    /// Normal with this standard deviation.
    Normal(f64),
}

impl ParamSpec {
    fn new(parts: Vec<(String, Vec<i64>)>, init: Init) -> Self {
        let mut shape = parts[0].1.clone();
        shape[0] = parts.iter().map(|(_, s)| s[0]).sum();
        let parts = parts.into_iter().map(|(name, shape)| Part { name, shape }).collect();
        Self { parts, shape, init }
    }

    /// Number of values.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Whether weight decay applies: to matrices only.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }

    /// The parameters of a model in storage order: matrices first, so that those which decay are
    /// one stretch. `reward`: with a scalar head instead of the output layer.
    pub fn list(c: &LlamaConfig, reward: bool) -> Vec<Self> {
        let (d, f, kv) = (c.hidden, c.intermediate, c.kv_heads * c.head_dim());
        let std = Init::Normal(0.02);
        // Residual branches start smaller, by the depth (GPT-2).
        let residual = Init::Normal(0.02 / (2.0 * c.layers as f64).sqrt());
        let one = |name: String, shape: Vec<i64>, init| Self::new(vec![(name, shape)], init);
        let mut list = vec![one("model.embed_tokens.weight".into(), vec![c.vocab, d], std)];
        for i in 0..c.layers {
            let name = |tail: &str| format!("model.layers.{i}.{tail}.weight");
            list.push(Self::new(
                vec![
                    (name("self_attn.q_proj"), vec![d, d]),
                    (name("self_attn.k_proj"), vec![kv, d]),
                    (name("self_attn.v_proj"), vec![kv, d]),
                ],
                std,
            ));
            list.push(one(name("self_attn.o_proj"), vec![d, d], residual));
            list.push(Self::new(
                vec![(name("mlp.gate_proj"), vec![f, d]), (name("mlp.up_proj"), vec![f, d])],
                std,
            ));
            list.push(one(name("mlp.down_proj"), vec![d, f], residual));
        }
        if reward {
            // Ziegler et al. 2019: N(0, 1/√(d+1)).
            let std = 1.0 / ((d + 1) as f64).sqrt();
            list.push(one("score.weight".into(), vec![1, d], Init::Normal(std)));
        } else if !c.tie_embeddings {
            list.push(one("lm_head.weight".into(), vec![c.vocab, d], std));
        }
        for i in 0..c.layers {
            for tail in ["input_layernorm", "post_attention_layernorm"] {
                list.push(one(format!("model.layers.{i}.{tail}.weight"), vec![d], Init::Ones));
            }
        }
        list.push(one("model.norm.weight".into(), vec![d], Init::Ones));
        if reward {
            list.push(one("score.bias".into(), vec![1], Init::Zeros));
        }
        list
    }
}

/// The weights of one model.
#[derive(Debug)]
pub struct Params {
    pub specs: Vec<ParamSpec>,
    /// All values, `[n]`. The optimizer works on it as a whole.
    pub flat: Tensor,
    /// Views into `flat`, in the order of `specs`; the leaves of the autograd graph.
    pub tensors: Vec<Tensor>,
}

impl Params {
    /// Fresh weights, drawn from `(seed, "init", parameter)`.
    pub fn init(specs: Vec<ParamSpec>, seed: u64) -> Self {
        let mut values: Vec<f32> = Vec::new();
        for (i, spec) in specs.iter().enumerate() {
            let mut stream = Stream::new(seed, "init", 0, i as u64);
            values.extend((0..spec.numel()).map(|_| match spec.init {
                Init::Ones => 1.0,
                Init::Zeros => 0.0,
                Init::Normal(std) => (stream.normal() * std) as f32,
            }));
        }
        Self::from_flat(specs, Tensor::from_slice(&values))
    }

    /// Weights over `flat`, `[n]`, which they then own.
    pub fn from_flat(specs: Vec<ParamSpec>, flat: Tensor) -> Self {
        let mut start = 0;
        let tensors = specs
            .iter()
            .map(|spec| {
                let view = flat.narrow(0, start, spec.numel()).view(spec.shape.as_slice());
                start += spec.numel();
                view.detach().set_requires_grad(true)
            })
            .collect();
        Self { specs, flat, tensors }
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_flat(self.specs.clone(), self.flat.copy())
    }

    /// Number of values.
    pub fn numel(&self) -> i64 {
        self.specs.iter().map(ParamSpec::numel).sum()
    }

    /// Number of values, from the start of `flat`, that weight decay applies to.
    pub fn decaying(&self) -> i64 {
        self.specs.iter().filter(|s| s.decays()).map(ParamSpec::numel).sum()
    }

    /// Gradient of the scalar `loss`, `[n]`, in the order of `flat`.
    pub fn gradient(&self, loss: &Tensor) -> Tensor {
        let grads = Tensor::run_backward(&[loss], &self.tensors, false, false);
        let flat: Vec<Tensor> = grads.iter().map(|g| g.reshape([-1])).collect();
        Tensor::cat(&flat, 0)
    }

    /// As [`Params::gradient`], and the gradient of one tensor more; `None` when the loss does not
    /// depend on it.
    pub fn gradient_and(&self, loss: &Tensor, more: &Tensor) -> (Tensor, Option<Tensor>) {
        let mut leaves: Vec<&Tensor> = self.tensors.iter().collect();
        leaves.push(more);
        let mut grads = Tensor::run_backward(&[loss], &leaves, false, false);
        let last = grads.pop().filter(Tensor::defined);
        let flat: Vec<Tensor> = grads.iter().map(|g| g.reshape([-1])).collect();
        (Tensor::cat(&flat, 0), last)
    }

    /// A hash of all values: equal as long as nobody moves them.
    pub fn fingerprint(&self) -> u64 {
        let bytes: Vec<u8> = self.to_vec().iter().flat_map(|x| x.to_le_bytes()).collect();
        hash(&bytes)
    }

    /// All values on the host, in the order of `flat`.
    pub fn to_vec(&self) -> Vec<f32> {
        let flat = self.flat.to_device(Device::Cpu).to_kind(Kind::Float);
        let mut values = vec![0.0_f32; flat.numel()];
        flat.copy_data(&mut values, self.numel() as usize);
        values
    }
}
