//! What the kinds share that improve a policy on its own responses: params, ports, drawing and
//! scoring, the clipped loss, and the frame of their loops.
//! Knows nothing of how advantages come about.

mod check;
mod ports;
mod report;
mod rewards;
mod rollout;
mod settings;
mod trainer;

pub use check::FIGURES;
pub use ports::{inputs, outputs};
pub use report::Stepped;
pub use rewards::{Candidate, RewardSources, Rewards, Scorer};
pub use rollout::Rollout;
pub use settings::{OnPolicy, StepLoss};
pub use trainer::PolicyTrainer;
