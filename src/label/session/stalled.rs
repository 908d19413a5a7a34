//! When nothing is left for somebody: why, and pairs that they skipped once more.
//! Knows nothing of screens.

use jiff::Timestamp;

use super::{LabelSession, check_name};
use crate::label::SessionError;
use crate::label::outlook::Outlook;
use crate::label::queue::QuestionState;
use crate::votes::{Choice, Vote};

impl LabelSession {
    /// What can still come, as far as votes go.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn outlook(&self, now: Timestamp) -> Result<Outlook, SessionError> {
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        let (votes, _, wanted) = state.queue.totals();
        let goal = match self.assignment.ready.votes {
            0 => wanted,
            n => n,
        };
        Ok(Outlook { votes, goal, room: state.queue.room(), disagree: false })
    }

    /// Pairs that lack votes and that the annotator skipped.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn skipped(&self, annotator: &str, now: Timestamp) -> Result<usize, SessionError> {
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        Ok(state.queue.skipped(annotator).len())
    }

    /// Takes the annotator's skips back where votes still lack: those pairs are asked again. How
    /// many they are.
    ///
    /// # Errors
    /// The disk is full; what was taken back until then is.
    pub fn ask_again(&self, annotator: &str, now: Timestamp) -> Result<usize, SessionError> {
        check_name(annotator)?;
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        let keys = state.queue.skipped(annotator);
        for key in &keys {
            let skip = state.votes.latest(annotator, *key);
            let skip = skip.expect("invariant: the queue knows it from the votes").clone();
            let name = skip.pair.trim_start_matches("sha256:");
            let line = Vote {
                choice: Choice::Retracted,
                ms: 0,
                at: format!("{now:.3}"),
                note: String::new(),
                reasons: Vec::new(),
                rev: skip.rev + 1,
                // The same skip is taken back once, whoever asks twice.
                id: format!("again-{}-{}", skip.rev, &name[..name.len().min(40)]),
                ..skip
            };
            self.keep(&mut state, annotator, *key, &line)?;
            state.queue.record(annotator, *key, QuestionState::Retracted, None);
        }
        Ok(keys.len())
    }
}
