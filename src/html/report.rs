//! The run report, section by section.
//! Does not know how stages are run; it shows what it is given.

use maud::{Markup, html};

use super::data::{ReportData, StageReport};
use super::page::{page, summary};
use super::{alarms, answers, evidence, flow, frontier, markup, policies, result, training};

/// The whole page.
#[must_use]
pub fn render(data: &ReportData) -> String {
    let sections = [
        result::section(data),
        alarms::section(data),
        frontier::section(data),
        policies::memory(data),
        flow::section(data),
        answers::side_by_side(data),
        training::section(data),
        evidence::labels(data),
        evidence::rewards(data),
        answers::by_step(data),
        result::figures(data),
        all_params(data),
        reproduce(data),
    ];
    page(&data.pipeline, &summary(data), &sections)
}

fn all_params(data: &ReportData) -> Markup {
    let stages: Vec<&StageReport> = data.stages.iter().filter(|s| !s.params.is_empty()).collect();
    html! {
        @if !stages.is_empty() {
            section aria-labelledby="params" {
                h2 id="params" { "Params" }
                p.lead { "Every value that is part of a stage's identity, defaults included." }
                @for stage in stages {
                    details {
                        summary {
                            b { (markup::visible(&stage.name)) } " "
                            span.dim { (markup::visible(&stage.kind)) }
                        }
                        dl.params {
                            @for (name, value) in &stage.params {
                                dt { (markup::visible(name)) } dd { (markup::visible(value)) }
                            }
                        }
                        @if !stage.fingerprint.is_empty() {
                            p.dim.mono { (markup::visible(&stage.fingerprint)) }
                        }
                    }
                }
            }
        }
    }
}

fn reproduce(data: &ReportData) -> Markup {
    html! {
        @if !data.command.is_empty() || !data.environment.is_empty() {
            section aria-labelledby="again" {
                h2 id="again" { "Make it again" }
                @if !data.command.is_empty() {
                    pre.command { code { (markup::visible(&data.command)) } }
                }
                @if !data.environment.is_empty() {
                    dl.params {
                        @for (name, value) in &data.environment {
                            dt { (markup::visible(name)) } dd { (markup::visible(value)) }
                        }
                    }
                }
            }
        }
    }
}
