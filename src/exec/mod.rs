//! Execution of one task, and every way it can end.
//! Knows nothing of the store, the graph or YAML.

mod child;
pub mod companion;
pub mod describe;
mod figures;
pub mod git;
pub mod inputs;
pub mod log;
pub mod open;
mod orphans;
pub mod process;
pub mod programs;
pub mod reaper;
pub mod resident;
pub mod scripted;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::protocol::{Event, TaskSpec};

/// One attempt to perform a stage.
#[derive(Debug, Clone)]
pub struct Task {
    /// Index of the stage; comes back with each event.
    pub stage: usize,
    pub spec: TaskSpec,
    pub program: Program,
    /// Working directory of the process.
    pub cwd: PathBuf,
    /// Directory for `task.json`, `events.jsonl` and `log.txt`; exists.
    pub logs: PathBuf,
    pub timeout: Option<Duration>,
    /// Input ports whose paths a plain program is given as a list though there may be one only.
    pub lists: Vec<String>,
    /// Devices of the gpu pool that this task may use, when it asked for some.
    pub gpus: Vec<u32>,
}

/// What performs a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A worker that speaks the protocol: program and arguments; `run TASK` is added.
    Worker(Vec<String>),
    /// A plain program: exit 0 is success. It finds its ports in `IN_<port>`, `IN_<port>_LIST` and
    /// `OUT_<port>`.
    Direct(Vec<String>),
}

impl Program {
    /// What is started.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::Worker(command) | Self::Direct(command)) = self;
        command.first().map_or("", String::as_str)
    }
}

/// Every way a task ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    Done {
        summary: BTreeMap<String, Option<f64>>,
        worker: String,
        backend: String,
        device: String,
    },
    /// It said so itself.
    Failed {
        message: String,
        chain: Vec<String>,
        help: Option<String>,
    },
    /// It died without a word.
    Crashed {
        how: String,
        tail: String,
        help: Option<String>,
    },
    TimedOut {
        seconds: f64,
        tail: String,
    },
    Cancelled,
    /// What ran it is gone, and nothing is known of how it went: a machine that does not answer.
    /// No fault of the stage, so this uses up none of its retries.
    Lost {
        what: String,
    },
    /// People must act first.
    Waiting {
        reason: String,
        have: Option<u64>,
        need: Option<u64>,
    },
}

impl Outcome {
    /// What went wrong, in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        match self {
            Self::Failed { message, chain, .. } => {
                let mut parts = vec![message.as_str()];
                parts.extend(chain.iter().map(String::as_str));
                parts.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
            }
            Self::Crashed { how, .. } => how.clone(),
            Self::TimedOut { seconds, .. } => format!("took longer than its timeout of {seconds}s"),
            Self::Done { .. } => "done".to_owned(),
            Self::Cancelled => "ended before it was done".to_owned(),
            Self::Lost { what } => format!("lost: {what}"),
            Self::Waiting { reason, .. } => format!("waiting for people: {reason}"),
        }
    }
}

/// What the user wants of running tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    Go,
    /// TERM, then KILL after the grace.
    Gently,
    Now,
}

/// A task's future outcome.
pub type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// Performs tasks. Two implementations: processes, and a script for tests of the loop.
pub trait Executor {
    /// Starts a task. Events go to `events` as they come; `stop` may end it early.
    fn start(
        &self,
        task: Task,
        events: mpsc::UnboundedSender<(usize, Event)>,
        stop: watch::Receiver<Stop>,
    ) -> Running;
}
