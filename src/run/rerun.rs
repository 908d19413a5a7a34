//! A stage made once more beside the store, from the same inputs: for comparing, never for keeping.
//! Knows nothing of comparisons.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::attempt::{input_changed, input_specs, watched};
use super::{RunError, RunOptions, task};
use crate::exec::{Outcome, Task};
use crate::graph::{Graph, Producer};
use crate::plan::{Plan, Verdict};
use crate::schedule::pools::Share;
use crate::store::digest::walk;
use crate::store::{
    CachedEntry, EntryOutput, Health, Lookup, Provenance, Slot, SourceDigest, Store, StoreError,
};

/// The stage and all that it was made from.
pub struct RerunSource<'a> {
    pub graph: &'a Graph,
    pub store: &'a Store,
    pub sources: &'a [Option<SourceDigest>],
    pub plan: &'a Plan,
    pub stage: usize,
}

/// A stage that is being made aside. Dropping it removes all that was made.
pub struct Rerun {
    slot: Slot,
    files: BTreeMap<String, PathBuf>,
    // After the slot, whose lock lies in it.
    _dir: tempfile::TempDir,
}

/// What was made: digests, and where the files lie as long as this lives.
pub struct Made {
    pub outputs: BTreeMap<String, EntryOutput>,
    pub paths: BTreeMap<String, PathBuf>,
    _dir: tempfile::TempDir,
}

impl RerunSource<'_> {
    /// What is up to date of a stage.
    #[must_use]
    pub fn entry(&self, stage: usize) -> Option<&CachedEntry> {
        match self.plan.verdicts.get(stage)? {
            Some(Verdict::Hit(entry)) => Some(entry),
            _ => None,
        }
    }

    /// An output of an entry, every byte of it read.
    fn sound(&self, stage: usize, port: &str) -> Result<PathBuf, StoreError> {
        let entry = self.entry(stage).expect("invariant: what is up to date has its upstream");
        let output = &entry.outputs[port];
        if self.store.check(output, true)? != Health::Good {
            return Err(StoreError::Doubt(format!(
                "output `{port}` of stage `{}` is missing or damaged in the store; `preflow \
                 verify --repair`, then run again",
                self.graph.stages[stage].name
            )));
        }
        Ok(self.store.object_path(&output.digest))
    }

    /// The task that makes the stage again, and the place where it does. The stage must be up to
    /// date. Nothing that the store keeps is written to.
    ///
    /// # Errors
    /// An input or an output of the entry is damaged, the stage asks for more than there is, or
    /// nothing can be written.
    ///
    /// # Panics
    /// The stage is not up to date.
    pub fn begin(&self, options: &RunOptions) -> Result<(Rerun, Task), RunError> {
        let node = &self.graph.stages[self.stage];
        let entry = self.entry(self.stage).expect("invariant: the caller has looked");
        options.pools.check(&node.name, &node.execution)?;
        for port in entry.outputs.keys() {
            self.sound(self.stage, port)?;
        }
        let dir = place(self.store)?;
        let aside = Store::open(&dir.path().join("store"))?;
        aside.prepare_for_writing()?;
        let inputs = input_specs(self.graph, self.stage, |producer| match producer {
            Producer::Source(source) => {
                let source = self.sources[source].as_ref();
                let source = source.expect("invariant: needed sources are hashed first");
                let Some(content) = &source.content else { return Ok(source.paths.clone()) };
                aside.keep_content(content)?;
                Ok(vec![aside.object_path(&source.digest)])
            }
            Producer::Output { stage, port } => {
                Ok(vec![self.sound(stage, &self.graph.stages[stage].outputs[port].name)?])
            }
        })?;
        let answers = aside.answers_path(&node.kind);
        copy(&self.store.answers_path(&node.kind), &answers)?;
        let whole = self.store.entry(&entry.fingerprint)?;
        let gone = || StoreError::Doubt("its entry was removed meanwhile".into());
        let Lookup::Miss(slot) = aside.lookup(whole.ok_or_else(gone)?.identity, true)? else {
            return Err(
                StoreError::Doubt("a new folder is locked by another process".into()).into()
            );
        };
        let folders = task::Folders { logs: dir.path().join("logs"), answers };
        let share = self.share(options);
        let task = task::build(self.stage, node, &slot, inputs, &share, folders, options)?;
        let task = Task { lists: self.graph.ports_of_several(self.stage), ..task };
        let files = task::output_paths(node, &slot);
        Ok((Rerun { slot, files, _dir: dir }, task))
    }

    /// What the stage would get of an empty machine.
    fn share(&self, options: &RunOptions) -> Share {
        let node = &self.graph.stages[self.stage];
        let threads = options.pools.threads_for(&node.execution, node.kind_threads);
        let share = options.pools.clone().take(threads, &node.execution);
        share.expect("invariant: checked against the whole machine")
    }

    /// A source that changed since it was hashed.
    #[must_use]
    pub fn changed(&self) -> Option<Outcome> {
        input_changed(&watched(self.graph, self.sources, self.stage), self.store)
    }
}

impl Rerun {
    /// Hashes what the task made.
    ///
    /// # Errors
    /// An output is missing, or no file or folder.
    pub fn seal(self) -> Result<Made, StoreError> {
        let Self { slot, files, _dir } = self;
        let sealed = slot.seal(files.clone(), Provenance::default()).map_err(|e| e.1)?;
        Ok(Made { outputs: sealed.outputs().clone(), paths: files, _dir })
    }
}

/// Among the scratch of the store, on its disk, where the collector finds it should this process
/// be killed; elsewhere when the store cannot be written.
fn place(store: &Store) -> Result<tempfile::TempDir, StoreError> {
    let scratch = store.root().join("scratch-v1");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("aside-");
    Ok(builder.tempdir_in(scratch).or_else(|_| builder.tempdir())?)
}

/// Copies what outside services answered: a stage that asks them gets the same answers again, and
/// new ones stay out of the store.
fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    if !from.exists() {
        return Ok(());
    }
    for (name, _) in walk(from)? {
        let target = to.join(&name);
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(from.join(&name), target)?;
    }
    Ok(())
}
