//! What happens in a run, as the journal writes it and reporters show it.
//! Knows nothing of how it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exec::Outcome;
use crate::graph::Unmet;
use crate::identity::{Digest, Fingerprint};
use crate::plan::Reason;
use crate::schedule::Totals;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum RunEvent {
    RunStarted {
        run: String,
        /// RFC 3339.
        at: String,
        pipeline: String,
        /// Path of the pipeline file within the workspace; runs of older versions have none.
        #[serde(default)]
        key: String,
        name: String,
        /// The command line that started it.
        command: Vec<String>,
        version: String,
        /// Names of the wanted stages, in graph order.
        stages: Vec<String>,
        jobs: u32,
    },
    /// Nothing to do: the entry was there.
    StageReused {
        stage: String,
        fingerprint: Fingerprint,
    },
    /// What the remote holds of it is on its way.
    Fetching {
        stage: String,
    },
    /// Nothing to do: it was on the remote.
    StageFetched {
        stage: String,
        fingerprint: Fingerprint,
        files: u64,
        bytes: u64,
    },
    /// The remote did not do its part; the run goes on without. `lasting`: nobody asks it again.
    RemoteTrouble {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<String>,
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        help: Option<String>,
        lasting: bool,
    },
    /// So many entries are on their way to the remote, none when all are up; bytes so far, and
    /// all as far as known.
    Sending {
        entries: usize,
        done: u64,
        total: u64,
    },
    /// What went to the remote, and how many entries still wait for it.
    Sent {
        entries: usize,
        files: u64,
        bytes: u64,
        waiting: usize,
    },
    /// Another process is making the same thing.
    StageBusy {
        stage: String,
    },
    StageStarted {
        stage: String,
        fingerprint: Fingerprint,
        attempt: u32,
        reason: Reason,
    },
    Progress {
        stage: String,
        done: u64,
        total: u64,
        unit: String,
    },
    Metric {
        stage: String,
        step: u64,
        values: BTreeMap<String, Option<f64>>,
    },
    Note {
        stage: String,
        level: String,
        text: String,
    },
    /// Made and published.
    StageDone {
        stage: String,
        fingerprint: Fingerprint,
        seconds: f64,
        outputs: BTreeMap<String, Digest>,
        summary: BTreeMap<String, Option<f64>>,
        /// All outputs have the bytes they had before.
        unchanged: bool,
    },
    /// An attempt failed; `retrying` when another one follows.
    StageFailed {
        stage: String,
        outcome: Outcome,
        retrying: bool,
        /// Log of the attempt, for people.
        log: String,
        /// Command that performs the attempt once more; empty where there is none.
        #[serde(default)]
        again: String,
        /// The disk is to blame, not the stage.
        storage: bool,
    },
    StageWaiting {
        stage: String,
        reason: String,
        have: Option<u64>,
        need: Option<u64>,
        /// The command that lets people act.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
    /// Cannot run because `by` did not come to its end.
    StageBlocked {
        stage: String,
        by: String,
    },
    /// It is made, but its figures do not meet its gate: what depends on it does not run, unless
    /// the user `accepted` that.
    GateUnmet {
        stage: String,
        unmet: Vec<Unmet>,
        accepted: bool,
    },
    /// The user asked to stop; `times` so far.
    Interrupted {
        times: u32,
    },
    RunEnded {
        totals: Totals,
        seconds: f64,
        exit: u8,
    },
}

/// Sees every event of a run, in order. Shows it; decides nothing.
pub trait Reporter {
    fn event(&mut self, event: &RunEvent);
}
