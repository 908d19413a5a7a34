//! The transformer: its shape, weights, forward pass, heads and files.
//! Knows nothing of losses, sampling or stages.

mod checkpoint;
mod config;
mod heads;
mod packed;
mod params;
mod transformer;

pub use checkpoint::{WeightFile, read_weights, write_weights};
pub use config::LlamaConfig;
pub use heads::{Gradient, Policy, Predicted, Scorer};
pub use packed::{Packed, entropy, token_log_probs};
pub use params::{ParamSpec, Params, Part};
pub use transformer::{Cache, Trunk, Window};
