//! Arrivals: files that come from elsewhere, kept in parts until they are whole, and the entry that
//! names them. Knows nothing of where they come from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::publish::link_or_copy;
use super::slot::{beside, lock_file, remove, set_mode};
use super::{Entry, EntryOutput, Health, Store, StoreError, summed};
use crate::identity::{Digest, Fingerprint};

/// The right to bring one thing; freed by death. Dropping it frees it.
#[derive(Debug)]
pub struct ArrivalLock {
    path: PathBuf,
    _file: File,
}

impl Drop for ArrivalLock {
    fn drop(&mut self) {
        // The holder removes the file, so that locks do not pile up.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// An entry from elsewhere, with files that were hashed as they came.
#[derive(Debug)]
pub struct Arrival {
    pub entry: Entry,
    /// Objects that its identity read and that no entry made, with their sizes.
    pub inputs: Vec<(Digest, u64)>,
    /// Where each file lies that this store does not hold yet.
    pub files: BTreeMap<Digest, PathBuf>,
}

impl Store {
    /// Takes the right to bring `what`, a digest or a fingerprint in hexadecimal. `None`: another
    /// process, or another part of this one, is at it.
    ///
    /// # Errors
    /// The scratch cannot be written.
    pub fn arrival_lock(&self, what: &str) -> Result<Option<ArrivalLock>, StoreError> {
        let path = beside(&self.arrival_base(what), "lock");
        Ok(lock_file(&path)?.map(|file| ArrivalLock { path, _file: file }))
    }

    /// Where the bytes of a file that is on its way are kept, over interruptions too.
    #[must_use]
    pub fn part_path(&self, digest: &Digest) -> PathBuf {
        beside(&self.arrival_base(&digest.hex()), "part")
    }

    /// A folder for the files of one arrival.
    ///
    /// # Errors
    /// The scratch cannot be written.
    pub fn arrival_folder(&self) -> Result<tempfile::TempDir, StoreError> {
        Ok(tempfile::TempDir::with_prefix_in("arrived-", self.root.join("scratch-v1"))?)
    }

    /// Removes the parts of a file that has arrived, unless somebody works on it.
    pub fn forget_part(&self, digest: &Digest) {
        if let Ok(Some(_lock)) = self.arrival_lock(&digest.hex()) {
            remove(&self.part_path(digest));
        }
    }

    /// Makes an arrival visible in the order of publishing: files, sync, names, entry, sync, and
    /// the entry's name last. An entry that is there already and sound wins. Durable after the
    /// next [`Store::sync`].
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn arrive(&self, arrival: &Arrival, folder: &Path) -> Result<Entry, StoreError> {
        let entry = &arrival.entry;
        if let Ok(Some(there)) = self.entry(&entry.fingerprint)
            && self.health(&there)?.is_none()
        {
            return Ok(there);
        }
        self.sync()?;
        for (digest, bytes) in &arrival.inputs {
            let output = EntryOutput { digest: *digest, bytes: *bytes, tree: None };
            self.place(&output, arrival, folder)?;
        }
        for output in entry.outputs.values() {
            self.place(output, arrival, folder)?;
        }
        let path = self.entry_path(&entry.fingerprint);
        let dir = path.parent().expect("invariant: an entry has a parent");
        super::make_shard(dir)?;
        let mut file = super::named_temp_file(dir)?;
        file.write_all(&summed::to_bytes(entry))?;
        self.sync()?;
        file.persist(&path).map_err(|e| e.error)?;
        Ok(entry.clone())
    }

    /// Remembers the files of an entry that has arrived as they are now: taking away their names
    /// in the scratch touched them, and nobody should read them again for that.
    ///
    /// # Errors
    /// A file is gone already.
    pub fn settle_arrival(&self, entry: &Entry) -> Result<(), StoreError> {
        for output in entry.outputs.values() {
            let path = self.object_path(&output.digest);
            match &output.tree {
                None => self.remember(&path, output.digest)?,
                Some(files) => {
                    for file in files {
                        self.remember(&path.join(&file.path), file.digest)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn place(
        &self,
        output: &EntryOutput,
        arrival: &Arrival,
        folder: &Path,
    ) -> Result<(), StoreError> {
        if self.check(output, false)? == Health::Good {
            return Ok(());
        }
        // What the store holds already is linked from there.
        let from = |digest: &Digest| {
            arrival.files.get(digest).cloned().unwrap_or_else(|| self.object_path(digest))
        };
        let Some(files) = &output.tree else {
            if output.bytes == 0 {
                return self.keep_content(&[]);
            }
            return self.place_object(&from(&output.digest), output);
        };
        let tree = folder.join(format!("{}.tree", output.digest.hex()));
        fs::create_dir_all(&tree)?;
        for file in files {
            let inner = tree.join(&file.path);
            fs::create_dir_all(inner.parent().expect("invariant: a file has a parent"))?;
            if file.size == 0 {
                fs::File::create(&inner)?;
                set_mode(&inner, 0o444)?;
            } else if !inner.exists() {
                link_or_copy(&from(&file.digest), &inner)?;
            }
        }
        self.place_object(&tree, output)
    }

    fn arrival_base(&self, what: &str) -> PathBuf {
        self.root.join("scratch-v1").join(format!("fetch-{what}"))
    }
}

/// Entries that wait until a remote can take them, as empty files in `uploads-v1`.
impl Store {
    fn upload_path(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.root.join("uploads-v1").join(fingerprint.hex())
    }

    /// Notes that an entry is to be sent. The next sync makes the note durable.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn queue_upload(&self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        let path = self.upload_path(fingerprint);
        fs::create_dir_all(path.parent().expect("invariant: a note has a parent"))?;
        fs::File::create(path)?;
        Ok(())
    }

    /// Takes the note away: the entry is up, or is no more.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn unqueue_upload(&self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        match fs::remove_file(self.upload_path(fingerprint)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Entries that wait to be sent, sorted.
    ///
    /// # Errors
    /// The notes cannot be listed.
    pub fn queued_uploads(&self) -> Result<Vec<Fingerprint>, StoreError> {
        let mut found: Vec<Fingerprint> = Vec::new();
        let items = match std::fs::read_dir(self.root.join("uploads-v1")) {
            Ok(items) => items,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(e.into()),
        };
        for item in items {
            found.extend(
                item?.file_name().to_str().and_then(|name| name.parse::<Fingerprint>().ok()),
            );
        }
        found.sort();
        Ok(found)
    }
}
