//! Slots: the right to produce an entry. A miss hands one out, and only with one can anything
//! be published. Knows nothing of plans or processes.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::digest::{describe, hash_file, tree_digest, walk};
use super::object::{hash_tree, make_writable};
use super::{Entry, EntryOutput, Provenance, Store, StoreError};
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

/// Lock and scratch directory of one identity. Dropping it frees the lock and keeps the scratch.
#[derive(Debug)]
pub struct Slot {
    pub(super) identity: Identity,
    pub(super) fingerprint: Fingerprint,
    pub(super) dir: PathBuf,
    pub(super) lock: File,
}

/// A slot whose outputs are complete and hashed, ready to be published.
#[derive(Debug)]
pub struct Sealed {
    pub(super) slot: Slot,
    pub(super) files: BTreeMap<String, PathBuf>,
    pub(super) outputs: BTreeMap<String, EntryOutput>,
    pub(super) made: Provenance,
}

impl Store {
    /// Takes the lock of `identity`, then looks again.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn lookup(&self, identity: Identity, ignore_hit: bool) -> Result<Lookup, StoreError> {
        let fingerprint = identity.fingerprint();
        let dir = self.scratch_path(&fingerprint);
        let Some(lock) = lock_dir(&dir)? else { return Ok(Lookup::Busy) };
        if !ignore_hit
            && let Ok(Some(entry)) = self.entry(&fingerprint)
            && self.health(&entry)?.is_none()
        {
            let _ = fs::remove_dir_all(&dir);
            return Ok(Lookup::Hit(Box::new(entry)));
        }
        Ok(Lookup::Miss(Slot { identity, fingerprint, dir, lock }))
    }

    /// Removes scratch directories that nobody holds and that `keep` does not want for the next
    /// attempt. Returns how many went.
    ///
    /// # Errors
    /// The scratch directory cannot be read.
    pub fn sweep_scratch(&self, keep: impl Fn(&Path) -> bool) -> Result<usize, StoreError> {
        let mut swept = 0;
        let top = self.root.join("scratch-v1");
        if !top.exists() {
            return Ok(0);
        }
        for item in fs::read_dir(top)? {
            let path = item?.path();
            if !path.is_dir() || keep(&path) {
                continue;
            }
            if let Ok(Some(_lock)) = lock_dir(&path) {
                make_writable(&path);
                fs::remove_dir_all(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// Locks `dir/lock`, making both. `None`: someone else holds it. The holder removes the directory
/// when it is done, so a lock counts only while its path still leads to the locked file.
fn lock_dir(dir: &Path) -> Result<Option<File>, StoreError> {
    let path = dir.join("lock");
    loop {
        fs::create_dir_all(dir)?;
        let file = match File::options().create(true).truncate(false).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(io::Error::new(e.kind(), format!("lock `{}`: {e}", path.display())).into()),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        let held = file.metadata()?;
        match std::fs::metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
                return Ok(Some(file));
            }
            _ => {}
        }
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
        self.dir.join("work")
    }

    /// Where the output `port` must be made. `extension` may be empty.
    #[must_use]
    pub fn output_path(&self, port: &str, extension: &str) -> PathBuf {
        let name =
            if extension.is_empty() { port.to_owned() } else { format!("{port}.{extension}") };
        self.dir.join("out").join(name)
    }

    /// An empty output directory and a work directory: call before each attempt.
    ///
    /// # Errors
    /// The scratch cannot be written.
    pub fn begin_attempt(&self) -> Result<(), StoreError> {
        let out = self.dir.join("out");
        if out.exists() {
            make_writable(&out);
            fs::remove_dir_all(&out)?;
        }
        fs::create_dir(&out)?;
        fs::create_dir_all(self.work_path())?;
        Ok(())
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
    ) -> Result<Sealed, (Self, StoreError)> {
        let mut outputs = BTreeMap::new();
        for (port, path) in &files {
            match hash_output(port, path) {
                Ok(output) => outputs.insert(port.clone(), output),
                Err(e) => return Err((self, e)),
            };
        }
        Ok(Sealed { slot: self, files, outputs, made })
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

    /// Where an output lies until it is published, and as long as the run lasts after that.
    #[must_use]
    pub fn path(&self, port: &str) -> Option<&Path> {
        self.files.get(port).map(PathBuf::as_path)
    }
}

fn hash_output(port: &str, path: &Path) -> Result<EntryOutput, StoreError> {
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
        let (digest, signature) = hash_file(path)?;
        return Ok(EntryOutput { digest, bytes: signature.size, tree: None });
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
    let files = hash_tree(path)?;
    let bytes = files.iter().map(|f| f.size).sum();
    Ok(EntryOutput { digest: tree_digest(&files), bytes, tree: Some(files) })
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    Ok(fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}
