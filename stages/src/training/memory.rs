//! Memory of a stage that trains: what it will need against what is free.
//! Knows nothing of any one kind.

use anyhow::Result;

use crate::advice::error_with_help;
use crate::context::{Context, free_memory};
use crate::model::Forecast;

/// Share of the free memory from which on a stage is warned that memory is short.
const SHORT: f64 = 0.8;

/// Tells how much memory a training step needs, and refuses one that needs more than is free.
///
/// # Errors
/// When the memory that is free will not do; the help says what lowers the need.
pub fn check_memory(cx: &mut Context, need: Forecast) -> Result<()> {
    cx.keep_forecast(need.total());
    let free = free_memory();
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let left = free.map_or_else(String::new, |free| format!("; {:.1} GiB free", gib(free)));
    let text = format!("{}{left}", need.words());
    if free.is_some_and(|free| need.total() > free) {
        let help = if need.activations > need.moments {
            "activations are most of it: compute.micro_batch: 1 or checkpoint_activations: true \
             lower them, and so do shorter rows"
        } else {
            "moments and gradient are most of it: adapters (lora.rank, where the kind has them) or \
             a smaller model lower them"
        };
        return Err(error_with_help(text, help));
    }
    // Other programs take memory too: little to spare is worth a warning.
    let short = free.is_some_and(|free| need.total() as f64 > SHORT * free as f64);
    if short { cx.warn(text) } else { cx.detail(text) }
}
