//! What there is to label: the pairs of one stage, what annotators are asked, where votes go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::exchange::{BadRow, ExchangeError, form_of, rows, turns};
use super::settings::{PeopleSettings, ReadyWhen};
use crate::columns::{ReadError, each_batch, is_parquet};
use crate::conversation::Content;
use crate::files;
use crate::identity::Digest;
use crate::votes::{Choice, PairText, pair_id};

/// Room for a hundred thousand items whose answer is known.
const LARGEST_GOLD: u64 = 512 << 20;

/// Longer guidelines are read by nobody.
const LARGEST_GUIDELINES: u64 = 1 << 20;

/// Everything that a label page needs to know of one stage.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Name of the pipeline.
    pub pipeline: String,
    pub stage: String,
    /// Folder of the votes; need not exist yet.
    pub votes: PathBuf,
    pub people: PeopleSettings,
    /// Markdown: how to choose.
    pub guidelines: Option<String>,
    pub ready: ReadyWhen,
    /// In the order of the dataset, each once.
    pub pairs: Vec<PairText>,
    pub gold: Vec<Gold>,
    /// How much the last reward ensemble disagrees about a pair; empty where nobody knows.
    pub disagreement: HashMap<String, f64>,
}

/// An item whose answer is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gold {
    pub text: PairText,
    pub choice: Choice,
}

/// Pairs or gold items that cannot be read.
#[derive(Debug, Error)]
pub enum AssignmentError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Rows(#[from] ExchangeError),
    #[error("{0}")]
    BadRow(BadRow),
    #[error("{path} holds no pairs: columns prompt, response_a and response_b are needed")]
    NoPairs { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: not a gold item: {reason}", path = path.display())]
    BadGold { path: PathBuf, line: usize, reason: String },
}

impl Assignment {
    /// Names the pairs at hand: a page that was made for others must not vote on these.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let names: Vec<&str> = self.pairs.iter().map(|p| p.pair.as_str()).collect();
        Digest::of(names.join("\n").as_bytes())
    }
}

/// Reads the pairs of a file, each once, in its order: of Parquet, or, of a source, also of JSON
/// lines or CSV.
///
/// # Errors
/// The file is damaged, or holds no pairs.
pub fn read_pairs(path: &Path) -> Result<Vec<PairText>, AssignmentError> {
    const NAMES: [&str; 3] = ["prompt", "response_a", "response_b"];
    let mut pairs = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut add = |prompt: &str, one: &str, other: &str| {
        let text = PairText::new(prompt, one, other);
        if seen.insert(text.pair.clone()) {
            pairs.push(text);
        }
    };
    let mut bad = Vec::new();
    let no_text = |row, name: &str, form: &str| {
        let reason = format!("`{name}` is {form}, not text or a list of messages");
        BadRow { path: path.to_owned(), row, reason }
    };
    if is_parquet(path) {
        each_batch(path, usize::MAX, |columns| {
            let other = |name| Some(no_text(1, name, &columns.other_than_text(name)?));
            bad.extend(NAMES.into_iter().find_map(other));
            let prompts = columns.texts("prompt");
            let (one, other) = (columns.texts("response_a"), columns.texts("response_b"));
            for ((prompt, one), other) in prompts.iter().zip(&one).zip(&other) {
                add(prompt, one, other);
            }
        })?;
    } else {
        for (i, row) in rows(path, None, &mut bad)?.rows {
            let text = |name: &str| match row.get(name) {
                None | Some(Value::Null) => Ok(String::new()),
                Some(value) => said(value).map_err(|form| no_text(i, name, &form)),
            };
            match NAMES.map(text) {
                [Ok(prompt), Ok(one), Ok(other)] => add(&prompt, &one, &other),
                found => bad.extend(found.into_iter().find_map(Result::err)),
            }
        }
    }
    if !bad.is_empty() {
        return Err(AssignmentError::BadRow(bad.swap_remove(0)));
    }
    if pairs.iter().all(|p| p.a.is_empty() && p.b.is_empty()) {
        return Err(AssignmentError::NoPairs { path: path.to_owned() });
    }
    Ok(pairs)
}

/// A text, or messages as a text.
///
/// # Errors
/// What it is instead.
fn said(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        list => match turns(list)? {
            Some(messages) => Ok(Content::Messages(messages).written().into_owned()),
            None => Err(form_of(list)),
        },
    }
}

/// Reads what annotators are told of how to choose; `None`: the file says nothing.
///
/// # Errors
/// The file cannot be read, is larger than 1 MiB, or is no text.
pub fn read_guidelines(path: &Path) -> Result<Option<String>, AssignmentError> {
    let text = files::read_to_string(path, LARGEST_GUIDELINES)
        .map_err(|source| AssignmentError::Io { path: path.to_owned(), source })?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

/// Reads gold items: one JSON object a line with `prompt`, `response_a`, `response_b` and `choice`,
/// whose `a` and `b` mean these two responses.
///
/// # Errors
/// The file cannot be read; a line is no such object.
pub fn read_gold(path: &Path) -> Result<Vec<Gold>, AssignmentError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        prompt: Value,
        response_a: Value,
        response_b: Value,
        choice: Choice,
    }
    let text = files::read_to_string(path, LARGEST_GOLD)
        .map_err(|source| AssignmentError::Io { path: path.to_owned(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let gold = lines.map(|(i, line)| {
        let bad = |reason: String| AssignmentError::BadGold {
            path: path.to_owned(),
            line: i + 1,
            reason,
        };
        let line: Line = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        if !line.choice.counts() {
            return Err(bad("`choice` says nothing about the answers".to_owned()));
        }
        let cell = |name: &str, value: &Value| {
            said(value).map_err(|form| bad(format!("`{name}` is {form}, not text")))
        };
        let one = cell("response_a", &line.response_a)?;
        let other = cell("response_b", &line.response_b)?;
        let text = PairText::new(&cell("prompt", &line.prompt)?, &one, &other);
        let swapped = text.a != one;
        Ok(Gold { text, choice: if swapped { line.choice.mirrored() } else { line.choice } })
    });
    gold.collect()
}

/// Reads how much an ensemble disagrees, by pair.
///
/// # Errors
/// The file is damaged.
pub fn read_disagreement(path: &Path) -> Result<HashMap<String, f64>, AssignmentError> {
    let mut found = HashMap::new();
    each_batch(path, usize::MAX, |columns| {
        let prompts = columns.texts("prompt");
        let (one, other) = (columns.texts("response_a"), columns.texts("response_b"));
        let disagreement = columns.numbers("disagreement");
        for i in 0..columns.rows() {
            if let Some(x) = disagreement[i] {
                found.insert(pair_id(&prompts[i], &one[i], &other[i]), x);
            }
        }
    })?;
    Ok(found)
}
