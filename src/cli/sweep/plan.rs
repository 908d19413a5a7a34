//! `preflow sweep plan`: what a sweep costs before it runs.

use clap::Args;
use serde_json::json;

use super::SweepArgs;
use crate::cli::{Exit, Global};
use crate::plan::Selection;
use crate::plan::estimate::Estimator;
use crate::project::{Failure, sweep::SweepStatus, validate};
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style, line};
use crate::text;

#[derive(Debug, Args)]
pub struct SweepPlanArgs {
    #[command(flatten)]
    pub sweep: SweepArgs,
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
pub fn plan(args: &SweepPlanArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let session = super::open(&args.sweep, global)?;
    let status = session.status(&global.choices(), false)?;
    let selection = Selection::new(&status.project.graph, &[], &[], &[])?;
    let sources = status.project.digest_sources(&selection.wanted)?;
    validate::refuse(&status.project, &status.plan, &sources)?;
    session.check_metric(&status)?;
    let rows = rows(&status);
    let mut out = std::io::stdout().lock();
    if global.json {
        line(&mut out, &as_json(&status, &rows));
        return Ok(Exit::Done);
    }
    if !session.sweep.question.is_empty() {
        line(&mut out, &format!(" {}", crate::text::clean(&session.sweep.question)));
    }
    let mut table = Table::new(&[]);
    for column in 1..=4 {
        table.right(column);
    }
    let head = ["stage", "unique", "cached", "to run", "est"];
    table.row(head.map(|head| Cell::styled(Style::Dim, head)));
    for row in &rows {
        let run = row.unique - row.cached;
        let style = if run == 0 { Style::Dim } else { Style::Plain };
        let numbers = [row.unique, row.cached, run].map(|n| n.to_string());
        let cells = [row.stage.clone()].into_iter().chain(numbers).chain([time(row)]);
        table.row(cells.map(|cell| Cell::styled(style, cell)));
    }
    line(&mut out, table.text(look).trim_end());
    line(&mut out, &last_line(&status, &rows));
    if let Some(halving) = session.sweep.halving.as_ref() {
        let rounds = halving.budgets.len();
        let text = format!(
            " halving over `{}`: {rounds} rounds; the price is that of the rounds known so far",
            halving.param.name
        );
        line(&mut out, &look.paint(Style::Dim, &text));
    }
    Ok(Exit::Done)
}

fn rows(status: &SweepStatus) -> Vec<Row> {
    let heads = status.project.heads();
    let estimator = Estimator::new(&status.project.graph, &status.project.store, &heads);
    let mut rows: Vec<Row> = Vec::new();
    for (stage, node) in status.project.graph.stages.iter().enumerate() {
        let made = status.is_made(stage);
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
fn last_line(status: &SweepStatus, rows: &[Row]) -> String {
    let total: usize = status.stages.iter().map(Vec::len).sum();
    let unique: usize = rows.iter().map(|r| r.unique).sum();
    let cached: usize = rows.iter().map(|r| r.cached).sum();
    let trials = status.trials.len();
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

fn as_json(status: &SweepStatus, rows: &[Row]) -> String {
    let stages = rows.iter().map(|r| {
        json!({ "stage": r.stage, "unique": r.unique, "cached": r.cached,
                "to_run": r.unique - r.cached, "seconds": r.known.then_some(r.seconds) })
    });
    let trials = status.trials.iter().enumerate().map(|(i, trial)| {
        let names = status.stages[i].iter().map(|s| status.project.graph.stages[*s].name.as_str());
        json!({ "trial": trial.label, "done": status.is_done(i),
                "stages": names.collect::<Vec<_>>() })
    });
    json!({
        "trials": trials.collect::<Vec<_>>(),
        "stages": stages.collect::<Vec<_>>(),
        "total": status.stages.iter().map(Vec::len).sum::<usize>(),
        "unique": rows.iter().map(|r| r.unique).sum::<usize>(),
        "cached": rows.iter().map(|r| r.cached).sum::<usize>(),
        "seconds": rows.iter().all(|r| r.known).then(|| rows.iter().map(|r| r.seconds).sum::<f64>()),
    })
    .to_string()
}
