//! Which entries somebody needs: what runs used lately, and what pipelines of the workspace use.
//! Removes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Choices, Failure, locate};
use crate::identity::Fingerprint;
use crate::plan::{Selection, Verdict};
use crate::run::{RunEvent, journal};
use crate::store::{Store, StoreError};

/// What runs of the last `days` days used, and the names of older ones.
///
/// # Errors
/// The store cannot be read.
pub fn roots_of_runs(
    store: &Store,
    days: u32,
) -> Result<(BTreeSet<Fingerprint>, Vec<String>), StoreError> {
    let age = jiff::SignedDuration::from_hours(i64::from(days) * 24);
    let border = jiff::Timestamp::now() - age;
    let (mut keep, mut old) = (BTreeSet::new(), Vec::new());
    for run in journal::runs(store) {
        let path = store.run_path(&run).join("events.jsonl");
        let Ok(lines) = journal::read(&path) else { continue };
        let at = lines.iter().find_map(|l| match &l.event {
            RunEvent::RunStarted { at, .. } => at.parse::<jiff::Timestamp>().ok(),
            _ => None,
        });
        match at {
            Some(at) if at < border => old.push(run),
            _ => keep.extend(lines.iter().filter_map(|l| match &l.event {
                RunEvent::StageReused { fingerprint, .. }
                | RunEvent::StageFetched { fingerprint, .. }
                | RunEvent::StageStarted { fingerprint, .. } => Some(*fingerprint),
                _ => None,
            })),
        }
    }
    Ok((keep, old))
}

/// What pipelines of the workspace use now or used last.
///
/// # Errors
/// A pipeline file is wrong, or the store cannot be read: nobody knows what is needed.
pub fn roots_of_pipelines(
    root: &Path,
    choices: &Choices,
    store: &Store,
) -> Result<BTreeSet<Fingerprint>, StoreError> {
    let mut keep = BTreeSet::new();
    // A workspace inside this one keeps its results in a store of its own, unless one is named.
    let is_ours = |dir: &Path| choices.cache.is_some() || locate::workspace_root(dir) == root;
    for file in pipelines_below(root, store.root(), &is_ours) {
        let doubt = |what: &str| {
            StoreError::Doubt(format!(
                "`{}` {what}; what it needs is unknown, so nothing is removed",
                file.display()
            ))
        };
        let project =
            super::load(&file, choices).map_err(|_| doubt("has errors (see `preflow check`)"))?;
        let all = Selection::new(&project.graph, &[], &[], &[])
            .map_err(|_| doubt("cannot be resolved"))?;
        let plan = match project.plan(&all) {
            Ok(plan) => plan,
            Err(Failure::Store(e)) => return Err(e),
            // A source that is missing here makes the plan unknown; the heads still count.
            Err(_) => continue,
        };
        keep.extend(plan.verdicts.iter().flatten().filter_map(|v| match v {
            Verdict::Hit(entry) => Some(entry.fingerprint),
            _ => None,
        }));
    }
    for heads in store.all_heads()? {
        if root.join(&heads.pipeline).exists() {
            keep.extend(heads.stages.values().copied());
        }
    }
    Ok(keep)
}

/// Pipeline files anywhere in the workspace but in the store and hidden or build folders, and in
/// those that are not ours.
fn pipelines_below(root: &Path, store: &Path, is_ours: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        found.extend(locate::pipelines_in(&dir));
        for item in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = item.file_name();
            let hidden = name.to_string_lossy().starts_with('.') || name == "target";
            let is_dir = item.file_type().is_ok_and(|t| t.is_dir());
            if is_dir && !hidden && item.path() != store && is_ours(&item.path()) {
                todo.push(item.path());
            }
        }
    }
    found.sort();
    found
}
