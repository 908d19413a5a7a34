//! The end of a run: counts, heads, views, the memo.
//! Knows nothing of how stages came to their ends.

use std::sync::Arc;

use super::event::{RunEvent, Totals};
use super::machine::{Machine, State};
use super::{RunError, Summary};
use crate::graph::Unmet;
use crate::store::views::View;

impl Machine<'_> {
    pub fn finish(mut self) -> Result<Summary, RunError> {
        for scratch in std::mem::take(&mut self.leftovers) {
            self.committer.discard(scratch);
        }
        self.inputs.store.drop_spare_locks();
        let totals = self.totals();
        let mistake = self.gates.unmet.values().flatten().any(Unmet::is_mistake);
        let summary = Summary {
            totals,
            interrupted: self.interrupts > 0,
            storage: self.storage,
            mistake,
            made: self.lock(),
            waiting: self.waiting(),
        };
        self.leave_records()?;
        if let Some(error) = self.journal.error.take() {
            self.warn(format!("this run's journal is incomplete: {error}"));
        }
        self.tell_uploads();
        self.tell(RunEvent::RunEnded {
            totals,
            seconds: self.begun.elapsed().as_secs_f64(),
            exit: summary.exit(),
        });
        Ok(summary)
    }

    /// Tells people something that is of no stage.
    pub(super) fn warn(&mut self, text: String) {
        self.reporter.event(&RunEvent::Note { stage: "run".into(), level: "warn".into(), text });
    }

    /// Heads, views and the memo; on a store that cannot be written they are left as they are.
    fn leave_records(&mut self) -> Result<(), RunError> {
        let store = Arc::clone(&self.inputs.store);
        let graph = self.inputs.graph;
        if self.writable {
            store.sync()?;
        }
        let mut views = Vec::new();
        for (stage, known) in self.known.iter().enumerate() {
            let Some(known) = known else { continue };
            for output in &graph.stages[stage].outputs {
                let name = match output.extension.as_str() {
                    "" => output.name.clone(),
                    extension => format!("{}.{extension}", output.name),
                };
                let digest = known[&output.name];
                views.push(View { stage: graph.stages[stage].name.clone(), name, digest });
            }
        }
        let unchanged = self.heads_kept.is_none() && self.heads == self.old_heads;
        let heads = if unchanged { Ok(()) } else { store.save_heads(&self.heads) };
        match heads {
            Err(e) if self.writable => return Err(e.into()),
            _ => {}
        }
        let made = store.refresh_views(&graph.name, &views);
        store.save_memo();
        // Nothing reads them: without them the run has done what it should.
        if let (Err(e), true) = (made, self.writable) {
            let text = format!(
                "the names for people below `views/` could not be made: {e}; artifacts lie in \
                 `{}`, by the digests that `preflow status --json` tells",
                store.root().join("objects-v1").display()
            );
            self.warn(text);
        }
        if let Some(trouble) = self.writable.then(|| self.options.host.trouble()).flatten() {
            self.warn(format!(
                "the commit is not recorded: {}; {}",
                trouble.message, trouble.remedy
            ));
        }
        Ok(())
    }

    fn waiting(&self) -> Vec<String> {
        let stages = self.states.iter().zip(&self.inputs.graph.stages);
        let waiting = stages.filter(|(state, _)| matches!(state, State::Waiting));
        waiting.map(|(_, stage)| stage.name.clone()).collect()
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for state in &self.states {
            match state {
                State::Unwanted => {}
                State::Reused => totals.reused += 1,
                State::Fetched => totals.fetched += 1,
                State::Done => totals.done += 1,
                State::Failed => totals.failed += 1,
                State::Waiting => totals.waiting += 1,
                State::Blocked => totals.blocked += 1,
                _ => totals.skipped += 1,
            }
        }
        let closed = self.gates.unmet.keys().filter(|stage| self.gates.is_closed(**stage));
        totals.gated = closed.count();
        totals
    }
}
