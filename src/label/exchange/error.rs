//! Why preferences cannot be read or written, and what to do about it.
//! Does not know who asked.

use std::path::PathBuf;

use thiserror::Error;

use super::opinions::BadRow;
use crate::columns::ReadError;
use crate::votes::VotesError;

/// Files that cannot be exchanged.
#[derive(Debug, Error)]
pub enum ExchangeError {
    #[error("cannot read {path}: {source}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Parquet(#[from] ReadError),
    #[error("{path}: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("{path} {what}")]
    Foreign { path: PathBuf, what: String },
    #[error("the choices in {path} are the numbers {numbers}, and nothing says what they mean")]
    Numbers { path: PathBuf, numbers: String },
    #[error("{path} names no annotators")]
    Nameless { path: PathBuf },
    #[error("`{one}` and `{other}` would both be called `{name}`")]
    Clash { one: String, other: String, name: String },
    #[error("`{name}` cannot be made the name of a file")]
    NoName { name: String },
    #[error("{n} rows cannot be read", n = .0.len())]
    BadRows(Vec<BadRow>),
    #[error(transparent)]
    Votes(#[from] VotesError),
}

impl ExchangeError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::Write { .. } => "see the error above",
            Self::Parquet(error) => error.help(),
            Self::Unreadable { .. } | Self::Foreign { .. } => {
                "JSON, JSON lines, CSV and Parquet are read"
            }
            Self::Numbers { .. } => {
                "say it: `--choices a=0,b=1` where 0 stands for the first answer, `a=1,b=0` where \
                 1 does; also a_much, b_much, tie, both_bad, skip"
            }
            Self::Nameless { .. } => "say whose votes they are: --annotator NAME",
            Self::Clash { .. } => "rename one of them in the file",
            Self::NoName { .. } => {
                "names of annotators are letters or digits, 128 characters at most, without `/`"
            }
            Self::BadRows(_) => {
                "nothing was written; mend them, name the columns with --map, or leave them out \
                 with --skip-bad"
            }
            Self::Votes(error) => error.help(),
        }
    }
}
