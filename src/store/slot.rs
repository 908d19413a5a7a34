//! Slots: the right to produce an entry. A miss hands one out, and only with one can anything
//! be published. Knows nothing of plans or processes.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use tracing::debug;

use super::digest::{hash_file, tree_digest, walk};
use super::object::{hash_tree, make_writable};
use super::reading::Reading;
use super::{Entry, EntryOutput, Provenance, Store, StoreError};
use crate::files::{self, describe};
use crate::identity::{Fingerprint, Identity};

/// Answer to the question for an identity.
#[derive(Debug)]
pub enum Lookup {
    /// It was made, perhaps a moment ago by someone else.
    Hit(Box<Entry>),
    /// It must be made, by the holder of this slot.
    Miss(Slot),
    /// Another process is making it.
    Busy,
}

/// Lock and scratch files of one identity. Dropping it frees the lock and keeps the scratch.
///
/// The files lie side by side as `scratch-v1/<fingerprint>.<what>`: removing a directory costs
/// some file systems milliseconds, and there may be thousands of stages.
#[derive(Debug)]
pub struct Slot {
    pub(super) identity: Identity,
    pub(super) fingerprint: Fingerprint,
    /// Common beginning of all its paths.
    pub(super) base: PathBuf,
    lock: File,
}

/// Each is an open file: they take a small part of those that there may be.
fn most_spares() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(files.unwrap_or(u64::MAX) / 16).unwrap_or(usize::MAX).min(256)
}

/// Locks of published slots, still held, to be renamed for the next ones. File systems are slow at
/// making files where many were removed a moment ago.
#[derive(Debug, Default)]
pub(super) struct LockPool {
    all: Vec<(PathBuf, File)>,
    count: u64,
}

/// What a published slot leaves behind, readable until it is discarded.
#[derive(Debug)]
pub struct Scratch(pub(super) Vec<PathBuf>);

/// A slot whose outputs are complete and hashed, ready to be published.
#[derive(Debug)]
pub struct Sealed {
    pub(super) slot: Slot,
    pub(super) files: BTreeMap<String, PathBuf>,
    pub(super) outputs: BTreeMap<String, EntryOutput>,
    /// How each output looked when it was hashed.
    pub(super) seen: BTreeMap<String, Reading>,
    pub(super) made: Provenance,
}

impl Store {
    /// Takes the lock of `identity`, then looks again.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn lookup(&self, identity: Identity, ignore_hit: bool) -> Result<Lookup, StoreError> {
        let fingerprint = identity.fingerprint();
        let base = self.scratch_path(&fingerprint);
        let path = beside(&base, "lock");
        let lock = match self.lock_pool().take(&path) {
            Some(lock) => lock,
            None => match lock_file(&path)? {
                Some(file) => file,
                None => {
                    debug!(%fingerprint, "another process makes it");
                    return Ok(Lookup::Busy);
                }
            },
        };
        if !ignore_hit
            && let Ok(Some(entry)) = self.entry(&fingerprint)
            && self.health(&entry)?.is_none()
        {
            self.lock_pool().keep(&path, lock);
            return Ok(Lookup::Hit(Box::new(entry)));
        }
        Ok(Lookup::Miss(Slot { identity, fingerprint, base, lock }))
    }

    /// Directory of a worker's own files for what is not made yet; there only while one is kept.
    #[must_use]
    pub fn work_path(&self, fingerprint: &Fingerprint) -> PathBuf {
        beside(&self.scratch_path(fingerprint), "work")
    }

    /// Removes the locks that wait for another slot: a run calls it when it ends.
    pub fn drop_spare_locks(&self) {
        self.lock_pool().clear();
    }

    pub(super) fn lock_pool(&self) -> std::sync::MutexGuard<'_, LockPool> {
        self.lock_pool.lock().expect("invariant: no thread panics while it holds the spare locks")
    }

    /// Removes scratch files that no living process holds. Returns how many slots went.
    ///
    /// # Errors
    /// The scratch directory cannot be read.
    pub fn sweep_scratch(&self) -> Result<usize, StoreError> {
        let top = self.root.join("scratch-v1");
        if !top.exists() {
            return Ok(0);
        }
        let mut slots: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for item in fs::read_dir(&top)? {
            let path = item?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let slot = name.split('.').next().unwrap_or(&name).to_owned();
            slots.entry(slot).or_default().push(path);
        }
        let mut swept = 0;
        for (slot, paths) in slots {
            let lock = beside(&top.join(slot), "lock");
            if let Some(_held) = lock_file(&lock)? {
                paths.iter().for_each(|path| remove(path));
                remove(&lock);
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// `base.what`.
pub(super) fn beside(base: &Path, what: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

/// Removes a file or a tree; what cannot be removed now is swept later.
pub(super) fn remove(path: &Path) {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
        make_writable(path);
        let _ = std::fs::remove_dir_all(path);
    } else {
        let _ = std::fs::remove_file(path);
    }
}

/// Makes a folder where there is none. A link goes: it would say where the worker writes.
fn make_folder(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir()) {
        remove(path);
    }
    fs::create_dir_all(path)
}

/// Makes and locks a file. `None`: someone else holds it. The holder removes the file when it is
/// done, so a lock counts only while its path still leads to the locked file.
pub(super) fn lock_file(path: &Path) -> Result<Option<File>, StoreError> {
    loop {
        let file = files::create_own(path).map_err(|e| files::named(path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        let held = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
                return Ok(Some(file));
            }
            _ => {}
        }
    }
}

impl LockPool {
    /// A lock at `path`, unless there is a file already.
    fn take(&mut self, path: &Path) -> Option<File> {
        let (spare, lock) = self.all.pop()?;
        let here = rustix::fs::CWD;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(here, &spare, here, path, flags) {
            Ok(()) => Some(lock),
            Err(_) => {
                // Someone else's, or a file system that cannot do this.
                remove(&spare);
                None
            }
        }
    }

    /// Takes a lock out of the way of its slot, which is free from now on.
    fn keep(&mut self, path: &Path, lock: File) {
        self.count += 1;
        let name = format!("spare-{}-{}.lock", std::process::id(), self.count);
        let spare = path.with_file_name(name);
        #[expect(clippy::disallowed_methods, reason = "this room owns the scratch")]
        match std::fs::rename(path, &spare) {
            Ok(()) if self.all.len() < most_spares() => self.all.push((spare, lock)),
            Ok(()) => remove(&spare),
            Err(_) => remove(path),
        }
    }

    fn clear(&mut self) {
        self.all.drain(..).for_each(|(path, _held)| remove(&path));
    }
}

impl Drop for LockPool {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Slot {
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Directory for the worker's own files; kept between attempts.
    #[must_use]
    pub fn work_path(&self) -> PathBuf {
        beside(&self.base, "work")
    }

    /// Where the output `port` must be made. `extension` may be empty.
    #[must_use]
    pub fn output_path(&self, port: &str, extension: &str) -> PathBuf {
        let path = beside(&self.base, "out");
        let path = beside(&path, port);
        if extension.is_empty() { path } else { beside(&path, extension) }
    }

    /// Clears the way for an attempt: its outputs are gone, and the work directory is there when
    /// the task needs one.
    ///
    /// # Errors
    /// The scratch cannot be written.
    pub fn begin_attempt<'a>(
        &self,
        outputs: impl IntoIterator<Item = &'a PathBuf>,
        work: bool,
    ) -> Result<(), StoreError> {
        outputs.into_iter().for_each(|path| remove(path));
        if work {
            make_folder(&self.work_path())?;
        }
        Ok(())
    }

    /// Gives the slot up after a failure. What a worker left for its next attempt stays.
    pub fn give_up(self, outputs: &BTreeMap<String, PathBuf>) {
        outputs.values().for_each(|path| remove(path));
        let work = self.work_path();
        let kept = std::fs::read_dir(&work).is_ok_and(|mut dir| dir.next().is_some());
        if !kept {
            remove(&work);
            remove(&beside(&self.base, "lock"));
        }
    }

    /// Hashes the outputs (`port` → path) and makes them read-only. After this their digests are
    /// known, but nothing is published yet.
    ///
    /// # Errors
    /// An output is missing or holds anything but plain files.
    pub fn seal(
        self,
        files: BTreeMap<String, PathBuf>,
        made: Provenance,
    ) -> Result<Sealed, Box<(Self, StoreError)>> {
        let (mut outputs, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (port, path) in &files {
            match hash_output(port, path) {
                Ok((output, reading)) => {
                    outputs.insert(port.clone(), output);
                    seen.insert(port.clone(), reading);
                }
                Err(e) => return Err(Box::new((self, e))),
            }
        }
        Ok(Sealed { slot: self, files, outputs, seen, made })
    }
}

impl Sealed {
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.slot.fingerprint
    }

    #[must_use]
    pub fn outputs(&self) -> &BTreeMap<String, EntryOutput> {
        &self.outputs
    }

    /// Frees the lock once the entry is visible; what is left can be discarded at any time.
    pub(super) fn unlock(
        slot: Slot,
        files: BTreeMap<String, PathBuf>,
        pool: &mut LockPool,
    ) -> Scratch {
        let work = slot.work_path();
        pool.keep(&beside(&slot.base, "lock"), slot.lock);
        Scratch(files.into_values().chain([work]).collect())
    }

    /// Where an output lies until it is published, and as long as the run lasts after that.
    #[must_use]
    pub fn path(&self, port: &str) -> Option<&Path> {
        self.files.get(port).map(PathBuf::as_path)
    }
}

fn hash_output(port: &str, path: &Path) -> Result<(EntryOutput, Reading), StoreError> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::OutputMissing { port: port.to_owned() });
        }
        Err(e) => return Err(e.into()),
    };
    let refuse = |path: &Path, what| {
        Err(StoreError::OutputKind { port: port.to_owned(), path: path.to_owned(), what })
    };
    if meta.is_file() {
        if meta.nlink() != 1 {
            return refuse(path, "a file with a second name");
        }
        set_mode(path, 0o444)?;
        return Reading::hashing(path, false, || {
            let (digest, signature) = hash_file(path)?;
            Ok(EntryOutput { digest, bytes: signature.size, tree: None })
        });
    }
    if !meta.is_dir() {
        return refuse(path, describe(&meta));
    }
    let inside = match walk(path) {
        Err(StoreError::NotAFile { path, what }) => return refuse(&path, what),
        other => other?,
    };
    for (name, meta) in inside {
        let inner = path.join(name);
        if meta.nlink() != 1 {
            return refuse(&inner, "a file with a second name");
        }
        set_mode(&inner, 0o444)?;
    }
    Reading::hashing(path, true, || {
        let files = hash_tree(path)?;
        let bytes = files.iter().map(|f| f.size).sum();
        Ok(EntryOutput { digest: tree_digest(&files), bytes, tree: Some(files) })
    })
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    Ok(fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make files")]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_work_folder_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (work, victim) = (dir.path().join("work"), dir.path().join("victim"));
        std::fs::create_dir(&victim).unwrap();
        std::os::unix::fs::symlink("victim", &work).unwrap();
        make_folder(&work).unwrap();
        std::fs::write(work.join("state"), "text").unwrap();
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
        make_folder(&work).unwrap();
        assert!(work.join("state").exists(), "what an attempt left stays");
    }
}
