//! What was run before, as journals tell it.
//! Does not know which pipelines there are now.

use crate::run::journal::{self, JournalLine};
use crate::run::{RunEvent, Totals};
use crate::store::Store;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    Done,
    Failed,
    Waiting,
    Interrupted,
    /// Running, or killed.
    Open,
}

/// One run, as its journal tells it.
pub struct Run {
    pub id: String,
    pub at: String,
    pub pipeline: String,
    /// Path of the pipeline file within the workspace; empty for runs of older versions.
    pub key: String,
    pub name: String,
    pub command: Vec<String>,
    pub state: RunState,
    pub exit: Option<u8>,
    pub totals: Totals,
    pub seconds: Option<f64>,
}

impl RunState {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Interrupted => "interrupted",
            Self::Open => "open",
        }
    }
}

/// What the journal of a run says; `None` where there is none.
#[must_use]
pub fn read(store: &Store, id: &str) -> Option<Run> {
    let (first, last) = journal::ends(&store.run_path(id).join("events.jsonl")).ok()?;
    let RunEvent::RunStarted { at, pipeline, key, name, command, .. } = first?.event else {
        return None;
    };
    let mut run = Run {
        id: id.to_owned(),
        at,
        pipeline,
        key,
        name,
        command,
        state: RunState::Open,
        exit: None,
        totals: Totals::default(),
        seconds: None,
    };
    if let Some(JournalLine { event: RunEvent::RunEnded { totals, seconds, exit }, .. }) = last {
        run.state = match exit {
            0 => RunState::Done,
            3 => RunState::Waiting,
            130 => RunState::Interrupted,
            _ => RunState::Failed,
        };
        (run.totals, run.seconds, run.exit) = (totals, Some(seconds), Some(exit));
    }
    Some(run)
}
