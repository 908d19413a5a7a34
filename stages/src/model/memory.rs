//! How much memory training takes, by arithmetic, before any of it is taken.
//! Knows nothing of stages or of how much there is.

use tch::Kind;

use super::config::{ModelConfig, Norm, NormPlace, QkNorm};
use super::{Compute, Lora, ParamSpec};

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

/// Memory that a training step needs, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    pub weights: u64,
    /// AdamW's two moments.
    pub moments: u64,
    /// The gradient by parameter and as a whole, and what turning it into a step takes.
    pub gradient: u64,
    /// What passes keep and work with, beyond what the gradient's memory has room for.
    pub activations: u64,
    /// libtorch's own, and the tokenizer.
    pub other: u64,
}

/// Kernels and buffers that libtorch makes at the first use.
const FIXED: u64 = 24 << 20;
/// What a tokenizer takes for each token.
const TOKEN: u64 = 1 << 10;
/// Where adapters are trained: what the allocator holds for each byte of the layers' tensors and of
/// logits. Blocks that are freed are split for smaller ones and cannot hold a large one again, and
/// no gradient of the whole model has use for them. Measured, see the test.
const LAYERS_HELD: f64 = 1.25;
const LOGITS_HELD: u64 = 2;

impl Forecast {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.moments + self.gradient + self.activations + self.other
    }

    /// Raises it to what is held while adapters are added to a copy of the weights, to be written.
    #[must_use]
    pub fn merged(self, lora: &Lora, config: &ModelConfig) -> Self {
        let whole = lora.rank > 0 && !lora.keep;
        self.at_least(if whole { WORD * numel(config) } else { 0 })
    }

    /// Raises it to what is held beside weights and moments at another time than the training step.
    #[must_use]
    pub fn at_least(mut self, bytes: u64) -> Self {
        self.activations = self.activations.max(bytes.saturating_sub(self.gradient));
        self
    }

    /// The total and its parts in words; as they are rounded, the parts add up to the total.
    pub fn words(&self) -> String {
        let total = self.total();
        // Tenths of a GiB, or whole MiB.
        let large = total >= 10 << 30;
        let step = if large { (1 << 30) as f64 / 10.0 } else { f64::from(1 << 20) };
        let steps = |bytes: u64| (bytes as f64 / step).round() as u64;
        let written = |n: u64| match large {
            true => format!("{}.{} GiB", n / 10, n % 10),
            false => format!("{n} MiB"),
        };
        let parts = [
            ("weights", self.weights),
            ("moments", self.moments),
            ("gradient", self.gradient),
            ("activations", self.activations),
        ];
        let named: u64 = parts.iter().map(|(_, bytes)| steps(*bytes)).sum();
        // What libtorch takes for itself, and what rounding leaves.
        let other = steps(total).saturating_sub(named);
        let mut text = format!("needs about {}:", written(named + other));
        for (name, bytes) in parts {
            text.push_str(&format!(" {name} {},", written(steps(bytes))));
        }
        format!("{text} libtorch and tokenizer {}", written(other))
    }
}

/// The memory of training a model on batches of `shape`, and of passes without gradients over
/// batches of the shape `seen`, whose blocks the allocator finds no use for in training. `adapter`
/// is the number of weights of its adapters, 0 when all weights are trained.
pub fn forecast(
    config: &ModelConfig,
    compute: &Compute,
    adapter: u64,
    shape: BatchShape,
    seen: Option<BatchShape>,
) -> Forecast {
    let all = numel(config);
    let trained = if adapter > 0 { adapter } else { all };
    // By parameter, as a whole, two while AdamW divides the moments, and as much again that the
    // allocator holds between them: measured, see the test.
    let gradient = 6 * WORD * trained;
    // While activations are there, so is the gradient by parameter, and its sum over parts.
    let looking = seen.map_or(0, |seen| looking(config, compute, seen));
    let backward = 2 * WORD * trained + activations(config, compute, adapter > 0, shape) + looking;
    Forecast {
        weights: WORD * (all + adapter),
        moments: 2 * WORD * trained,
        gradient,
        activations: backward.saturating_sub(gradient),
        other: FIXED + TOKEN * config.vocab as u64,
    }
}

/// The memory of a pass without gradients: one layer's work, as its logits come in parts like those
/// of training, whose memory serves again.
fn looking(c: &ModelConfig, compute: &Compute, shape: BatchShape) -> u64 {
    let tokens = shape.rows * shape.time;
    tokens * layer_bytes(c, compute.kind, false) + layer_fixed(c, compute.kind, shape)
}

/// The memory of drawing answers to at most `rows` prompts at once, of up to `columns` tokens with
/// their answers: matrices worked out once, keys and values, one layer's work on all prompts, and
/// probabilities. `adapted`: adapters are added to a copy of the weights.
pub fn drawing(c: &ModelConfig, compute: &Compute, adapted: bool, rows: u64, columns: u64) -> u64 {
    let part = if compute.kind == Kind::Float { WORD } else { 2 };
    let shape = BatchShape { rows, time: columns, predicted: rows, packed: false };
    let merged = if adapted { WORD * numel(c) } else { 0 };
    let folded = c.layers as u64 * layer_fixed(c, compute.kind, BatchShape { rows: 0, ..shape });
    let [_, k, v] = c.qkv_widths().map(|n| n as u64);
    let cache = c.layers as u64 * rows * columns * (k + v) * part;
    // Logits, their probabilities, and those on the host.
    let probabilities = 3 * rows * c.vocab as u64 * WORD;
    merged + folded + cache + looking(c, compute, shape) + probabilities
}

/// Number of a model's weights.
fn numel(config: &ModelConfig) -> u64 {
    ParamSpec::list(config, false).iter().map(ParamSpec::numel).sum::<i64>() as u64
}

fn activations(c: &ModelConfig, compute: &Compute, adapted: bool, shape: BatchShape) -> u64 {
    let (tokens, d, layers) = (shape.rows * shape.time, c.hidden as u64, c.layers as u64);
    let fixed = layer_fixed(c, compute.kind, shape);
    let layer = tokens * layer_bytes(c, compute.kind, adapted) + fixed;
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
    // The output layer, converted.
    let head = if compute.kind == Kind::Float { 0 } else { 2 * (c.vocab * c.hidden) as u64 };
    let (layers_held, logits_held) = if adapted { (LAYERS_HELD, LOGITS_HELD) } else { (1.0, 1) };
    let layers = (layers_held * (kept + ends) as f64) as u64;
    layers + head + (logits_held * 3 * logits * WORD).max(widest)
}

/// Bytes that one layer keeps of one token.
fn layer_bytes(c: &ModelConfig, kind: Kind, adapted: bool) -> u64 {
    let part = if kind == Kind::Float { WORD } else { 2 };
    let (d, f) = (c.hidden as u64, c.intermediate as u64);
    let [q, k, v] = c.qkv_widths().map(|n| n as u64);
    // The two inputs of norms stay f32; what comes out of them is in the type of the products.
    let after = if c.norm_place == NormPlace::Before { 0 } else { 4 * d * WORD };
    let norms = 2 * d * WORD + 2 * d * part + after;
    let rotated = if c.rotary_dim() > 0 || c.qk_norm != QkNorm::None { q + k } else { 0 };
    let normed = if c.qk_norm != QkNorm::None { 3 * (q + k) * WORD } else { 0 };
    let spread = if q > k { 2 * q } else { 0 };
    // What comes out is kept by heads and in one row.
    let attention = (q + k + v + rotated + spread + 2 * q) * part + c.heads as u64 * WORD + normed;
    let mlp = if c.gated { 4 * f } else { 2 * f } * part;
    // Of the sum of a product and its adapter, nothing of its own is kept but the narrow middle.
    let adapter = if adapted { 64 * part } else { 0 };
    norms + attention + mlp + adapter
}

/// Bytes that one layer keeps besides: folded or converted matrices, and masks.
fn layer_fixed(c: &ModelConfig, kind: Kind, shape: BatchShape) -> u64 {
    let (d, f) = (c.hidden as u64, c.intermediate as u64);
    let qkv = c.qkv_widths().iter().sum::<i64>() as u64 * d;
    let up = f * d * if c.gated { 2 } else { 1 };
    let matrices = match (kind, c.norm) {
        (Kind::Float, Norm::Rms) => (qkv + up) * WORD,
        (Kind::Float, Norm::Layer) => 0,
        _ => (qkv + c.query_width() as u64 * d + up + f * d) * 2,
    };
    let square = shape.time * shape.time * WORD;
    let mask = if shape.packed {
        shape.rows * square
    } else if c.has_window() {
        square
    } else {
        0
    };
    // Capped products are kept before and after each step.
    let products =
        if c.attention_cap.is_some() { 4 * shape.rows * c.heads as u64 * square } else { 0 };
    matrices + mask + products
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_as_they_are_written() {
        let mib = 1 << 20;
        for scale in [1, 7, 1000, 9000] {
            let forecast = Forecast {
                weights: scale * mib / 2,
                moments: scale * mib * 7 / 5,
                gradient: scale * mib * 5 / 2 + 1,
                activations: scale * mib * 28,
                other: 24 * mib,
            };
            let text = forecast.words();
            let numbers: Vec<f64> = text.split(' ').filter_map(|w| w.parse().ok()).collect();
            let sum: f64 = numbers[1..].iter().sum();
            assert!((numbers[0] - sum).abs() < 1e-6, "{text}");
            let units = text.matches("MiB").count() + text.matches("GiB").count();
            assert_eq!((numbers.len(), units), (6, 6), "{text}");
        }
        let small = Forecast {
            weights: mib,
            moments: mib,
            gradient: 3 * mib,
            activations: 28 * mib,
            other: 24 * mib,
        };
        assert_eq!(
            small.words(),
            "needs about 57 MiB: weights 1 MiB, moments 1 MiB, gradient 3 MiB, activations 28 \
             MiB, libtorch and tokenizer 24 MiB"
        );
    }
}
