//! Votes of people: what a vote is, the files that keep them, which of them count.
//! Knows nothing of pages, stages or statistics.

mod effective;
mod explain;
mod folder;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use effective::{Ballot, Effective, Judged, VoteChange, latest};
pub use explain::{ChangedVotes, VotesRead, explain};
pub use folder::{Folder, Ledger, Problem, VotesError, composed, is_annotator, is_plain};

/// Longest reason on a vote, in characters.
pub const LONGEST_REASON: usize = 40;

/// Most reasons that one vote may have.
pub const MOST_REASONS: usize = 7;

/// Whether a text can be a reason on a vote: one line of at most [`LONGEST_REASON`] characters,
/// without commas, which stand between reasons, and without blanks at its ends.
#[must_use]
pub fn is_reason(text: &str) -> bool {
    let fits = (1..=LONGEST_REASON).contains(&text.chars().count());
    fits && text.trim() == text && !text.contains(|c: char| c == ',' || c.is_control())
}

/// Port type of a source that is a folder of votes.
pub const PORT_TYPE: &str = "votes";

/// What a person said of a pair. `a` is the one of the two responses that sorts first by its bytes,
/// whatever sides and columns they had, so that a vote needs nothing but its pair's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    AMuch,
    A,
    Tie,
    B,
    BMuch,
    /// Neither is acceptable: a tie for what follows.
    BothBad,
    /// No opinion; the pair is not shown to this annotator again.
    Skip,
    /// Taken back: as if the vote had never been.
    Retracted,
}

/// One of the two responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    A,
    B,
}

/// One line of `votes/<annotator>.jsonl`. Keys that this version does not know are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// See [`pair_id`].
    pub pair: String,
    pub choice: Choice,
    /// Which response stood on the left, or on top.
    pub shown_left: Side,
    /// Milliseconds from showing the pair to the choice.
    pub ms: u64,
    /// RFC 3339.
    pub at: String,
    #[serde(default)]
    pub note: String,
    /// Reasons that the annotator marked, of those that the stage offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Counts revisions of one annotator's vote on one pair; the highest counts.
    #[serde(default)]
    pub rev: u32,
    /// Names the submission: the same id twice is the same vote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The pair was shown a second time, sides swapped, to see whether the annotator agrees with
    /// themself. Never counts as a vote.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
}

/// What was compared: one line of `votes/pairs/<annotator>.jsonl`, written before the first vote on
/// it. `a` sorts before `b`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairText {
    pub pair: String,
    pub prompt: String,
    pub a: String,
    pub b: String,
}

impl Choice {
    /// −2 `a_much` … 2 `b_much`; 0 for ties and two bad answers; `None` where there is no opinion.
    #[must_use]
    pub fn score(self) -> Option<i8> {
        match self {
            Self::AMuch => Some(-2),
            Self::A => Some(-1),
            Self::Tie | Self::BothBad => Some(0),
            Self::B => Some(1),
            Self::BMuch => Some(2),
            Self::Skip | Self::Retracted => None,
        }
    }

    /// An opinion, as opposed to a skip or a vote taken back.
    #[must_use]
    pub fn counts(self) -> bool {
        self.score().is_some()
    }

    /// The same opinion when `a` and `b` are the other way round.
    #[must_use]
    pub fn mirrored(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::AMuch => Self::BMuch,
            Self::B => Self::A,
            Self::BMuch => Self::AMuch,
            same => same,
        }
    }

    /// The response it is for.
    #[must_use]
    pub fn preferred(self) -> Option<Side> {
        match self {
            Self::A | Self::AMuch => Some(Side::A),
            Self::B | Self::BMuch => Some(Side::B),
            _ => None,
        }
    }
}

impl Side {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl PairText {
    /// Puts the two responses in order and names the pair.
    #[must_use]
    pub fn new(prompt: &str, one: &str, other: &str) -> Self {
        let (a, b) = if one <= other { (one, other) } else { (other, one) };
        Self {
            pair: pair_id(prompt, a, b),
            prompt: prompt.to_owned(),
            a: a.to_owned(),
            b: b.to_owned(),
        }
    }
}

/// Name of a comparison: `sha256:` and the SHA-256 of the canonical JSON array
/// `["preflow.pair/1",PROMPT,LOW,HIGH]` in UTF-8, without blanks, strings escaped as `serde_json`
/// does (only `"`, `\` and control characters), where LOW and HIGH are the two answers sorted by
/// their bytes. It does not depend on sides, files or models, so votes outlive a new draw.
///
/// # Panics
/// Never: strings are JSON.
#[must_use]
pub fn pair_id(prompt: &str, one: &str, other: &str) -> String {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    let bytes = serde_json::to_vec(&["preflow.pair/1", prompt, low, high])
        .expect("invariant: strings are JSON");
    format!("sha256:{}", const_hex::encode(Sha256::digest(&bytes)))
}
