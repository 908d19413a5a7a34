//! The votes that count: the last revision of each, without skips and votes taken back, in one
//! canonical form whose hash enters identities. Undo and redo leave it as it was.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Choice, Folder, PairText, Side, Vote, VotesError};
use crate::identity::Digest;

/// First line of the canonical form.
const HEADER: &str = r#"{"preflow":"votes/1"}"#;

/// All votes that count, by pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    pub pairs: BTreeMap<String, Judged>,
}

/// One pair and what was said of it: one line of the canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    pub pair: String,
    /// Prompt and both responses, where some annotator's files hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<[String; 3]>,
    /// By annotator; an annotator's repeat after their vote.
    pub ballots: Vec<Ballot>,
}

/// What one annotator says of a pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    pub annotator: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
    pub choice: Choice,
    pub shown_left: Side,
    /// Reasons that were marked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// What happened between two states of a votes folder, counted in votes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteChange {
    pub added: usize,
    pub revised: usize,
    pub removed: usize,
}

impl Effective {
    /// The votes of a folder that count.
    #[must_use]
    pub fn of(folder: &Folder) -> Self {
        let mut pairs: BTreeMap<String, Judged> = BTreeMap::new();
        for (annotator, votes) in &folder.votes {
            for vote in latest(votes).into_values().filter(|v| v.choice.counts()) {
                let judged = pairs.entry(vote.pair.clone()).or_insert_with(|| Judged {
                    pair: vote.pair.clone(),
                    text: folder.texts.get(&vote.pair).map(|t| {
                        let PairText { prompt, a, b, .. } = t.clone();
                        [prompt, a, b]
                    }),
                    ballots: Vec::new(),
                });
                judged.ballots.push(Ballot {
                    annotator: annotator.clone(),
                    repeat: vote.repeat,
                    choice: vote.choice,
                    shown_left: vote.shown_left,
                    reasons: vote.reasons.clone(),
                });
            }
        }
        for judged in pairs.values_mut() {
            judged.ballots.sort();
        }
        Self { pairs }
    }

    /// The canonical form: JSON lines, a header first.
    ///
    /// # Panics
    /// Never: votes are JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{HEADER}\n").into_bytes();
        for judged in self.pairs.values() {
            serde_json::to_writer(&mut bytes, judged).expect("invariant: votes are JSON");
            bytes.push(b'\n');
        }
        bytes
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    /// It is not what [`Effective::to_bytes`] writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, VotesError> {
        let text = std::str::from_utf8(bytes).map_err(|_| VotesError::NotCanonical)?;
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(VotesError::NotCanonical);
        }
        let judged = lines.map(|line| {
            let judged: Judged =
                serde_json::from_str(line).map_err(|_| VotesError::NotCanonical)?;
            Ok((judged.pair.clone(), judged))
        });
        Ok(Self { pairs: judged.collect::<Result<_, VotesError>>()? })
    }

    /// What enters the identity of a stage that reads these votes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Opinions, repeats left out.
    #[must_use]
    pub fn votes(&self) -> usize {
        self.pairs.values().map(Judged::votes).sum()
    }

    /// How many of these pairs have a vote.
    #[must_use]
    pub fn used<'a>(&self, pairs: impl Iterator<Item = &'a str>) -> usize {
        let pairs: HashSet<&str> = pairs.collect();
        let voted = |p: &&str| self.pairs.get(*p).is_some_and(|j| j.votes() > 0);
        pairs.iter().filter(|p| voted(p)).count()
    }

    /// Votes that are new, that say something else, and that are gone.
    #[must_use]
    pub fn change_from(&self, old: &Self) -> VoteChange {
        type Name<'a> = (&'a str, &'a str, bool);
        fn all(of: &Effective) -> HashMap<Name<'_>, (Choice, &[String])> {
            let ballots = of.pairs.values().flat_map(|j| j.ballots.iter().map(move |b| (j, b)));
            ballots
                .map(|(j, b)| {
                    let name = (j.pair.as_str(), b.annotator.as_str(), b.repeat);
                    (name, (b.choice, b.reasons.as_slice()))
                })
                .collect()
        }
        let (before, now) = (all(old), all(self));
        let mut change = VoteChange::default();
        for (key, said) in &now {
            match before.get(key) {
                None => change.added += 1,
                Some(earlier) if earlier != said => change.revised += 1,
                Some(_) => {}
            }
        }
        change.removed = before.keys().filter(|key| !now.contains_key(*key)).count();
        change
    }
}

impl Judged {
    /// Opinions, repeats left out.
    #[must_use]
    pub fn votes(&self) -> usize {
        self.ballots.iter().filter(|b| !b.repeat).count()
    }
}

/// The last word of one annotator on each pair, by pair and whether it is a repeat. The order of
/// lines has no say: two branches may have been merged.
#[must_use]
pub fn latest(votes: &[Vote]) -> BTreeMap<(&str, bool), &Vote> {
    let mut last: BTreeMap<(&str, bool), &Vote> = BTreeMap::new();
    for vote in votes {
        let slot = last.entry((&vote.pair, vote.repeat)).or_insert(vote);
        let rank = |v: &Vote| (v.rev, v.at.clone(), v.id.clone(), v.choice, v.reasons.clone());
        if rank(vote) > rank(slot) {
            *slot = vote;
        }
    }
    last
}
