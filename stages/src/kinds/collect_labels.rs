//! `collect_labels`: pairs become preferences. So far the only labeler is a simulated one.
//! Knows nothing of models; loads none.

use anyhow::Result;
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::train::within;
use crate::context::{Context, advise};
use crate::data::{Answer, Column, Rule, RuleBook, Table};
use crate::kind::{Stage, Summary, input, output};
use crate::rng::{Stream, hash};
use crate::stats::mean;

/// Params of `collect_labels`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectLabels {
    /// Who compares.
    labeler: Labeler,
    /// When there are enough labels to go on.
    #[serde(default)]
    ready_when: ReadyWhen,
    /// Names the random streams of a simulated labeler.
    #[serde(default)]
    seed: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Labeler {
    /// People, on the label page (`preflow label serve`) or in the terminal (`preflow label ask`).
    People(People),
    /// A program that plays an annotator: it scores both answers by rules and errs like a person.
    Simulated(Simulated),
}

/// An annotator who prefers a to b with probability σ((score a − score b) / temperature).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Simulated {
    /// What makes an answer good: the scores of the rules that hold are added up.
    rules: Vec<Rule>,
    /// How unsure the annotator is; 0: the better score always wins.
    temperature: f64,
    /// Share of choices that come out the wrong way round.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    flip: f64,
    /// Scores closer than this are a tie.
    tie_below: f64,
}

impl Default for Simulated {
    fn default() -> Self {
        Self { rules: Vec::new(), temperature: 0.25, flip: 0.05, tie_below: 0.05 }
    }
}

/// Votes of people, kept as files in git, one an annotator.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct People {
    /// Folder of the votes; made by the first vote.
    #[schemars(extend("x-source" = {"port": "votes", "type": "votes"}))]
    votes: String,
    /// What annotators are asked.
    #[serde(default = "question")]
    question: String,
    /// How several votes on one pair become labels.
    #[serde(default)]
    aggregate: Aggregate,
    /// Which votes count: those on the pairs sampled now, or all that there ever were.
    #[serde(default)]
    reuse: Reuse,
    /// How many annotators see the same pair.
    #[serde(default)]
    overlap: Overlap,
    /// What the label page asks next. Never changes what a vote means.
    #[serde(default)]
    order: Order,
    /// How annotators are checked.
    #[serde(default)]
    quality: Quality,
}

fn question() -> String {
    "Which answer is better?".to_owned()
}

/// From votes to labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Aggregate {
    /// One label a pair: what most say; a tie where they are even.
    #[default]
    Majority,
    /// One label a vote.
    EachVote,
    /// One label a pair: what is most likely, given how reliable each annotator is.
    DawidSkene,
}

/// Which votes count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Reuse {
    /// Votes on the pairs that are sampled now; others are kept, unused.
    #[default]
    Sampled,
    /// All votes whose text was kept, also on pairs that are no longer sampled.
    All,
}

/// A share of the pairs is shown to several annotators.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Overlap {
    /// Share of the pairs that several annotators see.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    fraction: f64,
    /// How many annotators see each of these.
    #[schemars(range(min = 2, max = 100))]
    annotators: u32,
}

impl Default for Overlap {
    fn default() -> Self {
        Self { fraction: 0.0, annotators: 2 }
    }
}

/// What to ask next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// In an order that depends on the pairs alone.
    #[default]
    Random,
    /// First where the members of the last reward ensemble trained on these labels disagree most.
    Disagreement,
}

/// Checks on annotators.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Quality {
    /// Items whose answer is known: `prompt`, `response_a`, `response_b`, `choice` (as in votes); empty:
    /// none.
    #[schemars(extend("x-source" = {"port": "gold", "type": "gold"}))]
    gold: String,
    /// Share of what an annotator sees that is gold.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    gold_share: f64,
    /// Share of what an annotator sees that they saw before, sides swapped.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    repeats: f64,
    /// Votes faster than this are flagged.
    #[schemars(range(min = 0.0), extend("x-unit" = "seconds"))]
    min_seconds: f64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { gold: String::new(), gold_share: 0.05, repeats: 0.0, min_seconds: 1.0 }
    }
}

/// When there are enough labels.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ReadyWhen {
    /// Labels needed (of people: votes on pairs in use); 0: whatever there is.
    #[schemars(extend("x-unit" = "count"))]
    votes: u64,
    /// Least agreement among annotators: Krippendorff's alpha, ordinal; -1: any.
    #[schemars(range(min = -1.0, max = 1.0))]
    alpha: f64,
}

impl Default for ReadyWhen {
    fn default() -> Self {
        Self { votes: 0, alpha: -1.0 }
    }
}

/// What an annotator said of one pair.
struct Verdict {
    choice: &'static str,
    /// How often the best guess at the choice would be right.
    certainty: f64,
}

impl Stage for CollectLabels {
    const NAME: &'static str = "collect_labels";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "collect preferences over pairs of answers";
    const THREADS: u32 = 1;

    fn inputs() -> Vec<InputDoc> {
        vec![input("pairs", &["dataset/pairs"], "the answers to compare")]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("labels", "dataset/labels", "parquet", "prompt, chosen, rejected and more")]
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let Labeler::Simulated(annotator) = &self.labeler else {
            return Err(advise("votes of people are not read yet", "use labeler.simulated"));
        };
        within("labeler.simulated.flip", annotator.flip, 0.0, 0.5)?;
        within("labeler.simulated.temperature", annotator.temperature, 0.0, 1e6)?;
        let mut rules = RuleBook::new(&annotator.rules)?;
        if rules.is_empty() {
            let help = "list what makes an answer good under labeler.simulated.rules";
            return Err(advise("a simulated annotator without rules finds every pair a tie", help));
        }
        let pairs = cx.table("pairs")?;
        if (pairs.rows() as u64) < self.ready_when.votes {
            let message = format!(
                "ready_when asks for {} votes, but there are only {} pairs",
                self.ready_when.votes,
                pairs.rows()
            );
            return Err(advise(message, "sample more pairs, or ask for fewer votes"));
        }
        cx.warn(format!(
            "SIMULATED LABELS: no person compared these {} pairs; a program with {} rules did",
            pairs.rows(),
            annotator.rules.len()
        ))?;
        let verdicts = annotator.judge(&mut rules, &pairs, self.seed)?;
        let table = labels(&pairs, &verdicts)?;
        cx.write_table("labels", &table)?;
        let count = |c: &str| verdicts.iter().filter(|v| v.choice == c).count() as f64;
        let ceiling: Vec<f64> =
            verdicts.iter().filter(|v| v.choice != "tie").map(|v| v.certainty).collect();
        Ok(Summary::from([
            ("labels".into(), verdicts.len() as f64),
            ("labels/ties".into(), count("tie")),
            ("labels/first_share".into(), count("a") / (count("a") + count("b")).max(1.0)),
            ("labels/ceiling".into(), mean(&ceiling)),
            ("labels/simulated".into(), 1.0),
        ]))
    }
}

impl Simulated {
    /// A verdict on each pair. It depends on the pair and the seed, not on the other pairs.
    fn judge(&self, rules: &mut RuleBook, pairs: &Table, seed: u64) -> Result<Vec<Verdict>> {
        let names = pairs.texts("pair")?;
        let (a, b) = (pairs.texts("response_a")?, pairs.texts("response_b")?);
        let ends = [pairs.bools("finished_a", true), pairs.bools("finished_b", true)];
        let mut verdicts = Vec::with_capacity(names.len());
        for row in 0..names.len() {
            let (_, score_a) =
                rules.judge(Answer { text: a[row], finished: ends[0][row] }, pairs, row)?;
            let (_, score_b) =
                rules.judge(Answer { text: b[row], finished: ends[1][row] }, pairs, row)?;
            let delta = score_a - score_b;
            let mut stream = Stream::new(seed, "annotator", hash(names[row].as_bytes()), 0);
            let taste = stream.uniform();
            let sure = 1.0 / (1.0 + (-delta / self.temperature).exp());
            let first =
                if self.temperature > 0.0 { sure } else { f64::from(u8::from(delta > 0.0)) };
            let first = first * (1.0 - self.flip) + (1.0 - first) * self.flip;
            let choice = match taste {
                _ if delta.abs() < self.tie_below => "tie",
                u if u < first => "a",
                _ => "b",
            };
            verdicts.push(Verdict { choice, certainty: first.max(1.0 - first) });
        }
        Ok(verdicts)
    }
}

/// The labels table: the columns of TRL first, then both sides as they were shown.
fn labels(pairs: &Table, verdicts: &[Verdict]) -> Result<Table> {
    let (a, b) = (pairs.texts("response_a")?, pairs.texts("response_b")?);
    let side =
        |i: usize, chosen: bool| if (verdicts[i].choice == "b") == chosen { b[i] } else { a[i] };
    let all = || 0..verdicts.len();
    let tie = |i: usize| verdicts[i].choice == "tie";
    let mut table = Table::new(vec![
        ("prompt", Column::text(pairs.texts("prompt")?)),
        ("chosen", Column::text(all().map(|i| side(i, true)))),
        ("rejected", Column::text(all().map(|i| side(i, false)))),
        ("tie", Column::bools(all().map(tie))),
        ("strength", Column::floats(all().map(|i| if tie(i) { 0.0 } else { 1.0 }))),
        ("votes", Column::ints(all().map(|_| 1))),
        ("annotators", Column::ints(all().map(|_| 1))),
        ("pair", Column::text(pairs.texts("pair")?)),
        ("response_a", Column::text(a.iter().copied())),
        ("response_b", Column::text(b.iter().copied())),
        ("choice", Column::text(verdicts.iter().map(|v| v.choice))),
        ("simulated", Column::bools(all().map(|_| true))),
        ("certainty", Column::floats(verdicts.iter().map(|v| v.certainty))),
    ])?;
    for (name, column) in pairs.columns() {
        if table.column(name).is_none() {
            table.set(name, column.clone())?;
        }
    }
    Ok(table)
}
