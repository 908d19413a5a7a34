//! What the result rests on: the labels, and how well the reward model learned them.
//! Says in plain sight when no person was asked.

use maud::{Markup, html};

use super::chart::{self, Chart, Series};
use super::{
    CalibrationBin, LabelExample, LabelsReport, LearningPoint, ReportData, RewardReport, markup,
};
use crate::label::figures::figures;
use crate::text;

/// Comparisons shown.
const EXAMPLES: usize = 4;

pub fn labels(data: &ReportData) -> Markup {
    html! {
        @if !data.labels.is_empty() {
            section aria-labelledby="labels" {
                h2 id="labels" { "Labels" }
                @for labels in &data.labels { (labels_of(labels)) }
            }
        }
        @for quality in &data.quality {
            div.quality { (figures(&quality.report, quality.min_seconds, &quality.stage)) }
        }
    }
}

fn labels_of(labels: &LabelsReport) -> Markup {
    html! {
        div.stage {
            h3 {
                (markup::visible(&labels.stage)) " "
                @if labels.simulated { span.badge { "simulated" } }
            }
            dl.facts {
                div { dt { "comparisons" } dd { (labels.count) } }
                div { dt { "ties" } dd { (labels.ties) } }
                @if labels.annotators > 0 && !labels.simulated { div { dt { "annotators" } dd { (labels.annotators) } } }
            }
            @if labels.simulated {
                p.note.warning { "No person compared these responses: " (markup::visible(&labels.program())) " did." }
            }
            @for example in shown(&labels.examples) {
                article.asked {
                    div.prompt { (markup::rendered(&example.prompt)) }
                    div.answers style="--columns:2" {
                        div.answer {
                            p.who { @if example.tie { "tie" } @else { "preferred" } }
                            (markup::rendered(&example.chosen))
                        }
                        div.answer.other {
                            p.who { @if example.tie { "tie" } @else { "other" } }
                            (markup::rendered(&example.rejected))
                        }
                    }
                }
            }
        }
    }
}

/// The first preferences, and the first tie.
fn shown(examples: &[LabelExample]) -> impl Iterator<Item = &LabelExample> {
    let kind = |tie: bool, most: usize| examples.iter().filter(move |e| e.tie == tie).take(most);
    kind(false, EXAMPLES - 1).chain(kind(true, 1))
}

pub fn rewards(data: &ReportData) -> Markup {
    let known = |r: &&RewardReport| r.accuracy.is_some() || !r.bins.is_empty();
    let rewards: Vec<&RewardReport> = data.rewards.iter().filter(known).collect();
    html! {
        @if !rewards.is_empty() {
            section aria-labelledby="reward" {
                h2 id="reward" { "Reward model" }
                @for reward in rewards { (reward_of(reward)) }
            }
        }
    }
}

fn reward_of(reward: &RewardReport) -> Markup {
    html! {
        div.stage {
            h3 { (markup::visible(&reward.stage)) }
            div.pair {
                div {
                    @if let Some(accuracy) = reward.accuracy { (agreement(reward, accuracy)) }
                }
                @if !reward.bins.is_empty() { (reliability(&reward.bins)) }
                @if reward.learning.len() > 1 { (learning(reward)) }
            }
        }
    }
}

fn agreement(reward: &RewardReport, accuracy: f64) -> Markup {
    let at = |v: f64| format!("{:.2}", ((v - 0.5) / 0.5 * 100.0).clamp(0.0, 100.0));
    html! {
        p.claim.small {
            "Agrees with held-out labels " strong { (text::percent(accuracy)) } " of the time"
            @if let Some((low, high)) = reward.interval {
                span.range {
                    " (" (text::percent(low)) " to " (text::percent(high))
                    @if let Some(pairs) = reward.pairs { ", " (text::number(pairs)) " pairs" }
                    ")"
                }
            }
            @if let Some(ceiling) = reward.ceiling {
                "; " (text::percent(ceiling)) " is the most that labels this noisy allow"
            }
            "."
        }
        div.compared.c1 aria-hidden="true" {
            div.track.tall {
                @if let Some((low, high)) = reward.interval {
                    i.span style={ "left:" (at(low)) "%;right:calc(100% - " (at(high)) "%)" } {}
                }
                @if let Some(ceiling) = reward.ceiling { i.limit style={ "left:" (at(ceiling)) "%" } {} }
                i.dot style={ "left:" (at(accuracy)) "%" } {}
            }
            p.scale {
                span { "50 %, chance" }
                @if reward.ceiling.is_some() { span.key.dashed { "ceiling" } }
                span { "100 %" }
            }
        }
    }
}

/// Would more labels help?
fn learning(reward: &RewardReport) -> Markup {
    let line = |f: &dyn Fn(&LearningPoint) -> Option<f64>| -> Vec<(f64, f64)> {
        reward.learning.iter().filter_map(|p| Some((p.labels, f(p)?))).collect()
    };
    let middle = line(&|p| Some(p.accuracy));
    let low = line(&|p| Some(p.interval?.0));
    let high = line(&|p| Some(p.interval?.1));
    let most = reward.learning.iter().map(|p| p.labels).fold(0.0, f64::max);
    let ceiling: Vec<(f64, f64)> =
        reward.ceiling.into_iter().flat_map(|c| [(0.0, c), (most, c)]).collect();
    let series = |name, points, colour| Series { name, points, colour, ..Series::default() };
    let all = middle.iter().chain(&low).chain(&high).chain(&ceiling).map(|p| p.1);
    let (least, top) = all.fold((0.5_f64, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
    let chart = Chart {
        title: "Held-out accuracy by the number of labels it learned from, with its 95 % interval"
            .into(),
        series: vec![
            series("accuracy", &middle, Some(0)),
            series("95 % interval, low", &low, Some(2)),
            series("95 % interval, high", &high, Some(2)),
            series("ceiling", &ceiling, Some(1)),
        ],
        x: Some((0.0, most.max(1.0))),
        y: Some((least, (top + 0.02).min(1.0))),
        size: (320, 240),
        ..Chart::default()
    };
    html! {
        figure {
            figcaption { span.metric { "accuracy by labels" }
                span.key.c1 { "accuracy" } span.key.c3 { "95 %" }
                @if reward.ceiling.is_some() { span.key.c2 { "ceiling" } } }
            (chart::svg(&chart))
        }
    }
}

fn reliability(bins: &[CalibrationBin]) -> Markup {
    let sane = bins.iter().filter(|b| b.confidence.is_finite() && b.accuracy.is_finite());
    let bins: Vec<&CalibrationBin> = sane.collect();
    let points: Vec<(f64, f64)> = bins.iter().map(|b| (b.confidence, b.accuracy)).collect();
    let weights: Vec<f64> = bins.iter().map(|b| b.n).collect();
    let least = points.iter().flat_map(|p| [p.0, p.1]).fold(0.5, f64::min);
    let low = if least < 0.5 { (least * 10.0).floor() / 10.0 } else { 0.5 };
    let chart = Chart {
        title: "Accuracy by confidence; larger dots stand for more pairs, the dashed line for a calibrated judge"
            .into(),
        series: vec![Series {
            name: "accuracy",
            points: &points,
            weights: Some(&weights),
            ..Series::default()
        }],
        x: Some((low, 1.0)),
        y: Some((low.max(0.0), 1.0)),
        diagonal: true,
        size: (320, 240),
        ..Chart::default()
    };
    html! {
        figure {
            figcaption { span.metric { "accuracy by confidence" }
                span { "● pairs" }
                span.key.dashed { "calibrated" } }
            (chart::svg(&chart))
        }
    }
}
