//! Heads: which entry each stage of a pipeline used last, and how its last attempt failed.
//! Screens, the garbage collector and the look ahead read them.
//! Knows nothing of the pipeline beyond its key.

use std::collections::BTreeMap;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, write_atomic};
use crate::identity::{Digest, Fingerprint};

/// Last used entries of one pipeline: stage → fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// The pipeline file as given, for people and the garbage collector.
    pub pipeline: String,
    pub stages: BTreeMap<String, Fingerprint>,
    /// Stages whose last attempt failed; a stage leaves when it succeeds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, FailedAttempt>,
}

/// How an attempt failed, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// What was to be made.
    pub fingerprint: Fingerprint,
    /// The run that tried it; its log lies there.
    pub run: String,
    /// RFC 3339.
    pub at: String,
    /// What went wrong, in one line.
    pub error: String,
}

impl Store {
    fn heads_path(&self, pipeline: &str) -> std::path::PathBuf {
        let key = Digest::of(pipeline.as_bytes()).short();
        self.root.join("heads-v1").join(format!("{key}.json"))
    }

    /// Heads of the pipeline file `pipeline`; empty when unknown or unreadable.
    #[must_use]
    pub fn heads(&self, pipeline: &str) -> Heads {
        std::fs::read(self.heads_path(pipeline))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_else(|| Heads { pipeline: pipeline.to_owned(), ..Heads::default() })
    }

    /// Writes heads, when they differ from what is on disk.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn save_heads(&self, heads: &Heads) -> Result<(), StoreError> {
        if self.heads(&heads.pipeline) == *heads {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(heads).expect("invariant: heads are JSON");
        Ok(write_atomic(&self.heads_path(&heads.pipeline), &bytes)?)
    }

    /// Heads of every pipeline that ever ran here.
    ///
    /// # Errors
    /// One of them cannot be read: the collector must not guess.
    pub fn all_heads(&self) -> Result<Vec<Heads>, StoreError> {
        let dir = self.root.join("heads-v1");
        let mut all = Vec::new();
        if !dir.exists() {
            return Ok(all);
        }
        for item in fs::read_dir(dir)? {
            let path = item?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let heads = serde_json::from_slice(&fs::read(&path)?)
                    .map_err(|e| StoreError::BadEntry { path, reason: e.to_string() })?;
                all.push(heads);
            }
        }
        Ok(all)
    }
}
