//! The words of the scheduler: where a stage stands, what is to be done next, what happened.

use serde::{Deserialize, Serialize};

use super::pools::{Pools, Share};
use crate::graph::Unmet;
use crate::identity::{Fingerprint, Identity};
use crate::plan::Reason;

/// What a stage is that nobody made yet, and why it must be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    pub identity: Identity,
    pub reason: Reason,
}

/// Where a stage stands.
#[derive(Debug, Clone, PartialEq)]
pub enum StageState {
    /// Nobody wants it.
    Unwanted,
    /// Something upstream is not settled.
    Pending,
    /// To be judged next.
    Ready,
    /// The remote is asked for it.
    Asking(Miss),
    /// It waits for its share of the machine.
    Queued(Miss),
    /// Another process makes it.
    Busy,
    Running,
    /// Its outputs are hashed; the entry is on its way to the disk.
    Sealed,
    /// People are asked for what it lacks.
    AskingPeople,
    Reused,
    /// Reused, from the remote.
    Fetched,
    Done,
    Failed,
    /// It lacks what only people can give.
    Waiting,
    /// Something upstream did not come to its end, or a gate is closed.
    Blocked,
}

impl StageState {
    /// Something is under way that will be told of.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(
            self,
            Self::Asking(_) | Self::Busy | Self::Running | Self::Sealed | Self::AskingPeople
        )
    }
}

/// What decides nothing about results.
#[derive(Debug, Clone)]
pub struct Rules {
    /// After a failure, what does not depend on it still runs.
    pub keep_going: bool,
    /// A miss is asked for at the remote before it is queued.
    pub asks_remote: bool,
    /// Stages that may be under way at once.
    pub open_stages: usize,
    /// The whole machine.
    pub machine: Pools,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Find out whether the stage is made: [`Scheduler::judged`].
    Judge(usize),
    /// Ask the remote: [`Scheduler::fetched`] or [`Scheduler::not_found`].
    Ask(usize, Miss),
    /// Make it, with this share of the machine.
    Start(usize, Miss, Share),
    Tell(Notice),
}

/// What happened to a stage by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    Reused {
        stage: usize,
        fingerprint: Fingerprint,
    },
    /// It does not run because of `by`.
    Blocked {
        stage: usize,
        by: usize,
    },
    /// It is made, and its figures do not meet its gate.
    GateUnmet {
        stage: usize,
        unmet: Vec<Unmet>,
        accepted: bool,
    },
    /// The lock file does not allow it, or what it made.
    Refused {
        stage: usize,
        message: String,
    },
}

/// How many stages came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    pub done: usize,
    pub reused: usize,
    /// Reused, from the remote.
    pub fetched: usize,
    pub failed: usize,
    pub waiting: usize,
    pub blocked: usize,
    /// Of those made or reused: the gate is not met, and nobody accepted that.
    pub gated: usize,
    /// Not started because the run ended early.
    pub skipped: usize,
    /// Stopped in their middle because the run ended early.
    pub stopped: usize,
}
