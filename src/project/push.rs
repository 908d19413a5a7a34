//! Which entries are sent to the remote, and what people call them.
//! Sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Failure, Project, lock};
use crate::identity::Fingerprint;
use crate::lock::path_of;
use crate::plan::{Selection, Verdict};
use crate::store::Store;

/// What a pipeline has up to date, and what its lock file names, where it is here.
///
/// # Errors
/// A name that is no stage, a lock file that cannot be read, or what stops a plan.
pub fn of_pipeline(
    file: &Path,
    project: &Project,
    targets: &[String],
) -> Result<BTreeMap<Fingerprint, String>, Failure> {
    let selection = Selection::new(&project.graph, targets, &[], &[])?;
    let mut items = BTreeMap::new();
    if path_of(file).exists() {
        for (name, locked) in lock::read(file)?.stages {
            let wanted = project.graph.find(&name).is_some_and(|s| selection.wanted.contains(&s));
            if wanted && matches!(project.store.entry(&locked.fingerprint), Ok(Some(_))) {
                items.insert(locked.fingerprint, name);
            }
        }
    }
    let plan = project.plan(&selection)?;
    for (node, verdict) in project.graph.stages.iter().zip(&plan.verdicts) {
        if let Some(Verdict::Hit(entry)) = verdict {
            items.insert(entry.fingerprint, node.name.clone());
        }
    }
    Ok(items)
}

/// Also what waits to be sent, or all there is.
///
/// # Errors
/// The store cannot be listed.
pub fn with_others(
    store: &Store,
    mut items: BTreeMap<Fingerprint, String>,
    all: bool,
) -> Result<BTreeMap<Fingerprint, String>, Failure> {
    let mut more: BTreeSet<Fingerprint> = BTreeSet::new();
    for queued in store.queued_uploads()? {
        match store.entry(&queued) {
            Ok(None) => store.unqueue_upload(&queued)?,
            _ => drop(more.insert(queued)),
        }
    }
    if all {
        more.extend(store.fingerprints()?);
    }
    for fingerprint in more {
        let kind = match store.entry(&fingerprint) {
            Ok(Some(entry)) => entry.identity.kind,
            _ => "entry".to_owned(),
        };
        items.entry(fingerprint).or_insert_with(|| format!("{kind} {}", fingerprint.short()));
    }
    Ok(items)
}
