//! The minibatches of one update.
//! Knows nothing of what a step does.

use anyhow::Result;

use super::settings::OnPolicy;
use crate::rng::Stream;
use crate::stats::mean;

/// Calls `step` with the items of each minibatch of each epoch, places in `0..items`, of which
/// `size` make a minibatch: responses, or pairs of them. `step`
/// returns how far the policy is from where it drew, nats a token; the epochs end early when the
/// mean over one of them exceeds `target_kl`.
///
/// # Errors
/// Those of `step`.
pub fn epochs(
    settings: &OnPolicy,
    update: u64,
    items: usize,
    size: usize,
    mut step: impl FnMut(&[usize]) -> Result<f64>,
) -> Result<()> {
    for epoch in 0..u64::from(settings.epochs) {
        let order = Stream::new(settings.seed, "minibatch", update, epoch).permutation(items);
        let mut moved = Vec::new();
        for chunk in order.chunks(size.max(1)) {
            moved.push(step(chunk)?);
        }
        if settings.target_kl > 0.0 && mean(&moved) > settings.target_kl {
            break;
        }
    }
    Ok(())
}
