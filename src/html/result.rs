//! The result first: how the policies compare on prompts that nobody labelled, with intervals.
//! Claims no winner where intervals overlap.

use maud::{Markup, html};

use super::{EvaluationRow, ReportData, text};

/// Figures that can carry the headline, most telling first.
const HEADLINES: [&str; 7] = ["win_rate", "gold", "good", "score", "reward", "accuracy", "rate"];

/// One policy's figure.
struct Standing<'a> {
    policy: &'a str,
    row: &'a EvaluationRow,
}

pub fn section(data: &ReportData) -> Markup {
    // With several evaluations the last one is the result.
    let last = data.evaluation.last().map_or("", |r| r.stage.as_str());
    let all: Vec<EvaluationRow> =
        data.evaluation.iter().filter(|r| r.stage == last).cloned().collect();
    let Some((name, bucket)) = headline(&all) else { return html! {} };
    let rows = standings(&all, name, bucket);
    let others: Vec<&str> =
        names(&all, name, is_unseen).into_iter().filter(|b| *b != bucket).collect();
    html! {
        section.result aria-labelledby="result" {
            h2 id="result" { "Result" }
            p.claim { (claim(name, bucket, &rows)) }
            @if data.labels.iter().any(|l| l.simulated) {
                p.under {
                    span.badge { "simulated" }
                    " The preferences behind it come from a program with rules, not from people."
                }
            }
            (compared(name, bucket, &rows))
            @if !others.is_empty() {
                div.also {
                    @for other in others {
                        (compared(name, other, &standings(&all, name, other)))
                    }
                }
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
                @for stage in stages { (tables(data, stage)) }
            }
        }
    }
}

fn tables(data: &ReportData, stage: &str) -> Markup {
    let all: Vec<EvaluationRow> =
        data.evaluation.iter().filter(|r| r.stage == stage).cloned().collect();
    let buckets = names_of(all.iter().map(|r| r.bucket.as_str()));
    html! {
        @for bucket in buckets {
            @let title = format!("{} · {}", text::spaced(stage), text::spaced(bucket));
            h3 { (text::visible(&title)) }
            div.wide tabindex="0" role="region" aria-label={ "Figures of " (title) } {
                (table(&all, bucket))
            }
        }
    }
}

fn table(all: &[EvaluationRow], bucket: &str) -> Markup {
    let policies = names_of(all.iter().map(|r| r.policy.as_str()));
    let figures = names_of(all.iter().filter(|r| r.bucket == bucket).map(|r| r.name.as_str()));
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "figure" }
                    @for policy in &policies { th scope="col" { (text::visible(policy)) } }
                }
            }
            tbody {
                @for name in figures {
                    tr {
                        th scope="row" { (text::visible(&text::spaced(name))) }
                        @for policy in &policies { td { (cell(all, bucket, name, policy)) } }
                    }
                }
            }
        }
    }
}

fn cell(all: &[EvaluationRow], bucket: &str, name: &str, policy: &str) -> Markup {
    let row = all.iter().find(|r| r.bucket == bucket && r.name == name && r.policy == policy);
    html! {
        @if let Some(row) = row {
            b { (shown(name, row.value)) }
            @if let Some((low, high)) = interval(row) {
                span.dim { " " (shown(name, low)) "…" (shown(name, high)) }
            }
        } @else { span.dim { "–" } }
    }
}

/// The most telling figure and the bucket of unseen prompts that it is known for.
fn headline(all: &[EvaluationRow]) -> Option<(&str, &str)> {
    let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let name = HEADLINES.iter().find_map(|wanted| {
        let exact = all.iter().find(|r| last(&r.name) == *wanted);
        exact.or_else(|| all.iter().find(|r| r.name.contains(wanted))).map(|r| r.name.as_str())
    });
    let name = name.or_else(|| all.first().map(|r| r.name.as_str()))?;
    let buckets = names_of(all.iter().filter(|r| r.name == name).map(|r| r.bucket.as_str()));
    let best =
        ["unseen", "held_out", "all", ""].iter().find_map(|w| buckets.iter().find(|b| *b == w));
    let unseen = buckets.iter().find(|b| is_unseen(b));
    Some((name, best.or(unseen).or(buckets.first())?))
}

fn is_unseen(bucket: &str) -> bool {
    bucket.contains("unseen") || bucket.contains("held")
}

fn names<'a>(all: &'a [EvaluationRow], name: &str, keep: fn(&str) -> bool) -> Vec<&'a str> {
    let rows = all.iter().filter(|r| r.name == name && keep(&r.bucket));
    names_of(rows.map(|r| r.bucket.as_str()))
}

/// Each once, in the order of their first appearance.
fn names_of<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn standings<'a>(all: &'a [EvaluationRow], name: &str, bucket: &str) -> Vec<Standing<'a>> {
    let rows = all.iter().filter(|r| r.name == name && r.bucket == bucket && r.value.is_finite());
    rows.map(|row| Standing { policy: &row.policy, row }).collect()
}

fn interval(row: &EvaluationRow) -> Option<(f64, f64)> {
    row.low.zip(row.high).filter(|(l, h)| l.is_finite() && h.is_finite() && h > l)
}

/// One sentence that the figures carry.
fn claim(name: &str, bucket: &str, rows: &[Standing]) -> Markup {
    let mut order: Vec<&Standing> = rows.iter().collect();
    order.sort_by(|a, b| b.row.value.total_cmp(&a.row.value));
    let place =
        if is_unseen(bucket) { "On prompts that nobody labelled" } else { "On the prompts" };
    let figure = text::spaced(name.rsplit('/').next().unwrap_or(name));
    let Some(first) = order.first() else { return html! {} };
    let value = shown(name, first.row.value);
    let range = interval(first.row);
    let apart = order.get(1).map(|second| {
        range.zip(interval(second.row)).is_some_and(|((low, _), (_, high))| low > high)
    });
    html! {
        (place) ", " strong { (text::visible(first.policy)) }
        @match apart {
            Some(true) => " leads: ",
            Some(false) => " is ahead, but not clearly: ",
            None => ": ",
        }
        (figure) " " strong { (value) }
        @if let Some((low, high)) = range {
            span.range { " (" (shown(name, low)) " to " (shown(name, high)) ")" }
        }
        @if let Some(second) = order.get(1) {
            ", " (text::visible(second.policy)) " " (shown(name, second.row.value))
        }
        "."
        @if apart == Some(false) { " The intervals overlap." }
    }
}

/// Dots with intervals on one common scale.
fn compared(name: &str, bucket: &str, rows: &[Standing]) -> Markup {
    let ends = rows.iter().flat_map(|s| {
        let (low, high) = interval(s.row).unwrap_or((s.row.value, s.row.value));
        [low, high]
    });
    let (mut low, mut high) = ends.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    if is_share(name, rows) {
        (low, high) = (0.0, 1.0);
    } else {
        let room = ((high - low) * 0.08).max(1e-9);
        (low, high) = (low - room, high + room);
    }
    let at = |v: f64| format!("{:.2}", ((v - low) / (high - low) * 100.0).clamp(0.0, 100.0));
    let n = rows.iter().filter_map(|s| s.row.n).fold(0.0, f64::max);
    html! {
        div.compared {
            p.bucket {
                (text::spaced(name.rsplit('/').next().unwrap_or(name))) " · "
                (text::visible(&text::spaced(bucket)))
                @if n > 0.0 { span.dim { " · n = " (text::number(n)) } }
            }
            @for (i, standing) in rows.iter().enumerate() {
                div class={ "line c" (i % 4 + 1) } {
                    span.who { (text::visible(standing.policy)) }
                    span.track aria-hidden="true" {
                        @if low < 0.0 && high > 0.0 { i.zero style={ "left:" (at(0.0)) "%" } {} }
                        @if let Some((l, h)) = interval(standing.row) {
                            i.span style={ "left:" (at(l)) "%;right:calc(100% - " (at(h)) "%)" } {}
                        }
                        i.dot style={ "left:" (at(standing.row.value)) "%" } {}
                    }
                    span.figure {
                        b { (shown(name, standing.row.value)) }
                        @if let Some((l, h)) = interval(standing.row) {
                            span.dim { (shown(name, l)) "…" (shown(name, h)) }
                        }
                    }
                }
            }
        }
    }
}

fn is_share(name: &str, rows: &[Standing]) -> bool {
    share_name(name) && rows.iter().all(|s| (0.0..=1.0).contains(&s.row.value))
}

fn share_name(name: &str) -> bool {
    ["rate", "share", "accuracy", "good", "right", "polite", "rude", "babble", "eos"]
        .iter()
        .any(|w| name.contains(w))
}

fn shown(name: &str, value: f64) -> String {
    if share_name(name) && (0.0..=1.0).contains(&value) {
        text::percent(value)
    } else {
        text::figure(value)
    }
}
