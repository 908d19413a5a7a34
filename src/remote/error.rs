//! What can go wrong with a remote, in words that say what to do.
//! Never repeats what a service answered beyond its error code.

use std::path::PathBuf;

use crate::identity::Fingerprint;
use crate::store::StoreError;

/// A transfer that did not work.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("remote {url}: {reason}")]
    Config { url: String, reason: String },
    #[error("remote {url} does not answer: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("remote {url} refuses: {reason}")]
    Denied { url: String, reason: String },
    #[error("remote {url} is not there: {reason}")]
    NoPlace { url: String, reason: String },
    #[error("remote {url} is read-only here")]
    ReadOnly { url: String },
    #[error("the remote holds other bytes for {what}: {reason}")]
    OtherBytes { what: String, reason: String },
    #[error("the remote's record of {} cannot be used: {reason}", fingerprint.short())]
    Record { fingerprint: Fingerprint, reason: String },
    #[error("entry {} is not in the store", fingerprint.short())]
    NotInStore { fingerprint: Fingerprint },
    #[error("{what} in the store is damaged and was not sent")]
    Damaged { what: String },
    #[error("not enough space at {}: {needed} bytes are needed, {free} are free", path.display())]
    Space { path: PathBuf, needed: u64, free: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoteError {
    /// No sense in asking this remote again before somebody has done something.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        !matches!(
            self,
            Self::OtherBytes { .. }
                | Self::Record { .. }
                | Self::NotInStore { .. }
                | Self::Damaged { .. }
        )
    }

    /// The command line or a file is to blame, not a machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::ReadOnly { .. })
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Config { .. } => Some(
                "`remote:` in preflow.yaml, PREFLOW_REMOTE or --remote say where it is; \
                 --remote none works without",
            ),
            Self::Unreachable { .. } => Some(
                "is the address right and the service up? `preflow doctor` asks it; --remote none \
                 works without; what came so far is kept",
            ),
            Self::Denied { .. } => Some(
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), the \
                 rights of that key, and this machine's clock",
            ),
            Self::NoPlace { .. } => {
                Some("make the bucket or the folder (is it mounted?), or mend `remote:`")
            }
            Self::ReadOnly { .. } => {
                Some("`mode: read-write` under `remote:`, or PREFLOW_REMOTE_MODE, lets it be sent")
            }
            Self::OtherBytes { .. } => Some(
                "whoever has the right bytes mends it with `preflow push --force`; without it the \
                 stage can be run again here",
            ),
            Self::Record { .. } => Some(
                "another version of preflow, or damage: whoever made the stage mends it with \
                 `preflow push --force`",
            ),
            Self::NotInStore { .. } => Some("`preflow run` makes it again"),
            Self::Damaged { .. } => {
                Some("it was moved aside; `preflow run` makes it again, `preflow pull` fetches it")
            }
            Self::Space { .. } => Some(
                "`preflow gc` finds what nobody needs; --cache names another place; what came is \
                 kept, and the same command goes on from there",
            ),
            Self::Store(_) => None,
        }
    }
}
