//! Settings of a stage that asks people: one definition for the kind that makes labels of votes and
//! the page that collects them.
//! Does not know who answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Votes of people, kept as files in git, one an annotator.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeopleSettings {
    /// Folder of the votes; made by the first vote.
    #[schemars(extend("x-source" = {"port": "votes", "type": "votes"}))]
    pub votes: String,
    /// What annotators are asked.
    #[serde(default = "question")]
    pub question: String,
    /// A Markdown file that says how to choose, shown to annotators; empty: none.
    #[serde(default)]
    #[schemars(extend("x-source" = {"port": "guidelines", "type": "guidelines"}, "x-later" = true))]
    pub guidelines: String,
    /// Reasons that annotators may mark beside their choice, by keys from 3 on. They decide
    /// nothing; the labels hold them as column `reasons`.
    #[serde(default)]
    #[schemars(
        length(max = 7),
        inner(length(max = 40), regex(pattern = r"^[^\s,]([^,\t\r\n]*[^\s,])?$")),
        extend("uniqueItems" = true, "x-later" = true)
    )]
    pub reasons: Vec<String>,
    /// How several votes on one pair become labels.
    #[serde(default)]
    pub aggregate: Aggregate,
    /// Which votes count: those on the pairs sampled now, or all that there ever were.
    #[serde(default)]
    pub reuse: Reuse,
    /// How many annotators see the same pair.
    #[serde(default)]
    pub overlap: Overlap,
    /// What the label page asks next. Never changes what a vote means.
    #[serde(default)]
    pub order: AskOrder,
    /// How annotators are checked.
    #[serde(default)]
    pub quality: Quality,
}

fn question() -> String {
    "Which answer is better?".to_owned()
}

/// From votes to labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
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
pub enum Reuse {
    /// Votes on the pairs that are sampled now; others are kept, unused.
    #[default]
    Sampled,
    /// All votes whose text was kept, also on pairs that are no longer sampled.
    All,
}

/// A share of the pairs is shown to several annotators.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overlap {
    /// Share of the pairs that several annotators see.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    pub fraction: f64,
    /// How many annotators see each of these.
    #[schemars(range(min = 2, max = 100))]
    pub annotators: u32,
}

impl PeopleSettings {
    /// Whether votes are enough, with or without pairs that are sampled now.
    #[must_use]
    pub fn needs_no_pairs(&self) -> bool {
        self.reuse == Reuse::All
    }

    /// Most votes that so many pairs can get; `None` where earlier votes count too.
    #[must_use]
    pub fn most_votes(&self, pairs: u64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        #[expect(clippy::cast_precision_loss, reason = "far fewer than that")]
        let shared = (pairs as f64 * self.overlap.fraction).ceil() as u64;
        let most = pairs + shared * u64::from(self.overlap.annotators - 1);
        (self.reuse == Reuse::Sampled).then_some(most)
    }
}

impl Default for Overlap {
    fn default() -> Self {
        Self { fraction: 0.0, annotators: 2 }
    }
}

/// What to ask next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AskOrder {
    /// In an order that depends on the pairs alone.
    #[default]
    Random,
    /// First where the members of the last reward ensemble trained on these labels disagree most.
    Disagreement,
}

/// Checks on annotators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quality {
    /// Items whose answer is known: `prompt`, `response_a`, `response_b`, `choice` (as in votes);
    /// empty: none.
    #[schemars(extend("x-source" = {"port": "gold", "type": "gold"}))]
    pub gold: String,
    /// Share of what an annotator sees that is gold.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    pub gold_share: f64,
    /// Share of what an annotator sees that they saw before, sides swapped.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    pub repeats: f64,
    /// Votes faster than this are flagged.
    #[schemars(range(min = 0.0, max = 3600.0), extend("x-unit" = "seconds"))]
    pub min_seconds: f64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { gold: String::new(), gold_share: 0.05, repeats: 0.0, min_seconds: 1.0 }
    }
}

/// When there are enough labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReadyWhen {
    /// Labels needed (of people: votes on pairs in use); 0: whatever there is.
    #[schemars(extend("x-unit" = "count"))]
    pub votes: u64,
    /// Least agreement among annotators: Krippendorff's alpha, ordinal; -1: any.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub alpha: f64,
}

impl Default for ReadyWhen {
    fn default() -> Self {
        Self { votes: 0, alpha: -1.0 }
    }
}
