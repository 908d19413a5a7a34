//! Why a label session cannot do what it was asked, and what to do about it.
//! Does not know who asked.

use std::path::PathBuf;

use thiserror::Error;

use crate::votes::VotesError;

/// Why a label session cannot do it.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error(transparent)]
    Votes(#[from] VotesError),
    #[error("cannot keep notes in {path}: {source}", path = path.display())]
    Cache { path: PathBuf, source: std::io::Error },
    #[error("these votes are being collected by another label page{}", at(.0))]
    Taken(String),
    #[error("`{0}` is no name for an annotator")]
    BadName(String),
    #[error("the pairs have changed since this page was loaded")]
    OtherPairs,
    #[error("this pair is not at hand")]
    UnknownPair,
    #[error("{0}")]
    BadSubmission(&'static str),
    #[error("there is no vote to take back")]
    NothingToUndo,
}

fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" ({place})") }
}

impl SessionError {
    /// The disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded];
        match self {
            Self::Votes(e) => e.is_full(),
            Self::Cache { source, .. } => full.contains(&source.kind()),
            _ => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            _ if self.is_full() => "free space on the disk; nothing is lost",
            Self::Votes(VotesError::Io(_)) => "can the folder of votes be written?",
            Self::Votes(e) => e.help(),
            Self::Cache { .. } => "choose another place with --cache",
            Self::Taken(_) => "use that page; a further annotator needs only a link (--share)",
            Self::BadName(_) => "names are lower-case letters, digits, `-` and `_`, 64 at most",
            Self::OtherPairs => "load the page again",
            Self::UnknownPair => "it was sampled by another run, or never",
            Self::BadSubmission(_) | Self::NothingToUndo => "nothing was changed",
        }
    }
}
