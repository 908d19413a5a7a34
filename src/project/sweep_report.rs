//! What is known of a sweep, for its page.
//! Draws nothing.

use std::collections::BTreeMap;

use super::report::command;
use super::sweep::{SweepSession, SweepStatus};
use crate::html::sweep::{SweepReport, SweepTrial};
use crate::plan::Verdict;
use crate::sweep;

/// Its trials, their figures and the table over them.
#[must_use]
pub fn gather(session: &SweepSession, status: &SweepStatus) -> SweepReport {
    let sweep = &session.sweep;
    let table = sweep::table(sweep, &status.trials, &status.figures);
    let trials = status.trials.iter().enumerate().map(|(i, trial)| SweepTrial {
        label: trial.label.clone(),
        values: table.params.iter().map(|p| trial.value(p).unwrap_or_default()).collect(),
        done: status.is_done(i),
        metric: status.figures[i],
        figures: figures(status, i),
    });
    SweepReport {
        name: sweep.name.clone(),
        question: sweep.question.clone(),
        command: command("sweep run", &session.file.display().to_string(), &status.project.choices),
        metric: sweep.metric.as_ref().map(|m| (m.name.text.clone(), m.goal)),
        over: sweep.over.iter().map(|w| w.text.clone()).collect(),
        trials: trials.collect(),
        warning: status.unknown_metric(sweep),
        table,
    }
}

/// What the finished stages of a trial report.
fn figures(status: &SweepStatus, trial: usize) -> BTreeMap<String, f64> {
    let made = status.stages[trial].iter().filter_map(|stage| {
        let Some(Verdict::Hit(entry)) = &status.plan.verdicts[*stage] else { return None };
        Some((&status.project.graph.stages[*stage].word, &entry.made.summary))
    });
    made.flat_map(|(word, summary)| {
        let whole = move |name: &String| match name.split('/').next() == Some(word) {
            true => name.clone(),
            false => format!("{word}/{name}"),
        };
        summary.iter().filter_map(move |(name, x)| Some((whole(name), (*x)?)))
    })
    .collect()
}
