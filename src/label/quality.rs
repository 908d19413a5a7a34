//! How each annotator does and how much they agree: figures for the admin page and the terminal,
//! and whether there are enough votes to go on. Knows nothing of how either is shown.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::{Assignment, Reuse};
use crate::agreement::{
    self, ADJUDICATOR, Distance, Interval, MeasurementScale, Ratings, Readiness, accuracy_ceiling,
    alpha_estimate, cohen, decided, fleiss, percent_estimate, wilson,
};
use crate::votes::{Choice, Effective, Folder, Judged, PairText, Side, Vote};

/// Fewer items than this say little.
pub const FEW: usize = 20;
/// A gap of more seconds between two votes is a pause.
const PAUSE: f64 = 300.0;
/// For the intervals of agreement; a thousand resamples place them to about a hundredth.
const RESAMPLES: u32 = 1000;
const SEED: u64 = 1;

/// All that is known of the votes of one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QualityReport {
    pub annotators: Vec<AnnotatorReport>,
    pub overall: OverallReport,
    /// Pairs whose votes disagree and that no adjudicator settled.
    pub disputes: Vec<Dispute>,
    /// Fewer than [`FEW`] pairs have several votes: agreement says little.
    pub too_few: bool,
}

/// How one annotator does. Gold items count only towards `gold`, repeats only towards
/// `consistency`, neither as votes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnnotatorReport {
    pub annotator: String,
    pub votes: usize,
    pub skips: usize,
    pub ties: usize,
    /// Votes an hour, pauses of more than five minutes left out.
    pub per_hour: Option<f64>,
    /// Median time from seeing a pair to the choice, where it was measured.
    pub seconds: Option<f64>,
    /// Votes faster than `quality.min_seconds`.
    pub too_fast: usize,
    /// Of the votes for one answer: for the one on the left.
    pub left: Option<Interval>,
    /// Of the votes for one of two answers of different length: for the longer one.
    pub longer: Option<Interval>,
    /// Right answers on gold items.
    pub gold: Option<Interval>,
    /// Same answer when a pair was shown again.
    pub consistency: Option<Interval>,
    /// Same answer as each other annotator of the same pair.
    pub agreement: Option<Interval>,
    /// Fewer than [`FEW`] votes.
    pub too_few: bool,
}

/// How much annotators agree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverallReport {
    /// Pairs in use with a vote.
    pub pairs: usize,
    /// Of these, pairs with votes of several annotators.
    pub shared: usize,
    /// Votes on pairs in use.
    pub votes: usize,
    /// Votes on pairs that are not: kept, unused.
    pub unused: usize,
    /// How often two votes on one pair are for the same answer, or both for neither.
    pub percent: Option<Interval>,
    /// Cohen's kappa in the mean over pairs of annotators, each weighed by the pairs they share.
    pub cohen: Option<f64>,
    pub fleiss: Option<f64>,
    /// Krippendorff's alpha over a, neither, b.
    pub alpha_nominal: Option<Interval>,
    /// Krippendorff's alpha over `a_much`, a, neither, b, `b_much` in this order.
    pub alpha_ordinal: Option<Interval>,
    /// Least and most that a model could be right about single votes for one of the answers.
    pub ceiling: Option<(f64, f64)>,
    /// Votes that each reason was marked on, those most marked first.
    pub reasons: Vec<ReasonCount>,
}

/// How often a reason was marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    pub reason: String,
    pub votes: usize,
}

/// A pair to settle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dispute {
    pub pair: String,
    /// Prompt and both answers, where the text is known.
    pub text: Option<[String; 3]>,
    pub votes: Vec<(String, Choice)>,
}

/// Figures of all votes in a folder, seen from one stage.
#[must_use]
pub fn quality(assignment: &Assignment, folder: &Folder) -> QualityReport {
    let effective = Effective::of(folder);
    let used = in_use(assignment, &effective);
    let texts = Texts::of(assignment, folder);
    let annotators = folder.votes.keys().map(|name| {
        let latest = folder.latest(name).into_iter().map(|((_, repeat), vote)| (repeat, vote));
        let mut report = texts.annotator(assignment, name, &latest.collect::<Vec<_>>());
        report.per_hour = rate(&folder.votes[name]);
        report.agreement = with_others(name, &used);
        report
    });
    let overall = overall(assignment, &effective, &used);
    QualityReport {
        annotators: annotators.collect(),
        disputes: disputes(&used, &texts),
        too_few: overall.shared < FEW,
        overall,
    }
}

/// Whether the stage's `ready_when` is met.
#[must_use]
pub fn readiness(assignment: &Assignment, effective: &Effective) -> Readiness {
    let used = in_use(assignment, effective);
    agreement::readiness(&used, assignment.ready.votes, assignment.ready.alpha)
}

/// The pairs with votes that become labels.
fn in_use<'a>(assignment: &Assignment, effective: &'a Effective) -> Vec<&'a Judged> {
    let gold: HashSet<&str> = assignment.gold.iter().map(|g| g.text.pair.as_str()).collect();
    let sampled: HashSet<&str> = assignment.pairs.iter().map(|p| p.pair.as_str()).collect();
    let all = assignment.people.reuse == Reuse::All;
    let counts = |j: &&Judged| {
        let known = sampled.contains(j.pair.as_str()) || (all && j.text.is_some());
        known && !gold.contains(j.pair.as_str()) && j.votes() > 0
    };
    effective.pairs.values().filter(counts).collect()
}

/// What is known of pairs, for whoever looks at single votes.
struct Texts<'a> {
    texts: HashMap<&'a str, &'a PairText>,
    gold: HashMap<&'a str, Choice>,
}

fn class(choice: Choice) -> Option<usize> {
    MeasurementScale::Answer.category(choice)
}

impl<'a> Texts<'a> {
    fn of(assignment: &'a Assignment, folder: &'a Folder) -> Self {
        let gold = &assignment.gold;
        let known = folder.texts.values().chain(&assignment.pairs);
        let known = known.chain(gold.iter().map(|g| &g.text));
        Self {
            texts: known.map(|t| (t.pair.as_str(), t)).collect(),
            gold: gold.iter().map(|g| (g.text.pair.as_str(), g.choice)).collect(),
        }
    }

    /// What follows from the last word on each pair: `(repeat, vote)`.
    fn annotator(
        &self,
        assignment: &Assignment,
        name: &str,
        latest: &[(bool, &Vote)],
    ) -> AnnotatorReport {
        let is_gold = |v: &Vote| self.gold.contains_key(v.pair.as_str());
        let own = || latest.iter().filter(|(repeat, v)| !repeat && !is_gold(v)).map(|(_, v)| *v);
        let votes: Vec<&Vote> = own().filter(|v| v.choice.counts()).collect();
        let count = |f: &dyn Fn(&Vote) -> bool| votes.iter().filter(|v| f(v)).count();
        // What was imported was not measured.
        let mut seconds: Vec<f64> =
            votes.iter().filter(|v| v.ms > 0).map(|v| v.ms as f64 / 1000.0).collect();
        seconds.sort_by(f64::total_cmp);
        let least = assignment.people.quality.min_seconds;
        let left = votes.iter().filter_map(|v| Some(v.choice.preferred()? == v.shown_left));
        let longer = votes.iter().filter_map(|v| self.is_longer(v));
        let gold = latest.iter().filter(|(repeat, _)| !repeat).filter_map(|(_, v)| {
            let truth = self.gold.get(v.pair.as_str())?;
            Some(class(v.choice)? == class(*truth)?)
        });
        let first: HashMap<&str, Choice> = own().map(|v| (v.pair.as_str(), v.choice)).collect();
        let again = latest
            .iter()
            .filter(|(repeat, _)| *repeat)
            .filter_map(|(_, v)| Some(class(*first.get(v.pair.as_str())?)? == class(v.choice)?));
        AnnotatorReport {
            annotator: name.to_owned(),
            votes: votes.len(),
            skips: own().filter(|v| v.choice == Choice::Skip).count(),
            ties: count(&|v| v.choice.preferred().is_none()),
            per_hour: None,
            seconds: seconds.get(seconds.len() / 2).copied(),
            too_fast: seconds.iter().filter(|s| **s < least).count(),
            left: share(left),
            longer: share(longer),
            gold: share(gold),
            consistency: share(again),
            agreement: None,
            too_few: votes.len() < FEW,
        }
    }

    /// Whether a vote is for the longer answer; `None` where it is for neither, or none is longer.
    fn is_longer(&self, vote: &Vote) -> Option<bool> {
        let text = self.texts.get(vote.pair.as_str())?;
        let (a, b) = (text.a.chars().count(), text.b.chars().count());
        let longer = if a > b { Side::A } else { Side::B };
        (a != b).then_some(vote.choice.preferred()? == longer)
    }
}

fn share(hits: impl Iterator<Item = bool>) -> Option<Interval> {
    let (hits, n) = hits.fold((0, 0), |(hits, n), hit| (hits + u64::from(hit), n + 1));
    wilson(hits, n)
}

/// Votes an hour, by the times of all that was sent.
fn rate(votes: &[Vote]) -> Option<f64> {
    let mut times: Vec<f64> = votes
        .iter()
        .filter(|v| v.ms > 0)
        .filter_map(|v| v.at.parse::<jiff::Timestamp>().ok())
        .map(|at| at.as_duration().as_secs_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    let gaps: Vec<f64> =
        times.windows(2).map(|w| w[1] - w[0]).filter(|gap| *gap <= PAUSE).collect();
    let seconds: f64 = gaps.iter().sum();
    (seconds > 0.0).then(|| gaps.len() as f64 * 3600.0 / seconds)
}

/// How often `name` says what another says of the same pair.
fn with_others(name: &str, used: &[&Judged]) -> Option<Interval> {
    if name == ADJUDICATOR {
        return None;
    }
    let ratings = Ratings::of(used.iter().copied(), MeasurementScale::Answer);
    let who = ratings.annotators.iter().position(|a| a == name)?;
    let others = (0..ratings.annotators.len()).filter(|other| *other != who);
    let met = others.flat_map(|other| ratings.between(who, other));
    share(met.map(|(mine, theirs)| mine == theirs))
}

fn overall(assignment: &Assignment, effective: &Effective, used: &[&Judged]) -> OverallReport {
    let gold: HashSet<&str> = assignment.gold.iter().map(|g| g.text.pair.as_str()).collect();
    let votes: usize = used.iter().map(|j| j.votes()).sum();
    let on_gold = effective.pairs.values().filter(|j| gold.contains(j.pair.as_str()));
    let on_gold: usize = on_gold.map(Judged::votes).sum();
    let answers = Ratings::of(used.iter().copied(), MeasurementScale::Answer);
    let strengths = Ratings::of(used.iter().copied(), MeasurementScale::Strength);
    OverallReport {
        pairs: used.len(),
        shared: answers.shared(),
        votes,
        unused: effective.votes() - votes - on_gold,
        percent: percent_estimate(&answers, RESAMPLES, SEED),
        cohen: mean_cohen(&answers),
        fleiss: fleiss(&answers),
        alpha_nominal: alpha_estimate(&answers, Distance::Nominal, RESAMPLES, SEED),
        alpha_ordinal: alpha_estimate(&strengths, Distance::Ordinal, RESAMPLES, SEED),
        ceiling: decided(&answers).map(accuracy_ceiling),
        reasons: reasons(used),
    }
}

fn reasons(used: &[&Judged]) -> Vec<ReasonCount> {
    let ballots = used.iter().flat_map(|j| &j.ballots).filter(|b| !b.repeat);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in ballots.flat_map(|b| &b.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let counts = counts.into_iter();
    let mut counts: Vec<ReasonCount> =
        counts.map(|(reason, votes)| ReasonCount { reason: reason.to_owned(), votes }).collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.votes));
    counts
}

fn mean_cohen(ratings: &Ratings) -> Option<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for one in 0..ratings.annotators.len() {
        for other in one + 1..ratings.annotators.len() {
            let met = ratings.between(one, other);
            if let Some(kappa) = cohen(&met) {
                sum += kappa * met.len() as f64;
                weight += met.len() as f64;
            }
        }
    }
    (weight > 0.0).then(|| sum / weight)
}

fn disputes(used: &[&Judged], texts: &Texts) -> Vec<Dispute> {
    let disputed = |j: &&&Judged| {
        let votes = || j.ballots.iter().filter(|b| !b.repeat);
        let classes: HashSet<_> = votes().map(|b| class(b.choice)).collect();
        classes.len() > 1 && votes().all(|b| b.annotator != ADJUDICATOR)
    };
    let dispute = |j: &&Judged| Dispute {
        pair: j.pair.clone(),
        text: texts
            .texts
            .get(j.pair.as_str())
            .map(|t| [t.prompt.clone(), t.a.clone(), t.b.clone()]),
        votes: j
            .ballots
            .iter()
            .filter(|b| !b.repeat)
            .map(|b| (b.annotator.clone(), b.choice))
            .collect(),
    };
    used.iter().filter(disputed).map(dispute).collect()
}

#[cfg(test)]
mod tests;
