//! The live page of a pipeline: what stands on it, when it is shown anew, the way to it.
//! Nothing can be changed there.

mod follow;
mod history;
mod serve;
mod watch;

pub use serve::serve;
pub use watch::Watcher;
