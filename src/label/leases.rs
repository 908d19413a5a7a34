//! Who was shown what lately, in a file beside the cache: a label page that is killed and started
//! again asks nobody else what is still on somebody's screen. May be deleted at any time.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::store::write_atomic;

/// Room for a million questions.
const LARGEST: u64 = 256 << 20;

/// One question on one screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub annotator: String,
    pub pair: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
    /// When it was first shown, in milliseconds since 1970.
    pub at: u64,
}

/// The file. Lines reach the kernel before a question reaches a screen, so they outlive the
/// program; they are not worth a sync.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    file: File,
}

impl LeaseFile {
    /// Opens the file with nothing but `kept` in it.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn create(path: &Path, kept: &[Lease]) -> io::Result<Self> {
        write_atomic(path, &lines(kept)?)?;
        let file = files::append_own(path).map_err(|e| files::named(path, &e))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// What a file of earlier days says; damaged lines are passed over.
    #[must_use]
    pub fn read(path: &Path) -> Vec<Lease> {
        let text = files::read_own(path, LARGEST).unwrap_or_default();
        let lines = text.split(|b| *b == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Notes questions that go out.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn append(&mut self, leases: &[Lease]) -> io::Result<()> {
        let bytes = lines(leases)?;
        let before = self.file.metadata()?.len();
        self.file.write_all(&bytes).inspect_err(|_| {
            let _ = self.file.set_len(before);
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lines(leases: &[Lease]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for lease in leases {
        serde_json::to_writer(&mut bytes, lease).map_err(io::Error::from)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}
