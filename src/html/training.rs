//! What happened while models learned: small charts, one a metric, in a grid.
//! Does not know kinds; it goes by the names of metrics.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::chart::{self, Chart, MOST_SERIES, Series};
use super::metrics::{self, ReportPlace};
use super::{ReportData, StageReport, markup};
use crate::text;

/// Charts that are open at once, a stage.
const SHOWN: usize = 6;
/// Charts that fill a row.
const ROW: usize = 3;
/// Figures at the end, a stage.
const FINALS: usize = 6;

/// Rank of what is told after all that tells the story.
const OTHER: u8 = 100;

/// One chart: metrics that differ only in `train/`, `eval/` share it.
struct Group<'a> {
    name: &'a str,
    telling: bool,
    lines: Vec<(&'a str, &'a [(f64, f64)])>,
}

pub fn section(data: &ReportData) -> Markup {
    let stages: Vec<(&StageReport, Vec<Group>)> =
        data.stages.iter().map(|s| (s, groups(s))).filter(|(_, g)| !g.is_empty()).collect();
    html! {
        @if !stages.is_empty() {
            section aria-labelledby="training" {
                h2 id="training" { "Training" }
                p.lead { "Each metric by step, with its last value." }
                @for (stage, groups) in &stages { (one(stage, groups)) }
            }
        }
    }
}

fn one(stage: &StageReport, groups: &[Group]) -> Markup {
    let telling = groups.iter().filter(|g| g.telling).count();
    let shown = telling.clamp(ROW, SHOWN).min(groups.len());
    let (open, folded) = groups.split_at(shown);
    let finals: Vec<(&str, f64)> = stage
        .curves
        .iter()
        .filter_map(|(name, points)| match points[..] {
            [(_, value)] => Some((name.as_str(), value)),
            _ => None,
        })
        .collect();
    html! {
        div.stage {
            h3 {
                (markup::visible(&stage.name)) " "
                @if stage.kind != stage.name { span.dim { (markup::visible(&stage.kind)) } }
                @if let Some(seconds) = stage.seconds { span.right { (text::duration(seconds)) } }
            }
            div.charts { @for group in open { (figure(stage, group)) } }
            @if !finals.is_empty() {
                p.finals {
                    "At the end: "
                    @for (i, (name, value)) in finals.iter().take(FINALS).enumerate() {
                        @if i > 0 { " · " }
                        (markup::visible(name)) " " b { (text::number(*value)) }
                    }
                }
            }
            @if !folded.is_empty() {
                details {
                    summary { (text::counted(folded.len(), "more curve")) }
                    div.charts { @for group in folded { (figure(stage, group)) } }
                }
            }
        }
    }
}

fn figure(stage: &StageReport, group: &Group) -> Markup {
    let series =
        group.lines.iter().map(|(name, points)| Series { name, points, ..Series::default() });
    let chart = Chart {
        title: format!("{} of {} by step", markup::spaced(group.name), stage.name),
        series: series.collect(),
        size: (300, 160),
        ..Chart::default()
    };
    html! {
        figure {
            figcaption {
                span.metric { (markup::visible(group.name)) }
                @for (i, (name, points)) in group.lines.iter().enumerate() {
                    @if group.lines.len() > 1 {
                        span class={ "key c" (i + 1) } {
                            (markup::visible(prefix(name))) " " (last(points))
                        }
                    } @else {
                        span.single { (last(points)) }
                    }
                }
            }
            (chart::svg(&chart))
        }
    }
}

fn last(points: &[(f64, f64)]) -> Markup {
    html! { b { (text::number(points.last().map_or(f64::NAN, |p| p.1))) } }
}

/// Curves with at least two points, the telling ones first.
fn groups(stage: &StageReport) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(u8, &str), Group> = BTreeMap::new();
    // The learning curve has a place of its own.
    let shown = |name: &str| !name.starts_with("curve/");
    for (name, points) in stage.curves.iter().filter(|(n, p)| p.len() > 1 && shown(n)) {
        let (shared, rank) = (shared(name), rank(name));
        let group = groups.entry((rank, shared)).or_insert_with(|| Group {
            name: shared,
            telling: rank < OTHER,
            lines: Vec::new(),
        });
        if group.lines.len() < MOST_SERIES {
            group.lines.push((name, points));
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        // What was trained on before what was held out.
        group.lines.sort_by_key(|(name, _)| !name.starts_with("train"));
    }
    groups
}

/// `train/loss`, `eval/loss` → `loss`; other names stand for themselves.
fn shared(name: &str) -> &str {
    match name.split_once('/') {
        Some(("train" | "eval", rest)) => rest,
        _ => name,
    }
}

fn prefix(name: &str) -> &str {
    match name.split_once('/') {
        Some(("train", _)) => "train",
        Some(("eval", _)) => "held out",
        _ => name,
    }
}

/// Place among the curves of a stage. What a stage says of its own inner workings comes last.
fn rank(name: &str) -> u8 {
    let own = name.starts_with("policy/") || name.starts_with("val/");
    if own { OTHER + 1 } else { metrics::rank(name, ReportPlace::Training).unwrap_or(OTHER) }
}
