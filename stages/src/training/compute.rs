//! How steps are computed: precision, small batches whose gradients add up.
//! Knows nothing of any one kind.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::context::Context;
use crate::model::{Compute, Gradient, Packed, Policy, Predicted};

/// How steps are computed. None of it changes what is learned, beyond rounding.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Computation {
    /// Type of products: f32; bf16, with weights, moments and losses in f32; auto: bf16 where the
    /// processor has instructions for it, so results differ between processors.
    pub precision: Precision,
    /// Rows of one forward and backward pass, whose gradients are added up; 0: all of a step.
    pub micro_batch: u32,
    /// Keep only the input of each layer and compute the rest again: less memory, a third more
    /// time.
    pub checkpoint_activations: bool,
}

/// The type in which products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
    Auto,
}

impl Computation {
    /// The settings of the model's passes on this machine; `precision: auto` is decided here, and
    /// told.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn resolve(&self, cx: &mut Context) -> Result<Compute> {
        let kind = match self.precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Auto if has_bf16() => Kind::BFloat16,
            Precision::Auto => Kind::Float,
        };
        if self.precision == Precision::Auto {
            let name = if kind == Kind::Float { "f32" } else { "bf16" };
            cx.note(format!("precision auto: {name} on this processor"))?;
        }
        Ok(Compute { kind, checkpoint: self.checkpoint_activations, ..Compute::default() })
    }

    /// Rows of one forward and backward pass, of a step of `batch` rows.
    pub fn rows(&self, batch: usize) -> usize {
        if self.micro_batch == 0 { batch } else { batch.min(self.micro_batch as usize) }
    }
}

/// Whether the processor multiplies bf16 matrices itself.
fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Mean negative log-likelihood of the predicted tokens of all `batches`, and its gradient. Sums
/// are divided by `tokens`, the number of all of them, so it does not matter how rows are spread
/// over batches.
pub fn mean_nll(
    policy: &Policy,
    batches: impl IntoIterator<Item = Packed>,
    tokens: usize,
) -> Gradient {
    let loss = |p: &Predicted| -p.log_probs.sum(Kind::Float) / tokens as f64;
    let parts = batches.into_iter().map(|batch| policy.backward(&batch, 1.0, false, loss));
    Gradient::total(parts).expect("invariant: a step has one row or more")
}
