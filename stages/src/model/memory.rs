//! How much memory training takes, by arithmetic, before any of it is taken.
//! Knows nothing of stages or of how much there is.

use tch::Kind;

use super::config::{ModelConfig, Norm};
use super::{ParamSpec, Trunk};

/// Bytes of an f32.
const WORD: u64 = 4;

/// The largest batch that goes forward and backward at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    pub rows: u64,
    /// Tokens of a row.
    pub time: u64,
    /// Tokens that are predicted, of all rows together.
    pub predicted: u64,
    /// Several texts share a row.
    pub packed: bool,
}

/// What a training step holds, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    pub weights: u64,
    /// AdamW's two moments.
    pub moments: u64,
    /// The gradient by parameter and as a whole, and what turning it into a step takes.
    pub gradient: u64,
    /// What the forward pass keeps for the backward pass, and the largest part of that again.
    pub activations: u64,
}

/// Kernels and buffers that libtorch makes at the first use.
const FIXED: u64 = 24 << 20;

impl Forecast {
    /// All of it. The step of the optimizer comes when the activations are gone, but the allocator
    /// keeps what it had for them.
    pub fn total(&self) -> u64 {
        FIXED + self.weights + self.moments + self.gradient + self.activations
    }
}

/// The memory of training `trunk` on batches of this shape.
pub fn forecast(trunk: &Trunk, shape: BatchShape) -> Forecast {
    let trained = trunk.trainable().numel() as u64;
    let own = if trunk.adapter.is_some() { trained } else { 0 };
    Forecast {
        weights: WORD * (trunk.params.numel() as u64 + own),
        moments: 2 * WORD * trained,
        // By parameter, as a whole, two while AdamW divides the moments, and as much again that
        // the allocator holds between them: measured, see the test.
        gradient: 6 * WORD * trained,
        activations: activations(trunk, shape),
    }
}

fn activations(trunk: &Trunk, shape: BatchShape) -> u64 {
    let (c, compute) = (&trunk.config, &trunk.compute);
    let (tokens, d, layers) = (shape.rows * shape.time, c.hidden as u64, c.layers as u64);
    let layer =
        tokens * layer_bytes(c, compute.kind, trunk.adapter.is_some()) + layer_fixed(trunk, shape);
    let kept = if compute.checkpoint {
        // The inputs of all layers; of one layer everything, and the gradient of that.
        layers * tokens * d * WORD + 2 * layer
    } else {
        layers * layer
    };
    // The last layer's output, normed and chosen.
    let ends = (3 * tokens + 2 * shape.predicted) * d * WORD;
    // Logits, their log-softmax and its gradient, at most so many at once.
    let logits = (shape.predicted * c.vocab as u64).min(compute.logits.max(c.vocab) as u64);
    // The widest product and its gradient while one layer goes backward.
    let widest = tokens * 4 * (c.intermediate as u64).max(d) * WORD;
    kept + ends + (3 * logits * WORD).max(widest)
}

/// Bytes that one layer keeps of one token.
fn layer_bytes(c: &ModelConfig, kind: Kind, adapted: bool) -> u64 {
    let part = if kind == Kind::Float { WORD } else { 2 };
    let (d, f) = (c.hidden as u64, c.intermediate as u64);
    let [q, k, v] = c.qkv_widths().map(|n| n as u64);
    // The two inputs of norms stay f32; what comes out of them is in the type of the products.
    let norms = 2 * d * WORD + 2 * d * part;
    let rotated = if c.rotary_dim() > 0 || c.qk_norm { q + k } else { 0 };
    let normed = if c.qk_norm { 3 * (q + k) * WORD } else { 0 };
    let spread = if q > k { 2 * q } else { 0 };
    let attention = (q + k + v + rotated + spread + q) * part + c.heads as u64 * WORD + normed;
    let mlp = if c.gated { 4 * f } else { 2 * f } * part;
    // Of the sum of a product and its adapter, nothing of its own is kept but the narrow middle.
    let adapter = if adapted { 64 * part } else { 0 };
    norms + attention + mlp + adapter
}

/// Bytes that one layer keeps besides: folded or converted matrices, and masks.
fn layer_fixed(trunk: &Trunk, shape: BatchShape) -> u64 {
    let place = |i: usize| trunk.params.specs.get(i).map_or(0, ParamSpec::numel) as u64;
    let matrices = trunk.layout.blocks.first().map_or(0, |b| {
        let [qkv, o, up, down] = [b.qkv, b.o, b.up, b.down].map(|l| place(l.weight));
        match (trunk.compute.kind, trunk.config.norm) {
            (Kind::Float, Norm::Rms) => (qkv + up) * WORD,
            (Kind::Float, Norm::Layer) => 0,
            _ => (qkv + o + up + down) * 2,
        }
    });
    let mask = if shape.packed { shape.rows * shape.time * shape.time * WORD } else { 0 };
    matrices + mask
}
