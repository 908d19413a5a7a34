//! The page of one run: how each of its stages came to its end, with what it said.
//! Does not know where this is written down.

use maud::{Markup, html};

use super::{StageStatus, live, markup};
use crate::text;

/// One run.
#[derive(Debug, Clone, Default)]
pub struct RunPage {
    pub pipeline: String,
    pub id: String,
    pub at: String,
    pub state: String,
    /// How many stages came to which end, and how long it took.
    pub totals: String,
    /// The command line that started it.
    pub command: String,
    /// In the order of the pipeline.
    pub stages: Vec<StageOfRun>,
}

/// What a run says of one stage.
#[derive(Debug, Clone, Default)]
pub struct StageOfRun {
    pub name: String,
    pub state: StageStatus,
    /// Why it is in that state, where that is worth a line.
    pub why: String,
    pub seconds: Option<f64>,
    /// What went wrong, in one line, and all that is known of it.
    pub error: String,
    pub detail: String,
    pub notes: Vec<String>,
    pub figures: Vec<(String, f64)>,
}

/// The page, which loads its style from beside it.
#[must_use]
pub fn render(run: &RunPage) -> String {
    let body = html! {
        body {
            header.top {
                p.brand { a href="../" { (markup::visible(&run.pipeline)) } }
                h1 { "Run " (markup::visible(&run.id)) }
                p.meta { (markup::visible(&run.at)) " · " (run.state) " · " (markup::visible(&run.totals)) }
            }
            main {
                section aria-labelledby="stages" {
                    h2 id="stages" { "Stages" }
                    @for stage in &run.stages { (one(stage)) }
                }
                section aria-labelledby="command" {
                    h2 id="command" { "Command" }
                    pre.command { code { (markup::visible(&run.command)) } }
                }
            }
        }
    };
    live::served(&format!("Run {}", run.id), false, &body)
}

fn one(stage: &StageOfRun) -> Markup {
    html! {
        div class={ "of-run " (stage.state.word().replace(' ', "-")) } {
            h3 {
                (markup::visible(&stage.name)) " " span.state { (stage.state.word()) }
                @if let Some(seconds) = stage.seconds { " " span.dim { (text::duration(seconds)) } }
                @if !stage.why.is_empty() { " " span.dim { (markup::visible(&stage.why)) } }
            }
            @if !stage.error.is_empty() { p.note.warning { (markup::visible(&stage.error)) } }
            @if !stage.detail.is_empty() { pre.command { (markup::visible(&stage.detail)) } }
            @for note in &stage.notes { p.note { (markup::visible(note)) } }
            @if !stage.figures.is_empty() {
                details {
                    summary { (text::counted(stage.figures.len(), "figure")) }
                    dl.params {
                        @for (name, value) in &stage.figures {
                            dt { (markup::visible(name)) } dd { (text::two_places(*value)) }
                        }
                    }
                }
            }
        }
    }
}
