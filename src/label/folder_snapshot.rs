//! Notices that somebody else wrote to a folder of votes: another process, a `git pull`.
//! Does not know what the files say.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::votes::{Folder, PairText, Vote, VotesError};

/// Between two looks at the folder.
const PAUSE_MS: u64 = 1000;

/// How the files of a folder looked. Without any: as if they had changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FolderSnapshot {
    files: Option<HashMap<PathBuf, Stamp>>,
    looked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
}

fn stamp(path: &Path) -> std::io::Result<Option<Stamp>> {
    match fs_err::metadata(path) {
        Ok(m) => Ok(Some(Stamp {
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
            inode: m.ino(),
        })),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl FolderSnapshot {
    /// How the folder looks now.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn of(folder: &Path) -> Result<Self, VotesError> {
        let mut files = HashMap::new();
        for path in Folder::paths(folder)? {
            if let Some(stamp) = stamp(&path)? {
                files.insert(path, stamp);
            }
        }
        Ok(Self { files: Some(files), looked: 0 })
    }

    /// From now on everything counts as changed.
    pub fn forget(&mut self) {
        self.files = None;
    }

    /// Whether somebody else wrote. Looks once a second at most.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn changed(&mut self, folder: &Path, now: u64) -> Result<bool, VotesError> {
        let Some(files) = &self.files else { return Ok(true) };
        if now.abs_diff(self.looked) < PAUSE_MS {
            return Ok(false);
        }
        self.looked = now;
        Ok(Self::of(folder)?.files.as_ref() != Some(files))
    }

    /// Writes a vote of one annotator, and does not take the own change for that of others.
    ///
    /// # Errors
    /// That of writing.
    pub fn record_own_write(
        &mut self,
        folder: &Path,
        annotator: &str,
        (vote, text): (&Vote, Option<&PairText>),
        write: impl FnOnce() -> Result<(), VotesError>,
    ) -> Result<(), VotesError> {
        let name = format!("{annotator}.jsonl");
        let line = |value: serde_json::Result<Vec<u8>>| value.map_or(0, |bytes| bytes.len() + 1);
        let grows = [
            (folder.join(&name), line(serde_json::to_vec(vote))),
            (folder.join("pairs").join(&name), text.map_or(0, |t| line(serde_json::to_vec(t)))),
        ];
        let written = write();
        let Some(files) = &mut self.files else { return written };
        let mut known = written.is_ok();
        for (path, grown) in grows {
            let before = files.get(&path).map_or(0, |s| s.size);
            match stamp(&path) {
                // Only the own line was added: everything else would show in the size.
                Ok(Some(now)) if now.size == before + grown as u64 => {
                    files.insert(path, now);
                }
                Ok(None) if before == 0 => {}
                _ => known = false,
            }
        }
        if !known {
            self.forget();
        }
        written
    }
}
