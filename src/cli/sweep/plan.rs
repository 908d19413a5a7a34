//! `preflow sweep plan`: what a sweep costs before it runs.

use clap::Args;
use serde_json::json;

use super::{Survey, Which};
use crate::cli::failure::Failure;
use crate::cli::{Exit, Global, ahead};
use crate::plan::Selection;
use crate::plan::estimate::Estimator;
use crate::report::{Look, Style, line};
use crate::text;

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub which: Which,
}

/// One stage of the pipeline, over all trials.
struct Row {
    stage: String,
    unique: usize,
    cached: usize,
    /// Seconds of those that run, and whether they are known of all.
    seconds: f64,
    known: bool,
}

/// Prints the price; nothing runs.
///
/// # Errors
/// The sweep, its pipeline, its sources or the store are wrong.
pub fn plan(args: &PlanArgs, global: &Global, look: Look) -> Result<Exit, Failure> {
    let opened = super::open(&args.which, global)?;
    let survey = opened.survey(global, false)?;
    let selection = Selection::new(&survey.loaded.graph, &[], &[], &[])?;
    let sources = survey.loaded.digest_sources(&selection.wanted)?;
    ahead::refuse(&survey.loaded, &survey.plan, &sources, global)?;
    opened.check_metric(&survey, look)?;
    let rows = rows(&survey);
    let mut out = std::io::stdout().lock();
    if global.json {
        line(&mut out, &as_json(&survey, &rows));
        return Ok(Exit::Done);
    }
    if !opened.sweep.question.is_empty() {
        line(&mut out, &format!(" {}", crate::text::clean(&opened.sweep.question)));
    }
    let width = rows.iter().map(|r| r.stage.chars().count()).max().unwrap_or(5).max(5);
    let head = format!(
        " {:<width$}  {:>6}  {:>6}  {:>6}  {:>7}",
        "stage", "unique", "cached", "to run", "est"
    );
    line(&mut out, &look.paint(Style::Dim, &head));
    for row in &rows {
        let run = row.unique - row.cached;
        let text = format!(
            " {:<width$}  {:>6}  {:>6}  {run:>6}  {:>7}",
            row.stage,
            row.unique,
            row.cached,
            time(row)
        );
        line(&mut out, &if run == 0 { look.paint(Style::Dim, &text) } else { text });
    }
    line(&mut out, &last_line(&survey, &rows));
    if let Some(halving) = opened.sweep.halving.as_ref() {
        let rounds = halving.budgets.len();
        let text = format!(
            " halving over `{}`: {rounds} rounds; the price is that of the rounds known so far",
            halving.param.name
        );
        line(&mut out, &look.paint(Style::Dim, &text));
    }
    Ok(Exit::Done)
}

fn rows(survey: &Survey) -> Vec<Row> {
    let heads = survey.loaded.heads();
    let estimator = Estimator::new(&survey.loaded.graph, &survey.loaded.store, &heads);
    let mut rows: Vec<Row> = Vec::new();
    for (stage, node) in survey.loaded.graph.stages.iter().enumerate() {
        let made = survey.is_made(stage);
        let at = rows.iter().position(|r| r.stage == node.word).unwrap_or_else(|| {
            let stage = node.word.clone();
            rows.push(Row { stage, unique: 0, cached: 0, seconds: 0.0, known: true });
            rows.len() - 1
        });
        rows[at].unique += 1;
        rows[at].cached += usize::from(made);
        if !made {
            let estimate = estimator.of(stage);
            rows[at].seconds += estimate.map_or(0.0, |e| e.seconds);
            rows[at].known &= estimate.is_some();
        }
    }
    rows
}

fn time(row: &Row) -> String {
    match (row.unique - row.cached, row.known) {
        (0, _) => "–".to_owned(),
        (_, true) => text::seconds(row.seconds),
        (_, false) => "?".to_owned(),
    }
}

/// `15 trials × 8 stages = 120; 41 unique; 5 cached; 36 to run; ~9h20m`.
fn last_line(survey: &Survey, rows: &[Row]) -> String {
    let total: usize = survey.stages.iter().map(Vec::len).sum();
    let unique: usize = rows.iter().map(|r| r.unique).sum();
    let cached: usize = rows.iter().map(|r| r.cached).sum();
    let trials = survey.trials.len();
    let seconds: f64 = rows.iter().map(|r| r.seconds).sum();
    let unknown = rows.iter().any(|r| !r.known);
    let price = match unique - cached {
        0 => "nothing to run".to_owned(),
        n => format!("{n} to run; {}", text::price(seconds, unknown)),
    };
    let per = total.checked_div(trials).unwrap_or(0);
    let noun = if trials == 1 { "trial" } else { "trials" };
    format!(" {trials} {noun} × {per} stages = {total}; {unique} unique; {cached} cached; {price}")
}

fn as_json(survey: &Survey, rows: &[Row]) -> String {
    let stages = rows.iter().map(|r| {
        json!({ "stage": r.stage, "unique": r.unique, "cached": r.cached,
                "to_run": r.unique - r.cached, "seconds": r.known.then_some(r.seconds) })
    });
    let trials = survey.trials.iter().enumerate().map(|(i, trial)| {
        let names = survey.stages[i].iter().map(|s| survey.loaded.graph.stages[*s].name.as_str());
        json!({ "trial": trial.label, "done": survey.is_done(i),
                "stages": names.collect::<Vec<_>>() })
    });
    json!({
        "trials": trials.collect::<Vec<_>>(),
        "stages": stages.collect::<Vec<_>>(),
        "total": survey.stages.iter().map(Vec::len).sum::<usize>(),
        "unique": rows.iter().map(|r| r.unique).sum::<usize>(),
        "cached": rows.iter().map(|r| r.cached).sum::<usize>(),
        "seconds": rows.iter().all(|r| r.known).then(|| rows.iter().map(|r| r.seconds).sum::<f64>()),
    })
    .to_string()
}
