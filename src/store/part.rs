//! A file that is on its way into the store: what has come of it, hashed as it comes, kept over
//! interruptions. Does not know where it comes from.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use super::publish::link_or_copy;
use crate::files;
use crate::identity::Digest;

/// What has come of a file, and its hash so far.
#[derive(Debug)]
pub struct Part {
    file: File,
    hash: Sha256,
    length: u64,
    path: PathBuf,
}

impl Part {
    /// Opens what an earlier try left, and hashes it again. What is longer than `size` is of no
    /// use and begins anew.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(path: PathBuf, size: u64) -> io::Result<Self> {
        let mut file = files::update_own(&path).map_err(|e| files::named(&path, &e))?;
        let mut hash = Sha256::new();
        let mut length = file.metadata()?.len();
        if length > size {
            file.set_len(0)?;
            length = 0;
        }
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { file, hash, length, path })
    }

    /// Bytes that have come.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// They cannot be written; then what came before is kept.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("write `{}`: {e}", self.path.display()))
        };
        if let Err(e) = self.file.write_all(bytes) {
            // A torn end would be hashed again as if it had come.
            let _ = self.file.set_len(self.length);
            return Err(named(e));
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what has come.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hash = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Gives the file a second name if it is what it should be; else removes it.
    ///
    /// # Errors
    /// It cannot be named or removed.
    pub fn finish(self, digest: &Digest, to: &Path) -> io::Result<bool> {
        if Digest::from_raw(self.hash.finalize().into()) != *digest {
            fs_err::remove_file(&self.path)?;
            return Ok(false);
        }
        link_or_copy(&self.path, to)?;
        fs_err::set_permissions(to, std::fs::Permissions::from_mode(0o444))?;
        Ok(true)
    }
}

/// Counters that transfers move and whoever shows progress reads; shared by several transfers.
#[derive(Debug, Default)]
pub struct TransferProgress {
    bytes: AtomicU64,
    total: AtomicU64,
    files: AtomicU64,
}

impl TransferProgress {
    /// Bytes moved so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are to be moved, as far as it is known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Files moved so far.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes have moved.
    pub fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes more are to be moved.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A file is whole.
    pub fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}
