//! Verification: reads every byte of every object and every record, goes on past errors, repairs on
//! request. Runs may go on beside it. Knows nothing of pipelines.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::object::{has_size, hash_object};
use super::{Entry, Health, Store, StoreError, summed};
use crate::files;
use crate::identity::{Digest, Fingerprint};

/// What a verification found.
#[derive(Debug, Default)]
pub struct Verification {
    pub objects: usize,
    pub entries: usize,
    /// Objects whose bytes are not what their name says, or that cannot be read.
    pub damaged: Vec<(Digest, String)>,
    /// Entries that need an object that is missing or damaged: fingerprint, kind, port.
    pub broken: Vec<(Fingerprint, String, String)>,
    /// Entries made from an object that somebody wrote to after it was made, by an earlier version,
    /// which did not look again when a stage had ended: fingerprint, kind, object. They may have
    /// been made from what it held then.
    pub suspect: Vec<(Fingerprint, String, Digest)>,
    /// Entry files that cannot be read.
    pub unreadable: Vec<(Fingerprint, String)>,
    /// Files of heads that cannot be read.
    pub heads: Vec<(PathBuf, String)>,
    /// Sound entries without a checksum: an earlier version made them.
    pub unsummed: usize,
}

impl Verification {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
            && self.broken.is_empty()
            && self.suspect.is_empty()
            && self.unreadable.is_empty()
            && self.heads.is_empty()
    }
}

impl Store {
    /// Reads everything.
    ///
    /// # Errors
    /// Only when the directories themselves cannot be listed.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        // Nothing is collected meanwhile. On a store that cannot be written nothing ever is.
        let _lease = self.root.exists().then(|| self.shared_lease().ok());
        let mut found = Verification::default();
        // Entries first: the objects of one that is published meanwhile are there by then.
        let mut entries = Vec::new();
        for fingerprint in self.fingerprints()? {
            match self.entry(&fingerprint) {
                Ok(Some(entry)) => {
                    found.entries += 1;
                    let summed = self.has_sum(&fingerprint);
                    found.unsummed += usize::from(!summed);
                    entries.push((entry, summed));
                }
                Ok(None) => {}
                Err(e) => {
                    found.entries += 1;
                    found.unreadable.push((fingerprint, e.to_string()));
                }
            }
        }
        let sizes = sizes(entries.iter().map(|(entry, _)| entry));
        let mut good = BTreeSet::new();
        let mut written = BTreeSet::new();
        for name in self.names_below("objects-v1")? {
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            match self.verify_object(&digest, sizes.get(&digest)) {
                // A run moved it aside meanwhile.
                Some(Err(_)) if !self.is_there(&digest) => {}
                Some(Ok(())) => {
                    found.objects += 1;
                    good.insert(digest);
                }
                Some(Err(why)) => {
                    found.objects += 1;
                    if self.was_written_to(&digest) {
                        written.insert(digest);
                    }
                    found.damaged.push((digest, why));
                }
                None => {}
            }
        }
        for (entry, summed) in &entries {
            self.judge(entry, &mut good, &mut found);
            let inputs: BTreeSet<Digest> = match summed {
                true => BTreeSet::new(),
                false => entry.identity.input_digests().collect(),
            };
            for digest in inputs.intersection(&written) {
                found.suspect.push((entry.fingerprint, entry.identity.kind.clone(), *digest));
            }
        }
        found.heads = self.damaged_heads()?;
        found.damaged.sort();
        Ok(found)
    }

    /// Looks whether what an entry made is sound.
    fn judge(&self, entry: &Entry, good: &mut BTreeSet<Digest>, found: &mut Verification) {
        for (port, output) in &entry.outputs {
            // It may have been published since the objects were listed.
            let sound = good.contains(&output.digest)
                || matches!(self.check(output, true), Ok(Health::Good));
            if sound {
                good.insert(output.digest);
            } else if matches!(self.entry(&entry.fingerprint), Ok(Some(now)) if now == *entry) {
                let kind = entry.identity.kind.clone();
                found.broken.push((entry.fingerprint, kind, port.clone()));
            }
        }
    }

    /// `None`: there is none. One that has not the size that an entry gives is not read.
    fn verify_object(&self, digest: &Digest, bytes: Option<&u64>) -> Option<Result<(), String>> {
        let path = self.object_path(digest);
        let meta = match std::fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => return Some(Err(e.to_string())),
        };
        if let Some(bytes) = bytes.filter(|bytes| !has_size(&path, &meta, **bytes)) {
            return Some(Err(format!("it does not have the {bytes} bytes that it was made with")));
        }
        if !meta.is_dir() && !meta.is_file() {
            return Some(Err(files::describe(&meta).to_owned()));
        }
        let actual = hash_object(&path, meta.is_dir());
        Some(match actual {
            Ok(actual) if actual == *digest => Ok(()),
            Ok(actual) => Err(format!("its bytes hash to {}", actual.short())),
            Err(e) => Err(e.to_string()),
        })
    }

    fn is_there(&self, digest: &Digest) -> bool {
        std::fs::symlink_metadata(self.object_path(digest)).is_ok()
    }

    fn has_sum(&self, fingerprint: &Fingerprint) -> bool {
        let bytes = files::read_own(&self.entry_path(fingerprint), u64::MAX);
        bytes.is_ok_and(|bytes| summed::has_sum(&bytes))
    }

    /// Marks what is broken for recomputation: damaged objects and records are moved aside, entries
    /// that need them or may have been made from them are removed. What is sound by now is left
    /// alone: a run may have made it again.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn repair(&self, found: &Verification) -> Result<(), StoreError> {
        let entries = self.fingerprints()?.into_iter().filter_map(|f| self.entry(&f).ok()?);
        let sizes = sizes(&entries.collect::<Vec<_>>());
        let mut doubted: BTreeMap<Fingerprint, bool> = BTreeMap::new();
        for (fingerprint, ..) in &found.broken {
            doubted.entry(*fingerprint).or_insert(false);
        }
        for (fingerprint, ..) in &found.suspect {
            doubted.insert(*fingerprint, true);
        }
        for (fingerprint, suspect) in doubted {
            let sound = || match self.entry(&fingerprint) {
                Ok(Some(entry)) => {
                    entry.outputs.values().all(|o| matches!(self.check(o, true), Ok(Health::Good)))
                }
                Ok(None) => true,
                Err(_) => false,
            };
            if suspect || !sound() {
                self.remove_entry(&fingerprint)?;
            }
        }
        for (fingerprint, _) in &found.unreadable {
            if self.entry(fingerprint).is_err() {
                self.remove_entry(fingerprint)?;
            }
        }
        for (digest, _) in &found.damaged {
            if self.is_there(digest) {
                self.quarantine(digest, sizes.get(digest).copied())?;
            }
        }
        let still: BTreeSet<PathBuf> = self.damaged_heads()?.into_iter().map(|(p, _)| p).collect();
        for (path, _) in &found.heads {
            if still.contains(path) {
                self.move_aside(path)?;
            }
        }
        Ok(())
    }
}

/// Bytes that each object was made with.
fn sizes<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<Digest, u64> {
    let outputs = entries.into_iter().flat_map(|entry| entry.outputs.values());
    outputs.map(|output| (output.digest, output.bytes)).collect()
}
