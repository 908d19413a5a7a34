//! Where an artifact comes from: the entry that made it, and all that it was made from.
//! Does not know how it is shown.

use std::collections::{BTreeMap, BTreeSet};

use super::history;
use crate::identity::{Digest, InputIdentity};
use crate::run::{RunEvent, journal};
use crate::store::{Entry, Store, StoreError};
use crate::votes::Effective;

/// One artifact on the way back.
pub struct Step {
    pub depth: usize,
    pub entry: Entry,
    /// Which output of the entry it is, and the file in it where it is a folder.
    pub output: String,
    /// Inputs that no stage made: data that was there, by port.
    pub sources: Vec<(String, Digest)>,
}

/// Every entry that can be read, the newest first.
///
/// # Errors
/// The store cannot be listed.
pub fn all_entries(store: &Store) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for fingerprint in store.fingerprints()? {
        // One that cannot be read is `verify`'s business.
        if let Ok(Some(entry)) = store.entry(&fingerprint) {
            entries.push(entry);
        }
    }
    // Of several that made the same bytes, the newest is the likeliest to be known.
    entries.sort_by(|a, b| b.made.at.cmp(&a.made.at));
    Ok(entries)
}

/// The entry that made these bytes, as an output or as a file of one. A stage that passed on what
/// it read did not make it.
#[must_use]
pub fn find<'a>(entries: &'a [Entry], digest: &Digest) -> Option<(&'a Entry, String)> {
    let makers = || entries.iter().filter(|e| e.identity.input_digests().all(|d| d != *digest));
    let whole = makers().find_map(|entry| {
        let (port, _) = entry.outputs.iter().find(|(_, o)| o.digest == *digest)?;
        Some((entry, port.clone()))
    });
    whole.or_else(|| {
        makers().find_map(|entry| {
            let files = entry.outputs.iter().flat_map(|(port, output)| {
                output.tree.iter().flatten().map(move |file| (port, file))
            });
            let (port, file) = files.into_iter().find(|(_, file)| file.digest == *digest)?;
            Some((entry, format!("{port}/{}", file.path)))
        })
    })
}

/// All that it was made from, depth first, each entry once. A list instead of recursion.
#[must_use]
pub fn back(entries: &[Entry], entry: &Entry, output: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo = vec![(0, entry, output.to_owned())];
    while let Some((depth, entry, output)) = todo.pop() {
        if !seen.insert(entry.fingerprint) {
            continue;
        }
        let mut inputs: Vec<Digest> = entry.identity.input_digests().collect();
        inputs.reverse();
        for digest in inputs {
            if let Some((made, port)) = find(entries, &digest) {
                todo.push((depth + 1, made, port));
            }
        }
        let sources = sources(entry, |digest| find(entries, digest).is_some());
        steps.push(Step { depth, entry: entry.clone(), output, sources });
    }
    steps
}

/// What the votes that a stage read amounted to.
#[must_use]
pub fn votes(store: &Store, entry: &Entry) -> Vec<(String, Effective)> {
    let inputs = entry.identity.inputs.iter().filter_map(|(port, input)| {
        let InputIdentity::One(digest) = input else { return None };
        let bytes = store.object_bytes(digest).ok()?;
        Some((port.clone(), Effective::parse(&bytes).ok()?))
    });
    inputs.collect()
}

/// How many votes each annotator gave; repeats of a pair do not count.
#[must_use]
pub fn by_annotator(votes: &Effective) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for ballot in votes.pairs.values().flat_map(|p| &p.ballots).filter(|b| !b.repeat) {
        *counts.entry(ballot.annotator.clone()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// Inputs that no stage made: data that was there.
fn sources(entry: &Entry, made: impl Fn(&Digest) -> bool) -> Vec<(String, Digest)> {
    let mut found = Vec::new();
    for (port, input) in &entry.identity.inputs {
        let digests = match input {
            InputIdentity::One(digest) => vec![(port.clone(), *digest)],
            InputIdentity::Many(all) => all.clone(),
        };
        found.extend(digests.into_iter().filter(|(_, digest)| !made(digest)));
    }
    found
}

/// Name that the run gave the stage.
#[must_use]
pub fn run_stage(store: &Store, step: &Step) -> Option<String> {
    let lines = journal::read(&store.run_path(&step.entry.made.run).join("events.jsonl"));
    lines.ok()?.into_iter().find_map(|line| match line.event {
        RunEvent::StageDone { stage, fingerprint, .. } if fingerprint == step.entry.fingerprint => {
            Some(stage)
        }
        _ => None,
    })
}

/// The pipeline file of the run.
#[must_use]
pub fn run_pipeline(store: &Store, step: &Step) -> Option<String> {
    Some(history::read(store, &step.entry.made.run)?.pipeline)
}
