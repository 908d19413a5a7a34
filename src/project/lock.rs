//! The lock file beside a pipeline: read, compared with what the pipeline says, written by runs.
//! Does not know how stages are merged.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::{Failure, Project};
use crate::files;
use crate::identity::Fingerprint;
use crate::lock::{Lock, path_of};
use crate::plan::{Judge, Outputs, Selection};
use crate::store::write_atomic;

/// The lock of a pipeline file.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn read(file: &Path) -> Result<Lock, Failure> {
    let path = path_of(file);
    if !path.exists() {
        return Err(Failure::usage(format!("there is no lock file `{}`", path.display()))
            .help(format!("`preflow run {}` writes it", file.display())));
    }
    parse(&path)
}

/// Room for a hundred thousand stages.
const LARGEST: u64 = 64 << 20;

/// The text of a file, empty where there is none.
///
/// # Errors
/// It cannot be read.
pub fn text_of(path: &Path) -> Result<String, Failure> {
    match files::read_to_string(path, LARGEST) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Failure::usage(format!("cannot read `{}`: {e}", path.display()))
            .help("take it from another commit, or remove it and run again")),
    }
}

/// The lock in a file; empty where there is none.
///
/// # Errors
/// It cannot be read, or is no lock file.
pub fn parse(path: &Path) -> Result<Lock, Failure> {
    let text = text_of(path)?;
    Lock::parse(path, &text).map_err(|e| {
        Failure::usage(e.to_string())
            .help("take it from another commit, or run again to rewrite it")
    })
}

/// Writes what a run made beside its pipeline file. Stages that were not asked for stay as they
/// were. A run with other params than the file's is not what the file says, and leaves it alone.
pub fn keep(file: &Path, project: &Project, made: &Lock) {
    if !project.choices.sets.is_empty() || project.choices.profile.is_some() {
        return;
    }
    let sources = project.pinned();
    if made.stages.is_empty() && sources.is_empty() {
        return;
    }
    let path = path_of(file);
    let old = match text_of(&path) {
        Ok(text) => text,
        Err(failure) => return (project.choices.warn)(&failure.to_string()),
    };
    // Of stages that are all known, what the file says of them says nothing more.
    let text = if made.stages.len() == project.graph.stages.len() {
        Lock { stages: made.stages.clone(), sources }.to_text()
    } else {
        let mut lock = Lock::parse(&path, &old).unwrap_or_default();
        lock.stages.extend(made.stages.clone());
        lock.sources.extend(sources);
        let names: HashSet<&str> = project.graph.stages.iter().map(|s| s.name.as_str()).collect();
        lock.stages.retain(|name, _| names.contains(name.as_str()));
        let elsewhere = project.graph.sources.iter().filter(|source| !source.is_here());
        let names: HashSet<&str> = elsewhere.map(|source| source.name.as_str()).collect();
        lock.sources.retain(|name, _| names.contains(name.as_str()));
        lock.to_text()
    };
    if text == old {
        return;
    }
    if let Err(error) = write_atomic(&path, text.as_bytes()) {
        let text = format!("the lock file was not written: {}: {error}", path.display());
        (project.choices.warn)(&text);
    }
}

/// A lock file compared with what the pipeline says.
#[derive(Debug, Default)]
pub struct LockCheck {
    /// Stages that the file names.
    pub stages: usize,
    /// Those that are what the pipeline says.
    pub matching: BTreeMap<String, Fingerprint>,
    /// What is wrong, stage by stage.
    pub problems: Vec<String>,
}

/// Compares a lock with what the pipeline says, stage by stage, given the outputs it names itself:
/// nothing need be made, or even be at hand.
///
/// # Errors
/// There is no lock file, or a source cannot be read.
pub fn check(file: &Path, project: &Project) -> Result<LockCheck, Failure> {
    let lock = read(file)?;
    let selection = Selection::new(&project.graph, &[], &[], &[])?;
    let sources = project.digest_sources(&selection.wanted)?;
    let heads = project.heads();
    let judge =
        Judge { graph: &project.graph, store: &project.store, sources: &sources, heads: &heads };
    let mut known: Vec<Option<Outputs>> = vec![None; project.graph.stages.len()];
    let (mut matching, mut problems) = (BTreeMap::new(), Vec::new());
    for (i, node) in project.graph.stages.iter().enumerate() {
        let Some(locked) = lock.stages.get(&node.name) else {
            problems.push(format!("stage `{}` is not in it", node.name));
            continue;
        };
        known[i] = Some(locked.outputs.clone());
        let missing = node.outputs.iter().find(|o| !locked.outputs.contains_key(&o.name));
        if let Some(port) = missing {
            problems.push(format!("output `{}` of stage `{}` is not in it", port.name, node.name));
            known[i] = None;
            continue;
        }
        if project.graph.upstream(i).iter().any(|up| known[*up].is_none()) {
            known[i] = None;
            continue;
        }
        if judge.identity(i, &known).fingerprint() == locked.fingerprint {
            matching.insert(node.name.clone(), locked.fingerprint);
        } else {
            problems.push(format!("stage `{}` changed", node.name));
            // What follows from it is not what the lock says either.
            known[i] = None;
        }
    }
    let gone = lock.stages.keys().filter(|name| project.graph.find(name).is_none());
    problems.extend(gone.map(|name| format!("stage `{name}` is not in the pipeline any more")));
    Ok(LockCheck { stages: lock.stages.len(), matching, problems })
}
