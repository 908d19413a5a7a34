//! `preflow sweep show --html`: the page of a sweep.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Opened, Survey, show};
use crate::cli::failure::Failure;
use crate::cli::{Exit, Global, report};
use crate::html::sweep::{SweepReport, SweepTrial, render};
use crate::plan::Verdict;
use crate::sweep;

/// Writes the page and prints its path.
///
/// # Errors
/// The place is no place for a page, or cannot be written.
pub fn write(
    output: &Path,
    open: bool,
    opened: &Opened,
    survey: &Survey,
    global: &Global,
) -> Result<Exit, Failure> {
    // `--html FILE` with the two the wrong way round must cost nobody their sweep.
    if output.extension().is_some_and(|e| e == "yaml" || e == "yml") {
        return Err(Failure::usage(format!("--html {}: that is no page", output.display()))
            .help("`preflow sweep show FILE --html OUT.html`"));
    }
    report::write_page(output, "sweep report", &render(&gather(opened, survey, global)), open)
}

/// What is known of a sweep, for a page.
#[must_use]
pub fn gather(opened: &Opened, survey: &Survey, global: &Global) -> SweepReport {
    let sweep = &opened.sweep;
    let table = sweep::table(sweep, &survey.trials, &survey.figures);
    let trials = survey.trials.iter().enumerate().map(|(i, trial)| SweepTrial {
        label: trial.label.clone(),
        values: table.params.iter().map(|p| trial.value(p).unwrap_or_default()).collect(),
        done: survey.is_done(i),
        metric: survey.figures[i],
        figures: figures(survey, i),
    });
    SweepReport {
        name: sweep.name.clone(),
        question: sweep.question.clone(),
        command: report::command("sweep run", &opened.file.display().to_string(), global),
        metric: sweep.metric.as_ref().map(|m| (m.name.text.clone(), m.goal)),
        over: sweep.over.iter().map(|w| w.text.clone()).collect(),
        trials: trials.collect(),
        warning: show::unknown_metric(sweep, survey),
        table,
    }
}

/// What the finished stages of a trial report.
fn figures(survey: &Survey, trial: usize) -> BTreeMap<String, f64> {
    let made = survey.stages[trial].iter().filter_map(|stage| {
        let Some(Verdict::Hit(entry)) = &survey.plan.verdicts[*stage] else { return None };
        Some((&survey.loaded.graph.stages[*stage].word, &entry.made.summary))
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
