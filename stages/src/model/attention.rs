//! Attention, its masks, and rotary positions.
//! Knows nothing of weights or layers.

use tch::{Device, Kind, Tensor};

use super::config::{ModelConfig, Positions, RopeScaling};

/// Attention of `q`, `[batch, heads, time, head_dim]`, over `k` and `v`,
/// `[batch, kv_heads, columns, head_dim]`; `mask`, `[batch, 1, time, columns]`, is true where a
/// column may be seen.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
) -> Tensor {
    let groups = q.size()[1] / k.size()[1];
    let spread = |x: &Tensor| {
        if groups == 1 { x.shallow_clone() } else { x.repeat_interleave_self_int(groups, 1, None) }
    };
    Tensor::scaled_dot_product_attention(q, &spread(k), &spread(v), mask, 0.0, causal, None, false)
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

/// Rotary tables: cosines and signed sines of all positions, `[context, 1, rotary_dim]`; the first
/// half of the sines is negated.
#[derive(Debug)]
pub struct Rotary {
    pub cos: Tensor,
    pub sin: Tensor,
}

impl Rotary {
    /// The tables of a model; nothing when its positions are learned.
    pub fn new(config: &ModelConfig, device: Device) -> Option<Self> {
        let Positions::Rotary { theta, scaling, .. } = config.positions else { return None };
        let dim = config.rotary_dim();
        let half = (dim / 2) as usize;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                let exponent = i as f32 * 2.0 / dim as f32;
                stretch(1.0 / (theta as f32).powf(exponent), scaling)
            })
            .collect();
        let size = (config.context * dim) as usize;
        let (mut cos, mut sin) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for position in 0..config.context {
            for i in 0..dim as usize {
                let angle = position as f32 * frequencies[i % half];
                cos.push(angle.cos());
                sin.push(if i < half { -angle.sin() } else { angle.sin() });
            }
        }
        let table =
            |v: &[f32]| Tensor::from_slice(v).view([config.context, 1, dim]).to_device(device);
        Some(Self { cos: table(&cos), sin: table(&sin) })
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

/// A frequency (radians a token) as `scaling` wants it. Llama 3's rule is that of `transformers`:
/// wavelengths beyond the original context over `low_freq_factor` are stretched by `factor`, those
/// below it over `high_freq_factor` are kept, and a ramp lies between.
fn stretch(frequency: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
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
    }
}
