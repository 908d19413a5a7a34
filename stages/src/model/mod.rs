//! The transformer: its shape, weights, forward pass, heads and files.
//! Knows nothing of losses, sampling or stages.

mod adapter;
mod attention;
mod backward;
mod checkpoint;
mod columns;
pub mod config;
mod config_fields;
mod config_json;
mod config_read;
mod config_write;
mod export;
mod heads;
mod host;
mod import;
mod layout;
mod low_rank;
mod memory;
mod packed;
mod params;
mod part;
mod rope_json;
mod transformer;
mod weight_file;

pub use adapter::{Lora, Start, Target};
pub use checkpoint::{read_weights, write_weights};
pub use columns::Layout;
pub use config::ModelConfig;
pub use export::write_shards;
pub use heads::{Gradient, Policy, Predicted, RewardModel, ValueModel};
pub use host::{to_f32, to_f64};
pub use import::read_folder;
pub use low_rank::LowRank;
pub use memory::{BatchShape, Forecast, drawing, forecast};
pub use packed::{Packed, entropy, token_log_probs};
pub use params::Params;
pub use part::{ParamSpec, Part, Stored};
pub use transformer::{Cache, Compute, Trunk};
pub use weight_file::WeightFile;
