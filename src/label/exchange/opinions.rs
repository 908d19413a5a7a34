//! What a file of another tool says, and how it says it.
//! Opens no file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::sniff::Encoding;
use crate::votes::Choice;

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
    pub reasons: Option<String>,
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
    /// Reasons.
    pub reasons: Vec<String>,
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
