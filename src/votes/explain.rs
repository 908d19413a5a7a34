//! Why votes at a port make a stage run again, counted in votes.
//! Does not know which stage reads them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Effective, VoteChange};
use crate::columns;

/// Votes that differ at an input port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedVotes {
    /// Tells it from other changes, in JSON.
    change: Tag,
    pub port: String,
    #[serde(flatten)]
    pub counts: VoteChange,
    /// How many of the pairs that the stage reads had votes, and have; absent where that is
    /// unknown or the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<(usize, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tag {
    Votes,
}

/// What a stage read or would read: the votes in their canonical form, and its other inputs, of
/// which one may hold the pairs.
#[derive(Debug)]
pub struct VotesRead<'a> {
    pub votes: &'a [u8],
    pub others: Vec<PathBuf>,
}

impl ChangedVotes {
    #[must_use]
    pub fn new(port: &str, counts: VoteChange, used: Option<(usize, usize)>) -> Self {
        Self { change: Tag::Votes, port: port.to_owned(), counts, used }
    }
}

/// Compares what a stage read at `port` with what it would read now. `None`: one of the two cannot
/// be read.
#[must_use]
pub fn explain(port: &str, before: &VotesRead, now: &VotesRead) -> Option<ChangedVotes> {
    let new = Effective::parse(now.votes).ok()?;
    let old = Effective::parse(before.votes).ok()?;
    let used = match (pairs(&before.others), pairs(&now.others)) {
        (Some(then), Some(now)) => {
            Some((old.used(texts(&then)), new.used(texts(&now)))).filter(|(a, b)| a != b)
        }
        _ => None,
    };
    Some(ChangedVotes::new(port, new.change_from(&old), used))
}

/// Names of the pairs in the first of these tables that names some.
fn pairs(tables: &[PathBuf]) -> Option<Vec<String>> {
    tables.iter().find_map(|path| {
        let mut names = Vec::new();
        columns::each_batch(path, usize::MAX, |c| names.extend(c.texts("pair"))).ok()?;
        names.first().is_some_and(|name| !name.is_empty()).then_some(names)
    })
}

fn texts(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str)
}
