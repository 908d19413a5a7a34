//! `preflow sweep show`: the table of a sweep, for people, papers and programs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::SweepArgs;
use crate::cli::metrics::field;
use crate::cli::{Exit, Global, print, report};
use crate::html;
use crate::project::sweep::{SweepSession, SweepStatus};
use crate::project::{Failure, sweep_report};
use crate::report::{OutputStyle, Style, table};
use crate::sweep::{self, ResultTable, SettingMean, Sweep};
use crate::text;

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub sweep: SweepArgs,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: TableFormat,
    /// Write a page instead: one HTML file with the table, what each param does, and what is bought
    /// with KL
    #[arg(long, value_name = "OUT", num_args = 0..=1, conflicts_with = "format")]
    #[arg(default_missing_value = "sweep-report.html")]
    pub html: Option<PathBuf>,
    /// Open the page when it is written
    #[arg(long, requires = "html")]
    pub open: bool,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    Table,
    Markdown,
    Csv,
    Json,
}

/// Prints what came out so far, or writes its page.
///
/// # Errors
/// The page cannot be written; the sweep, its pipeline, its sources or the store are wrong.
pub fn show(args: &ShowArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let session = super::open(&args.sweep, global)?;
    let status = session.status(&global.choices(), false)?;
    if let Some(output) = &args.html {
        return write_page(output, args.open, &session, &status);
    }
    let format = if global.json { TableFormat::Json } else { args.format };
    let table = sweep::table(&session.sweep, &status.trials, &status.figures);
    Ok(print(&match format {
        TableFormat::Table => terminal(&session.sweep, &status, look) + "\n",
        TableFormat::Markdown => markdown(&session.sweep, &table),
        TableFormat::Csv => csv(&session.sweep, &status),
        TableFormat::Json => as_json(&session.sweep, &status, &table) + "\n",
    }))
}

/// The table and the effects, as a person reads them in a terminal.
#[must_use]
pub fn terminal(sweep: &Sweep, status: &SweepStatus, look: OutputStyle) -> String {
    let table = sweep::table(sweep, &status.trials, &status.figures);
    let mut out = String::new();
    if !sweep.question.is_empty() {
        out += &format!(" {}\n", crate::text::clean(&sweep.question));
    }
    out += &screen(&rows(sweep, &table), table.params.len(), look);
    if let Some(words) = table.words(figure) {
        let mut letters = words.chars();
        let first = letters.next().map(char::to_lowercase).into_iter().flatten();
        out += &format!("\n\n best: {}", first.chain(letters).collect::<String>());
    }
    let effects = effects(&table);
    if effects.len() > 1 {
        out += &format!("\n\n {}\n", look.paint(Style::Strong, "effect of each param"));
        out += &screen(&effects, 2, look);
    }
    let done = (0..status.trials.len()).filter(|t| status.is_done(*t)).count();
    out += &format!("\n\n {done} of {} trials are done", status.trials.len());
    if let Some(help) = status.unknown_metric(sweep) {
        out += &format!("\n {} {help}", look.paint(Style::Warning, "warning:"));
    }
    out
}

/// Writes the page of a sweep and prints its path.
///
/// # Errors
/// The place is no place for a page, or cannot be written.
fn write_page(
    output: &Path,
    open: bool,
    session: &SweepSession,
    status: &SweepStatus,
) -> Result<Exit, Failure> {
    // `--html FILE` with the two the wrong way round must cost nobody their sweep.
    if output.extension().is_some_and(|e| e == "yaml" || e == "yml") {
        return Err(Failure::usage(format!("--html {}: that is no page", output.display()))
            .help("`preflow sweep show FILE --html OUT.html`"));
    }
    report::write_page(
        output,
        "sweep report",
        &html::sweep::render(&sweep_report::gather(session, status)),
        open,
    )
}

/// Head and rows as words.
fn rows(sweep: &Sweep, table: &ResultTable) -> Vec<Vec<String>> {
    let metric = sweep.metric.as_ref().map_or("metric", |m| m.name.text.as_str());
    let compared = table.rows.iter().any(|r| r.against_baseline.is_some());
    let mut head: Vec<String> = table.params.clone();
    head.extend(["n", metric, "95 %", "spread", "range"].map(str::to_owned));
    head.extend(compared.then(|| "against baseline".to_owned()));
    head.push(String::new());
    let mut all = vec![head];
    for row in &table.rows {
        let mut line: Vec<String> =
            row.values.iter().map(|v| if v.is_empty() { "·".into() } else { v.clone() }).collect();
        line.push(match row.metric.n {
            n if n == row.trials => n.to_string(),
            n => format!("{n} of {}", row.trials),
        });
        let [mean, spread, range] = cells(&row.metric);
        line.extend([mean, around(&row.metric), spread, range]);
        if compared {
            line.push(row.against_baseline.as_ref().map_or_else(String::new, difference));
        }
        line.push(match (row.is_best, row.is_baseline) {
            (true, true) => "best, baseline".to_owned(),
            (true, false) => "best".to_owned(),
            (false, true) => "baseline".to_owned(),
            (false, false) => String::new(),
        });
        all.push(line);
    }
    all
}

fn effects(table: &ResultTable) -> Vec<Vec<String>> {
    let head = ["param", "value", "n", "mean", "spread", "range", "effect"];
    let mut all = vec![head.map(str::to_owned).to_vec()];
    for effect in &table.effects {
        let mut line =
            vec![effect.param.clone(), effect.value.clone(), effect.metric.n.to_string()];
        line.extend(cells(&effect.metric));
        line.push(effect.effect.map_or_else(String::new, signed));
        all.push(line);
    }
    all
}

/// Mean, spread, range.
fn cells(cell: &SettingMean) -> [String; 3] {
    let mean = cell.mean.map_or_else(|| "–".to_owned(), figure);
    let range = match (cell.low, cell.high) {
        (Some(low), Some(high)) if cell.n > 1 => {
            format!("{} … {}", figure(low), figure(high))
        }
        _ => String::new(),
    };
    [mean, cell.spread.map_or_else(String::new, figure), range]
}

/// Half of the 95 % interval.
fn around(cell: &SettingMean) -> String {
    cell.half.map_or_else(|| "–".to_owned(), |half| format!("± {}", figure(half)))
}

fn difference(cell: &SettingMean) -> String {
    let mean = cell.mean.map_or_else(String::new, signed);
    cell.half.map_or(mean.clone(), |half| format!("{mean} ± {}", figure(half)))
}

/// A figure with a minus as wide as the plus of others.
fn figure(x: f64) -> String {
    text::figure(x).replace('-', "−")
}

fn signed(x: f64) -> String {
    format!("{}{}", if x >= 0.0 { "+" } else { "−" }, figure(x.abs()))
}

fn screen(rows: &[Vec<String>], keys: usize, look: OutputStyle) -> String {
    let mut screen = table::Table::new(&[]);
    screen.keys(keys);
    for row in rows {
        screen.row(row.iter().map(String::as_str));
    }
    let columns = rows.first().map_or(0, Vec::len);
    for i in 0..columns {
        let numbers = rows.iter().skip(1).all(|r| r[i].starts_with(|c: char| !c.is_alphabetic()));
        if numbers && rows.len() > 1 {
            screen.right(i);
        }
    }
    screen.text(look).trim_end().to_owned()
}

fn markdown(sweep: &Sweep, table: &ResultTable) -> String {
    let escape = |text: &String| text.replace('|', "\\|");
    let one = |rows: &[Vec<String>]| -> String {
        let line = |row: &Vec<String>| {
            format!("| {} |\n", row.iter().map(escape).collect::<Vec<_>>().join(" | "))
        };
        let Some((head, rest)) = rows.split_first() else { return String::new() };
        let rule = format!("|{}\n", " --- |".repeat(head.len()));
        line(head) + &rule + &rest.iter().map(line).collect::<String>()
    };
    let mut out = String::new();
    if !sweep.question.is_empty() {
        out += &format!("**{}**\n\n", sweep.question);
    }
    out += &one(&rows(sweep, table));
    if !table.effects.is_empty() {
        out += &format!("\n{}", one(&effects(table)));
    }
    out
}

/// One line a trial: what statistics programs want.
fn csv(sweep: &Sweep, status: &SweepStatus) -> String {
    let params = sweep.params();
    let metric = sweep.metric.as_ref().map_or("metric", |m| m.name.text.as_str());
    let head = ["trial"].into_iter().chain(params.iter().copied()).chain(["done", metric]);
    let mut out = head.map(field).collect::<Vec<_>>().join(",") + "\n";
    for (i, trial) in status.trials.iter().enumerate() {
        let mut row = vec![field(&trial.label)];
        row.extend(params.iter().map(|p| field(&trial.value(p).unwrap_or_default())));
        row.push(status.is_done(i).to_string());
        row.push(status.figures[i].map_or_else(String::new, |x| x.to_string()));
        out += &(row.join(",") + "\n");
    }
    out
}

fn as_json(sweep: &Sweep, status: &SweepStatus, table: &ResultTable) -> String {
    let trials = status.trials.iter().enumerate().map(|(i, trial)| {
        let values: serde_json::Map<String, serde_json::Value> = sweep
            .params()
            .into_iter()
            .filter_map(|p| Some((p.to_owned(), json!(trial.value(p)?))))
            .collect();
        json!({ "trial": trial.label, "values": values, "done": status.is_done(i),
                "figure": status.figures[i] })
    });
    json!({
        "question": sweep.question,
        "metric": sweep.metric.as_ref().map(|m| json!({ "name": m.name.text, "goal": m.goal })),
        "table": table,
        "verdict": table.verdict(),
        "trials": trials.collect::<Vec<_>>(),
    })
    .to_string()
}
