//! How much annotators agree: coefficients with intervals, and what they leave to be learned.
//! Pure arithmetic over votes; knows nothing of files, pages or stages.

mod coefficients;
mod dawid_skene;
mod intervals;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::votes::{Choice, Judged};

pub use coefficients::{Distance, alpha, alpha_estimate, cohen, fleiss, percent, percent_estimate};
pub use dawid_skene::{DawidSkene, Smoothing, dawid_skene};
pub use intervals::{Interval, bootstrap, wilson};

/// The annotator of this name decides a pair alone. What they say is not independent of the votes
/// they looked at, so it never counts as agreement.
pub const ADJUDICATOR: &str = "adjudicator";

/// What one annotator said of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rating {
    /// Place in [`Ratings::annotators`].
    pub annotator: usize,
    pub category: usize,
}

/// Items by annotators; nobody needs to have rated everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ratings {
    pub annotators: Vec<String>,
    /// How many categories there are, in order where they have one.
    pub categories: usize,
    pub items: Vec<Vec<Rating>>,
}

/// As what a choice enters statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasurementScale {
    /// Three categories: one answer, neither, the other.
    Answer,
    /// Five, in order: `a_much`, `a`, neither, `b`, `b_much`.
    Strength,
}

impl MeasurementScale {
    #[must_use]
    pub fn categories(self) -> usize {
        match self {
            Self::Answer => 3,
            Self::Strength => 5,
        }
    }

    /// The category of a choice; `None` where there is no opinion.
    #[must_use]
    pub fn category(self, choice: Choice) -> Option<usize> {
        let score = choice.score()?;
        let place = match self {
            Self::Answer => score.signum() + 1,
            Self::Strength => score + 2,
        };
        usize::try_from(place).ok()
    }
}

impl Ratings {
    /// The votes on some pairs, one item a pair, without repeats and the adjudicator's.
    #[must_use]
    pub fn of<'a>(pairs: impl IntoIterator<Item = &'a Judged>, scale: MeasurementScale) -> Self {
        let pairs: Vec<&Judged> = pairs.into_iter().collect();
        let independent =
            |j: &'a Judged| j.ballots.iter().filter(|b| !b.repeat && b.annotator != ADJUDICATOR);
        let names: BTreeSet<&str> =
            pairs.iter().flat_map(|j| independent(j)).map(|b| b.annotator.as_str()).collect();
        let annotators: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
        let item = |judged: &&'a Judged| {
            let rating = |b: &'a crate::votes::Ballot| {
                let annotator = annotators.binary_search(&b.annotator).ok()?;
                Some(Rating { annotator, category: scale.category(b.choice)? })
            };
            independent(judged).filter_map(rating).collect()
        };
        let items = pairs.iter().map(item).collect();
        Self { annotators, categories: scale.categories(), items }
    }

    /// Items that at least two ratings were given to: only these can show agreement.
    #[must_use]
    pub fn shared(&self) -> usize {
        self.items.iter().filter(|item| item.len() > 1).count()
    }

    /// The items that both of two annotators rated, as both saw them.
    #[must_use]
    pub fn between(&self, one: usize, other: usize) -> Vec<(usize, usize)> {
        let by = |item: &[Rating], who: usize| {
            item.iter().find(|r| r.annotator == who).map(|r| r.category)
        };
        self.items.iter().filter_map(|i| Some((by(i, one)?, by(i, other)?))).collect()
    }
}

/// Whether there are enough votes to go on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Readiness {
    /// Votes on pairs in use, without repeats and gold items.
    pub votes: u64,
    pub need: u64,
    /// Krippendorff's alpha, ordinal; `None` where no two annotators voted on one pair, or all said
    /// the same.
    pub alpha: Option<f64>,
    /// −1: any.
    pub need_alpha: f64,
    pub ready: bool,
}

impl Readiness {
    /// What lacks, completing "waiting for people: "; `None` when nothing does.
    #[must_use]
    pub fn lack(&self) -> Option<String> {
        let Self { votes, need, alpha, need_alpha, ready } = *self;
        if ready {
            return None;
        }
        if votes < need {
            return Some(format!("{votes} of {need} votes"));
        }
        Some(match alpha {
            Some(alpha) => {
                format!("agreement {alpha:.2} of {need_alpha:.2} (Krippendorff's alpha)")
            }
            None => format!(
                "agreement of {need_alpha:.2} is asked for, but no two annotators can be compared \
                 yet"
            ),
        })
    }
}

/// Whether the votes on the pairs in use are enough, at least one, and agree enough.
#[must_use]
pub fn readiness(used: &[&Judged], need: u64, need_alpha: f64) -> Readiness {
    let need = need.max(1);
    let votes = used.iter().map(|j| j.votes() as u64).sum();
    let alpha =
        alpha(&Ratings::of(used.iter().copied(), MeasurementScale::Strength), Distance::Ordinal);
    let agreed = need_alpha <= -1.0 || alpha.is_some_and(|a| a >= need_alpha);
    Readiness { votes, need, alpha, need_alpha, ready: votes >= need && agreed }
}

/// How often two votes on one pair that are both for one of the answers are for the same one, from
/// ratings on [`MeasurementScale::Answer`].
#[must_use]
pub fn decided(answers: &Ratings) -> Option<f64> {
    let mut decided = answers.clone();
    decided.items.iter_mut().for_each(|item| item.retain(|r| r.category != 1));
    percent(&decided)
}

/// How often a model without error would predict a single vote on a binary choice, where two votes
/// on one pair agree with probability `agreement`: at least that often, the bound where some pairs
/// are certain and the others a toss; at most (1 + √(2A − 1)) / 2, the bound where all pairs are
/// equally hard.
#[must_use]
pub fn accuracy_ceiling(agreement: f64) -> (f64, f64) {
    // Votes that agree less often than coins do so by chance.
    let a = agreement.clamp(0.5, 1.0);
    (a, f64::midpoint(1.0, (2.0 * a - 1.0).sqrt()))
}
