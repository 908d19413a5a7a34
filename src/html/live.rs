//! The live page: how a pipeline stands now, in the parts of the run report.
//! Does not know how changes are noticed.

use maud::{Markup, html};

use super::page::summary;
use super::sweep::{self, SweepReport};
use super::{ReportData, answers, evidence, flow, markup, result, training};
use crate::http::{PageKind, document};

/// The script of the page.
pub const SCRIPT: &str = include_str!("live.js");
/// The style of the page: that of the report.
pub use super::page::STYLE;

/// Everything that the page shows.
#[derive(Debug, Clone, Default)]
pub struct LiveData {
    pub report: ReportData,
    pub runs: Vec<RunRow>,
    pub sweep: Option<SweepReport>,
    /// Why something is not shown: the pipeline file is wrong just now, for example.
    pub problem: Option<String>,
}

/// One run, newest first.
#[derive(Debug, Clone, Default)]
pub struct RunRow {
    pub id: String,
    pub at: String,
    pub state: String,
    pub stages: String,
}

/// A page that is served; `follows`: its script keeps it up to date.
pub(super) fn served(title: &str, follows: bool, body: &Markup) -> String {
    let script = follows.then_some("/live.js");
    let title = format!("{} · preflow", markup::plain(title));
    document(&title, PageKind::Served { style: "/live.css", script }, body).into_string()
}

/// The page around what changes.
#[must_use]
pub fn shell(title: &str, now: &str) -> String {
    let body = html! {
        body {
            header.top {
                p.brand { "preflow · " span id="link" role="status" { "connecting" } }
                h1 { (markup::visible(title)) }
            }
            main id="live" { (maud::PreEscaped(now)) }
        }
    };
    served(title, true, &body)
}

/// What changes.
#[must_use]
pub fn render(data: &LiveData) -> String {
    let page = html! {
        (summary(&data.report))
        @if let Some(problem) = &data.problem { p.note.warning { (markup::visible(problem)) } }
        // As soon as the stages that they come from are done.
        (result::section(&data.report))
        (flow::section(&data.report))
        (training::section(&data.report))
        (evidence::labels(&data.report))
        (evidence::rewards(&data.report))
        @if let Some(sweep) = &data.sweep {
            @for section in sweep::sections(sweep) { (section) }
        }
        (answers::by_step(&data.report))
        (runs(&data.runs))
    };
    page.into_string()
}

fn runs(runs: &[RunRow]) -> Markup {
    html! {
        @if !runs.is_empty() {
            section aria-labelledby="runs" {
                h2 id="runs" { "Newest runs" }
                div.wide tabindex="0" role="region" aria-label="Runs by time" {
                    table {
                        thead { tr {
                            @for head in ["run", "begun", "state", "stages"] {
                                th scope="col" { (head) }
                            }
                        } }
                        tbody {
                            @for run in runs {
                                tr {
                                    th scope="row" {
                                        a.mono href={ "runs/" (run.id) } { (markup::visible(&run.id)) }
                                    }
                                    td { (markup::visible(&run.at)) }
                                    td { (markup::visible(&run.state)) }
                                    td { (markup::visible(&run.stages)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
