//! Preferences of other tools: read as votes, written from labels.
//! Knows nothing of pipelines, nor of who runs this.

mod forms;
mod messages;
mod record;
mod rows;
#[cfg(test)]
mod tests;
mod tools;
mod write;

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::columns::ReadError;
use crate::votes::{Choice, VotesError};

pub use record::{Recorded, record};
pub use rows::read as rows;
pub use write::{Labels, Shape, export, write_pairs};

/// How a file says what people prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Two answers and a choice, or a chosen and a rejected one, in columns.
    Columns,
    Argilla,
    LabelStudio,
    /// Two transcripts, `chosen` and `rejected`, that share their beginning.
    HelpfulHarmless,
    /// Two conversations and a winner.
    Arena,
}

/// Which columns or fields hold what; the usual names are found without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub prompt: Option<String>,
    pub a: Option<String>,
    pub b: Option<String>,
    pub choice: Option<String>,
    pub chosen: Option<String>,
    pub rejected: Option<String>,
    pub annotator: Option<String>,
}

/// One opinion, as a file states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    pub prompt: String,
    /// The two answers; the first is the one on the left where sides are known.
    pub answers: [String; 2],
    /// `a` is the first of them.
    pub choice: Choice,
    pub sides_known: bool,
    pub annotator: Option<String>,
    /// RFC 3339.
    pub at: Option<String>,
    /// Milliseconds; 0: not measured.
    pub ms: u64,
}

/// A row that says nothing readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    pub path: PathBuf,
    /// Line of a JSONL or CSV file, else the number of the record, from 1.
    pub row: usize,
    pub reason: String,
}

impl std::fmt::Display for BadRow {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.row, self.reason)
    }
}

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
            Self::Unreadable { .. } => {
                "JSON, JSON lines, CSV and Parquet are read; CSV by its ending"
            }
            Self::Nameless { .. } => "say whose votes they are: --annotator NAME",
            Self::Clash { .. } => "rename one of them in the file",
            Self::NoName { .. } => "annotators have letters or digits in their names",
            Self::BadRows(_) => {
                "nothing was written; mend them, name the columns with --map, or leave them out \
                 with --skip-bad"
            }
            Self::Votes(error) => error.help(),
        }
    }
}

/// Reads the opinions in a file. Rows that say nothing readable go to `bad`; those that say that
/// somebody has no opinion are passed over.
///
/// # Errors
/// The file cannot be read at all.
pub fn read(
    path: &Path,
    form: Option<Form>,
    names: &Names,
    bad: &mut Vec<BadRow>,
) -> Result<Vec<Opinion>, ExchangeError> {
    let mut opinions = Vec::new();
    let rows = rows::read(path, bad)?;
    let form = form.unwrap_or_else(|| forms::guess(&rows));
    for (row, value) in rows {
        let found = match form {
            Form::Columns => forms::columns(&value, names),
            Form::HelpfulHarmless => forms::helpful_harmless(&value, names),
            Form::Arena => forms::arena(&value),
            Form::Argilla => tools::argilla(&value, names),
            Form::LabelStudio => tools::label_studio(&value, names),
        };
        let found = found.and_then(|opinions| {
            match opinions.iter().any(|o| o.answers[0] == o.answers[1]) {
                true => Err("both answers are the same".to_owned()),
                false => Ok(opinions),
            }
        });
        match found {
            Ok(found) => opinions.extend(found),
            Err(reason) => bad.push(BadRow { path: path.to_owned(), row, reason }),
        }
    }
    Ok(opinions)
}
