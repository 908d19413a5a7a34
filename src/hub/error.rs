//! Why a file of others is not here, in words that say what to do.
//! Never repeats more of an answer than a code, and no address with what may be secret in it.

use std::path::PathBuf;

use crate::store::StoreError;

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("HF_ENDPOINT `{0}` is no address that can be asked")]
    Endpoint(String),
    #[error("its commit is not known: {0}")]
    Lock(String),
    #[error("PREFLOW_REMOTE_TIMEOUT is no number of seconds")]
    Timeout,
    #[error("{what} is not here, and HF_HUB_OFFLINE says that nobody is asked")]
    Offline { what: String },
    #[error("{host} does not answer: {reason}")]
    Away { host: String, reason: String },
    #[error("{host} refuses {what} ({status})")]
    Refused { host: String, what: String, status: u16 },
    #[error("{host} does not give {what} without a token that may read it")]
    NoToken { host: String, what: String },
    #[error("{host} does not take the token for {what}")]
    BadToken { host: String, what: String },
    #[error("{what} asks for its owner's consent")]
    Gated { what: String, page: String },
    #[error("{host} has no {what}")]
    NotThere { host: String, what: String },
    #[error("{what} is empty")]
    Empty { what: String },
    #[error("`{repository}` has no branch, tag or commit `{revision}`")]
    NoRevision { repository: String, revision: String },
    #[error("{what} has other bytes than it should: {reason}")]
    OtherBytes { what: String, reason: String },
    #[error("{host} answers what is not understood: {reason}")]
    Odd { host: String, reason: String },
    #[error("not enough space at {}: {needed} bytes are needed, {free} are free", path.display())]
    Space { path: PathBuf, needed: u64, free: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HubError {
    /// What can be done about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Endpoint(_) => {
                "https://HOST, or http:// on this machine; leave it out for the public hub".into()
            }
            Self::Lock(_) => "the lock file says which commit a branch is: mend it, or remove it".into(),
            Self::Timeout => "0.1 at least".into(),
            Self::Offline { .. } => {
                "fetch it once with HF_HUB_OFFLINE=0, or name a folder with `path:`".into()
            }
            Self::Away { .. } => "is the network up, and HTTPS_PROXY right? the same command goes on \
                                  from what has come; HF_ENDPOINT names another hub"
                .into(),
            Self::Refused { .. } => "try again later; what has come is kept".into(),
            Self::NoToken { .. } => {
                "is the name right? of a private or gated repository, set HF_TOKEN (or `hf auth \
                 login`) with a token that may read it"
                    .into()
            }
            Self::BadToken { .. } => {
                "is HF_TOKEN still valid, may it read this repository, and is its name right?".into()
            }
            Self::Gated { page, .. } => {
                format!("ask for access at {page} with the account that HF_TOKEN belongs to")
            }
            Self::NotThere { .. } => {
                "is the name right? a dataset is `hub: datasets/ORG/NAME`".into()
            }
            Self::Empty { .. } => "a source must hold something".into(),
            Self::NoRevision { .. } => {
                "was it removed or rewritten? `preflow lock --update` takes what the branch holds now"
                    .into()
            }
            Self::OtherBytes { .. } => {
                "nothing of it is kept; ask whoever publishes it which bytes are right, or try again"
                    .into()
            }
            Self::Odd { .. } => "is a proxy or a login page in between?".into(),
            Self::Space { .. } => "`preflow gc` finds what nobody needs; --cache names another place; \
                                   what came is kept"
                .into(),
            Self::Store(_) => "is the store's disk sound and writable?".into(),
        }
    }
}
