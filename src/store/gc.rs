//! Garbage collection: what nobody needs, found first, removed on a second word.
//! Refuses on doubt. Knows nothing of how the roots were found.

use std::collections::BTreeSet;
use std::fs::TryLockError;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fs_err as fs;

use super::object::make_writable;
use super::{Store, StoreError, fetched, memo};
use crate::identity::{Digest, Fingerprint};

/// What a collection would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    pub entries: Vec<Fingerprint>,
    pub objects: Vec<Digest>,
    /// Old runs, old damaged objects, and what was derived long ago.
    pub other: Vec<PathBuf>,
    /// Bytes of all of it.
    pub bytes: u64,
    /// Entries that stay.
    pub kept: usize,
}

impl Store {
    /// Finds what is neither in `keep` or waiting to be sent, nor needed by such an entry, nor
    /// younger than `grace`. `old_runs`: names under `runs/` that may go.
    ///
    /// # Errors
    /// [`StoreError::Doubt`] when there are entries but no roots, or an entry is unreadable.
    pub fn find_garbage(
        &self,
        keep: &BTreeSet<Fingerprint>,
        old_runs: &[String],
        grace: Duration,
    ) -> Result<Garbage, StoreError> {
        let mut garbage = Garbage::default();
        if !self.root.join("entries-v1").exists() {
            return Ok(garbage);
        }
        let border = self.clock()?.checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let all = self.fingerprints()?;
        if keep.is_empty() && !all.is_empty() {
            return Err(StoreError::Doubt(
                "no pipeline and no run needs anything in this store, which cannot be right".into(),
            ));
        }
        let waiting: BTreeSet<Fingerprint> = self.queued_uploads()?.into_iter().collect();
        let mut needed = BTreeSet::new();
        // Inputs that no entry made: what sources amounted to when they were read.
        let (mut read, mut made_by_garbage) = (BTreeSet::new(), BTreeSet::new());
        for fingerprint in all {
            let meta = fs::metadata(self.entry_path(&fingerprint))?;
            let wanted = keep.contains(&fingerprint) || waiting.contains(&fingerprint);
            if wanted || meta.modified()? >= border {
                let entry = self.entry(&fingerprint)?;
                needed.extend(entry.iter().flat_map(|e| e.outputs.values().map(|o| o.digest)));
                read.extend(entry.iter().flat_map(|e| e.identity.input_digests()));
                garbage.kept += 1;
            } else {
                if let Ok(Some(entry)) = self.entry(&fingerprint) {
                    made_by_garbage.extend(entry.outputs.values().map(|o| o.digest));
                }
                garbage.bytes += meta.len();
                garbage.entries.push(fingerprint);
            }
        }
        needed.extend(read.difference(&made_by_garbage).copied());
        for name in self.names_below("objects-v1")? {
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            let path = self.object_path(&digest);
            // A link made a moment ago moves the inode's change time, not its mtime.
            let young = changed(&path)? >= border;
            if !needed.contains(&digest) && !young {
                garbage.bytes += size(&path)?;
                garbage.objects.push(digest);
            }
        }
        garbage.objects.sort();
        for name in old_runs {
            let path = self.run_path(name);
            garbage.bytes += size(&path)?;
            garbage.other.push(path);
        }
        for folder in ["quarantine", "derived-v1", fetched::FOLDER].map(|name| self.root.join(name))
        {
            if !folder.exists() {
                continue;
            }
            for item in fs::read_dir(folder)? {
                let path = item?.path();
                // Whatever else is derived takes milliseconds; the memo stands for reading files.
                let costly = path.file_name().is_some_and(|name| name == memo::NAME);
                if !costly && changed(&path)? < border {
                    garbage.bytes += size(&path)?;
                    garbage.other.push(path);
                }
            }
        }
        Ok(garbage)
    }

    /// Removes garbage: entries first, so that none is ever without its objects. `find` is asked
    /// for it once no run can be alive.
    ///
    /// # Errors
    /// [`StoreError::Doubt`] while a run is alive.
    pub fn collect(
        &self,
        find: impl FnOnce() -> Result<Garbage, StoreError>,
    ) -> Result<Garbage, StoreError> {
        let lease = self.lease_file()?;
        match lease.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Doubt(
                    "a run is using this store; collect when it is done".into(),
                ));
            }
            Err(TryLockError::Error(e)) => return Err(self.no_locks(e)),
        }
        let garbage = find()?;
        for fingerprint in &garbage.entries {
            self.remove_entry(fingerprint)?;
        }
        self.sync()?;
        for path in
            garbage.objects.iter().map(|d| self.object_path(d)).chain(garbage.other.iter().cloned())
        {
            match std::fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    make_writable(&path);
                    fs::remove_dir_all(&path)?;
                }
                // A link goes, not what it leads to.
                Ok(_) => fs::remove_file(&path)?,
                Err(_) => {}
            }
        }
        self.sweep_scratch()?;
        Ok(garbage)
    }

    /// The present moment by the clock of the disk that the store lies on: file times are compared
    /// with nothing else.
    fn clock(&self) -> Result<SystemTime, StoreError> {
        Ok(tempfile::NamedTempFile::new_in(&self.root)?.as_file().metadata()?.modified()?)
    }
}

fn changed(path: &std::path::Path) -> Result<SystemTime, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::symlink_metadata(path)?;
    let ctime = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0));
    Ok(SystemTime::UNIX_EPOCH + ctime)
}

fn size(path: &std::path::Path) -> Result<u64, StoreError> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let mut total = 0;
    let mut todo = vec![path.to_owned()];
    while let Some(dir) = todo.pop() {
        for item in fs::read_dir(dir)? {
            let item = item?;
            let meta = fs::symlink_metadata(item.path())?;
            if meta.is_dir() {
                todo.push(item.path());
            } else {
                total += meta.len();
            }
        }
    }
    Ok(total)
}
