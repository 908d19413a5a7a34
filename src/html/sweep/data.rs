//! What the page of a sweep shows, and how it names settings.
//! Draws nothing.

use std::collections::BTreeMap;

use crate::html::markup;
use crate::sweep::{Goal, ResultTable, Row};

/// Everything that the page shows.
#[derive(Debug, Clone, Default)]
pub struct SweepReport {
    pub name: String,
    pub question: String,
    /// The command that brings all trials up to date.
    pub command: String,
    /// Name of the metric and which way is better; `None`: the sweep names none.
    pub metric: Option<(String, Goal)>,
    /// Params that are averaged.
    pub over: Vec<String>,
    pub table: ResultTable,
    pub trials: Vec<SweepTrial>,
    /// What is wrong with the metric, if anything.
    pub warning: Option<String>,
}

/// One trial, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct SweepTrial {
    pub label: String,
    /// As the params of the table.
    pub values: Vec<String>,
    pub done: bool,
    pub metric: Option<f64>,
    /// Every figure of its finished stages, as `STAGE/FIGURE`.
    pub figures: BTreeMap<String, f64>,
}

/// The metric's name.
pub fn metric_name(data: &SweepReport) -> &str {
    data.metric.as_ref().map_or("metric", |(name, _)| name)
}

/// Which way is better.
pub fn goal(data: &SweepReport) -> Goal {
    data.metric.as_ref().map_or(Goal::Maximize, |(_, goal)| *goal)
}

/// `kl_coef 0.2, lr 0.001`.
pub fn setting(table: &ResultTable, row: &Row) -> String {
    let pairs = table.params.iter().zip(&row.values).filter(|(_, v)| !v.is_empty());
    let all: Vec<String> = pairs.map(|(param, value)| format!("{param} {value}")).collect();
    if all.is_empty() { "as the file says".to_owned() } else { all.join(", ") }
}

/// A value that fits below an axis.
pub fn short(value: &str) -> String {
    let value = markup::plain(value);
    match value.char_indices().nth(12) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value,
    }
}
