//! What goes between a label session and a screen: questions, clicks, votes, progress.
//! Knows neither queue nor files.

use serde::{Deserialize, Serialize};

use crate::votes::{Choice, Side, Vote};

/// What somebody clicked, as the screen shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    LeftMuch,
    Left,
    Tie,
    Right,
    RightMuch,
    BothBad,
    Skip,
}

/// A vote on its way in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Made by the sender, so that sending twice is voting once.
    pub id: String,
    /// [`LabelSession::digest`] of the pairs that the sender knows.
    pub pairs: String,
    pub pair: String,
    #[serde(default)]
    pub repeat: bool,
    pub pick: Pick,
    pub left: Side,
    pub ms: u64,
    #[serde(default)]
    pub note: String,
    /// Of the reasons that the stage offers.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// One question. Its texts are as votes keep them; a screen makes of them what it can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub pair: String,
    pub repeat: bool,
    /// Which response stands on the left.
    pub left: Side,
    pub prompt: String,
    /// The response on the left.
    pub one: String,
    pub other: String,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LabelProgress {
    /// Votes of this annotator.
    pub mine: u64,
    /// Votes of everybody on these pairs.
    pub votes: u64,
    /// Votes that are asked for.
    pub goal: u64,
    /// Votes that are still to be made before every pair has what it needs.
    pub left: u64,
    /// People who hold questions.
    pub active: usize,
}

/// One of an annotator's own votes, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Past {
    pub pair: String,
    pub repeat: bool,
    pub pick: Pick,
    pub at: String,
    pub note: String,
    pub reasons: Vec<String>,
}

impl Pick {
    /// What it says of the two responses, given which stood on the left.
    #[must_use]
    pub fn choice(self, left: Side) -> Choice {
        let choice = match self {
            Self::LeftMuch => Choice::AMuch,
            Self::Left => Choice::A,
            Self::Tie => Choice::Tie,
            Self::Right => Choice::B,
            Self::RightMuch => Choice::BMuch,
            Self::BothBad => Choice::BothBad,
            Self::Skip => Choice::Skip,
        };
        if left == Side::A { choice } else { choice.mirrored() }
    }

    /// What was clicked for a choice; `None` if it was taken back.
    #[must_use]
    pub fn of(choice: Choice, left: Side) -> Option<Self> {
        Some(match if left == Side::A { choice } else { choice.mirrored() } {
            Choice::AMuch => Self::LeftMuch,
            Choice::A => Self::Left,
            Choice::Tie => Self::Tie,
            Choice::B => Self::Right,
            Choice::BMuch => Self::RightMuch,
            Choice::BothBad => Self::BothBad,
            Choice::Skip => Self::Skip,
            Choice::Retracted => return None,
        })
    }
}

impl Past {
    /// A vote that stands; `None` for one that was taken back.
    #[must_use]
    pub fn of(vote: &Vote) -> Option<Self> {
        Some(Self {
            pair: vote.pair.clone(),
            repeat: vote.repeat,
            pick: Pick::of(vote.choice, vote.shown_left)?,
            at: vote.at.clone(),
            note: vote.note.clone(),
            reasons: vote.reasons.clone(),
        })
    }
}
