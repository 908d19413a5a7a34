//! The graph of the run: one row a stage, lines from what was made to what used it.
//! Does not know how stages are judged.

use maud::{Markup, PreEscaped, html};

use super::{ReportData, StageProblem, StageReport, markup};
use crate::text;

/// Height of a row, and the distance between lanes, in CSS pixels.
const ROW: usize = 46;
const LANE: usize = 13;
/// Wider drawings leave no room for names.
const MOST_LANES: usize = 7;

/// An edge that passes rows by: from, to, lane (from 1).
struct Bow {
    from: usize,
    to: usize,
    lane: usize,
}

pub fn section(data: &ReportData) -> Markup {
    if data.stages.is_empty() {
        return html! {};
    }
    let longest = data.stages.iter().filter_map(|s| s.seconds).fold(0.0, f64::max);
    html! {
        section aria-labelledby="flow" {
            h2 id="flow" { "Stages" }
            div.flow {
                (drawing(&data.stages))
                ol {
                    @for stage in &data.stages { (row(stage, longest)) }
                }
            }
            @for stage in &data.stages {
                @if let Some(trouble) = &stage.trouble { (self::trouble(stage, trouble)) }
            }
            (notes(data))
        }
    }
}

fn trouble(stage: &StageReport, trouble: &StageProblem) -> Markup {
    html! {
        div.note.warning {
            p { b { (markup::visible(&stage.name)) } " " (markup::visible(&trouble.text)) }
            @if !trouble.detail.is_empty() { pre.detail { (markup::visible(&trouble.detail)) } }
            @if let Some(link) = &trouble.link {
                p { a href=(link) rel="noopener" { "Open the label page" } }
            } @else if !trouble.command.is_empty() {
                p { code { (markup::visible(&trouble.command)) } }
            }
        }
    }
}

fn row(stage: &StageReport, longest: f64) -> Markup {
    let took = stage.seconds.filter(|_| longest > 0.0).map(|s| (s / longest * 100.0).max(1.0));
    let share = stage.progress.map_or(took, |p| Some((p.share * 100.0).clamp(0.0, 100.0)));
    let state = stage.state.word();
    html! {
        li class=(state.replace(' ', "-")) {
            span.name { (markup::visible(&stage.name)) }
            span.kind { (markup::visible(&stage.kind)) }
            span.state {
                (state)
                @if let Some(p) = stage.progress { " " (format!("{:.0}\u{a0}%", p.share * 100.0)) }
            }
            span.time {
                @if let Some(left) = stage.progress.and_then(|p| p.left) {
                    "~" (text::duration(left)) "\u{a0}left"
                } @else if let Some(seconds) = stage.seconds { (text::duration(seconds)) } @else { "–" }
            }
            span.bar aria-hidden="true" {
                @if let Some(share) = share { i style={ "width:" (format!("{share:.1}")) "%" } {} }
            }
        }
    }
}

fn notes(data: &ReportData) -> Markup {
    let all = data.stages.iter().flat_map(|s| s.notes.iter().map(move |n| (s, n)));
    let (warnings, rest): (Vec<_>, Vec<_>) = all.partition(|(_, n)| n.warning);
    html! {
        @for (stage, note) in warnings {
            p.note.warning {
                b { (markup::visible(&stage.name)) } " " (markup::visible(&note.text))
            }
        }
        @if !rest.is_empty() {
            details {
                summary { (text::counted(rest.len(), "note")) }
                @for (stage, note) in rest {
                    p.note { b { (markup::visible(&stage.name)) } " " (markup::visible(&note.text)) }
                }
            }
        }
    }
}

/// Dots in a column; neighbours joined by a line, others by a bow on the left.
fn drawing(stages: &[StageReport]) -> Markup {
    let bows = bows(stages);
    let lanes = bows.iter().map(|b| b.lane).max().unwrap_or(0).min(MOST_LANES);
    let (width, height) = (lanes * LANE + 20, stages.len() * ROW);
    let x = width - 10;
    let y = |row: usize| row * ROW + ROW / 2;
    let mut lines = String::new();
    for (to, stage) in stages.iter().enumerate() {
        if to > 0 && stage.upstream.contains(&(to - 1)) {
            lines.push_str(&format!("<path d=\"M{x} {}V{}\"/>", y(to - 1), y(to)));
        }
    }
    for bow in &bows {
        let left = x - bow.lane.min(MOST_LANES) * LANE;
        let (top, bottom, r) = (y(bow.from), y(bow.to), LANE.min(10));
        lines.push_str(&format!(
            "<path d=\"M{x} {top}H{}Q{left} {top} {left} {}V{}Q{left} {bottom} {} {bottom}H{x}\"/>",
            left + r,
            top + r,
            bottom - r,
            left + r
        ));
    }
    let mut dots = String::new();
    for (row, stage) in stages.iter().enumerate() {
        let class = stage.state.word().replace(' ', "-");
        dots.push_str(&format!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{}\" r=\"5\"/>", y(row)));
    }
    let edges: Vec<String> = stages
        .iter()
        .filter(|s| !s.upstream.is_empty())
        .map(|s| {
            let from = s.upstream.iter().filter_map(|u| stages.get(*u)).map(|u| u.name.as_str());
            format!("{} uses {}", s.name, from.collect::<Vec<_>>().join(", "))
        })
        .collect();
    html! {
        svg.lanes role="img" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
            title { "Graph of the pipeline" }
            desc { (markup::plain(&edges.join("; "))) }
            (PreEscaped(lines)) (PreEscaped(dots))
        }
    }
}

/// Gives every longer edge the nearest lane that is free over its rows; short edges first.
fn bows(stages: &[StageReport]) -> Vec<Bow> {
    let edges = stages.iter().enumerate().flat_map(|(to, s)| {
        s.upstream.iter().filter(move |from| **from + 1 < to).map(move |from| (*from, to))
    });
    let mut edges: Vec<(usize, usize)> = edges.collect();
    edges.sort_by_key(|(from, to)| (to - from, *from));
    let mut bows: Vec<Bow> = Vec::with_capacity(edges.len());
    for (from, to) in edges {
        // Bows that start at one stage may share a lane: they are one output.
        let taken = |lane: usize| {
            bows.iter().any(|b| b.lane == lane && b.from != from && b.from < to && from < b.to)
        };
        let lane = (1..).find(|lane| !taken(*lane)).expect("invariant: lanes do not end");
        bows.push(Bow { from, to, lane });
    }
    bows
}
