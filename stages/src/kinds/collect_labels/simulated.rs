//! Labels by a program that plays an annotator: rules, a temperature, errors.
//! Knows nothing of models or of votes.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::enough;
use super::rows::{Label, Labeler, table};
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Answer, Rule, RuleBook, Table};
use crate::kind::{Summary, check_range};
use crate::preflight::Preflight;
use crate::rng::{Stream, hash};
use crate::stats::mean;
use preflow::label::ReadyWhen;

/// An annotator who prefers a to b with probability σ((score a − score b) / temperature).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simulated {
    /// What makes an answer good: the scores of the rules that hold are added up.
    rules: Vec<Rule>,
    /// How unsure the annotator is; 0: the better score always wins.
    #[schemars(range(min = 0.0, max = 1e6))]
    temperature: f64,
    /// Share of choices that come out the wrong way round.
    #[schemars(range(min = 0.0, max = 0.5), extend("x-unit" = "fraction"))]
    flip: f64,
    /// Scores closer than this are a tie.
    #[schemars(range(min = 0.0, max = 1e6))]
    tie_below: f64,
}

impl Default for Simulated {
    fn default() -> Self {
        Self { rules: Vec::new(), temperature: 0.25, flip: 0.05, tie_below: 0.05 }
    }
}

impl Simulated {
    /// Looks for what cannot work before anything runs.
    pub fn look(&self, look: &mut Preflight) {
        if look.tell("labeler.simulated.rules", self.book()).is_some() {
            look.rules("labeler.simulated.rules", &self.rules, "pairs");
        }
    }

    fn book(&self) -> Result<RuleBook> {
        if self.rules.is_empty() {
            let help = "list what makes an answer good under labeler.simulated.rules";
            return Err(error_with_help(
                "a simulated annotator without rules finds every pair a tie",
                help,
            ));
        }
        RuleBook::new(&self.rules)
    }

    /// Labels of all pairs.
    ///
    /// # Errors
    /// When the rules cannot be read or there are too few pairs.
    pub fn collect(&self, cx: &mut Context, ready: &ReadyWhen, seed: u64) -> Result<Summary> {
        check_range("labeler.simulated.flip", self.flip, 0.0, 0.5)?;
        check_range("labeler.simulated.temperature", self.temperature, 0.0, 1e6)?;
        let mut rules = self.book()?;
        let pairs = super::pairs(cx)?;
        enough(&pairs, ready)?;
        cx.warn(format!(
            "SIMULATED LABELS: no person compared these {} pairs; a program with {} rules did",
            pairs.rows(),
            self.rules.len()
        ))?;
        let labels = self.judge(&mut rules, &pairs, seed)?;
        cx.write_table(
            "labels",
            &table(&pairs, &labels, Labeler { simulated: true, name: None })?,
        )?;
        let count = |c: &str| labels.iter().filter(|v| v.choice == c).count() as f64;
        let sure = labels.iter().filter(|v| v.choice != "tie").filter_map(|v| v.certainty);
        let sure: Vec<f64> = sure.collect();
        Ok(Summary::from([
            ("labels".into(), labels.len() as f64),
            ("labels/ties".into(), count("tie")),
            ("labels/first_share".into(), count("a") / (count("a") + count("b")).max(1.0)),
            ("labels/ceiling".into(), mean(&sure)),
            ("labels/simulated".into(), 1.0),
        ]))
    }

    /// A verdict on each pair. It depends on the pair and the seed, not on the other pairs.
    fn judge(&self, rules: &mut RuleBook, pairs: &Table, seed: u64) -> Result<Vec<Label>> {
        let names = pairs.texts("pair")?;
        let (a, b) = (pairs.contents("response_a")?, pairs.contents("response_b")?);
        let ends = [pairs.bools("finished_a", true)?, pairs.bools("finished_b", true)?];
        let mut labels = Vec::with_capacity(names.len());
        for row in 0..names.len() {
            let mut score = |text: &str, finished: bool| {
                rules.judge(Answer { text, finished }, pairs, row).map(|(_, score)| score)
            };
            let score_a = score(a[row].last_text(), ends[0][row])?;
            let score_b = score(b[row].last_text(), ends[1][row])?;
            let delta = score_a - score_b;
            let mut stream = Stream::new(seed, "annotator", hash(names[row].bytes()), 0);
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
            labels.push(Label {
                certainty: Some(first.max(1.0 - first)),
                ..Label::single(row, choice)
            });
        }
        Ok(labels)
    }
}
