//! Publishing: from scratch to visible, in the one order that a power cut cannot turn into a lie.
//! Many slots share one pair of syncs. Knows nothing of who waits for them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;

use tracing::debug;

use super::digest::Signature;
use super::entry::ENTRY_FORMAT;
use super::slot::{Scratch, remove};
use super::{Entry, EntryOutput, Health, Sealed, Slot, Store, StoreError, summed};
use crate::files;

impl Store {
    /// Publishes a group: 1. sync the outputs; 2. give them their names under `objects-v1` and
    /// write the entries beside their places; 3. sync; 4. rename the entries in. A death between
    /// any two steps leaves garbage, never an entry without its objects. The entries of the last
    /// group are made durable by [`Store::sync`].
    ///
    /// The outputs stay readable at their scratch paths until [`Store::discard`].
    pub fn publish(&self, group: Vec<Sealed>) -> Vec<Result<(Entry, Scratch), StoreError>> {
        let begun = Instant::now();
        if let Err(e) = self.sync() {
            return fail_all(group.len(), &e);
        }
        let staged: Vec<_> = group.into_iter().map(|sealed| self.stage(sealed)).collect();
        // A failed sync may have lost any of them, and a second one would not say so.
        if let Err(e) = self.sync() {
            return fail_all(staged.len(), &e);
        }
        let published: Vec<_> =
            staged.into_iter().map(|staged| staged.and_then(|s| self.rename_in(s))).collect();
        debug!(entries = published.len(), ms = begun.elapsed().as_millis(), "published");
        published
    }

    /// Makes everything published so far durable.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        let dir = fs::File::open(&self.root)?.into_parts().0;
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(dir.as_fd()).map_err(|e| {
            let e = io::Error::from(e);
            io::Error::new(e.kind(), format!("sync `{}`: {e}", self.root.display()))
        })?;
        #[cfg(not(target_os = "linux"))]
        {
            let _ = dir;
            rustix::fs::sync();
        }
        Ok(())
    }

    fn stage(&self, sealed: Sealed) -> Result<Staged, StoreError> {
        for (port, output) in &sealed.outputs {
            self.place_object(&sealed.files[port], output)?;
            // What is linked now is what was hashed then, or nobody may believe its name.
            let seen = &sealed.seen[port];
            if seen.looks_changed() && seen.has_changed() {
                self.quarantine(&output.digest, Some(output.bytes))?;
                return Err(StoreError::OutputChanged { port: port.clone() });
            }
        }
        let Sealed { slot, files, outputs, made, .. } = sealed;
        let entry = Entry {
            format: ENTRY_FORMAT,
            fingerprint: slot.fingerprint,
            outputs,
            identity: slot.identity.clone(),
            made,
        };
        let path = self.entry_path(&entry.fingerprint);
        let dir = path.parent().expect("invariant: an entry has a parent");
        super::make_shard(dir)?;
        let mut file = super::named_temp_file(dir)?;
        file.write_all(&summed::to_bytes(&entry))?;
        Ok(Staged { file, path, entry, slot, files })
    }

    /// Links a finished output to its name. An object that is there already is trusted only after
    /// reading it; a damaged one is moved aside.
    pub(super) fn place_object(&self, from: &Path, output: &EntryOutput) -> Result<(), StoreError> {
        let to = self.object_path(&output.digest);
        match self.check(output, true)? {
            Health::Good => return Ok(()),
            Health::Damaged => {
                self.quarantine(&output.digest, Some(output.bytes))?;
            }
            Health::Missing => {}
        }
        super::make_shard(to.parent().expect("invariant: an object has a parent"))?;
        let Some(files) = &output.tree else {
            link_or_copy(from, &to)?;
            self.remember(&to, output.digest)?;
            return Ok(());
        };
        // A tree is built beside its place and renamed, so that it is never seen half made.
        let partial = tempfile::TempDir::with_prefix_in("partial-", self.root.join("scratch-v1"))?;
        for file in files {
            let inner = partial.path().join(&file.path);
            fs::create_dir_all(inner.parent().expect("invariant: a file has a parent"))?;
            link_or_copy(&from.join(&file.path), &inner)?;
        }
        // Its files must be durable under their new directory before it gets its name.
        self.sync()?;
        let partial = partial.keep();
        #[expect(clippy::disallowed_methods, reason = "this room publishes")]
        match std::fs::rename(&partial, &to) {
            Ok(()) => {}
            // Someone else published the same bytes in between.
            Err(_) if to.is_dir() => fs::remove_dir_all(&partial)?,
            Err(e) => return Err(e.into()),
        }
        for file in files {
            self.remember(&to.join(&file.path), file.digest)?;
        }
        Ok(())
    }

    pub(super) fn remember(
        &self,
        path: &Path,
        digest: crate::identity::Digest,
    ) -> Result<(), StoreError> {
        let signature = Signature::of(&fs::symlink_metadata(path)?);
        self.memo().put(path, signature, digest);
        Ok(())
    }

    fn rename_in(&self, staged: Staged) -> Result<(Entry, Scratch), StoreError> {
        staged.file.persist(&staged.path).map_err(|e| e.error)?;
        // Others may look now; the scratch stays for readers that started on it.
        let scratch = Sealed::unlock(staged.slot, staged.files, &mut self.lock_pool());
        Ok((staged.entry, scratch))
    }

    /// Removes a published slot's scratch. Its objects have names of their own by now.
    pub fn discard(&self, scratch: Scratch) {
        scratch.0.iter().for_each(|path| remove(path));
    }
}

/// Entry written beside its place, waiting for the sync.
struct Staged {
    file: tempfile::NamedTempFile,
    path: PathBuf,
    entry: Entry,
    slot: Slot,
    files: BTreeMap<String, PathBuf>,
}

/// Gives a file a second name; a copy takes its place where the file system has no hard links, or
/// no more of them for this file.
///
/// # Errors
/// The disk is full or failing.
pub fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    let no_links = |e: &io::Error| {
        let errno = e.raw_os_error().map(Errno::from_raw_os_error);
        let all = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::XDEV, Errno::MLINK];
        errno.is_some_and(|errno| all.contains(&errno))
    };
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if no_links(&e) => copy(from, to),
        Err(e) => Err(io::Error::new(
            e.kind(),
            format!("link `{}` to `{}`: {e}", from.display(), to.display()),
        )),
    }
}

/// Renamed to its name when it is whole; the sync that follows makes it durable.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let dir = to.parent().unwrap_or(Path::new("."));
    let mut file = super::named_temp_file(dir)?;
    io::copy(&mut fs::File::open(from)?, &mut file).map_err(|e| files::named(to, &e))?;
    fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o444))?;
    file.persist(to).map_err(|e| files::named(to, &e.error))?;
    Ok(())
}

fn fail_all<T>(n: usize, error: &StoreError) -> Vec<Result<T, StoreError>> {
    let kind = match error {
        StoreError::Io(e) => e.kind(),
        _ => io::ErrorKind::Other,
    };
    (0..n).map(|_| Err(io::Error::new(kind, error.to_string()).into())).collect()
}
