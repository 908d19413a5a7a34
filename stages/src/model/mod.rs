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
pub use heads::{Policy, Scorer};
pub use packed::{Packed, token_log_probs};
pub use params::{ParamSpec, Params, Part};
pub use transformer::{Cache, Trunk, Window};
