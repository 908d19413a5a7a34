//! A page in a file of its own, and its summary at the top.
//! Does not know what its sections say.

use maud::{Markup, html};

use super::data::{ReportData, StageStatus};
use super::markup;
use crate::http::{PageKind, document};
use crate::text;

/// How the report and the live pages look.
pub const STYLE: &str = concat!(include_str!("style.css"), include_str!("../rendering/style.css"));

/// A page around its sections, with all that it needs in it.
pub fn page(title: &str, summary: &Markup, sections: &[Markup]) -> String {
    let kind =
        PageKind::File { style: STYLE, policy: "default-src 'none'; style-src 'unsafe-inline'" };
    let body = html! {
        body {
            header.top {
                p.brand { "preflow" }
                h1 { (markup::visible(title)) }
                (summary)
            }
            main {
                @for section in sections { (section) }
            }
            footer { p { "One file, nothing loaded from elsewhere." } }
        }
    };
    document(&format!("{} · preflow", markup::plain(title)), kind, &body).into_string()
}

/// How many stages came to which end, and how long it took.
pub fn summary(data: &ReportData) -> Markup {
    let count = |state| data.stages.iter().filter(|s| s.state == state).count();
    let states = [
        StageStatus::Done,
        StageStatus::Reused,
        StageStatus::Failed,
        StageStatus::Waiting,
        StageStatus::Running,
        StageStatus::NotRun,
    ];
    let parts: Vec<String> = states
        .iter()
        .map(|s| (count(*s), s.word()))
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
    let made = data.stages.iter().filter(|s| s.state == StageStatus::Done);
    let seconds: f64 = made.filter_map(|s| s.seconds).sum();
    let stages = text::counted(data.stages.len(), "stage");
    html! {
        @if !data.stages.is_empty() {
            p.meta {
                (stages) ": " (parts.join(", "))
                @if seconds > 0.0 { " · " (text::duration(seconds)) }
            }
        }
    }
}
