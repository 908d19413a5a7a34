//! All weights of a model in one flat tensor, and the names under which files know its parts.
//! Knows nothing of what the weights do.

use tch::{Device, Kind, Tensor};

use super::part::{Init, ParamSpec};
use crate::rng::{Stream, hash};

/// Values that are hashed at once.
const PART: i64 = 1 << 20;

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
                Init::Uniform(end) => ((2.0 * stream.uniform() - 1.0) * end) as f32,
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

    /// The same weights, not copied, of which no gradient is taken.
    #[must_use]
    pub fn shared(&self) -> Self {
        let tensors = self.tensors.iter().map(Tensor::detach).collect();
        Self { specs: self.specs.clone(), flat: self.flat.shallow_clone(), tensors }
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
        // In parts: a large model must not be there twice to be looked at.
        let parts = (0..self.numel()).step_by(PART as usize).flat_map(|start| {
            let n = PART.min(self.numel() - start);
            let mut values = vec![0.0_f32; n as usize];
            let part = self.flat.narrow(0, start, n).to_device(Device::Cpu).to_kind(Kind::Float);
            part.copy_data(&mut values, n as usize);
            values.into_iter().flat_map(f32::to_le_bytes)
        });
        hash(parts)
    }

    /// All values on the host, in the order of `flat`.
    pub fn to_vec(&self) -> Vec<f32> {
        let flat = self.flat.to_device(Device::Cpu).to_kind(Kind::Float);
        let mut values = vec![0.0_f32; flat.numel()];
        flat.copy_data(&mut values, self.numel() as usize);
        values
    }
}
