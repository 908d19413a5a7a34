//! Artifacts elsewhere: what goes up, what comes down. A remote is a bucket or a folder that a team
//! shares. Knows nothing of stages, pipelines or terminals.
//!
//! | key below the remote's prefix | holds |
//! |---|---|
//! | `files-v1/aa/<sha256>` | one file; those of a tree one by one, so that trees share them |
//! | `entries-v1/aa/<fingerprint>.json` | one record each ([`record`]), written after its files |
//!
//! Nothing there is trusted: a file counts when its bytes hash to its name, a record when its
//! identity hashes to its own. Equal keys mean equal files, so a request may be repeated blindly.

pub mod config;
pub mod error;
mod expected;
pub mod record;

mod client;
mod fetch;
mod http;
mod send;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

pub use client::Remote;
pub use config::{Config, Location, Mode};
pub use error::RemoteError;
pub use expected::Expected;

/// What a fetch moved; nothing where the store held everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    pub files: u64,
    pub bytes: u64,
}

/// What a sending moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    pub files: u64,
    pub bytes: u64,
    /// Files that were there.
    pub already: u64,
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

    fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}
