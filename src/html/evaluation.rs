//! One evaluation as the pages read it: whose figure is which, how its numbers read, and which of
//! them tells most. Draws nothing, claims nothing.

use maud::Markup;

use super::data::is_unseen;
use super::metrics::{self, AT_MOST, GAIN, KL, NumberFormat, ReportPlace};
use super::{EvaluationRow, ReportData, markup};
use crate::text;

/// The rows of one evaluation.
pub struct Evaluation<'a> {
    pub rows: Vec<&'a EvaluationRow>,
    unseen: Vec<String>,
    /// Whom its stage compares all policies with; `None`: each with the one before it.
    pub baseline: Option<String>,
}

impl<'a> Evaluation<'a> {
    pub fn of(data: &'a ReportData, stage: &str) -> Self {
        let rows = data.evaluation.iter().filter(|r| r.stage == stage);
        let rows = rows.filter(|r| !is_curve(&r.name)).collect();
        Self { rows, unseen: data.unseen_buckets(stage), baseline: data.baseline(stage) }
    }

    /// Whom gains and wins of a policy are over.
    pub fn compared_with(&self, policy: &str) -> Option<String> {
        if let Some(baseline) = &self.baseline {
            return Some(baseline.clone()).filter(|b| b != policy);
        }
        // What is picked from many answers is no policy.
        let at_most = format!("{KL}{AT_MOST}");
        let picked = self.rows.iter().filter(|r| r.name == at_most);
        let picked = names_of(picked.map(|r| r.policy.as_str()));
        let mut order = names_of(self.rows.iter().copied().map(|r| r.policy.as_str()));
        order.retain(|name| !picked.contains(name));
        let place = order.iter().position(|name| *name == policy)?;
        Some(order[place.checked_sub(1)?].to_owned())
    }

    pub fn find(&self, policy: &str, bucket: &str, name: &str) -> Option<&'a EvaluationRow> {
        let mut rows = self.rows.iter().copied();
        rows.find(|r| r.policy == policy && r.bucket == bucket && r.name == name)
    }

    pub fn standings(&self, name: &str, bucket: &str) -> Vec<&'a EvaluationRow> {
        let rows = self.rows.iter().copied();
        rows.filter(|r| r.name == name && r.bucket == bucket && r.value.is_finite()).collect()
    }

    /// Buckets that know this figure.
    pub fn buckets(&self, name: &str) -> Vec<&'a str> {
        names_of(self.rows.iter().copied().filter(|r| r.name == name).map(|r| r.bucket.as_str()))
    }

    pub fn is_unseen(&self, bucket: &str) -> bool {
        is_unseen(bucket) || self.unseen.iter().any(|b| b == bucket)
    }

    /// The most telling figure, and the bucket of unseen prompts that it is known for.
    pub fn headline(&self) -> Option<(&'a str, &'a str)> {
        let names = names_of(self.rows.iter().copied().map(|r| r.name.as_str()));
        let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let told = metrics::told(ReportPlace::Headline);
        let exact = told.iter().find_map(|w| names.iter().find(|n| last(n) == *w));
        let near = || names.iter().find(|n| told.iter().any(|w| n.contains(w)));
        let name = exact.or_else(near).or(names.first())?;
        let buckets = self.buckets(name);
        let best = ["unseen", "held_out"].iter().find_map(|w| buckets.iter().find(|b| *b == w));
        let unseen = || buckets.iter().find(|b| self.is_unseen(b));
        let all = || buckets.iter().find(|b| **b == "all");
        Some((name, best.or_else(unseen).or_else(all).or(buckets.first())?))
    }

    /// A share when the table of metrics says so, or when its gain is known too and it stays within
    /// 0 and 1.
    pub fn scale(&self, name: &str) -> NumberFormat {
        if let Some(base) = name.strip_suffix(GAIN) {
            return if self.scale(base) == NumberFormat::Share {
                NumberFormat::Points
            } else {
                NumberFormat::Gain
            };
        }
        let gain = format!("{name}{GAIN}");
        let counted = self.rows.iter().any(|r| r.name == gain);
        let mut rows = self.rows.iter().filter(|r| r.name == name);
        let inside = rows.all(|r| (0.0..=1.0).contains(&r.value) || r.value.is_nan());
        metrics::scale(name, counted, inside)
    }
}

/// Points and laws of curves are figures too, but nobody wants them in a table.
pub fn is_curve(name: &str) -> bool {
    name.contains('/') && ["best_of_", "policy_fit/"].iter().any(|start| name.starts_with(start))
}

pub fn interval(row: &EvaluationRow) -> Option<(f64, f64)> {
    row.low.zip(row.high).filter(|(l, h)| l.is_finite() && h.is_finite() && h > l)
}

pub fn figure_name(name: &str) -> Markup {
    markup::visible(&markup::spaced(name.rsplit('/').next().unwrap_or(name)))
}

pub fn shown(scale: NumberFormat, value: f64) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    match scale {
        NumberFormat::Plain => text::two_places(value),
        NumberFormat::Share => text::percent(value),
        NumberFormat::Gain => format!("{sign}{}", text::two_places(value)),
        NumberFormat::Points => format!("{sign}{}\u{202f}pts", text::rounded(value * 100.0)),
    }
}

/// Each once, in the order of their first appearance.
pub fn names_of<'b>(all: impl Iterator<Item = &'b str>) -> Vec<&'b str> {
    let mut names: Vec<&str> = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
