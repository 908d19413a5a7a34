//! Fetching what a pipeline needs, or what its lock file names, from the remote.
//! Does not know how transfers are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::{Failure, Project};
use crate::identity::{Digest, Fingerprint};
use crate::lock::Lock;
use crate::plan::{Judge, Selection, Verdict, digests};
use crate::remote::{Expected, Fetched, Remote, RemoteError, TransferProgress};
use crate::schedule::pools::Pools;
use crate::schedule::{Action, Rules, Scheduler};
use crate::store::Entry;

/// Entries at one time; the remote bounds its requests itself.
const ENTRIES: usize = 8;

/// What became of a stage.
#[derive(Debug)]
pub enum PullOutcome {
    Fetched(Fetched),
    /// The store holds it.
    Here,
    /// The remote does not hold it, or holds nothing that it could follow from.
    Missing,
    Failed(RemoteError),
}

/// Stages by name.
pub type PullOutcomes = BTreeMap<String, (Option<Fingerprint>, PullOutcome)>;

/// An entry, and what was moved where the store did not hold it; or nothing.
type Brought = Option<(Entry, Option<Fetched>)>;

/// One wanted entry.
#[derive(Clone)]
struct Wanted {
    stage: usize,
    name: String,
    fingerprint: Fingerprint,
    outputs: Option<BTreeMap<String, Digest>>,
}

/// A transfer under way.
pub struct Pull<'a> {
    pub project: &'a Project,
    pub remote: &'a Remote,
    pub progress: &'a Arc<TransferProgress>,
    /// Is called with what became of an entry that was asked for.
    pub tell: &'a dyn Fn(Moved),
}

/// A stage, and what came of it.
pub enum Moved<'a> {
    Fetched(&'a str, &'a Fetched),
    Failed(&'a str, &'a RemoteError),
}

impl Pull<'_> {
    /// What a lock file names, all at once.
    ///
    /// # Errors
    /// The remote does not answer, or the disk fails.
    pub async fn locked(
        &self,
        lock: &Lock,
        selection: &Selection,
        targets: &[String],
    ) -> Result<PullOutcomes, Failure> {
        let mut outcomes = PullOutcomes::new();
        let mut todo = Vec::new();
        for stage in &selection.wanted {
            let name = self.project.graph.stages[*stage].name.clone();
            match lock.stages.get(&name) {
                None if targets.contains(&name) => {
                    outcomes.insert(name, (None, PullOutcome::Missing));
                }
                None => {}
                Some(locked) => {
                    let outputs = Some(locked.outputs.clone());
                    let fingerprint = locked.fingerprint;
                    todo.push(Wanted { stage: *stage, name, fingerprint, outputs });
                }
            }
        }
        let mut todo = todo.into_iter();
        let mut coming = FuturesUnordered::new();
        loop {
            while coming.len() < ENTRIES
                && let Some(wanted) = todo.next()
            {
                coming.push(self.bring(wanted));
            }
            let Some((wanted, result)) = coming.next().await else { return Ok(outcomes) };
            let (outcome, _) = self.settle(&wanted, result)?;
            outcomes.insert(wanted.name, (Some(wanted.fingerprint), outcome));
        }
    }

    /// What the pipeline needs: judged stage by stage, since what a stage made says what the next
    /// one is. Gates keep nothing from being fetched.
    ///
    /// # Errors
    /// A source or the store cannot be read; the remote does not answer.
    pub async fn walk(&self, selection: &Selection) -> Result<PullOutcomes, Failure> {
        let graph = &self.project.graph;
        let sources = self.project.digest_sources(&selection.wanted)?;
        let heads = self.project.heads();
        let store = &self.project.store;
        let judge = Judge { graph, store, sources: &sources, heads: &heads };
        let accepted = selection.wanted.clone();
        let selection = Selection { accepted, ..selection.clone() };
        let wanted = selection.wanted.clone();
        let machine = Pools { threads: 0, memory: 0, gpus: Vec::new() };
        let rules = Rules { keep_going: true, asks_remote: true, open_stages: 0, machine };
        let mut scheduler = Scheduler::new(graph, selection, rules, None);
        let mut todo = Vec::new();
        let mut outcomes = PullOutcomes::new();
        let mut coming = FuturesUnordered::new();
        loop {
            while let Some(action) = scheduler.next_action() {
                match action {
                    Action::Judge(stage) => {
                        let verdict = judge.judge(stage, &scheduler, false)?;
                        if let Verdict::Hit(entry) = &verdict {
                            let name = graph.stages[stage].name.clone();
                            outcomes.insert(name, (Some(entry.fingerprint), PullOutcome::Here));
                        }
                        scheduler.judged(stage, &verdict);
                    }
                    Action::Ask(stage, miss) => {
                        let name = graph.stages[stage].name.clone();
                        let fingerprint = miss.identity.fingerprint();
                        todo.push(Wanted { stage, name, fingerprint, outputs: None });
                    }
                    // Nothing is made here, and what is said of gates is for runs.
                    Action::Start(..) | Action::Tell(_) => {}
                }
            }
            while coming.len() < ENTRIES
                && let Some(wanted) = todo.pop()
            {
                coming.push(self.bring(wanted));
            }
            let Some((wanted, result)) = coming.next().await else { break };
            let (outcome, entry) = self.settle(&wanted, result)?;
            match entry {
                Some(Entry { fingerprint, outputs, made, .. }) => {
                    scheduler.fetched(wanted.stage, fingerprint, &outputs, &made.summary);
                }
                None => scheduler.not_found(wanted.stage),
            }
            outcomes.insert(wanted.name, (Some(wanted.fingerprint), outcome));
        }
        for stage in wanted {
            let name = graph.stages[stage].name.clone();
            outcomes.entry(name).or_insert((None, PullOutcome::Missing));
        }
        Ok(outcomes)
    }

    async fn bring(&self, wanted: Wanted) -> (Wanted, Result<Brought, RemoteError>) {
        let store = &self.project.store;
        let (looked, fingerprint) = (Arc::clone(store), wanted.fingerprint);
        // Rerun: it may have to read what is there.
        let there = tokio::task::spawn_blocking(move || {
            let entry = looked.entry(&fingerprint).ok()??;
            matches!(looked.health(&entry), Ok(None)).then_some(entry)
        });
        let other = |entry: &Entry| {
            wanted.outputs.as_ref().is_some_and(|outputs| *outputs != digests(&entry.outputs))
        };
        if let Some(entry) = there.await.expect("invariant: looking does not panic")
            && !other(&entry)
        {
            return (wanted, Ok(Some((entry, None))));
        }
        let fingerprint = wanted.fingerprint;
        let outputs = self.project.graph.stages[wanted.stage].outputs.iter();
        let expected = Expected::new(outputs.map(|o| o.name.as_str()), wanted.outputs.as_ref());
        let fetched = self.remote.fetch(store, &fingerprint, &expected, self.progress);
        let fetched = fetched.await.map(|found| found.map(|(entry, moved)| (entry, Some(moved))));
        (wanted, fetched)
    }

    fn settle(
        &self,
        wanted: &Wanted,
        result: Result<Brought, RemoteError>,
    ) -> Result<(PullOutcome, Option<Entry>), Failure> {
        match result {
            Ok(None) => Ok((PullOutcome::Missing, None)),
            Ok(Some((entry, None))) => Ok((PullOutcome::Here, Some(entry))),
            Ok(Some((entry, Some(fetched)))) => {
                (self.tell)(Moved::Fetched(&wanted.name, &fetched));
                Ok((PullOutcome::Fetched(fetched), Some(entry)))
            }
            Err(error) if error.is_lasting() => Err(error.into()),
            Err(error) => {
                (self.tell)(Moved::Failed(&wanted.name, &error));
                Ok((PullOutcome::Failed(error), None))
            }
        }
    }
}
