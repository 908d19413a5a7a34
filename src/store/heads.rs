//! Heads: which entry each stage of a pipeline used last, and how its last attempt failed.
//! Screens, the garbage collector and the look ahead read them.
//! Knows nothing of the pipeline beyond its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, summed, write_atomic};
use crate::identity::{Digest, Fingerprint};

/// Room for a million stages.
const LARGEST: u64 = 256 << 20;

/// Last used entries of one pipeline: stage → fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    fn heads_path(&self, pipeline: &str) -> PathBuf {
        let key = Digest::of(pipeline.as_bytes()).short();
        self.root.join("heads-v1").join(format!("{key}.json"))
    }

    /// Heads of the pipeline file `pipeline`; empty when it never ran here.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn heads(&self, pipeline: &str) -> Result<Heads, StoreError> {
        let heads = read(&self.heads_path(pipeline))?;
        Ok(heads.unwrap_or_else(|| Heads { pipeline: pipeline.to_owned(), ..Heads::default() }))
    }

    /// Writes heads, when they differ from what is on disk.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn save_heads(&self, heads: &Heads) -> Result<(), StoreError> {
        if self.heads(&heads.pipeline).is_ok_and(|there| there == *heads) {
            return Ok(());
        }
        Ok(write_atomic(&self.heads_path(&heads.pipeline), &summed::to_bytes(heads))?)
    }

    /// Heads of every pipeline that ever ran here.
    ///
    /// # Errors
    /// One of them cannot be read: the collector must not guess.
    pub fn all_heads(&self) -> Result<Vec<Heads>, StoreError> {
        let all = self.heads_files()?.into_iter().map(|path| read(&path));
        Ok(all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Files of heads that cannot be read, and why.
    ///
    /// # Errors
    /// Their folder cannot be listed.
    pub(super) fn damaged_heads(&self) -> Result<Vec<(PathBuf, String)>, StoreError> {
        let mut damaged = Vec::new();
        for path in self.heads_files()? {
            if let Err(error) = read(&path) {
                damaged.push((path, error.to_string()));
            }
        }
        Ok(damaged)
    }

    fn heads_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.root.join("heads-v1");
        let mut all = Vec::new();
        if !dir.exists() {
            return Ok(all);
        }
        for item in fs::read_dir(dir)? {
            let path = item?.path();
            if path.extension().is_some_and(|e| e == "json") {
                all.push(path);
            }
        }
        all.sort();
        Ok(all)
    }
}

/// `None`: there is no such file.
fn read(path: &Path) -> Result<Option<Heads>, StoreError> {
    summed::read(path, LARGEST)
        .map_err(|e| StoreError::BadHeads { path: path.to_owned(), reason: e.to_string() })
}
