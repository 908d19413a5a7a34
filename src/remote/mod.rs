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

pub use client::Remote;
pub use config::{Config, Location, Mode};
pub use error::RemoteError;
pub use expected::Expected;

pub use crate::store::part::TransferProgress;

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
