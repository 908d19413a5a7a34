//! Objects: are they there, are they what their names say. Damage is moved aside, never served.
//! Knows nothing of who needs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::digest::{Signature, TreeFile, hash_file, tree_digest, walk};
use super::{Entry, EntryOutput, Store, StoreError};
use crate::identity::Digest;

/// State of an object on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Good,
    Missing,
    Damaged,
}

impl Store {
    /// Checks every output of an entry the cheap way: one `lstat` a file; content is read again
    /// only where the file system says that something changed.
    ///
    /// # Errors
    /// The disk fails.
    pub fn health(&self, entry: &Entry) -> Result<Option<(String, Health)>, StoreError> {
        self.health_of(&entry.outputs)
    }

    /// The same of the outputs alone.
    ///
    /// # Errors
    /// The disk fails.
    pub fn health_of(
        &self,
        outputs: &BTreeMap<String, EntryOutput>,
    ) -> Result<Option<(String, Health)>, StoreError> {
        for (port, output) in outputs {
            match self.check(output, false)? {
                Health::Good => {}
                bad => return Ok(Some((port.clone(), bad))),
            }
        }
        Ok(None)
    }

    /// Checks one output; `thorough` reads every byte.
    ///
    /// # Errors
    /// The disk fails.
    pub fn check(&self, output: &EntryOutput, thorough: bool) -> Result<Health, StoreError> {
        let path = self.object_path(&output.digest);
        let Ok(meta) = std::fs::symlink_metadata(&path) else { return Ok(Health::Missing) };
        let Some(files) = &output.tree else {
            if !meta.is_file() {
                return Ok(Health::Damaged);
            }
            let signature = Signature::of(&meta);
            return self.check_file(&path, signature, &output.digest, output.bytes, thorough);
        };
        if !meta.is_dir() {
            return Ok(Health::Damaged);
        }
        if thorough && !has_size(&path, &meta, output.bytes) {
            return Ok(Health::Damaged);
        }
        if thorough {
            return Ok(match hash_object(&path, true)? {
                found if found == output.digest => Health::Good,
                _ => Health::Damaged,
            });
        }
        for file in files {
            let inner = path.join(&file.path);
            let Ok(meta) = std::fs::symlink_metadata(&inner) else { return Ok(Health::Damaged) };
            let signature = Signature::of(&meta);
            match self.check_file(&inner, signature, &file.digest, file.size, false)? {
                Health::Good => {}
                bad => return Ok(bad),
            }
        }
        Ok(Health::Good)
    }

    fn check_file(
        &self,
        path: &Path,
        signature: Signature,
        digest: &Digest,
        size: u64,
        thorough: bool,
    ) -> Result<Health, StoreError> {
        if signature.size != size {
            return Ok(Health::Damaged);
        }
        if !thorough && self.memo().get(path, &signature) == Some(*digest) {
            return Ok(Health::Good);
        }
        match hash_file(path) {
            Ok((found, signature)) if found == *digest => {
                self.memo().put(path, signature, found);
                Ok(Health::Good)
            }
            Ok(_) | Err(StoreError::NotAFile { .. } | StoreError::ChangedWhileRead { .. }) => {
                Ok(Health::Damaged)
            }
            Err(e) => Err(e),
        }
    }

    /// Moves a damaged object aside, kept for diagnosis; whoever needs it is a miss from now on.
    /// One that is sound stays: somebody else has made it again.
    ///
    /// `bytes`: its size, where that is known; one of another size need not be read.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn quarantine(&self, digest: &Digest, bytes: Option<u64>) -> Result<(), StoreError> {
        let from = self.object_path(digest);
        if is_object(&from, digest, bytes) {
            return Ok(());
        }
        let Some(to) = self.move_aside(&from)? else { return Ok(()) };
        // Between looking and moving it may have been made again.
        if is_object(&to, digest, bytes) {
            let here = rustix::fs::CWD;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            let _ = rustix::fs::renameat_with(here, &to, here, &from, flags);
        }
        Ok(())
    }

    /// Moves something damaged out of the way. `None`: it is gone already.
    pub(super) fn move_aside(&self, from: &Path) -> Result<Option<PathBuf>, StoreError> {
        let dir = self.root.join("quarantine");
        fs::create_dir_all(&dir)?;
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let to = (0..)
            .map(|n| dir.join(format!("{name}.{n}")))
            .find(|p| std::fs::symlink_metadata(p).is_err())
            .expect("invariant: there is a free number");
        // A directory that is being moved must be writable by its owner.
        make_writable(from);
        #[expect(clippy::disallowed_methods, reason = "this room owns the objects")]
        match fs::rename(from, &to) {
            Ok(()) => Ok(Some(to)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether somebody wrote to an object after it was last seen sound. False: its bytes changed
    /// without a write, as on a failing disk.
    pub(super) fn was_written_to(&self, digest: &Digest) -> bool {
        let path = self.object_path(digest);
        let Ok(meta) = std::fs::symlink_metadata(&path) else { return true };
        let memo = self.memo();
        let unwritten = |path: &Path, meta| memo.is_unwritten(path, &Signature::of(meta));
        if !meta.is_dir() {
            return !unwritten(&path, &meta);
        }
        let Ok(files) = walk(&path) else { return true };
        files.iter().any(|(name, meta)| !unwritten(&path.join(name), meta))
    }
}

/// Whether a file, or all files of a folder together, have that many bytes.
pub(super) fn has_size(path: &Path, meta: &std::fs::Metadata, bytes: u64) -> bool {
    if !meta.is_dir() {
        return meta.len() == bytes;
    }
    let Ok(files) = walk(path) else { return false };
    files.iter().map(|(_, meta)| meta.len()).fold(0_u64, u64::saturating_add) == bytes
}

/// Whether these bytes are the object of that digest.
fn is_object(path: &Path, digest: &Digest, bytes: Option<u64>) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return false };
    let may_be = bytes.is_none_or(|bytes| has_size(path, &meta, bytes));
    may_be && hash_object(path, meta.is_dir()).is_ok_and(|found| found == *digest)
}

/// Digest of what lies there: a folder is a tree, whatever else must be a regular file.
///
/// # Errors
/// See [`walk`] and [`hash_file`].
pub(super) fn hash_object(path: &Path, is_tree: bool) -> Result<Digest, StoreError> {
    match is_tree {
        true => hash_tree(path).map(|files| tree_digest(&files)),
        false => hash_file(path).map(|(digest, _)| digest),
    }
}

/// Digests of every file below `root`.
///
/// # Errors
/// See [`walk`] and [`hash_file`].
pub fn hash_tree(root: &Path) -> Result<Vec<TreeFile>, StoreError> {
    walk(root)?
        .into_iter()
        .map(|(path, _)| {
            let (digest, signature) = hash_file(&root.join(&path))?;
            Ok(TreeFile { path, digest, size: signature.size })
        })
        .collect()
}

/// Gives the owner write permission on a directory and those in it, so that they can be removed.
pub(super) fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
        for item in std::fs::read_dir(path).into_iter().flatten().flatten() {
            make_writable(&item.path());
        }
    }
}
