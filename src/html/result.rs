//! The result first: how the policies compare on prompts that nobody labelled, with intervals.
//! Claims no winner where intervals overlap.

use maud::{Markup, html};

use super::evaluation::{Evaluation, figure_name, interval, names_of, shown};
use super::metrics::{AT_MOST, GAIN, KL, NumberFormat, WINS, is_lower_better};
use super::{EvaluationRow, ReportData, markup, policies};
use crate::text;

pub fn section(data: &ReportData) -> Markup {
    // With several evaluations the last one is the result.
    let Some(last) = data.evaluation.last() else { return html! {} };
    let evaluation = Evaluation::of(data, &last.stage);
    let Some((name, bucket)) = evaluation.headline() else { return html! {} };
    let others: Vec<&str> = evaluation
        .buckets(name)
        .into_iter()
        .filter(|b| *b != bucket && evaluation.is_unseen(b))
        .collect();
    html! {
        section.result aria-labelledby="result" {
            h2 id="result" { "Result" }
            p.claim { (claim(&evaluation, name, bucket)) }
            @if let Some(labels) = data.labels.iter().find(|l| l.simulated) {
                p.under {
                    span.badge { "simulated" }
                    " The preferences behind it come from " (markup::visible(&labels.program())) ", not from people."
                }
            }
            (compared(&evaluation, name, bucket))
            (policies::table(&evaluation, name, bucket))
            @if !others.is_empty() {
                div.also { @for other in others { (compared(&evaluation, name, other)) } }
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
                    @let evaluation = Evaluation::of(data, stage);
                    @let first = evaluation.headline().map_or("", |(_, bucket)| bucket);
                    @let buckets = names_of(evaluation.rows.iter().map(|r| r.bucket.as_str()));
                    h3 {
                        (markup::visible(stage)) " "
                        span.dim { (markup::visible(&markup::spaced(first))) }
                    }
                    (table(&evaluation, first))
                    @for bucket in buckets.into_iter().filter(|b| *b != first) {
                        details {
                            summary { (markup::visible(&markup::spaced(bucket))) }
                            (table(&evaluation, bucket))
                        }
                    }
                }
            }
        }
    }
}

/// One sentence that the figures carry, and one for the paired comparison.
fn claim(evaluation: &Evaluation, name: &str, bucket: &str) -> Markup {
    // What is picked from many answers is no policy: it is shown, but does not compete.
    let at_most = format!("{KL}{AT_MOST}");
    let is_policy = |r: &&EvaluationRow| evaluation.find(&r.policy, bucket, &at_most).is_none();
    let standings = || evaluation.standings(name, bucket).into_iter().filter(is_policy);
    let mut order: Vec<&EvaluationRow> = standings().collect();
    let lower = is_lower_better(name);
    order.sort_by(|a, b| {
        let by_value = a.value.total_cmp(&b.value);
        if lower { by_value } else { by_value.reverse() }
    });
    let Some(first) = order.first().copied() else { return html! {} };
    let scale = evaluation.scale(name);
    let apart = order.get(1).map(|second| {
        let both = interval(first).zip(interval(second));
        both.is_some_and(|(a, b)| if lower { a.1 < b.0 } else { a.0 > b.1 })
    });
    let level = order.get(1).is_some_and(|s| (s.value - first.value).abs() < 1e-9);
    let unseen = evaluation.is_unseen(bucket);
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
        (paired(evaluation, first, name, bucket))
        @if let Some(last) = last {
            (paired(evaluation, last, name, bucket))
        }
    }
}

fn paired(evaluation: &Evaluation, row: &EvaluationRow, name: &str, bucket: &str) -> Markup {
    let gain = format!("{name}{GAIN}");
    let policy = &row.policy;
    let difference = evaluation.find(policy, bucket, &gain).filter(|r| r.value.is_finite());
    let wins = evaluation.find(policy, bucket, WINS).filter(|r| r.value.is_finite());
    html! {
        @if difference.is_some() || wins.is_some() {
            " Answer by answer, " (markup::visible(policy)) " against "
            (markup::visible(evaluation.compared_with(policy).as_deref().unwrap_or("its baseline"))) ": "
            @if let Some(row) = difference {
                (shown(evaluation.scale(&gain), row.value)) (range(evaluation.scale(&gain), row))
                @if wins.is_some() { ", " }
            }
            @if let Some(row) = wins {
                "wins " (shown(NumberFormat::Share, row.value)) (range(NumberFormat::Share, row))
            }
            "."
        }
    }
}

/// Dots with intervals on one common scale.
fn compared(evaluation: &Evaluation, name: &str, bucket: &str) -> Markup {
    let rows = evaluation.standings(name, bucket);
    let scale = evaluation.scale(name);
    let ends = rows.iter().flat_map(|r| {
        let (low, high) = interval(r).unwrap_or((r.value, r.value));
        [low, high]
    });
    let (mut low, mut high) = ends.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    if scale == NumberFormat::Share {
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

fn table(evaluation: &Evaluation, bucket: &str) -> Markup {
    let policies = names_of(evaluation.rows.iter().copied().map(|r| r.policy.as_str()));
    let inside = evaluation.rows.iter().copied().filter(|r| r.bucket == bucket);
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
                                td { (cell(evaluation, evaluation.find(policy, bucket, name))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(evaluation: &Evaluation, row: Option<&EvaluationRow>) -> Markup {
    html! {
        @if let Some(row) = row {
            @let scale = evaluation.scale(&row.name);
            b { (shown(scale, row.value)) }
            @if let Some((low, high)) = interval(row) {
                span.dim { " " (shown(scale, low)) "…" (shown(scale, high)) }
            }
        } @else { span.dim { "–" } }
    }
}

fn range(scale: NumberFormat, row: &EvaluationRow) -> Markup {
    html! {
        @if let Some((low, high)) = interval(row) {
            span.range { " (" (shown(scale, low)) " to " (shown(scale, high)) ")" }
        }
    }
}
