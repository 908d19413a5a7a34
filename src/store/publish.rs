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

use super::digest::{Signature, TreeFile};
use super::entry::ENTRY_FORMAT;
use super::slot::{Scratch, remove};
use super::{Entry, EntryOutput, Health, Sealed, Slot, Store, StoreError, summed};
use crate::files;
use crate::identity::{Identity, InputIdentity};

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
        let inputs = self.folders_read(&sealed.slot.identity);
        for (port, output) in &sealed.outputs {
            self.place_beside(&sealed.files[port], output, &inputs)?;
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
        self.place_beside(from, output, &[])
    }

    /// As [`Store::place_object`]. A file that lies in one of `inputs`, too, at the same place with
    /// the same content, is linked from there: what a stage hands on takes no room twice.
    fn place_beside(
        &self,
        from: &Path,
        output: &EntryOutput,
        inputs: &[PathBuf],
    ) -> Result<(), StoreError> {
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
            match inputs.iter().find_map(|input| self.held(input, file)) {
                Some(held) => {
                    link_or_copy(&held, &inner)?;
                    // Its new name touched it, and nobody should read it again for that.
                    self.remember(&held, file.digest)?;
                }
                None => link_or_copy(&from.join(&file.path), &inner)?,
            }
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

    /// Folders that a stage of this identity read, where the store holds them.
    fn folders_read(&self, identity: &Identity) -> Vec<PathBuf> {
        let digests = identity.inputs.values().flat_map(|input| match input {
            InputIdentity::One(digest) => vec![*digest],
            InputIdentity::Many(all) => all.iter().map(|(_, digest)| *digest).collect(),
        });
        digests.map(|digest| self.object_path(&digest)).filter(|path| path.is_dir()).collect()
    }

    /// The file of an object that is known to be this one.
    fn held(&self, object: &Path, file: &TreeFile) -> Option<PathBuf> {
        let path = object.join(&file.path);
        let meta = fs::symlink_metadata(&path).ok().filter(|meta| meta.is_file())?;
        let known = self.memo().get_unwritten(&path, &Signature::of(&meta))?;
        (known == file.digest && file.size > 0).then_some(path)
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make files as workers do")]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::store::{Lookup, Provenance};

    /// Publishes a folder of these files, made by a stage that read `inputs`.
    fn publish(
        store: &Store,
        inputs: &[(&str, InputIdentity)],
        files: &[(&str, &str)],
    ) -> EntryOutput {
        let identity = Identity {
            kind: "command".into(),
            version: 1,
            params: serde_json::Map::new(),
            inputs: inputs.iter().map(|(port, i)| ((*port).to_owned(), i.clone())).collect(),
            endings: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        let Lookup::Miss(slot) = store.lookup(identity, false).unwrap() else { panic!("a miss") };
        let path = slot.output_path("o", "");
        for (name, text) in files {
            let inner = path.join(name);
            std::fs::create_dir_all(inner.parent().unwrap()).unwrap();
            std::fs::write(inner, text).unwrap();
        }
        let sealed = slot.seal(BTreeMap::from([("o".into(), path)]), Provenance::default());
        let (entry, scratch) = store.publish(vec![sealed.unwrap()]).remove(0).unwrap();
        store.discard(scratch);
        assert_eq!(store.health(&entry).unwrap(), None);
        entry.outputs["o"].clone()
    }

    #[test]
    fn what_a_stage_hands_on_takes_no_room_twice() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        store.prepare_for_writing().unwrap();
        let weights = ("sub/weights", "the same bytes");
        let base = publish(&store, &[], &[weights, ("shape", "one"), ("only", "here")]);
        let one = ("base", InputIdentity::One(base.digest));
        let files = [weights, ("shape", "two"), ("added", "new"), ("other", "here")];
        let next = publish(&store, std::slice::from_ref(&one), &files);
        let many = InputIdentity::Many(vec![("a".into(), base.digest), ("b".into(), next.digest)]);
        let last = publish(&store, &[("all", many)], &[("sub/weights", "the same bytes")]);
        let at = |output: &EntryOutput, name: &str| store.object_path(&output.digest).join(name);
        let inode =
            |output: &EntryOutput, name: &str| std::fs::metadata(at(output, name)).unwrap().ino();
        assert_eq!(inode(&base, "sub/weights"), inode(&next, "sub/weights"));
        assert_eq!(inode(&base, "sub/weights"), inode(&last, "sub/weights"));
        // Other content at the same place, and the same content elsewhere, are files of their own.
        assert_ne!(inode(&base, "shape"), inode(&next, "shape"));
        assert_eq!(std::fs::read_to_string(at(&next, "shape")).unwrap(), "two");
        assert_ne!(inode(&base, "only"), inode(&next, "other"));
        // A file that somebody wrote to is not linked from.
        let spoiled = at(&base, "sub/weights");
        std::fs::remove_file(&spoiled).unwrap();
        std::fs::write(&spoiled, "others  bytes!").unwrap();
        let files = [weights, ("shape", "three")];
        let sound = publish(&store, &[("again", one.1)], &files);
        assert_ne!(inode(&base, "sub/weights"), inode(&sound, "sub/weights"));
        assert_eq!(std::fs::read_to_string(at(&sound, "sub/weights")).unwrap(), weights.1);
    }
}
