//! From what was said of pairs to the rows of `dataset/labels`.
//! Knows nothing of who said it.

use std::borrow::Cow;

use anyhow::Result;

use crate::data::{Column, Table};

/// One row to be: what was said of the pair in row `row` of the pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    pub row: usize,
    /// `a`, `b`, `tie` or `both_bad`, of the columns `response_a` and `response_b`.
    pub choice: &'static str,
    /// By how much the chosen answer is better: 1, or 2 for much; 0 of ties; a mean of several.
    pub strength: f64,
    pub votes: u32,
    pub annotators: u32,
    /// Share of the votes that agree with `choice`.
    pub agreement: Option<f64>,
    /// How often the best guess at the choice would be right.
    pub certainty: Option<f64>,
    /// Names, separated by blanks.
    pub voters: Option<String>,
    /// Reasons, with commas between them; empty: none.
    pub reasons: String,
}

impl Label {
    /// What one annotator says, plainly.
    pub fn single(row: usize, choice: &'static str) -> Self {
        Self {
            row,
            choice,
            strength: if is_tie(choice) { 0.0 } else { 1.0 },
            votes: 1,
            annotators: 1,
            agreement: None,
            certainty: None,
            voters: None,
            reasons: String::new(),
        }
    }
}

/// Neither answer is the better one.
pub fn is_tie(choice: &str) -> bool {
    !matches!(choice, "a" | "b")
}

/// Who compared.
#[derive(Debug, Clone, Copy)]
pub struct Labeler<'a> {
    /// No person did.
    pub simulated: bool,
    /// Column `labeler`, where there is more to say.
    pub name: Option<&'a str>,
}

/// The labels table: the columns of TRL first, then both sides as they were sampled, then the
/// other columns of the pairs. A column that nobody knows anything for is left out.
pub fn table(pairs: &Table, labels: &[Label], by: Labeler) -> Result<Table> {
    let rows: Vec<usize> = labels.iter().map(|l| l.row).collect();
    let pairs = pairs.take(&rows);
    let (a, b) = (pairs.contents("response_a")?, pairs.contents("response_b")?);
    let all = || 0..labels.len();
    let side = |chosen: bool| {
        let of = |i: usize| if (labels[i].choice == "b") == chosen { &b[i] } else { &a[i] };
        Column::contents(all().map(|i| Cow::Borrowed(of(i))), "assistant")
    };
    let mut table = Table::new(vec![
        ("prompt", pairs.require("prompt")?.clone()),
        ("chosen", side(true)),
        ("rejected", side(false)),
        ("tie", Column::bools(labels.iter().map(|l| is_tie(l.choice)))),
        ("strength", Column::floats(labels.iter().map(|l| l.strength))),
        ("votes", Column::ints(labels.iter().map(|l| l.votes.into()))),
        ("annotators", Column::ints(labels.iter().map(|l| l.annotators.into()))),
        ("pair", Column::text(pairs.texts("pair")?)),
        ("response_a", pairs.require("response_a")?.clone()),
        ("response_b", pairs.require("response_b")?.clone()),
        ("choice", Column::text(labels.iter().map(|l| l.choice))),
        ("simulated", Column::bools(all().map(|_| by.simulated))),
    ])?;
    if labels.iter().any(|l| l.certainty.is_some()) {
        table.set("certainty", Column::Float(labels.iter().map(|l| l.certainty).collect()))?;
    }
    if labels.iter().any(|l| l.agreement.is_some()) {
        table.set("agreement", Column::Float(labels.iter().map(|l| l.agreement).collect()))?;
    }
    if labels.iter().any(|l| l.voters.is_some()) {
        table.set("voters", Column::Text(labels.iter().map(|l| l.voters.clone()).collect()))?;
    }
    if labels.iter().any(|l| !l.reasons.is_empty()) {
        table.set("reasons", Column::text(labels.iter().map(|l| l.reasons.as_str())))?;
    }
    if let Some(name) = by.name {
        table.set("labeler", Column::text(all().map(|_| name)))?;
    }
    for (name, column) in pairs.columns() {
        if table.column(name).is_none() {
            table.set(name, column.clone())?;
        }
    }
    Ok(table)
}
