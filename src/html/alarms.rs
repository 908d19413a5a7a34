//! Signs that training went wrong, by the names of metrics. Nothing is said where all is well.
//! Does not know kinds.

use maud::{Markup, html};

use super::{ReportData, StageReport, markup};
use crate::text;

/// A limit on the last value of a metric.
struct Limit {
    /// End of the metric's name.
    name: &'static str,
    is_bad: fn(f64) -> bool,
    says: &'static str,
}

const LIMITS: [Limit; 6] = [
    Limit { name: "eos_rate", is_bad: |x| x < 0.5, says: "most answers do not end by themselves" },
    Limit {
        name: "distinct_ratio",
        is_bad: |x| x < 0.2,
        says: "the answers are nearly all the same",
    },
    Limit {
        name: "corr_with_length",
        is_bad: |x| x.abs() > 0.6,
        says: "the reward follows the length of answers",
    },
    Limit {
        name: "objective/kl",
        is_bad: |x| x < -0.1,
        says: "a KL is not negative: sampling and training do not see one policy",
    },
    Limit {
        name: "explained_variance",
        is_bad: |x| x < 0.0,
        says: "the critic is worse than a constant",
    },
    Limit { name: "loss", is_bad: |x| !x.is_finite(), says: "the loss is not a number" },
];

/// Fewer points than this, and a metric has not settled.
const SETTLED: usize = 10;

pub fn section(data: &ReportData) -> Markup {
    let found: Vec<(&str, String)> = data
        .stages
        .iter()
        .flat_map(|stage| alarms(stage).into_iter().map(|text| (stage.name.as_str(), text)))
        .collect();
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

fn alarms(stage: &StageReport) -> Vec<String> {
    let mut found = Vec::new();
    for (name, points) in &stage.curves {
        let Some((_, last)) = points.last() else { continue };
        for limit in &LIMITS {
            let fits = name.ends_with(limit.name);
            let early = limit.name == "explained_variance" && points.len() <= SETTLED;
            if fits && !early && (limit.is_bad)(*last) {
                found.push(format!("{} ({name} {})", limit.says, text::number(*last)));
            }
        }
    }
    found
}
