//! Files of others, as sources: folders under the hash of what they hold, made whole and then
//! named. What is there can be fetched again, so nothing is lost with it. Does not know where it
//! came from.

use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::digest::{TreeFile, tree_digest, walk};
use super::part::Part;
use super::{Store, StoreError};
use crate::identity::Digest;

/// Below the store's root.
pub(super) const FOLDER: &str = "fetched-v1";

impl Store {
    /// Where a folder that holds exactly these files is, or would be.
    #[must_use]
    pub fn fetched_path(&self, files: &[TreeFile]) -> PathBuf {
        self.root().join(FOLDER).join(tree_digest(files).hex())
    }

    /// A file of that content that was fetched before.
    #[must_use]
    pub fn fetched_file(&self, digest: &Digest, size: u64) -> Option<PathBuf> {
        let folder = self.root().join(FOLDER);
        let files = walk(&folder).ok()?.into_iter().filter(|(_, meta)| meta.len() == size);
        let mut paths = files.map(|(name, _)| folder.join(name));
        paths.find(|path| self.digest_file(path).is_ok_and(|(found, _)| found == *digest))
    }

    /// Keeps bytes that came ahead of the rest where a fetch of that file finds them.
    ///
    /// # Errors
    /// The scratch cannot be written.
    pub fn keep_part(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let Some(_lock) = self.arrival_lock(&digest.hex())? else { return Ok(()) };
        let mut part = Part::open(self.part_path(digest), bytes.len() as u64)?;
        part.restart()?;
        part.append(bytes)?;
        Ok(())
    }

    /// Names a folder of files that came; a damaged one in its place is moved aside. The files are
    /// on the disk before they have the name.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn keep_fetched(&self, from: &Path, files: &[TreeFile]) -> Result<PathBuf, StoreError> {
        let to = self.fetched_path(files);
        fs::create_dir_all(self.root().join(FOLDER))?;
        self.sync()?;
        if to.exists() {
            self.move_aside(&to)?;
        }
        #[expect(clippy::disallowed_methods, reason = "this room owns the store")]
        fs::rename(from, &to)?;
        for file in files {
            self.remember(&to.join(&file.path), file.digest)?;
        }
        Ok(to)
    }

    /// Marks a folder as used, so that a collection leaves it alone for a while.
    pub fn touch_fetched(&self, folder: &Path) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = utimensat(CWD, folder, &times, AtFlags::empty());
    }
}
