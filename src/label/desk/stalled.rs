//! When nothing is left for somebody: why, and pairs that they skipped once more.
//! Knows nothing of screens.

use jiff::Timestamp;

use super::{Desk, check_name};
use crate::label::DeskError;
use crate::label::outlook::Outlook;
use crate::label::queue::State;
use crate::votes::{Choice, Vote};

impl Desk {
    /// What can still come, as far as votes go.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn outlook(&self, now: Timestamp) -> Result<Outlook, DeskError> {
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        let (votes, _, wanted) = held.queue.totals();
        let goal = match self.assignment.ready.votes {
            0 => wanted,
            n => n,
        };
        Ok(Outlook { votes, goal, room: held.queue.room(), disagree: false })
    }

    /// Pairs that lack votes and that the annotator skipped.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn skipped(&self, annotator: &str, now: Timestamp) -> Result<usize, DeskError> {
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        Ok(held.queue.skipped(annotator).len())
    }

    /// Takes the annotator's skips back where votes still lack: those pairs are asked again. How
    /// many they are.
    ///
    /// # Errors
    /// The disk is full; what was taken back until then is.
    pub fn ask_again(&self, annotator: &str, now: Timestamp) -> Result<usize, DeskError> {
        check_name(annotator)?;
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        let keys = held.queue.skipped(annotator);
        for key in &keys {
            let skip = held.books.latest(annotator, *key);
            let skip = skip.expect("invariant: the queue knows it from the books").clone();
            let name = skip.pair.trim_start_matches("sha256:");
            let line = Vote {
                choice: Choice::Retracted,
                ms: 0,
                at: format!("{now:.3}"),
                note: String::new(),
                rev: skip.rev + 1,
                // The same skip is taken back once, whoever asks twice.
                id: format!("again-{}-{}", skip.rev, &name[..name.len().min(40)]),
                ..skip
            };
            self.keep(&mut held, annotator, *key, &line)?;
            held.queue.record(annotator, *key, State::Retracted, None);
        }
        Ok(keys.len())
    }
}
