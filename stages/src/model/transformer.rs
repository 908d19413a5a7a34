//! The forward pass of a decoder: norms, attention, MLP. What differs between architectures is
//! data, see [`ModelConfig`]. Knows nothing of what reads the hidden states.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use super::adapter::Adapter;
use super::attention::{Products, Rotary, attention};
use super::columns::{Columns, Layout};
use super::config::{Activation, ModelConfig, Norm, Positions, QkNorm};
use super::layout::{Block, Linear, WeightIndex, parameters};
use super::{ParamSpec, Params};

/// The transformer below the heads: tokens in, hidden states out.
#[derive(Debug)]
pub struct Trunk {
    pub config: ModelConfig,
    pub params: Params,
    pub compute: Compute,
    pub(super) index: WeightIndex,
    pub(super) adapter: Option<Adapter>,
    /// `None` when positions are learned.
    pub(super) rotary: Option<Rotary>,
    /// Of layers with a window, where they have positions of their own.
    pub(super) window_rotary: Option<Rotary>,
    /// Weights with gains, adapters and conversions worked in, by their place among the
    /// parameters; empty in training: see [`Trunk::for_inference`].
    fused: BTreeMap<usize, Tensor>,
    /// Added to the logits, `[vocab]`: see [`Policy::draw_only_known`](super::Policy).
    pub(super) absent: Option<Tensor>,
}

/// How passes are computed: precision, memory and time, not what comes out (beyond rounding).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compute {
    /// Type of products and activations; weights, norms, the residual stream and losses are f32.
    pub kind: Kind,
    /// Keep only the input of each layer for the backward pass, and compute the rest again.
    pub checkpoint: bool,
    /// Most logits that exist at once in a backward pass; beyond, they are made in parts.
    pub logits: i64,
}

impl Default for Compute {
    fn default() -> Self {
        Self { kind: Kind::Float, checkpoint: false, logits: 1 << 24 }
    }
}

/// Keys and values of the columns seen so far: `[batch, kv_heads, columns, head_dim]` a layer.
#[derive(Debug)]
pub struct Cache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    /// First real column of each row, `[batch]`.
    start: Tensor,
    /// Columns filled.
    len: i64,
}

impl Cache {
    /// Room for `columns` columns of rows that start in columns `start`, `[batch]`; more is made
    /// where they do not suffice.
    pub fn new(trunk: &Trunk, start: Tensor, columns: i64) -> Self {
        let (c, options) = (&trunk.config, (trunk.compute.kind, trunk.params.flat.device()));
        let shape = [start.size()[0], c.kv_heads, columns, c.head_dim];
        let make = || (0..c.layers).map(|_| Tensor::zeros(shape, options)).collect();
        Self { keys: make(), values: make(), start, len: 0 }
    }

    /// Makes room for so many columns in all.
    fn reserve(&mut self, columns: i64) {
        for tensor in self.keys.iter_mut().chain(&mut self.values) {
            let room = tensor.size()[2];
            if columns > room {
                let more = [0, 0, 0, columns.max(room * 2) - room];
                *tensor = tensor.constant_pad_nd(more);
            }
        }
    }

    /// Keeps the rows at `indices`, `[n]`, as often as they stand there, and drops the others.
    pub fn keep(&mut self, indices: &Tensor) {
        for tensor in self.keys.iter_mut().chain(&mut self.values) {
            *tensor = tensor.index_select(0, indices);
        }
        self.start = self.start.index_select(0, indices);
    }
}

impl Trunk {
    /// A trunk over these weights.
    pub fn new(config: ModelConfig, params: Params) -> Self {
        let reward = params.specs.last().is_some_and(|s| s.parts[0].name == "score.bias");
        let tables = |rope| Rotary::new(rope, &config, params.flat.device());
        let rotary = match &config.positions {
            Positions::Rotary(rope) => Some(tables(rope)),
            Positions::Learned => None,
        };
        let window_rotary = config.window_rope.as_ref().map(tables);
        let index = parameters(&config, reward).1;
        let (compute, adapter, fused) = (Compute::default(), None, BTreeMap::new());
        let absent = None;
        Self { config, params, compute, index, adapter, rotary, window_rotary, fused, absent }
    }

    /// Fresh weights.
    pub fn init(config: ModelConfig, reward: bool, seed: u64) -> Self {
        let params = Params::init(ParamSpec::list(&config, reward), seed);
        Self::new(config, params)
    }

    /// This trunk with its weights on `device`.
    #[must_use]
    pub fn to(self, device: Device) -> Self {
        if self.params.flat.device() == device {
            return self;
        }
        let params = Params::from_flat(self.params.specs, self.params.flat.to_device(device));
        let absent = self.absent.map(|a| a.to_device(device));
        Self { compute: self.compute, absent, ..Self::new(self.config, params) }
    }

    /// The weights that training moves.
    pub fn trainable(&self) -> &Params {
        self.adapter.as_ref().map_or(&self.params, |a| &a.params)
    }

    /// A copy that shares nothing with this one; an adapter is merged into its weights.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        self.over(self.merged().unwrap_or_else(|| self.params.duplicate()))
    }

    /// The same weights without the adapter, frozen and not copied.
    #[must_use]
    pub(super) fn without_adapter(&self) -> Self {
        self.over(self.params.shared())
    }

    /// This model as it is now, for many passes without gradients: gains, adapters and conversions
    /// are worked into the matrices once instead of at every pass.
    #[must_use]
    pub fn for_inference(&self) -> Self {
        let mut out = self.over(self.merged().unwrap_or_else(|| self.params.shared()));
        let norm = |norm: Option<Linear>| {
            norm.filter(|_| self.config.norm == Norm::Rms).map(|norm| norm.weight)
        };
        let blocks = self.index.blocks.iter();
        let mut linears: Vec<(Linear, Option<usize>)> = blocks
            .flat_map(|b| {
                let (attention, mlp) = (norm(b.attention_norm), norm(b.mlp_norm));
                [(b.qkv, attention), (b.o, None), (b.up, mlp), (b.down, None)]
            })
            .collect();
        linears.push((self.index.head, None));
        out.fused = no_grad(|| {
            let fused = linears.into_iter().map(|(linear, gain)| {
                let gain = gain.map(|i| out.gain(i));
                (linear.weight, out.folded(linear, gain.as_ref()))
            });
            fused.collect()
        });
        out
    }

    /// The same model over other weights.
    fn over(&self, params: Params) -> Self {
        Self {
            config: self.config.clone(),
            params,
            compute: self.compute,
            index: self.index.clone(),
            adapter: None,
            rotary: self.rotary.as_ref().map(Rotary::share),
            window_rotary: self.window_rotary.as_ref().map(Rotary::share),
            fused: BTreeMap::new(),
            absent: self.absent.as_ref().map(Tensor::shallow_clone),
        }
    }

    /// Hidden states after the last norm, `[batch, time, hidden]`, of `ids`, `[batch, time]`.
    pub fn hidden(&self, ids: &Tensor, layout: &Layout) -> Tensor {
        let columns = self.columns(ids, layout);
        self.layers(ids, &columns, |i, q, k, v| self.attend(i, &columns, q, k, v))
    }

    /// Hidden states of the next columns of left-padded rows, `[batch, time, hidden]`; `ids`,
    /// `[batch, time]`, follow what `cache` has seen. Call it without gradients.
    pub fn hidden_cached(&self, ids: &Tensor, cache: &mut Cache) -> Tensor {
        let time = ids.size()[1];
        let (seen, total) = (cache.len, cache.len + time);
        cache.reserve(total);
        let all = Tensor::arange(total, (Kind::Int64, ids.device()));
        let columns = self.left_columns(&all.narrow(0, seen, time), &all, &cache.start);
        let (keys, values) = (&cache.keys, &cache.values);
        let hidden = self.layers(ids, &columns, |layer, q, k, v| {
            keys[layer].narrow(2, seen, time).copy_(k);
            values[layer].narrow(2, seen, time).copy_(v);
            let (k, v) = (keys[layer].narrow(2, 0, total), values[layer].narrow(2, 0, total));
            self.attend(layer, &columns, q, &k, &v)
        });
        cache.len = total;
        hidden
    }

    fn layers(
        &self,
        ids: &Tensor,
        columns: &Columns,
        attend: impl Fn(usize, &Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let mut x = self.embed(ids, columns);
        for i in 0..self.index.blocks.len() {
            x = self.block(i, x, columns, |q, k, v| attend(i, q, k, v));
        }
        self.last_norm(&x)
    }

    /// Token embeddings plus learned positions, the input of the first layer, `[batch, time,
    /// hidden]`.
    pub(super) fn embed(&self, ids: &Tensor, columns: &Columns) -> Tensor {
        let embed = &self.params.tensors[self.index.embed];
        let x = scaled(Tensor::embedding(embed, ids, -1, false, false), self.config.embed_scale);
        match &columns.learned {
            Some(learned) => x + learned,
            None => x,
        }
    }

    /// The output of the trunk: the last norm of the last layer's output `x`.
    pub(super) fn last_norm(&self, x: &Tensor) -> Tensor {
        self.norm(x, self.index.norm)
    }

    /// Layer `i` on `x`, `[batch, time, hidden]`.
    pub(super) fn block(
        &self,
        i: usize,
        x: Tensor,
        columns: &Columns,
        attend: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let block = &self.index.blocks[i];
        let mixed = self.added(self.mix(i, &x, columns, attend), block.attention_post);
        if self.config.parallel {
            return &x + mixed + self.added(self.mlp(block, &x), block.mlp_post);
        }
        // Not in place: the sum before is needed for the gradient.
        let attended = x + mixed;
        let mlp = self.added(self.mlp(block, &attended), block.mlp_post);
        attended + mlp
    }

    /// What a layer adds to the residual stream of what attention or MLP made.
    fn added(&self, made: Tensor, norm: Option<Linear>) -> Tensor {
        let made = match norm {
            Some(norm) => self.norm(&made.to_kind(Kind::Float), norm),
            None => made,
        };
        scaled(made, self.config.residual_scale)
    }

    /// The attention block of layer `i`: projections, rotary positions, attention, output
    /// projection.
    fn mix(
        &self,
        i: usize,
        x: &Tensor,
        columns: &Columns,
        attend: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let (c, block) = (&self.config, &self.index.blocks[i]);
        let (batch, time, rotated) = (x.size()[0], x.size()[1], c.heads + c.kv_heads);
        let projected = self.norm_linear(x, block.attention_norm, block.qkv);
        let heads = projected.view([batch, time, rotated + c.kv_heads, c.head_dim]);
        let mut qk = self.normed_heads(block, heads.narrow(2, 0, rotated));
        if let Some(rotary) = columns.rotary(c.layer_kind(i)) {
            qk = rotary.rotate(&qk);
        }
        let q = qk.narrow(2, 0, c.heads).transpose(1, 2);
        let k = qk.narrow(2, c.heads, c.kv_heads).transpose(1, 2);
        let v = heads.narrow(2, rotated, c.kv_heads).transpose(1, 2);
        let mixed = attend(&q, &k, &v).transpose(1, 2).reshape([batch, time, c.query_width()]);
        self.linear(&mixed, None, block.o)
    }

    /// Attention of layer `i` over the columns that may be seen.
    pub(super) fn attend(
        &self,
        i: usize,
        columns: &Columns,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Tensor {
        let c = &self.config;
        let scores = Products { scale: c.attention_scale, cap: c.attention_cap };
        attention(q, k, v, columns.mask(c.layer_kind(i)), scores)
    }

    /// The norms of queries and keys, where the architecture has them; `qk` holds the heads of
    /// both, `[batch, time, heads + kv_heads, head_dim]`.
    fn normed_heads(&self, block: &Block, qk: Tensor) -> Tensor {
        let (Some(q), Some(k)) = (block.q_norm, block.k_norm) else { return qk };
        let c = &self.config;
        let (heads, kv_heads) = ([c.heads, c.head_dim], [c.kv_heads, c.head_dim]);
        let (q, k, x) = (self.gain(q), self.gain(k), qk.to_kind(Kind::Float));
        if c.qk_norm == QkNorm::Width {
            let over_all = |first: i64, shape: [i64; 2], gain: Tensor| {
                let x = x.narrow(2, first, shape[0]);
                let unit = scale_to_unit(&x.flatten(2, 3), c.norm_eps) * gain;
                unit.view_as(&x)
            };
            let both = [over_all(0, heads, q), over_all(c.heads, kv_heads, k)];
            return self.cast(&Tensor::cat(&both, 2));
        }
        let gains = Tensor::cat(&[q.expand(heads, false), k.expand(kv_heads, false)], 0);
        self.cast(&(scale_to_unit(&x, c.norm_eps) * gains))
    }

    fn mlp(&self, block: &Block, x: &Tensor) -> Tensor {
        let c = &self.config;
        let up = self.norm_linear(x, block.mlp_norm, block.up);
        let activate = |x: &Tensor| match c.activation {
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu("none"),
            Activation::GeluTanh => x.gelu("tanh"),
        };
        let inner = if c.gated {
            activate(&up.narrow(2, 0, c.intermediate))
                * up.narrow(2, c.intermediate, c.intermediate)
        } else {
            activate(&up)
        };
        self.linear(&inner, None, block.down)
    }

    /// The gain of a norm.
    fn gain(&self, place: usize) -> Tensor {
        let stored = &self.params.tensors[place];
        if self.config.gain_from_one { stored + 1.0 } else { stored.shallow_clone() }
    }

    fn norm(&self, x: &Tensor, norm: Linear) -> Tensor {
        let (t, eps) = (&self.params.tensors, self.config.norm_eps);
        let gain = self.gain(norm.weight);
        match self.config.norm {
            Norm::Rms => scale_to_unit(x, eps) * gain,
            Norm::Layer => {
                let bias = norm.bias.map(|i| &t[i]);
                x.layer_norm([self.config.hidden], Some(&gain), bias, eps, false)
            }
        }
    }

    /// `linear(norm(x))`. The gain of an RMS norm is folded into the matrix, which is far smaller
    /// than `x`.
    fn norm_linear(&self, x: &Tensor, norm: Option<Linear>, linear: Linear) -> Tensor {
        match (norm, self.config.norm) {
            (None, _) => self.linear(x, None, linear),
            (Some(norm), Norm::Rms) => {
                let gain = self.gain(norm.weight);
                self.linear(&scale_to_unit(x, self.config.norm_eps), Some(&gain), linear)
            }
            (Some(norm), Norm::Layer) => self.linear(&self.norm(x, norm), None, linear),
        }
    }

    /// `(x · gain) Wᵀ + b`, and what the adapter adds.
    fn linear(&self, x: &Tensor, gain: Option<&Tensor>, linear: Linear) -> Tensor {
        let x = self.cast(x);
        let bias = linear.bias.map(|i| self.cast(&self.params.tensors[i]));
        let out = match self.fused.get(&linear.weight) {
            Some(matrix) => x.linear(matrix, bias),
            None => x.linear(&self.folded(linear, gain), bias),
        };
        let adapter = self.adapter.as_ref();
        match adapter.and_then(|a| a.delta(linear.weight, &x, gain, self.compute.kind)) {
            Some(delta) => out + delta,
            None => out,
        }
    }

    /// `W · gain` in the type that products are computed in.
    fn folded(&self, linear: Linear, gain: Option<&Tensor>) -> Tensor {
        let matrix = &self.params.tensors[linear.weight];
        match gain {
            Some(gain) => self.cast(&(matrix * gain)),
            None => self.cast(matrix),
        }
    }

    /// What the head multiplies hidden states with: the output layer.
    pub(super) fn head(&self) -> Tensor {
        let fused = self.fused.get(&self.index.head.weight);
        fused.map_or_else(|| self.folded(self.index.head, None), Tensor::shallow_clone)
    }

    /// `x` in the type that products are computed in.
    pub(super) fn cast(&self, x: &Tensor) -> Tensor {
        x.to_kind(self.compute.kind)
    }
}

/// `x · by`; the same where that changes nothing.
fn scaled(x: Tensor, by: f64) -> Tensor {
    if by == 1.0 { x } else { x * by }
}

/// `x / √(mean(x²) + eps)` over the last dimension (Zhang and Sennrich 2019, without the gain).
fn scale_to_unit(x: &Tensor, eps: f64) -> Tensor {
    let width = x.size()[x.dim() - 1] as f64;
    let length = x.linalg_norm(2.0, [-1_i64].as_slice(), true, None::<Kind>);
    x * (length.square() / width + eps).rsqrt()
}
