//! The plan of a pipeline whose stages are all made, kept in the store: whether it still holds, and
//! when it is kept. Anything that it does not cover is planned as always.

use std::path::Path;
use std::sync::Arc;

use super::described::state;
use super::workers::{is_trusted, whole_command};
use super::{Choices, Place, Project};
use crate::diagnostic::SourceText;
use crate::graph::Graph;
use crate::identity::Digest;
use crate::pipeline::{self, top_around};
use crate::plan::{Gates, Plan, Selection, Verdict};
use crate::store::snapshot::Snapshot;
use crate::store::{CachedEntry, SourceDigest, Store, derived};

/// Goes into the key; changes with the meaning of what is kept.
const FORMAT: &str = "plan/1";

/// Where the plan of a pipeline is kept, and what its graph was read from.
pub struct Keeping {
    key: Digest,
    texts: Vec<Arc<SourceText>>,
}

impl Keeping {
    #[must_use]
    pub fn new(key: Digest, texts: Vec<Arc<SourceText>>) -> Self {
        Self { key, texts }
    }
}

/// Everything besides files of the pipeline that has a say in its graph. `None`: that cannot be
/// told without asking a worker.
#[must_use]
pub fn key(file: &str, choices: &Choices, place: &Place) -> Option<Digest> {
    let Place { at, store, workspace } = place;
    let trusted = is_trusted(&at.root, &workspace.workers).ok()?;
    let mut all = format!(
        "{file:?} {:?} {:?} {:?} {:?} {trusted} ",
        top_around(Path::new(file)),
        at.root,
        choices.profile,
        choices.sets,
    );
    for worker in workspace.workers.iter().filter(|_| trusted) {
        let command = whole_command(&at.root, &worker.command);
        let state = state(&command, &at.root, store)?;
        all.push_str(&format!("{:?} {command:?} {state} ", worker.name));
    }
    derived::key(FORMAT, all.as_bytes())
}

/// The graph of the pipeline and what was kept of its plan, where no file that the graph was read
/// from holds anything else now. Where one does, entries that were read before are still of use.
#[must_use]
pub fn load(file: &str, pipeline: &str, key: &Digest, store: &Store) -> Option<(Graph, Snapshot)> {
    let snapshot = store.snapshot(pipeline, key)?;
    let texts = snapshot.texts.iter().map(|(name, digest)| {
        let text = pipeline::read_beside(name, file).ok()?;
        let text = SourceText::new(name, pipeline::without_mark(&text));
        (Digest::of(text.text.as_bytes()) == *digest).then(|| Arc::new(text))
    });
    let texts = texts.collect::<Option<Vec<_>>>();
    let Some(graph) = texts.and_then(|texts| Graph::from_bytes(&texts, &snapshot.graph)) else {
        store.reuse_entries(snapshot);
        return None;
    };
    Some((graph, snapshot))
}

/// The plan that was kept, where sources, entries and artifacts are as they were.
#[must_use]
pub fn plan(
    project: &Project,
    selection: &Selection,
    sources: &[Option<SourceDigest>],
) -> Option<Plan> {
    let snapshot = project.snapshot.as_ref().filter(|_| selection.forced.is_empty())?;
    let mut pairs = sources.iter().zip(&snapshot.sources);
    let same = pairs.all(|(now, then)| now.as_ref().is_none_or(|now| Some(now.digest) == *then));
    let wanted: Vec<&CachedEntry> =
        selection.wanted.iter().map(|stage| &snapshot.entries[*stage]).collect();
    if !same || !project.store.has_all(&wanted) {
        return None;
    }
    let mut gates = Gates::new(selection);
    let mut verdicts: Vec<Option<Verdict>> = vec![None; project.graph.stages.len()];
    for (stage, entry) in selection.wanted.iter().zip(wanted) {
        gates.pass(&project.graph, *stage, &entry.made.summary);
        verdicts[*stage] = Some(Verdict::Hit(Box::new(entry.clone())));
    }
    Some(Plan { verdicts, gates: gates.unmet })
}

/// Keeps a plan in which every stage of the pipeline is made.
pub fn keep(project: &Project, sources: &[Option<SourceDigest>], plan: &Plan) {
    let Some(Keeping { key, texts }) = &project.keeping else { return };
    let entries = plan.verdicts.iter().map(|verdict| match verdict {
        Some(Verdict::Hit(entry)) => Some((**entry).clone()),
        _ => None,
    });
    let (Some(entries), Some(graph)) = (entries.collect(), project.graph.to_bytes(texts)) else {
        return;
    };
    let digest = |text: &Arc<SourceText>| (text.name.clone(), Digest::of(text.text.as_bytes()));
    let snapshot = Snapshot {
        graph,
        texts: texts.iter().map(digest).collect(),
        sources: sources.iter().map(|source| source.as_ref().map(|s| s.digest)).collect(),
        entries,
    };
    project.store.keep_snapshot(&project.key, key, &snapshot);
}

#[cfg(test)]
mod tests;
