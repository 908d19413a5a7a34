//! What the kinds share that train a model: optimizer, order of rows, memory, and preferences as
//! tokens.
//! Knows nothing of any one kind.

mod compute;
mod held_out;
mod implicit;
mod memory;
mod order;
mod preferences;
mod sample;
mod trainer;
mod verdicts;

pub use compute::{Computation, mean_nll};
pub use held_out::{EpochFigures, HeldOutFigures, too_few};
pub use implicit::ImplicitRewards;
pub use memory::check_memory;
pub use order::Order;
pub use preferences::{Preference, both_sides, preferences};
pub use sample::{sample, sample_batches};
pub use trainer::{Defaults, Optimizer, Trainer, learning_rate, row_due};
pub use verdicts::{Verdict, check_verdicts, verdicts};
