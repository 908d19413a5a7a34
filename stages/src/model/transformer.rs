//! The forward pass of a Llama decoder: RMS norm, rotary positions, grouped-query attention,
//! SwiGLU. Knows nothing of what reads the hidden states.

use tch::{Device, Kind, Tensor};

use super::{LlamaConfig, ParamSpec, Params};

/// Everything below the heads.
#[derive(Debug)]
pub struct Trunk {
    pub config: LlamaConfig,
    pub params: Params,
    /// Cosines and signed sines of the rotary positions, `[context, 1, head_dim]`.
    cos: Tensor,
    sin: Tensor,
}

/// Which columns of a batch are real.
#[derive(Debug)]
pub enum Window {
    /// Rows start in column 0 and are filled up on the right. The causal mask then hides the
    /// filling from every real token, and positions are the columns.
    Right,
    /// Row `b` starts in column `start[b]`, `[batch]`, and ends in the last column.
    Left(Tensor),
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
    /// Room for `columns` columns of rows that start in columns `start`, `[batch]`.
    pub fn new(config: &LlamaConfig, start: Tensor, columns: i64, device: Device) -> Self {
        let shape = [start.size()[0], config.kv_heads, columns, config.head_dim()];
        let make = || (0..config.layers).map(|_| Tensor::zeros(shape, (Kind::Float, device)));
        Self { keys: make().collect(), values: make().collect(), start, len: 0 }
    }

    /// Keeps the rows at `indices`, `[n]`, and drops the others.
    pub fn keep(&mut self, indices: &Tensor) {
        for tensor in self.keys.iter_mut().chain(&mut self.values) {
            *tensor = tensor.index_select(0, indices);
        }
        self.start = self.start.index_select(0, indices);
    }
}

impl Trunk {
    /// A trunk over these weights.
    pub fn new(config: LlamaConfig, params: Params) -> Self {
        let (cos, sin) = rotary_tables(&config, params.flat.device());
        Self { config, params, cos, sin }
    }

    /// Fresh weights.
    pub fn init(config: LlamaConfig, reward: bool, seed: u64) -> Self {
        let params = Params::init(ParamSpec::list(&config, reward), seed);
        Self::new(config, params)
    }

    /// The weights that training moves.
    pub fn trainable(&self) -> &Params {
        &self.params
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.config.clone(), self.params.duplicate())
    }

    /// Hidden states after the last norm, `[batch, time, hidden]`, of `ids`, `[batch, time]`.
    pub fn hidden(&self, ids: &Tensor, window: &Window) -> Tensor {
        let time = ids.size()[1];
        let device = ids.device();
        match window {
            Window::Right => {
                let (cos, sin) = (self.cos.narrow(0, 0, time), self.sin.narrow(0, 0, time));
                self.layers(ids, &cos, &sin, |_, q, k, v| attention(q, k, v, None, time > 1))
            }
            Window::Left(start) => {
                let columns = Tensor::arange(time, (Kind::Int64, device));
                let (cos, sin) = self.rotary_at(&columns, start);
                let mask = left_mask(&columns, &columns, start);
                self.layers(ids, &cos, &sin, |_, q, k, v| attention(q, k, v, Some(&mask), false))
            }
        }
    }

    /// Hidden states of the next columns of left-padded rows, `[batch, time, hidden]`; `ids`,
    /// `[batch, time]`, follow what `cache` has seen. Call it without gradients.
    pub fn hidden_cached(&self, ids: &Tensor, cache: &mut Cache) -> Tensor {
        let (time, device) = (ids.size()[1], ids.device());
        let (seen, total) = (cache.len, cache.len + time);
        let all = Tensor::arange(total, (Kind::Int64, device));
        let columns = all.narrow(0, seen, time);
        let (cos, sin) = self.rotary_at(&columns, &cache.start);
        let mask = left_mask(&columns, &all, &cache.start);
        let (keys, values) = (&cache.keys, &cache.values);
        let hidden = self.layers(ids, &cos, &sin, |layer, q, k, v| {
            keys[layer].narrow(2, seen, time).copy_(k);
            values[layer].narrow(2, seen, time).copy_(v);
            let (k, v) = (keys[layer].narrow(2, 0, total), values[layer].narrow(2, 0, total));
            attention(q, &k, &v, Some(&mask), false)
        });
        cache.len = total;
        hidden
    }

    /// Rotary tables per row, `[batch, time, 1, head_dim]`: positions count from each row's start.
    fn rotary_at(&self, columns: &Tensor, start: &Tensor) -> (Tensor, Tensor) {
        let positions = (columns.unsqueeze(0) - start.unsqueeze(1)).clamp_min(0);
        let shape = [positions.size()[0], positions.size()[1], 1, self.config.head_dim()];
        let flat = positions.reshape([-1]);
        let at = |table: &Tensor| table.index_select(0, &flat).reshape(shape);
        (at(&self.cos), at(&self.sin))
    }

    fn layers(
        &self,
        ids: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        attend: impl Fn(usize, &Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let c = &self.config;
        let (batch, time) = (ids.size()[0], ids.size()[1]);
        let (layers, t) = (c.layers as usize, &self.params.tensors);
        // The norms stand after the matrices: see `ParamSpec::list`.
        let norms = t.len() - 2 * layers - 1 - usize::from(self.has_score());
        let rotated = c.heads + c.kv_heads;
        let mut x = Tensor::embedding(&t[0], ids, -1, false, false);
        for layer in 0..layers {
            let [qkv, o, gate_up, down] = [1, 2, 3, 4].map(|i| &t[4 * layer + i]);
            let normed = norm_linear(&x, &t[norms + 2 * layer], qkv, c.norm_eps);
            let heads = normed.view([batch, time, c.heads + 2 * c.kv_heads, c.head_dim()]);
            let qk = rotate(&heads.narrow(2, 0, rotated), cos, sin);
            let q = qk.narrow(2, 0, c.heads).transpose(1, 2);
            let k = qk.narrow(2, c.heads, c.kv_heads).transpose(1, 2);
            let v = heads.narrow(2, rotated, c.kv_heads).transpose(1, 2);
            let mixed = attend(layer, &q, &k, &v).transpose(1, 2).reshape([batch, time, c.hidden]);
            // Not in place: the sum before is needed for the gradient.
            let attended = x + mixed.linear(o, None::<Tensor>);
            let mlp = norm_linear(&attended, &t[norms + 2 * layer + 1], gate_up, c.norm_eps);
            let gate = mlp.narrow(2, 0, c.intermediate).silu();
            let up = mlp.narrow(2, c.intermediate, c.intermediate);
            x = attended + (gate * up).linear(down, None::<Tensor>);
        }
        scale_to_unit(&x, c.norm_eps) * &t[norms + 2 * layers]
    }

    fn has_score(&self) -> bool {
        self.params.specs.last().is_some_and(|s| s.parts[0].name == "score.bias")
    }
}

/// `x / √(mean(x²) + eps)` over the last dimension (Zhang and Sennrich 2019, without the gain).
fn scale_to_unit(x: &Tensor, eps: f64) -> Tensor {
    let width = x.size()[x.dim() - 1] as f64;
    let length = x.linalg_norm(2.0, [-1_i64].as_slice(), true, None::<Kind>);
    x * (length.square() / width + eps).rsqrt()
}

/// `linear(norm(x) · gain)`. The gain is folded into the matrix, which is far smaller than `x`.
fn norm_linear(x: &Tensor, gain: &Tensor, matrix: &Tensor, eps: f64) -> Tensor {
    scale_to_unit(x, eps).linear(&(matrix * gain), None::<Tensor>)
}

/// Rotary positions (Su et al. 2021) in the half-split layout of Hugging Face. `x`:
/// `[batch, time, heads, head_dim]`.
fn rotate(x: &Tensor, cos: &Tensor, signed_sin: &Tensor) -> Tensor {
    let half = x.size()[3] / 2;
    let swapped = Tensor::cat(&[x.narrow(3, half, half), x.narrow(3, 0, half)], 3);
    (x * cos).addcmul(&swapped, signed_sin)
}

/// Attention of `q`, `[batch, heads, time, head_dim]`, over `k` and `v`,
/// `[batch, kv_heads, columns, head_dim]`; `mask`, `[batch, 1, time, columns]`, is true where a
/// column may be seen.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, causal: bool) -> Tensor {
    let groups = q.size()[1] / k.size()[1];
    let spread = |x: &Tensor| {
        if groups == 1 { x.shallow_clone() } else { x.repeat_interleave_self_int(groups, 1, None) }
    };
    Tensor::scaled_dot_product_attention(q, &spread(k), &spread(v), mask, 0.0, causal, None, false)
}

/// True where the column is real and not later than the query. Filling sees itself, so that no row
/// of the softmax is empty.
fn left_mask(queries: &Tensor, keys: &Tensor, start: &Tensor) -> Tensor {
    let (queries, keys) = (queries.view([1, 1, -1, 1]), keys.view([1, 1, 1, -1]));
    let real = keys.ge_tensor(&start.view([-1, 1, 1, 1]));
    real.logical_and(&keys.le_tensor(&queries)).logical_or(&keys.eq_tensor(&queries))
}

/// Tables for all positions, `[context, 1, head_dim]`; the first half of the sines is negated.
fn rotary_tables(c: &LlamaConfig, device: Device) -> (Tensor, Tensor) {
    let dim = c.head_dim();
    let half = dim / 2;
    let mut cos = Vec::with_capacity((c.context * dim) as usize);
    let mut sin = Vec::with_capacity((c.context * dim) as usize);
    for position in 0..c.context {
        for i in 0..dim {
            let exponent = (i % half) as f32 * 2.0 / dim as f32;
            let frequency = 1.0 / (c.rope_theta as f32).powf(exponent);
            let angle = position as f32 * frequency;
            cos.push(angle.cos());
            sin.push(if i < half { -angle.sin() } else { angle.sin() });
        }
    }
    let table = |v: &[f32]| Tensor::from_slice(v).view([c.context, 1, dim]).to_device(device);
    (table(&cos), table(&sin))
}
