//! Labels by people: the votes that count, put together pair by pair.
//! Knows nothing of vote files; it reads their canonical form.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, Result};
use preflow::agreement::{
    self, ADJUDICATOR, Distance, MeasurementScale, Ratings, Readiness, accuracy_ceiling,
    alpha_estimate, percent,
};
use preflow::label::{PeopleSettings, ReadyWhen, Reuse, read_gold};
use preflow::votes::{Choice, Effective, Judged, pair_id};

use super::aggregate::{Decided, decide};
use super::rows::{Label, Labeler, is_tie, table};
use crate::advice::error_with_help;
use crate::context::{Context, Waiting};
use crate::data::{Column, Content, Table};
use crate::kind::Summary;

const PEOPLE: Labeler = Labeler { simulated: false, name: None };
/// Resamples of the interval of alpha.
const RESAMPLES: u32 = 1000;

/// What is compared, and the votes on it.
struct Material {
    /// The pairs that are sampled now, then those that only the votes remember.
    pairs: Table,
    effective: Effective,
    /// Row of the pairs and name of the pair, of those with votes, in the order of the rows.
    used: Vec<(usize, String)>,
    gold: HashMap<String, Choice>,
}

/// Labels from the votes that there are.
///
/// # Errors
/// When an input cannot be read; [`Waiting`] when there are too few votes.
pub fn collect(people: &PeopleSettings, cx: &mut Context, ready: &ReadyWhen) -> Result<Summary> {
    let material = material(people, cx)?;
    let used = material.judged();
    let readiness = agreement::readiness(&used, ready.votes, ready.alpha);
    let unused = material.unused(&used);
    if !readiness.ready || used.is_empty() {
        return Err(waiting(&readiness, unused, people.reuse).into());
    }
    let decided = decide(&used, people.aggregate);
    let labels = material.labels(&decided);
    cx.write_table("labels", &table(&material.pairs, &labels, PEOPLE)?)?;
    let mut summary = figures(&used, &labels);
    summary.insert("labels/unused_votes".into(), unused as f64);
    summary.extend(material.gold_accuracy().map(|x| ("labels/gold_accuracy".into(), x)));
    Ok(summary)
}

fn material(people: &PeopleSettings, cx: &Context) -> Result<Material> {
    let all = people.reuse == Reuse::All;
    let path = cx.path("votes")?;
    let effective = Effective::parse(&fs_err::read(path)?)
        .with_context(|| format!("input `votes` ({})", path.display()))?;
    let gold = match cx.inputs("gold") {
        [] => HashMap::new(),
        _ => read_gold(cx.path("gold")?)?.into_iter().map(|g| (g.text.pair, g.choice)).collect(),
    };
    let sampled = match cx.inputs("pairs") {
        [] if all => Table::new(vec![
            ("pair", Column::Text(vec![])),
            ("prompt", Column::Text(vec![])),
            ("response_a", Column::Text(vec![])),
            ("response_b", Column::Text(vec![])),
        ])?,
        _ => super::pairs(cx)?,
    };
    let names = names(&sampled)?;
    let counts = |pair: &str| {
        !gold.contains_key(pair) && effective.pairs.get(pair).is_some_and(|j| j.votes() > 0)
    };
    let mut seen = HashSet::new();
    let mut used: Vec<(usize, String)> = Vec::new();
    for (row, name) in names.iter().enumerate() {
        if seen.insert(name.as_str()) && counts(name) {
            used.push((row, name.clone()));
        }
    }
    let mut kept = Vec::new();
    let others = effective.pairs.values().filter(|j| all && !seen.contains(j.pair.as_str()));
    for judged in others.filter(|j| counts(&j.pair)) {
        let Some(text) = &judged.text else { continue };
        if pair_id(&text[0], &text[1], &text[2]) != judged.pair {
            let message = format!("the text kept of {} is not what was compared", judged.pair);
            let help = "mend its line under `pairs/` in the votes folder; `git log -p` shows \
                        how it was";
            return Err(error_with_help(message, help));
        }
        used.push((sampled.rows() + kept.len(), judged.pair.clone()));
        kept.push((judged.pair.as_str(), text));
    }
    let pairs = with_kept(&sampled, &names, &kept)?;
    Ok(Material { pairs, effective, used, gold })
}

/// The name of each pair, by its text.
fn names(pairs: &Table) -> Result<Vec<String>> {
    let (prompts, a, b) =
        (pairs.keys("prompt")?, pairs.keys("response_a")?, pairs.keys("response_b")?);
    Ok((0..pairs.rows()).map(|i| pair_id(&prompts[i], &a[i], &b[i])).collect())
}

/// The sampled pairs and below them those whose text the votes kept; what else is known of pairs is
/// not known of these.
fn with_kept(sampled: &Table, names: &[String], kept: &[(&str, &[String; 3])]) -> Result<Table> {
    let mut pairs = sampled.clone();
    pairs.set("pair", Column::text(names))?;
    let mut out = Vec::new();
    for (name, column) in pairs.columns() {
        let place = ["prompt", "response_a", "response_b"].iter().position(|n| n == name);
        let column = match (place, column) {
            (Some(place), _) if !kept.is_empty() => {
                let own = pairs.contents(name)?;
                let more = kept.iter().map(|(_, text)| Content::of_written(&text[place]));
                let all: Vec<Content> = own.into_iter().chain(more).collect();
                let role = if place == 0 { "user" } else { "assistant" };
                Column::contents(all.iter().map(Cow::Borrowed), role)
            }
            (None, Column::Text(v)) if name == "pair" => {
                let more = kept.iter().map(|(pair, _)| Some((*pair).to_owned()));
                Column::Text(v.iter().cloned().chain(more).collect())
            }
            (_, other) => {
                let mut longer = other.clone();
                longer.extend_gaps(kept.len());
                longer
            }
        };
        out.push((name.clone(), column));
    }
    Table::new(out)
}

impl Material {
    fn judged(&self) -> Vec<&Judged> {
        self.used.iter().map(|(_, name)| &self.effective.pairs[name]).collect()
    }

    /// Votes on pairs that are not in use, gold items left out.
    fn unused(&self, used: &[&Judged]) -> usize {
        let gold = self.effective.pairs.values().filter(|j| self.gold.contains_key(&j.pair));
        let counted: usize = used.iter().copied().chain(gold).map(Judged::votes).sum();
        self.effective.votes() - counted
    }

    /// Rows of the labels; `decided` names pairs by their place in `used`.
    fn labels(&self, decided: &[Decided]) -> Vec<Label> {
        let texts = |name| self.pairs.keys(name).unwrap_or_default();
        let (a, b) = (texts("response_a"), texts("response_b"));
        let label = |d: &Decided| {
            let row = self.used[d.item].0;
            // In votes `a` is the answer that sorts first, in the columns the one sampled first.
            let choice = if a[row] > b[row] { d.choice.mirrored() } else { d.choice };
            let choice = match choice {
                Choice::A | Choice::AMuch => "a",
                Choice::B | Choice::BMuch => "b",
                Choice::BothBad => "both_bad",
                _ => "tie",
            };
            Label {
                strength: d.strength,
                votes: d.votes,
                annotators: d.votes,
                agreement: Some(d.agreement),
                voters: Some(d.voters.join(" ")),
                reasons: d.reasons.join(", "),
                ..Label::single(row, choice)
            }
        };
        decided.iter().map(label).collect()
    }

    /// Share of right answers on gold items.
    fn gold_accuracy(&self) -> Option<f64> {
        let (mut right, mut n) = (0.0, 0.0);
        for (pair, truth) in &self.gold {
            let ballots = self.effective.pairs.get(pair).map_or(&[][..], |j| &j.ballots);
            let own = ballots.iter().filter(|b| !b.repeat && b.annotator != ADJUDICATOR);
            for ballot in own {
                let class = |choice| MeasurementScale::Answer.category(choice);
                right += f64::from(u8::from(class(ballot.choice) == class(*truth)));
                n += 1.0;
            }
        }
        (n > 0.0).then(|| right / n)
    }
}

fn waiting(readiness: &Readiness, unused: usize, reuse: Reuse) -> Waiting {
    let Readiness { votes, need, .. } = *readiness;
    let lack = readiness.lack().unwrap_or_default();
    if votes < need {
        let more = match (unused, reuse) {
            (0, _) => String::new(),
            (n, Reuse::Sampled) => format!(" ({n} more on pairs that are not sampled now)"),
            (n, Reuse::All) => format!(" ({n} more on pairs whose text was not kept)"),
        };
        let reason = format!("{lack}{more}");
        return Waiting { reason, have: Some(votes), need: Some(need) };
    }
    Waiting { reason: lack, have: None, need: None }
}

fn figures(used: &[&Judged], labels: &[Label]) -> Summary {
    let answers = Ratings::of(used.iter().copied(), MeasurementScale::Answer);
    let strengths = Ratings::of(used.iter().copied(), MeasurementScale::Strength);
    let count = |f: &dyn Fn(&Label) -> bool| labels.iter().filter(|l| f(l)).count() as f64;
    let (a, b) = (count(&|l| l.choice == "a"), count(&|l| l.choice == "b"));
    let people: BTreeSet<&str> =
        used.iter().flat_map(|j| &j.ballots).map(|b| b.annotator.as_str()).collect();
    let mut summary = Summary::from([
        ("labels".into(), labels.len() as f64),
        ("labels/ties".into(), count(&|l| is_tie(l.choice))),
        ("labels/both_bad".into(), count(&|l| l.choice == "both_bad")),
        ("labels/first_share".into(), a / (a + b).max(1.0)),
        ("labels/votes".into(), used.iter().map(|j| j.votes() as f64).sum()),
        ("labels/annotators".into(), people.len() as f64),
        ("labels/pairs_used".into(), used.len() as f64),
        ("labels/shared_pairs".into(), answers.shared() as f64),
        ("labels/simulated".into(), 0.0),
    ]);
    if let Some(alpha) = alpha_estimate(&strengths, Distance::Ordinal, RESAMPLES, 1) {
        summary.insert("labels/alpha".into(), alpha.value);
        summary.insert("labels/alpha_low".into(), alpha.low);
        summary.insert("labels/alpha_high".into(), alpha.high);
    }
    summary.extend(percent(&answers).map(|x| ("labels/agreement".into(), x)));
    if let Some((low, high)) = agreement::decided(&answers).map(accuracy_ceiling) {
        summary.insert("labels/ceiling_low".into(), low);
        summary.insert("labels/ceiling".into(), high);
    }
    summary
}
