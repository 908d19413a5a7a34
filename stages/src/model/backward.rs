//! Backward passes that trade time for memory: layers one at a time, logits in parts.
//! Knows nothing of what the losses mean.

use tch::{Kind, Tensor, no_grad};

use super::heads::{Gradient, Predicted};
use super::{Packed, Params, Policy, Trunk};

/// Adds up gradients of several backward passes, one tensor a parameter.
pub(super) struct Sums<'a> {
    params: &'a Params,
    sums: Vec<Option<Tensor>>,
}

impl<'a> Sums<'a> {
    fn new(params: &'a Params) -> Self {
        Self { params, sums: params.tensors.iter().map(|_| None).collect() }
    }

    /// Adds the gradient of the scalar `loss`, and returns that of each of `more`; `None` where
    /// the loss does not depend on it.
    pub(super) fn add(&mut self, loss: &Tensor, more: &[&Tensor]) -> Vec<Option<Tensor>> {
        let leaves: Vec<&Tensor> = self.params.tensors.iter().chain(more.iter().copied()).collect();
        let grads = Tensor::run_backward(&[loss], &leaves, false, false);
        let mut grads = grads.into_iter().map(|g| Some(g).filter(Tensor::defined));
        for (sum, grad) in self.sums.iter_mut().zip(&mut grads) {
            *sum = match (sum.take(), grad) {
                (Some(sum), Some(grad)) => Some(sum + grad),
                (sum, grad) => sum.or(grad),
            };
        }
        grads.collect()
    }

    /// All of them, `[n]`, in the order of the parameters.
    fn flat(self) -> Tensor {
        let parts =
            self.sums.into_iter().zip(&self.params.tensors).map(|(sum, tensor)| {
                sum.unwrap_or_else(|| tensor.zeros_like().detach()).reshape([-1])
            });
        Tensor::cat(&parts.collect::<Vec<_>>(), 0)
    }
}

/// `x` as a leaf of a new autograd graph.
fn leaf(x: &Tensor) -> Tensor {
    x.detach().set_requires_grad(true)
}

/// The scalar `Σ y · grad`: its gradient is the vector-Jacobian product of `y` with `grad`.
fn pulled(y: &Tensor, grad: &Tensor) -> Tensor {
    (y * grad).sum(Kind::Float)
}

impl Trunk {
    /// Gradient of what `head` makes of the hidden states at `places` (all of them when `None`),
    /// `[n, hidden]`, and what else `head` returns. `head` adds the gradient of its own
    /// parameters and returns that of the hidden states.
    pub(super) fn backward<T>(
        &self,
        batch: &Packed,
        places: Option<&Tensor>,
        head: impl FnOnce(&Tensor, &mut Sums) -> (T, Tensor),
    ) -> (T, Tensor) {
        let mut sums = Sums::new(self.trainable());
        let width = self.config.hidden;
        let select = |hidden: Tensor| {
            let flat = hidden.reshape([-1, width]);
            places.map_or_else(|| flat.shallow_clone(), |places| flat.index_select(0, places))
        };
        if !self.compute.checkpoint {
            let hidden = select(self.hidden(&batch.ids, &batch.layout));
            let (value, grad) = head(&leaf(&hidden), &mut sums);
            if hidden.requires_grad() {
                sums.add(&pulled(&hidden, &grad), &[]);
            }
            return (value, sums.flat());
        }
        let columns = self.columns(&batch.ids, &batch.layout);
        let run = |i: usize, x: Tensor| {
            self.block(i, x, &columns, |q, k, v| self.attend(i, &columns, q, k, v))
        };
        let layers = self.index.blocks.len();
        let mut inputs = Vec::with_capacity(layers + 1);
        let hidden = no_grad(|| {
            inputs.push(self.embed(&batch.ids, &columns));
            for i in 0..layers {
                inputs.push(run(i, inputs[i].shallow_clone()));
            }
            select(self.last_norm(&inputs[layers]))
        });
        let (value, grad) = head(&leaf(&hidden), &mut sums);
        let mut step = |input: Tensor, grad: &Tensor, forward: &dyn Fn(Tensor) -> Tensor| {
            let x = leaf(&input);
            let found = sums.add(&pulled(&forward(x.shallow_clone()), grad), &[&x]);
            found.into_iter().flatten().next().unwrap_or_else(|| x.zeros_like().detach())
        };
        let mut last = || inputs.pop().expect("invariant: one input a layer, and the output");
        let mut grad = step(last(), &grad, &|x| select(self.last_norm(&x)));
        for i in (0..layers).rev() {
            grad = step(last(), &grad, &|x| run(i, x));
        }
        let embedded = self.embed(&batch.ids, &columns);
        if embedded.requires_grad() {
            sums.add(&pulled(&embedded, &grad), &[]);
        }
        (value, sums.flat())
    }
}

impl Policy {
    /// Whether `batch` has more logits than may exist at once.
    pub(super) fn in_parts(&self, batch: &Packed) -> bool {
        batch.tokens() as i64 * self.trunk.config.vocab > self.trunk.compute.logits
    }

    /// As [`Policy::backward`], but computes layers again and logits in parts, which takes less
    /// memory.
    pub(super) fn backward_sparing(
        &self,
        batch: &Packed,
        temperature: f64,
        with_entropy: bool,
        loss: impl FnOnce(&Predicted) -> Tensor,
    ) -> Gradient {
        let (loss, flat) = self.trunk.backward(batch, batch.places.as_ref(), |hidden, sums| {
            if self.in_parts(batch) {
                return self.head_in_parts(hidden, batch, temperature, with_entropy, loss, sums);
            }
            let predicted = self.judge(hidden, &batch.targets, temperature, with_entropy);
            let loss = loss(&predicted);
            let grad = sums.add(&loss, &[hidden]).into_iter().flatten().next();
            (loss.detach(), grad.unwrap_or_else(|| hidden.zeros_like().detach()))
        });
        Gradient { loss, flat }
    }

    /// The loss, and its gradient by the hidden states, with logits made twice, part by part: once
    /// for their log-probabilities, of which the loss is a function, and once for the gradient.
    fn head_in_parts(
        &self,
        hidden: &Tensor,
        batch: &Packed,
        temperature: f64,
        with_entropy: bool,
        loss: impl FnOnce(&Predicted) -> Tensor,
        sums: &mut Sums,
    ) -> (Tensor, Tensor) {
        let whole = no_grad(|| self.judge_in_parts(hidden, batch, temperature, with_entropy));
        let log_probs = leaf(&whole.log_probs);
        let entropy = whole.entropy.as_ref().map(leaf);
        let predicted = Predicted { log_probs, entropy };
        let loss = loss(&predicted);
        let leaves: Vec<&Tensor> =
            [&predicted.log_probs].into_iter().chain(&predicted.entropy).collect();
        let by = Tensor::run_backward(&[&loss], &leaves, false, false);
        let grads = self.parts(hidden.size()[0]).map(|(start, n)| {
            let part = leaf(&hidden.narrow(0, start, n));
            let targets = batch.targets.narrow(0, start, n);
            let found = self.judge(&part, &targets, temperature, with_entropy);
            let both = [Some(&found.log_probs), found.entropy.as_ref()];
            let pulls = both.into_iter().flatten().zip(&by).filter(|(_, by)| by.defined());
            let scalar = pulls.map(|(y, by)| pulled(y, &by.narrow(0, start, n)));
            let grad = scalar
                .reduce(|a, b| a + b)
                .and_then(|scalar| sums.add(&scalar, &[&part]).into_iter().flatten().next());
            grad.unwrap_or_else(|| part.zeros_like().detach())
        });
        let grad = Tensor::cat(&grads.collect::<Vec<_>>(), 0);
        (loss.detach(), grad)
    }

    /// What the policy predicts of all of `batch`, with the logits of one part at a time.
    pub(super) fn judge_in_parts(
        &self,
        hidden: &Tensor,
        batch: &Packed,
        temperature: f64,
        with_entropy: bool,
    ) -> Predicted {
        let parts = self.parts(hidden.size()[0]).map(|(start, n)| {
            let targets = batch.targets.narrow(0, start, n);
            self.judge(&hidden.narrow(0, start, n), &targets, temperature, with_entropy)
        });
        let (log_probs, entropy): (Vec<_>, Vec<_>) =
            parts.map(|p| (p.log_probs, p.entropy)).unzip();
        let entropy: Vec<Tensor> = entropy.into_iter().flatten().collect();
        Predicted {
            log_probs: Tensor::cat(&log_probs, 0),
            entropy: (!entropy.is_empty()).then(|| Tensor::cat(&entropy, 0)),
        }
    }

    /// Starts and lengths of the parts of `n` places.
    fn parts(&self, n: i64) -> impl Iterator<Item = (i64, i64)> + use<> {
        let size = (self.trunk.compute.logits / self.trunk.config.vocab).max(1);
        (0..n).step_by(size as usize).map(move |start| (start, size.min(n - start)))
    }
}
