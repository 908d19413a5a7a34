//! Figures of quality as a part of a page: how much annotators agree, and how each does. The admin
//! page and the run report show the same. The figures come from elsewhere.

use maud::{Markup, html};

use super::quality::{AnnotatorReport, FEW, OverallReport, QualityReport};
use crate::agreement::{ADJUDICATOR, Interval};
use crate::text::{Shown, counted, percent, two_places};
use crate::votes::LONGEST_REASON;

/// Agreement, and a table of annotators. `min_seconds`: what counts as too fast. `of`: whose
/// figures these are, where a page shows those of several stages.
#[must_use]
pub fn figures(report: &QualityReport, min_seconds: f64, of: &str) -> Markup {
    let people = people(report);
    html! {
        (agreement(&report.overall, report.too_few, of))
        (annotators(&people, min_seconds, of))
    }
}

/// Everybody but the adjudicator.
#[must_use]
pub fn people(report: &QualityReport) -> Vec<&AnnotatorReport> {
    report.annotators.iter().filter(|a| a.annotator != ADJUDICATOR).collect()
}

fn agreement(of: &OverallReport, too_few: bool, stage: &str) -> Markup {
    let ceiling = of
        .ceiling
        .map(|(low, high)| (format!("{} to {}", percent(low), percent(high)), String::new()));
    let plain = |x: Option<f64>| x.map(|x| (two_places(x), String::new()));
    let alpha = |e: Option<Interval>| {
        e.map(|e| (two_places(e.value), format!("{} to {}", two_places(e.low), two_places(e.high))))
    };
    let share = |e: Option<Interval>| e.map(|e| (percent(e.value), interval(&e)));
    let figures = [
        ("Same answer", "of two votes on one pair", share(of.percent)),
        ("Krippendorff’s α, ordinal", "much better, better, neither …", alpha(of.alpha_ordinal)),
        ("Krippendorff’s α, nominal", "one, the other, neither", alpha(of.alpha_nominal)),
        ("Fleiss’ κ", "", plain(of.fleiss)),
        ("Cohen’s κ", "mean over pairs of annotators", plain(of.cohen)),
        ("Ceiling", "how often a model can be right about single votes", ceiling),
    ];
    html! {
        section aria-labelledby=(format!("agreement{stage}")) {
            h2 id=(format!("agreement{stage}")) { "Agreement" (named(stage)) }
            p.lead {
                (counted(of.shared, "pair")) " with votes of several annotators."
                @if too_few { " Too few: under " (FEW) ", these figures say little." }
            }
            dl.figures.few[too_few] {
                @for (name, of, value) in figures {
                    div {
                        dt { (name) @if !of.is_empty() { span.dim { (of) } } }
                        dd {
                            @match value {
                                Some((value, range)) => {
                                    (value) @if !range.is_empty() { span.dim { (range) } }
                                }
                                None => { span.dim { "not known" } }
                            }
                        }
                    }
                }
            }
            (reasons(of))
        }
    }
}

/// How often each reason was marked.
fn reasons(of: &OverallReport) -> Markup {
    html! {
        @if !of.reasons.is_empty() {
            p.lead {
                "Reasons that were marked, of " (counted(of.votes, "vote")) ": "
                @for (i, count) in of.reasons.iter().enumerate() {
                    @if i > 0 { ", " }
                    (Shown::of(&count.reason, LONGEST_REASON).text) " " (count.votes)
                }
                "."
            }
        }
    }
}

fn named(stage: &str) -> Markup {
    html! { @if !stage.is_empty() { span.dim { " · " (stage) } } }
}

fn annotators(people: &[&AnnotatorReport], min_seconds: f64, stage: &str) -> Markup {
    html! {
        section aria-labelledby=(format!("annotators{stage}")) {
            h2 id=(format!("annotators{stage}")) { "Annotators" (named(stage)) }
            @if people.is_empty() { p.lead { "Nobody has voted yet." } } @else {
                p.lead {
                    "Ranges are 95 % intervals. Who chooses at random is left half of the time; "
                    "far from it, or with the longer answer nearly always, means habit. "
                    "Rows in grey have under " (FEW) " votes: too few."
                }
                div.wide tabindex="0" role="group" aria-label="Table of annotators" {
                    table {
                        thead { tr {
                            th scope="col" { "Annotator" }
                            @for name in ["Votes", "Votes an hour", "Seconds", "Ties", "Skips",
                                "Too fast", "Chose left", "Chose longer", "Gold right",
                                "Same again", "Agrees with others"] {
                                th scope="col" { (name) }
                            }
                        } }
                        tbody { @for one in people { (row(one)) } }
                    }
                }
                p.lead { "Too fast: under " (min_seconds) " s." }
            }
        }
    }
}

fn row(of: &AnnotatorReport) -> Markup {
    let cell = |e: Option<Interval>| {
        html! {
            td.few[e.is_some_and(|e| e.n < FEW as u64)] {
                @match e {
                    Some(e) => { (percent(e.value)) span.dim { (interval(&e)) " of " (e.n) } }
                    None => { span.dim { "–" } }
                }
            }
        }
    };
    let number = |x: Option<f64>, digits: usize| {
        html! { td { @match x { Some(x) => { (format!("{x:.digits$}")) } None => { "–" } } } }
    };
    html! {
        tr.few[of.too_few] {
            th scope="row" { (of.annotator) @if of.too_few { span.dim { "too few" } } }
            td { (of.votes) }
            (number(of.per_hour.filter(|_| !of.too_few), 0))
            (number(of.seconds, 1))
            td { (of.ties) }
            td { (of.skips) }
            td { (of.too_fast) }
            (cell(of.left))
            (cell(of.longer))
            (cell(of.gold))
            (cell(of.consistency))
            (cell(of.agreement))
        }
    }
}

fn interval(of: &Interval) -> String {
    format!("{:.0} to {:.0}", of.low * 100.0, of.high * 100.0)
}
