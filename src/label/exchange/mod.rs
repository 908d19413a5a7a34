//! Preferences of other tools: read as votes, written from labels.
//! Knows nothing of pipelines, nor of who runs this.

mod forms;
mod messages;
mod quotes;
mod record;
mod rows;
mod sniff;
#[cfg(test)]
mod tests;
mod tools;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::forms::{Given, Heard};
use crate::columns::ReadError;
use crate::votes::{Choice, VotesError};

pub use messages::{form_of, plain};
pub use quotes::Watched;
pub use record::{Recorded, record};
pub use rows::read as rows;
pub use sniff::Encoding;
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

/// Which columns or fields hold what; the usual names are found without. Which words mean what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub prompt: Option<String>,
    pub a: Option<String>,
    pub b: Option<String>,
    pub choice: Option<String>,
    pub chosen: Option<String>,
    pub rejected: Option<String>,
    pub annotator: Option<String>,
    /// Word → choice; with any, only these are understood.
    pub choices: BTreeMap<String, Choice>,
}

/// What a file holds, and must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: by its fields.
    pub form: Option<Form>,
    /// `None`: by its content.
    pub encoding: Option<Encoding>,
    pub names: Names,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opinions {
    pub opinions: Vec<Opinion>,
    /// Records in which nobody says anything of the two answers.
    pub unanswered: usize,
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

/// Reads the opinions in a file. Rows that say nothing readable go to `bad`; those that say that
/// somebody has no opinion are counted.
///
/// # Errors
/// The file cannot be read at all, or its choices are numbers of which nobody knows the meaning.
pub fn read(
    path: &Path,
    wanted: &Wanted,
    bad: &mut Vec<BadRow>,
) -> Result<Opinions, ExchangeError> {
    let Wanted { form, encoding, names } = wanted;
    let rows::Rows { rows, unread } = rows::read(path, *encoding, bad)?;
    let form = form.unwrap_or_else(|| forms::guess(&rows));
    let mut given = Vec::new();
    let mut unanswered = 0;
    for (row, value) in rows {
        let found = match form {
            Form::Columns => forms::columns(&value, names),
            Form::HelpfulHarmless => forms::helpful_harmless(&value, names),
            Form::Arena => forms::arena(&value, names),
            Form::Argilla => tools::argilla(&value, names),
            Form::LabelStudio => tools::label_studio(&value, names),
        };
        let found = found.and_then(|given| {
            match given.iter().any(|g| g.opinion.answers[0] == g.opinion.answers[1]) {
                true => Err("both answers are the same".to_owned()),
                false => Ok(given),
            }
        });
        match found {
            Ok(found) => {
                unanswered += usize::from(found.is_empty());
                given.extend(found);
            }
            Err(mut reason) => {
                for (column, why) in &unread {
                    reason.push_str(&format!("; `{column}` cannot be read: {why}"));
                }
                bad.push(BadRow { path: path.to_owned(), row, reason });
            }
        }
    }
    let opinions = given.iter().map(|g| g.heard).collect::<Vec<_>>();
    let first = counted_from(&opinions).map_err(|numbers| {
        let numbers = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        ExchangeError::Numbers { path: path.to_owned(), numbers }
    })?;
    let opinions = given.into_iter().map(|g| settled(g, first)).collect();
    Ok(Opinions { opinions, unanswered })
}

/// The number of the first answer: 1 where there are two kinds of numbers, 1 and 2. Whoever writes
/// 0 and 1 may count from zero, or mean that 1 is for the first.
fn counted_from(heard: &[Heard]) -> Result<i64, BTreeSet<i64>> {
    let numbers: BTreeSet<i64> = heard
        .iter()
        .filter_map(|h| match h {
            Heard::Number(n) => Some(*n),
            Heard::Said(_) => None,
        })
        .collect();
    let clear = numbers.is_empty() || numbers.contains(&2);
    if clear && numbers.iter().all(|n| [1, 2].contains(n)) { Ok(1) } else { Err(numbers) }
}

fn settled(Given { mut opinion, heard, strong }: Given, first: i64) -> Opinion {
    let choice = match heard {
        Heard::Said(choice) => choice,
        Heard::Number(n) if n == first => Choice::A,
        Heard::Number(_) => Choice::B,
    };
    opinion.choice = match choice {
        Choice::A if strong => Choice::AMuch,
        Choice::B if strong => Choice::BMuch,
        same => same,
    };
    opinion
}
