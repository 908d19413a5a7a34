//! The result of a report as Markdown, for a pull request: the policies with their intervals, who
//! labelled, and the alarms. Claims nothing.

use super::evaluation::{Evaluation, interval, names_of, shown};
use super::metrics::{self, GAIN, ReportPlace};
use super::{EvaluationRow, ReportData, alarms};
use crate::text::markdown;

/// The most telling figures of the last evaluation; a sentence where there is none.
#[must_use]
pub fn brief(data: &ReportData) -> String {
    let mut out = format!("### {}\n", markdown::escaped(&data.pipeline));
    let mut paragraph = |text: &str| out.push_str(&format!("\n{}\n", markdown::escaped(text)));
    match data.evaluation.last() {
        None => paragraph("No evaluation is made yet."),
        Some(last) => {
            let evaluation = Evaluation::of(data, &last.stage);
            if let Some((headline, bucket)) = evaluation.headline() {
                let seen =
                    if evaluation.is_unseen(bucket) { ", which nobody labelled" } else { "" };
                let n = evaluation.standings(headline, bucket);
                let n = n.iter().filter_map(|row| row.n).fold(0.0, f64::max);
                paragraph(&format!(
                    "Prompts: {bucket}{seen}; {n:.0} answers of each policy; 95 % intervals."
                ));
                out.push_str(&format!("\n{}", table(&evaluation, headline, bucket)));
            }
        }
    }
    let mut paragraph = |text: &str| out.push_str(&format!("\n{}\n", markdown::escaped(text)));
    if let Some(labels) = data.labels.iter().find(|labels| labels.simulated) {
        let program = labels.program();
        paragraph(&format!("Simulated: the preferences come from {program}, not from people."));
    }
    for (stage, said) in alarms::all(data) {
        paragraph(&format!("Alarm, {stage}: {said}"));
    }
    out
}

fn table(evaluation: &Evaluation, headline: &str, bucket: &str) -> String {
    let policies = names_of(evaluation.rows.iter().copied().map(|row| row.policy.as_str()));
    let gain = format!("{headline}{GAIN}");
    let told = [headline, &gain].into_iter().chain(metrics::told(ReportPlace::Policies));
    let mut names: Vec<&str> = Vec::new();
    for name in told.filter(|name| !evaluation.standings(name, bucket).is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let title = |name: &&str| match name.strip_suffix(GAIN) == Some(headline) {
        true => "gain".to_owned(),
        false => metrics::title(name).map_or_else(|| (*name).to_owned(), str::to_owned),
    };
    let cell = |row: Option<&EvaluationRow>, name: &str| {
        let scale = evaluation.scale(name);
        row.map_or_else(
            || "–".to_owned(),
            |row| match interval(row) {
                Some((low, high)) => format!(
                    "{} ({} to {})",
                    shown(scale, row.value),
                    shown(scale, low),
                    shown(scale, high)
                ),
                None => shown(scale, row.value),
            },
        )
    };
    let heads = std::iter::once("policy".to_owned()).chain(names.iter().map(title)).collect();
    let mut rows: Vec<Vec<String>> = vec![heads];
    for policy in policies {
        let figures = names.iter().map(|name| cell(evaluation.find(policy, bucket, name), name));
        rows.push(std::iter::once(policy.to_owned()).chain(figures).collect());
    }
    markdown::table(&rows, &(1..=names.len()).collect::<Vec<_>>())
}
