//! Entries: which identity was run, what it made, and how. Written once, last of all.
//! Knows nothing of locks or plans.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::{Signature, TreeFile, now};
use super::{Store, StoreError, summed};
use crate::files;
use crate::identity::{Digest, Fingerprint, Identity};

/// Format of the file; a newer one is refused.
pub const ENTRY_FORMAT: u32 = 1;

/// Ten times an entry of a tree with a hundred thousand files.
const LARGEST: u64 = 256 << 20;

/// Record that an identity was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub format: u32,
    pub fingerprint: Fingerprint,
    pub outputs: BTreeMap<String, EntryOutput>,
    pub identity: Identity,
    pub made: Provenance,
}

/// What an entry says but for its identity: whoever knows the fingerprint has worked that out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedEntry {
    pub fingerprint: Fingerprint,
    pub outputs: BTreeMap<String, EntryOutput>,
    pub made: Provenance,
    /// How its file looked when it was read. `None`: it was not read from a file, or that was so
    /// young that a change might not show.
    pub file: Option<Signature>,
}

impl From<Entry> for CachedEntry {
    fn from(entry: Entry) -> Self {
        let Entry { fingerprint, outputs, made, .. } = entry;
        Self { fingerprint, outputs, made, file: None }
    }
}

/// One artifact that an entry made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryOutput {
    pub digest: Digest,
    /// Bytes, all files together.
    pub bytes: u64,
    /// The files of a directory; `None` for a single file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Vec<TreeFile>>,
}

/// How an entry came to be. None of it is hashed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    pub run: String,
    /// RFC 3339.
    pub at: String,
    pub seconds: f64,
    pub worker: String,
    pub backend: String,
    pub device: String,
    pub threads: u32,
    /// Why it had to run, as the plan said it.
    pub reason: Value,
    /// Figures worth keeping beside the entry.
    pub summary: BTreeMap<String, Option<f64>>,
    /// What a person should know of it, for example that labels are simulated.
    pub notes: Vec<String>,
    /// Of preflow itself.
    pub version: String,
    /// What git said of the workspace when the run began: 40 digits, and `+` where files differed.
    pub commit: String,
    /// Model name of the processor.
    pub cpu: String,
    /// Gates upstream that were not met when it ran, and that the user accepted.
    pub accepted: Vec<String>,
    /// Where the sources were that it read, by port, or by their name on a port that takes many.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

impl Store {
    /// The entry of that fingerprint, if there is one. Says nothing about its objects.
    ///
    /// # Errors
    /// The file is unreadable or not an entry.
    pub fn entry(&self, fingerprint: &Fingerprint) -> Result<Option<Entry>, StoreError> {
        Ok(self.signed_entry(fingerprint)?.map(|(entry, _)| entry))
    }

    /// The same without the identity, and how its file looked.
    ///
    /// # Errors
    /// As [`Store::entry`].
    pub fn cached_entry(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Option<CachedEntry>, StoreError> {
        if let Some(known) = self.recent.get().and_then(|recent| recent.get(fingerprint))
            && self.is_as_read(known)
        {
            return Ok(Some(known.clone()));
        }
        let begun = now();
        let read = self.signed_entry(fingerprint)?;
        Ok(read.map(|(entry, signature)| {
            let file = (!signature.is_racy(begun)).then_some(signature);
            CachedEntry { file, ..entry.into() }
        }))
    }

    /// Whether the file of an entry looks as it did when it was read.
    pub(super) fn is_as_read(&self, entry: &CachedEntry) -> bool {
        let meta = std::fs::symlink_metadata(self.entry_path(&entry.fingerprint));
        entry.file.is_some() && entry.file == meta.ok().map(|meta| Signature::of(&meta))
    }

    /// The same, with the signature that its file had before it was read.
    fn signed_entry(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Option<(Entry, Signature)>, StoreError> {
        let path = self.entry_path(fingerprint);
        // Read without asking for the size first: there are thousands of them, all small.
        let mut bytes = Vec::with_capacity(4096);
        let read = files::open_own(&path).and_then(|file| {
            let signature = Signature::of(&file.metadata()?);
            if signature.size > LARGEST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            file.take(LARGEST).read_to_end(&mut bytes)?;
            Ok(signature)
        });
        let signature = match read {
            Ok(signature) => signature,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::BadEntry { path, reason: e.to_string() }),
        };
        let entry: Entry = summed::from_bytes(bytes)
            .map_err(|reason| StoreError::BadEntry { path: path.clone(), reason })?;
        if entry.format > ENTRY_FORMAT {
            let reason = format!("format {} is newer than {ENTRY_FORMAT}", entry.format);
            return Err(StoreError::Format { path, reason });
        }
        if entry.fingerprint != *fingerprint || entry.identity.fingerprint() != *fingerprint {
            let reason = "its identity does not have this fingerprint".to_owned();
            return Err(StoreError::BadEntry { path, reason });
        }
        Ok(Some((entry, signature)))
    }

    /// Takes an entry away: its stage is a miss from now on.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_entry(&self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        match fs::remove_file(self.entry_path(fingerprint)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Fingerprints of every entry on disk, sorted.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn fingerprints(&self) -> Result<Vec<Fingerprint>, StoreError> {
        let mut found = Vec::new();
        for name in self.names_below("entries-v1")? {
            if let Some(fp) = name.strip_suffix(".json").and_then(|hex| hex.parse().ok()) {
                found.push(fp);
            }
        }
        found.sort();
        Ok(found)
    }

    /// File names in the two-level directory `place`.
    pub(super) fn names_below(&self, place: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let top = self.root.join(place);
        if !top.exists() {
            return Ok(names);
        }
        for shard in fs::read_dir(top)? {
            let shard = shard?;
            if shard.file_type()?.is_dir() {
                for item in fs::read_dir(shard.path())? {
                    names.push(item?.file_name().to_string_lossy().into_owned());
                }
            }
        }
        Ok(names)
    }
}
