//! How many stages came to which end.
//! Does not know what follows from it.

use super::{Scheduler, StageState, Totals};

impl Scheduler<'_> {
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut counts = Totals::default();
        for record in &self.stages {
            match record.state {
                StageState::Unwanted => {}
                StageState::Reused => counts.reused += 1,
                StageState::Fetched => counts.fetched += 1,
                StageState::Done => counts.done += 1,
                StageState::Failed => counts.failed += 1,
                StageState::Waiting => counts.waiting += 1,
                StageState::Blocked => counts.blocked += 1,
                _ if record.is_stopped => counts.stopped += 1,
                _ => counts.skipped += 1,
            }
        }
        let closed = self.gates.unmet.keys().filter(|stage| self.gates.is_closed(**stage));
        counts.gated = closed.count();
        counts
    }
}
