//! Signs that training went wrong, by the names of metrics. Nothing is said where all is well.
//! Does not know kinds.

use maud::{Markup, html};

use super::{ReportData, StageReport, markup, metrics};
use crate::text;

pub fn section(data: &ReportData) -> Markup {
    let found = all(data);
    html! {
        @if !found.is_empty() {
            section aria-labelledby="alarms" {
                h2 id="alarms" { "Alarms" }
                @for (stage, said) in found {
                    p.note.warning { b { (markup::visible(stage)) } ": " (markup::visible(&said)) }
                }
            }
        }
    }
}

/// Stages, and what is wrong with them.
pub fn all(data: &ReportData) -> Vec<(&str, String)> {
    let of = |stage| alarms(stage).into_iter();
    data.stages.iter().flat_map(|stage| of(stage).map(|text| (stage.name.as_str(), text))).collect()
}

fn alarms(stage: &StageReport) -> Vec<String> {
    let mut found = Vec::new();
    for (name, points) in &stage.curves {
        let Some((_, last)) = points.last() else { continue };
        for alarm in metrics::alarms(name) {
            let settled = points.len() > alarm.unsettled;
            if settled && (alarm.is_bad)(*last) {
                found.push(format!("{} ({name} {})", alarm.says, text::number(*last)));
            }
        }
    }
    found
}
