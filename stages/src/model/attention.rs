//! Attention, its masks, and rotary positions.
//! Knows nothing of weights or layers.

use tch::{Device, Kind, Tensor};

use super::config::{ModelConfig, Rope, RopeScaling};

/// Which columns each column sees.
#[derive(Debug, Default)]
pub struct Mask {
    /// True where a column may be seen, `[batch, 1, time, columns]`.
    pub seen: Option<Tensor>,
    /// Every column sees itself and those before it.
    pub causal: bool,
}

/// How products of queries and keys become weights.
#[derive(Debug, Clone, Copy)]
pub struct Products {
    /// Multiplies the products; `None`: 1/√head_dim.
    pub scale: Option<f64>,
    /// They end softly here: `cap · tanh(x / cap)`.
    pub cap: Option<f64>,
}

/// Attention of `q`, `[batch, heads, time, head_dim]`, over `k` and `v`,
/// `[batch, kv_heads, columns, head_dim]`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask, scores: Products) -> Tensor {
    let groups = q.size()[1] / k.size()[1];
    let spread = |x: &Tensor| {
        if groups == 1 { x.shallow_clone() } else { x.repeat_interleave_self_int(groups, 1, None) }
    };
    let (k, v, seen) = (spread(k), spread(v), mask.seen.as_ref());
    let Some(cap) = scores.cap else {
        let scale = scores.scale;
        return Tensor::scaled_dot_product_attention(
            q,
            &k,
            &v,
            seen,
            0.0,
            mask.causal,
            scale,
            false,
        );
    };
    let scale = scores.scale.unwrap_or_else(|| (q.size()[3] as f64).powf(-0.5));
    let products = (q.matmul(&k.transpose(2, 3)) * (scale / cap)).tanh() * cap;
    let hidden = match seen {
        Some(seen) => seen.logical_not(),
        None => {
            let all = Tensor::ones([q.size()[2], k.size()[2]], (Kind::Bool, q.device()));
            if mask.causal { all.triu(1) } else { all.zeros_like() }
        }
    };
    let weights = products.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Float);
    weights.to_kind(v.kind()).matmul(&v)
}

/// True where a column is one of the last `window` of the query, itself included, or later.
pub fn window_mask(queries: &Tensor, keys: &Tensor, window: i64) -> Tensor {
    let (queries, keys) = (queries.view([1, 1, -1, 1]), keys.view([1, 1, 1, -1]));
    keys.gt_tensor(&(queries - window))
}

/// True where the column is real and not later than the query. Padding sees itself, so that no row
/// of the softmax is empty.
pub fn left_mask(queries: &Tensor, keys: &Tensor, start: &Tensor) -> Tensor {
    let (queries, keys) = (queries.view([1, 1, -1, 1]), keys.view([1, 1, 1, -1]));
    let real = keys.ge_tensor(&start.view([-1, 1, 1, 1]));
    real.logical_and(&keys.le_tensor(&queries)).logical_or(&keys.eq_tensor(&queries))
}

/// True where a column is not later than the query and of the same text; `texts`, `[batch, time]`,
/// numbers them.
pub fn text_mask(texts: &Tensor) -> Tensor {
    let same = texts.unsqueeze(1).unsqueeze(3).eq_tensor(&texts.unsqueeze(1).unsqueeze(2));
    same.tril(0)
}

/// True where a column is not later than the query and of the same text, or of the text that the
/// query's goes on from; `texts` and `parents`, `[batch, time]`, number both.
pub fn branch_mask(texts: &Tensor, parents: &Tensor) -> Tensor {
    let keys = texts.unsqueeze(1).unsqueeze(2);
    let same = texts.unsqueeze(1).unsqueeze(3).eq_tensor(&keys);
    same.logical_or(&parents.unsqueeze(1).unsqueeze(3).eq_tensor(&keys)).tril(0)
}

/// As [`window_mask`], with positions of each row, `[batch, time]`, in place of columns.
pub fn window_mask_at(positions: &Tensor, window: i64) -> Tensor {
    let queries = positions.unsqueeze(1).unsqueeze(3);
    positions.unsqueeze(1).unsqueeze(2).gt_tensor(&(queries - window))
}

/// Rotary tables: cosines and signed sines of all positions, `[context, 1, rotary_dim]`; the first
/// half of the sines is negated.
#[derive(Debug)]
pub struct Rotary {
    pub cos: Tensor,
    pub sin: Tensor,
}

impl Rotary {
    /// The tables of `rope` for a model.
    pub fn new(rope: &Rope, config: &ModelConfig, device: Device) -> Self {
        let dim = config.rotary_dim();
        let half = (dim / 2) as usize;
        let frequencies: Vec<f32> = (0..half).map(|i| frequency(rope, i, dim)).collect();
        let grow = match rope.scaling {
            RopeScaling::Yarn { attention_factor, .. }
            | RopeScaling::LongRope { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        };
        let size = (config.context * dim) as usize;
        let (mut cos, mut sin) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for position in 0..config.context {
            for i in 0..dim as usize {
                let angle = position as f32 * frequencies[i % half];
                cos.push(grow * angle.cos());
                sin.push(grow * if i < half { -angle.sin() } else { angle.sin() });
            }
        }
        let table =
            |v: &[f32]| Tensor::from_slice(v).view([config.context, 1, dim]).to_device(device);
        Self { cos: table(&cos), sin: table(&sin) }
    }

    /// The same tables, not copied.
    pub fn share(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// The tables of the first `time` positions, `[time, 1, rotary_dim]`.
    pub fn first(&self, time: i64) -> Self {
        Self { cos: self.cos.narrow(0, 0, time), sin: self.sin.narrow(0, 0, time) }
    }

    /// The tables at `positions`, `[batch, time]`, as `[batch, time, 1, rotary_dim]`.
    pub fn at(&self, positions: &Tensor) -> Self {
        let size = positions.size();
        let shape = [size[0], size[1], 1, self.cos.size()[2]];
        let flat = positions.reshape([-1]);
        let at = |table: &Tensor| table.index_select(0, &flat).reshape(shape);
        Self { cos: at(&self.cos), sin: at(&self.sin) }
    }

    /// The tables in another type.
    pub fn to_kind(&self, kind: Kind) -> Self {
        Self { cos: self.cos.to_kind(kind), sin: self.sin.to_kind(kind) }
    }

    /// Rotates the first dimensions of every head of `x`, `[batch, time, heads, head_dim]`, in the
    /// half-split layout of Hugging Face.
    pub fn rotate(&self, x: &Tensor) -> Tensor {
        let (dim, width) = (self.cos.size()[self.cos.dim() - 1], x.size()[3]);
        if dim < width {
            let turned = self.rotate(&x.narrow(3, 0, dim));
            return Tensor::cat(&[turned, x.narrow(3, dim, width - dim)], 3);
        }
        let half = dim / 2;
        let swapped = Tensor::cat(&[x.narrow(3, half, half), x.narrow(3, 0, half)], 3);
        (x * &self.cos).addcmul(&swapped, &self.sin)
    }
}

/// Frequency `i` of `rope` over `dim` dimensions, radians a token.
fn frequency(rope: &Rope, i: usize, dim: i64) -> f32 {
    let period = (rope.theta as f32).powf(i as f32 * 2.0 / dim as f32);
    let frequency = 1.0 / period;
    match &rope.scaling {
        // Within the context, a dynamic base is the usual one.
        RopeScaling::None | RopeScaling::Dynamic { .. } => frequency,
        RopeScaling::Linear { factor } => frequency / *factor as f32,
        RopeScaling::Llama3 { .. } => by_wavelength(frequency, &rope.scaling),
        RopeScaling::LongRope { short, .. } => 1.0 / (short[i] as f32 * period),
        RopeScaling::Yarn { factor, .. } => {
            let kept = 1.0 - yarn_ramp(rope, i, dim);
            (1.0 - kept) / (*factor as f32 * period) + kept * frequency
        }
    }
}

/// How far dimension `i` is on YaRN's ramp, from 0 (kept) to 1 (divided).
fn yarn_ramp(rope: &Rope, i: usize, dim: i64) -> f32 {
    let RopeScaling::Yarn { beta_fast, beta_slow, original_context, truncate, .. } = rope.scaling
    else {
        return 0.0;
    };
    // The dimension that turns so often within the original context.
    let turning = |turns: f64| {
        let context = original_context as f64 / (turns * std::f64::consts::TAU);
        dim as f64 * context.ln() / (2.0 * rope.theta.ln())
    };
    let (low, high) = (turning(beta_fast), turning(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    let high = if low == high { high + 0.001 } else { high };
    (((i as f64 - low) / (high - low)) as f32).clamp(0.0, 1.0)
}

/// Llama 3's rule is that of `transformers`: wavelengths beyond the original context over
/// `low_freq_factor` are stretched by `factor`, those below it over `high_freq_factor` are kept,
/// and a ramp lies between.
fn by_wavelength(frequency: f32, scaling: &RopeScaling) -> f32 {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } =
        *scaling
    else {
        return frequency;
    };
    let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
    let (factor, context) = (factor as f32, original_context as f32);
    let wavelength = 2.0 * std::f32::consts::PI / frequency;
    if wavelength > context / low {
        frequency / factor
    } else if wavelength < context / high {
        frequency
    } else {
        let ramp = (context / wavelength - low) / (high - low);
        (1.0 - ramp) * frequency / factor + ramp * frequency
    }
}
