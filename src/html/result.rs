//! The result first: how the policies compare on prompts that nobody labelled, with intervals.
//! Claims no winner where intervals overlap.

use maud::{Markup, html};

use super::{EvaluationRow, ReportData, markup, policies};
use crate::text;

/// Figures that can carry the headline, most telling first.
const HEADLINES: [&str; 6] = ["good", "gold", "score", "accuracy", "reward", "win_rate"];
/// Compared answer by answer with another policy: no level of its own.
const GAIN: &str = "_gain";
const WINS: &str = "win_rate";

/// The rows of one evaluation.
pub(super) struct Figures<'a> {
    pub(super) rows: Vec<&'a EvaluationRow>,
    unseen: Vec<String>,
    /// Whom its stage compares all policies with; `None`: each with the one before it.
    pub(super) baseline: Option<String>,
}

/// How the numbers of a figure read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    Plain,
    Share,
    /// Difference of two plain figures.
    Gain,
    /// Difference of two shares.
    Points,
}

pub fn section(data: &ReportData) -> Markup {
    // With several evaluations the last one is the result.
    let Some(last) = data.evaluation.last() else { return html! {} };
    let figures = Figures::of(data, &last.stage);
    let Some((name, bucket)) = figures.headline() else { return html! {} };
    let others: Vec<&str> = figures
        .buckets(name)
        .into_iter()
        .filter(|b| *b != bucket && figures.is_unseen(b))
        .collect();
    html! {
        section.result aria-labelledby="result" {
            h2 id="result" { "Result" }
            p.claim { (figures.claim(name, bucket)) }
            @if let Some(labels) = data.labels.iter().find(|l| l.simulated) {
                p.under {
                    span.badge { "simulated" }
                    " The preferences behind it come from " (markup::visible(&labels.program())) ", not from people."
                }
            }
            (figures.compared(name, bucket))
            (policies::table(&figures, name, bucket))
            @if !others.is_empty() {
                div.also { @for other in others { (figures.compared(name, other)) } }
            }
        }
    }
}

/// Every figure, for those who want them all.
pub fn figures(data: &ReportData) -> Markup {
    let stages = names_of(data.evaluation.iter().map(|r| r.stage.as_str()));
    html! {
        @if !stages.is_empty() {
            section aria-labelledby="figures" {
                h2 id="figures" { "All figures" }
                @for stage in stages {
                    @let figures = Figures::of(data, stage);
                    @let first = figures.headline().map_or("", |(_, bucket)| bucket);
                    @let buckets = names_of(figures.rows.iter().map(|r| r.bucket.as_str()));
                    h3 {
                        (markup::visible(stage)) " "
                        span.dim { (markup::visible(&markup::spaced(first))) }
                    }
                    (figures.table(first))
                    @for bucket in buckets.into_iter().filter(|b| *b != first) {
                        details {
                            summary { (markup::visible(&markup::spaced(bucket))) }
                            (figures.table(bucket))
                        }
                    }
                }
            }
        }
    }
}

impl<'a> Figures<'a> {
    pub(super) fn of(data: &'a ReportData, stage: &str) -> Self {
        let rows = data.evaluation.iter().filter(|r| r.stage == stage);
        let rows = rows.filter(|r| !is_curve(&r.name)).collect();
        Self { rows, unseen: data.unseen_buckets(stage), baseline: data.baseline(stage) }
    }

    /// Whom gains and wins of a policy are over.
    fn compared_with(&self, policy: &str) -> Option<String> {
        if let Some(baseline) = &self.baseline {
            return Some(baseline.clone()).filter(|b| b != policy);
        }
        // What is picked from many answers is no policy.
        let picked = self.rows.iter().filter(|r| r.name == "kl_at_most");
        let picked = names_of(picked.map(|r| r.policy.as_str()));
        let mut order = names_of(self.rows.iter().copied().map(|r| r.policy.as_str()));
        order.retain(|name| !picked.contains(name));
        let place = order.iter().position(|name| *name == policy)?;
        Some(order[place.checked_sub(1)?].to_owned())
    }

    pub(super) fn find(&self, policy: &str, bucket: &str, name: &str) -> Option<&'a EvaluationRow> {
        let mut rows = self.rows.iter().copied();
        rows.find(|r| r.policy == policy && r.bucket == bucket && r.name == name)
    }

    pub(super) fn standings(&self, name: &str, bucket: &str) -> Vec<&'a EvaluationRow> {
        let rows = self.rows.iter().copied();
        rows.filter(|r| r.name == name && r.bucket == bucket && r.value.is_finite()).collect()
    }

    /// Buckets that know this figure.
    fn buckets(&self, name: &str) -> Vec<&'a str> {
        names_of(self.rows.iter().copied().filter(|r| r.name == name).map(|r| r.bucket.as_str()))
    }

    fn is_unseen(&self, bucket: &str) -> bool {
        super::is_unseen(bucket) || self.unseen.iter().any(|b| b == bucket)
    }

    /// The most telling figure, and the bucket of unseen prompts that it is known for.
    pub(super) fn headline(&self) -> Option<(&'a str, &'a str)> {
        let names = names_of(self.rows.iter().copied().map(|r| r.name.as_str()));
        let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let mut wanted = HEADLINES.iter();
        let exact = wanted.find_map(|w| names.iter().find(|n| last(n) == *w));
        let near = || names.iter().find(|n| HEADLINES.iter().any(|w| n.contains(w)));
        let name = exact.or_else(near).or(names.first())?;
        let buckets = self.buckets(name);
        let best = ["unseen", "held_out"].iter().find_map(|w| buckets.iter().find(|b| *b == w));
        let unseen = || buckets.iter().find(|b| self.is_unseen(b));
        let all = || buckets.iter().find(|b| **b == "all");
        Some((name, best.or_else(unseen).or_else(all).or(buckets.first())?))
    }

    /// A share when the name says so, or when its gain is known too and it stays within 0 and 1.
    pub(super) fn scale(&self, name: &str) -> Scale {
        if let Some(base) = name.strip_suffix(GAIN) {
            return if self.scale(base) == Scale::Share { Scale::Points } else { Scale::Gain };
        }
        let known = ["good", "distinct_2", "copied", "copied_words"].contains(&name)
            || name.ends_with("rate")
            || name.contains("accuracy");
        let sum = ["gold", "reward", "score"].iter().any(|w| name.contains(w));
        let gain = format!("{name}{GAIN}");
        let counted = !sum && self.rows.iter().any(|r| r.name == gain);
        let inside = |r: &&EvaluationRow| (0.0..=1.0).contains(&r.value) || r.value.is_nan();
        let mut rows = self.rows.iter().copied().filter(|r| r.name == name);
        if (known || counted) && rows.all(|r| inside(&r)) { Scale::Share } else { Scale::Plain }
    }

    /// One sentence that the figures carry, and one for the paired comparison.
    fn claim(&self, name: &str, bucket: &str) -> Markup {
        // What is picked from many answers is no policy: it is shown, but does not compete.
        let is_policy = |r: &&EvaluationRow| self.find(&r.policy, bucket, "kl_at_most").is_none();
        let standings = || self.standings(name, bucket).into_iter().filter(is_policy);
        let mut order: Vec<&EvaluationRow> = standings().collect();
        order.sort_by(|a, b| b.value.total_cmp(&a.value));
        let Some(first) = order.first().copied() else { return html! {} };
        let scale = self.scale(name);
        let apart = order.get(1).map(|second| {
            interval(first).zip(interval(second)).is_some_and(|((low, _), (_, high))| low > high)
        });
        let level = order.get(1).is_some_and(|s| (s.value - first.value).abs() < 1e-9);
        let unseen = self.is_unseen(bucket);
        let last = standings().next_back().filter(|l| l.policy != first.policy);
        html! {
            (if unseen { "On prompts that nobody labelled" } else { "On the evaluation prompts" })
            ", " strong { (markup::visible(&first.policy)) }
            (match apart {
                Some(true) => " leads: ",
                Some(false) if level => " is level with the next: ",
                Some(false) => " is ahead, but not clearly: ",
                None => ": ",
            })
            (figure_name(name)) " " strong { (shown(scale, first.value)) } (range(scale, first))
            @for other in order.iter().skip(1).take(3) {
                ", " (markup::visible(&other.policy)) " " (shown(scale, other.value))
            }
            "."
            @if apart == Some(false) { " The intervals overlap." }
            (self.paired(first, name, bucket))
            @if let Some(last) = last {
                (self.paired(last, name, bucket))
            }
        }
    }

    fn paired(&self, row: &EvaluationRow, name: &str, bucket: &str) -> Markup {
        let gain = format!("{name}{GAIN}");
        let policy = &row.policy;
        let difference = self.find(policy, bucket, &gain).filter(|r| r.value.is_finite());
        let wins = self.find(policy, bucket, WINS).filter(|r| r.value.is_finite());
        html! {
            @if difference.is_some() || wins.is_some() {
                " Answer by answer, " (markup::visible(policy)) " against "
                (markup::visible(self.compared_with(policy).as_deref().unwrap_or("its baseline"))) ": "
                @if let Some(row) = difference {
                    (shown(self.scale(&gain), row.value)) (range(self.scale(&gain), row))
                    @if wins.is_some() { ", " }
                }
                @if let Some(row) = wins {
                    "wins " (shown(Scale::Share, row.value)) (range(Scale::Share, row))
                }
                "."
            }
        }
    }

    /// Dots with intervals on one common scale.
    fn compared(&self, name: &str, bucket: &str) -> Markup {
        let rows = self.standings(name, bucket);
        let scale = self.scale(name);
        let ends = rows.iter().flat_map(|r| {
            let (low, high) = interval(r).unwrap_or((r.value, r.value));
            [low, high]
        });
        let (mut low, mut high) = ends.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        if scale == Scale::Share {
            (low, high) = (0.0, 1.0);
        } else {
            let room = ((high - low) * 0.08).max(1e-9);
            (low, high) = (low - room, high + room);
        }
        let at = |v: f64| format!("{:.2}", ((v - low) / (high - low) * 100.0).clamp(0.0, 100.0));
        let n = rows.iter().filter_map(|r| r.n).fold(0.0, f64::max);
        html! {
            div.compared {
                p.bucket {
                    (figure_name(name)) " · " (markup::visible(&markup::spaced(bucket)))
                    @if n > 0.0 { span.dim { " · n = " (text::number(n)) } }
                }
                @for (i, row) in rows.iter().enumerate() {
                    div class={ "line c" (i % 4 + 1) } {
                        span.who { (markup::visible(&row.policy)) }
                        span.track aria-hidden="true" {
                            @if low < 0.0 && high > 0.0 {
                                i.zero style={ "left:" (at(0.0)) "%" } {}
                            }
                            @if let Some((l, h)) = interval(row) {
                                i.span style={ "left:" (at(l)) "%;right:calc(100% - " (at(h)) "%)" } {}
                            }
                            i.dot style={ "left:" (at(row.value)) "%" } {}
                        }
                        span.figure {
                            b { (shown(scale, row.value)) }
                            @if let Some((l, h)) = interval(row) {
                                span.dim { (shown(scale, l)) "…" (shown(scale, h)) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn table(&self, bucket: &str) -> Markup {
        let policies = names_of(self.rows.iter().copied().map(|r| r.policy.as_str()));
        let inside = self.rows.iter().copied().filter(|r| r.bucket == bucket);
        let names = names_of(inside.map(|r| r.name.as_str()));
        let label = format!("Figures on {}", markup::spaced(bucket));
        html! {
            div.wide tabindex="0" role="region" aria-label=(label) {
                table {
                    thead {
                        tr {
                            th scope="col" { "figure" }
                            @for policy in &policies { th scope="col" { (markup::visible(policy)) } }
                        }
                    }
                    tbody {
                        @for name in names {
                            tr {
                                th scope="row" { (figure_name(name)) }
                                @for policy in &policies {
                                    td { (self.cell(self.find(policy, bucket, name))) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn cell(&self, row: Option<&EvaluationRow>) -> Markup {
        html! {
            @if let Some(row) = row {
                @let scale = self.scale(&row.name);
                b { (shown(scale, row.value)) }
                @if let Some((low, high)) = interval(row) {
                    span.dim { " " (shown(scale, low)) "…" (shown(scale, high)) }
                }
            } @else { span.dim { "–" } }
        }
    }
}

fn range(scale: Scale, row: &EvaluationRow) -> Markup {
    html! {
        @if let Some((low, high)) = interval(row) {
            span.range { " (" (shown(scale, low)) " to " (shown(scale, high)) ")" }
        }
    }
}

/// Points and laws of curves are figures too, but nobody wants them in a table.
pub(super) fn is_curve(name: &str) -> bool {
    name.contains('/') && ["best_of_", "policy_fit/"].iter().any(|start| name.starts_with(start))
}

pub(super) fn interval(row: &EvaluationRow) -> Option<(f64, f64)> {
    row.low.zip(row.high).filter(|(l, h)| l.is_finite() && h.is_finite() && h > l)
}

pub(super) fn figure_name(name: &str) -> Markup {
    markup::visible(&markup::spaced(name.rsplit('/').next().unwrap_or(name)))
}

pub(super) fn shown(scale: Scale, value: f64) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    match scale {
        Scale::Plain => text::two_places(value),
        Scale::Share => text::percent(value),
        Scale::Gain => format!("{sign}{}", text::two_places(value)),
        Scale::Points => format!("{sign}{}\u{202f}pts", text::rounded(value * 100.0)),
    }
}

/// Each once, in the order of their first appearance.
pub(super) fn names_of<'b>(all: impl Iterator<Item = &'b str>) -> Vec<&'b str> {
    let mut names: Vec<&str> = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
