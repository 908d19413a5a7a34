//! What the kinds share that improve a policy on its own responses: params, ports, drawing and
//! scoring, the clipped loss, and the frame of their loops.
//! Knows nothing of how advantages come about.

mod actor;
mod check;
mod epochs;
mod judge;
mod loss;
mod ports;
mod report;
mod rewards;
mod rollout;
mod settings;
mod sources;
mod start;
mod trainer;

pub use actor::{Actor, Environment};
pub use check::FIGURES;
pub use epochs::epochs;
pub use loss::{StepLoss, Terms, policy_gradient};
pub use ports::{inputs, outputs};
pub use report::{UpdateStats, ValueStep};
pub use rewards::{Candidate, Combine, NamedScores, PartScores, Rewards, Scorer};
pub use rollout::{LogProbs, Responses, Rollout, Scores};
pub use settings::OnPolicy;
pub use sources::RewardSources;
pub use start::{check_memory, improve, open_policy, read_prompts};
pub use trainer::PolicyTrainer;
