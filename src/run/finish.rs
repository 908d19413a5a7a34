//! The end of a run: counts, heads, views, the memo.
//! Knows nothing of how stages came to their ends.

use std::sync::Arc;

use tracing::debug;

use super::event::RunEvent;
use super::runner::Runner;
use super::{RunError, Summary};
use crate::graph::Unmet;
use crate::schedule::StageState;
use crate::store::heads::Heads;
use crate::store::views::View;

impl Runner<'_> {
    pub fn finish(mut self) -> Result<Summary, RunError> {
        for scratch in std::mem::take(&mut self.leftovers.scratches) {
            self.committer.discard(scratch);
        }
        self.inputs.store.drop_spare_locks();
        let totals = self.scheduler.totals();
        let mistake = self.scheduler.unmet().values().flatten().any(Unmet::is_mistake);
        let summary = Summary {
            totals,
            interrupted: self.interrupts > 0,
            storage: self.condition.failed,
            mistake,
            made: self.scheduler.lock(),
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
        if self.condition.written {
            store.sync()?;
        }
        let views = self.views(0..graph.stages.len());
        let heads = self.heads();
        let unchanged = self.history.kept.is_none() && heads == self.history.before;
        let heads = if unchanged { Ok(()) } else { store.save_heads(&heads) };
        match heads {
            Err(e) if self.condition.written => return Err(e.into()),
            _ => {}
        }
        let made = store.refresh_views(&graph.name, &views);
        store.save_memo();
        // Nothing reads them: without them the run has done what it should.
        if let (Err(e), true) = (made, self.condition.written) {
            let text = format!(
                "the names for people below `views/` could not be made: {e}; artifacts lie in \
                 `{}`, by the digests that `preflow status --json` tells",
                store.root().join("objects-v1").display()
            );
            self.warn(text);
        }
        if let Some(trouble) = self.condition.written.then(|| self.options.host.trouble()).flatten()
        {
            self.warn(format!(
                "the commit is not recorded: {}; {}",
                trouble.message, trouble.remedy
            ));
        }
        Ok(())
    }

    /// The names for people of what these stages made, as far as it is known.
    fn views(&self, stages: impl IntoIterator<Item = usize>) -> Vec<View> {
        let mut views = Vec::new();
        for stage in stages {
            let Some(made) = self.scheduler.outputs(stage) else { continue };
            let node = &self.inputs.graph.stages[stage];
            for output in &node.outputs {
                let name = match output.extension.as_str() {
                    "" => output.name.clone(),
                    extension => format!("{}.{extension}", output.name),
                };
                let digest = made[&output.name].digest;
                views.push(View { stage: node.name.clone(), name, digest });
            }
        }
        views
    }

    /// Gives this stage's outputs, which are in the store, their names for people once a stage
    /// runs, which may take hours. A run that changes nothing looks at all names together, at its
    /// end.
    pub(super) fn show(&mut self, stage: usize) {
        self.unnamed.push(stage);
        if self.condition.written || !self.attempts.is_empty() {
            self.show_unnamed();
        }
    }

    /// As [`Runner::show`], for all that wait for it.
    pub(super) fn show_unnamed(&mut self) {
        let stages = std::mem::take(&mut self.unnamed);
        if stages.is_empty() {
            return;
        }
        let views = self.views(stages);
        // What goes wrong is told at the end, when it is tried again.
        let made = self.inputs.store.refresh_views(&self.inputs.graph.name, &views);
        debug!(ok = made.is_ok(), "names for people");
    }

    /// What the pipeline used last, as far as this run has come.
    pub(super) fn heads(&self) -> Heads {
        let mut heads = self.history.before.clone();
        heads.failed.clone_from(&self.history.failed);
        for (stage, fingerprint) in self.scheduler.settled() {
            heads.stages.insert(self.name(stage), fingerprint);
        }
        heads
    }

    fn waiting(&self) -> Vec<String> {
        let stages = self.inputs.graph.stages.iter().enumerate();
        let waiting = stages.filter(|(i, _)| *self.scheduler.state(*i) == StageState::Waiting);
        waiting.map(|(_, stage)| stage.name.clone()).collect()
    }
}
