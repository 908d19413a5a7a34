//! Verification: reads every byte of every object, goes on past errors, repairs on request.
//! Knows nothing of pipelines.

use std::collections::BTreeMap;

use fs_err as fs;

use super::digest::{hash_file, tree_digest};
use super::object::hash_tree;
use super::{Store, StoreError};
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
    /// Entry files that cannot be read.
    pub unreadable: Vec<(Fingerprint, String)>,
}

impl Verification {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.broken.is_empty() && self.unreadable.is_empty()
    }
}

impl Store {
    /// Reads everything.
    ///
    /// # Errors
    /// Only when the directories themselves cannot be listed.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        let mut found = Verification::default();
        let mut good: BTreeMap<Digest, bool> = BTreeMap::new();
        for name in self.names_below("objects-v1")? {
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            found.objects += 1;
            let verdict = self.verify_object(&digest);
            good.insert(digest, verdict.is_ok());
            if let Err(why) = verdict {
                found.damaged.push((digest, why));
            }
        }
        for fingerprint in self.fingerprints()? {
            found.entries += 1;
            match self.entry(&fingerprint) {
                Ok(Some(entry)) => {
                    for (port, output) in &entry.outputs {
                        if good.get(&output.digest) != Some(&true) {
                            let kind = entry.identity.kind.clone();
                            found.broken.push((fingerprint, kind, port.clone()));
                        }
                    }
                }
                Ok(None) => {}
                Err(e) => found.unreadable.push((fingerprint, e.to_string())),
            }
        }
        found.damaged.sort();
        Ok(found)
    }

    fn verify_object(&self, digest: &Digest) -> Result<(), String> {
        let path = self.object_path(digest);
        let meta = fs::symlink_metadata(&path).map_err(|e| e.to_string())?;
        let actual = if meta.is_dir() {
            hash_tree(&path).map(|files| tree_digest(&files))
        } else {
            hash_file(&path).map(|(digest, _)| digest)
        };
        match actual {
            Ok(actual) if actual == *digest => Ok(()),
            Ok(actual) => Err(format!("its bytes hash to {}", actual.short())),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Marks what is broken for recomputation: damaged objects are moved aside, entries that need
    /// them are removed.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn repair(&self, found: &Verification) -> Result<(), StoreError> {
        for (fingerprint, ..) in &found.broken {
            self.remove_entry(fingerprint)?;
        }
        for (fingerprint, _) in &found.unreadable {
            self.remove_entry(fingerprint)?;
        }
        for (digest, _) in &found.damaged {
            self.quarantine(digest)?;
        }
        Ok(())
    }
}
