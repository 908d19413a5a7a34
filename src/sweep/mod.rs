//! Sweeps: many trials of one pipeline, and the one graph in which each stage that they share
//! stands once. Knows nothing of files, stores or processes.

mod interval;
mod merge;
mod read;
mod sample;
mod table;
#[cfg(test)]
mod tests;
mod trials;
mod verdict;

use serde::Serialize;

pub use merge::{Merged, merge};
pub use read::read;
pub use table::{Effect, ResultTable, Row, SettingMean, table};
pub use trials::{Trial, label};
pub use verdict::BestSetting;

use crate::diagnostic::Span;
use crate::pipeline::{Key, Node, Spanned};

/// What a sweep file says. Which trials it makes, see [`Sweep::trials`].
#[derive(Debug, Clone)]
pub struct Sweep {
    pub name: String,
    /// The pipeline file, joined to the sweep file's directory.
    pub pipeline: String,
    pub question: String,
    /// Param → values: every combination.
    pub matrix: Vec<Axis>,
    /// Param → values, all equally many: the first of each, the second of each, ….
    pub zip: Vec<Axis>,
    /// Trials written out.
    pub list: Vec<Values>,
    pub random: Option<Random>,
    pub halving: Option<Halving>,
    /// Trials added whatever the rest says.
    pub include: Vec<Values>,
    /// Combinations left out: a trial that agrees with all values of one of these.
    pub exclude: Vec<Values>,
    /// Template with `{param}`; absent: made from the params.
    pub label: Option<Spanned>,
    /// Params whose trials are averaged: seeds.
    pub over: Vec<Spanned>,
    /// Values of the trials that others are compared with.
    pub baseline: Option<Values>,
    pub metric: Option<Objective>,
    /// Of `preflow-sweep`.
    pub span: Span,
}

/// A param and the values it takes.
#[derive(Debug, Clone)]
pub struct Axis {
    pub param: Key,
    pub values: Vec<Node>,
}

/// Params and their values.
pub type Values = Vec<(Key, Node)>;

/// Trials drawn at random, the same ones every time.
#[derive(Debug, Clone)]
pub struct Random {
    pub trials: u64,
    pub seed: u64,
    pub space: Vec<(Key, Space)>,
}

/// Where a random value comes from.
#[derive(Debug, Clone)]
pub enum Space {
    Uniform(f64, f64),
    /// Uniform in the logarithm.
    Log(f64, f64),
    /// Whole numbers, both ends included.
    Int(i64, i64),
    Choice(Vec<Node>),
}

/// Successive halving: all trials with a small budget, the best of them with more.
#[derive(Debug, Clone)]
pub struct Halving {
    /// The param that is the budget.
    pub param: Key,
    pub budgets: Vec<Node>,
    /// Share of the trials that goes on after each budget.
    pub keep: f64,
}

/// What trials are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objective {
    /// `STAGE/FIGURE`, or the figure alone where only one stage reports it.
    pub name: Spanned,
    pub goal: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    Maximize,
    Minimize,
}

impl Goal {
    /// Whether `a` is better than `b`.
    #[must_use]
    pub fn better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Maximize => a > b,
            Self::Minimize => a < b,
        }
    }
}
