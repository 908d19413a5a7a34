//! `preflow sweep show`: the table of a sweep, for people, papers and programs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::SweepArgs;
use crate::cli::metrics::field;
use crate::cli::{Exit, Global, print, report};
use crate::diagnostic::did_you_mean;
use crate::html;
use crate::project::sweep::{SweepSession, SweepStatus};
use crate::project::{Failure, sweep_report};
use crate::report::{OutputStyle, Style, table};
use crate::sweep::{self, ResultTable, Row, SettingMean, Sweep};
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
    /// Figures to show beside the metric, as in eval/kl
    #[arg(long, value_name = "NAME,NAME…", value_delimiter = ',', conflicts_with = "html")]
    pub columns: Vec<String>,
    /// Sort by a param, the metric or a column, the largest last; with `-` before it the largest
    /// first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, conflicts_with = "html")]
    pub sort: Option<String>,
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
    let mut table = sweep::table(&session.sweep, &status.trials, &status.figures);
    let columns: Vec<Column> =
        args.columns.iter().map(|name| Column::of(&status, name)).collect::<Result<_, _>>()?;
    if let Some(name) = &args.sort {
        sort(&mut table, &session.sweep, &columns, name)?;
    }
    Ok(print(&match format {
        TableFormat::Table => as_text(&session.sweep, &status, &table, &columns, look) + "\n",
        TableFormat::Markdown => markdown(&session.sweep, &table, &columns),
        TableFormat::Csv => csv(&session.sweep, &status, &columns),
        TableFormat::Json => as_json(&session.sweep, &status, &table, &columns) + "\n",
    }))
}

/// A figure beside the metric, of each trial.
struct Column {
    name: String,
    figures: Vec<Option<f64>>,
}

impl Column {
    /// Refuses what no stage reports, once some do.
    fn of(status: &SweepStatus, name: &str) -> Result<Self, Failure> {
        let figures: Vec<Option<f64>> =
            (0..status.trials.len()).map(|trial| status.figure(trial, name)).collect();
        let known = status.known_figures();
        if figures.iter().all(Option::is_none) && !known.is_empty() {
            let near = did_you_mean(name, known.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            return Err(Failure::usage(format!("no stage of the sweep reports `{name}`"))
                .help(format!("{near}`preflow status` lists figures")));
        }
        Ok(Self { name: name.to_owned(), figures })
    }

    fn mean(&self, row: &Row) -> SettingMean {
        let known = row.members.iter().filter_map(|trial| self.figures[*trial]);
        SettingMean::of(&known.collect::<Vec<_>>())
    }
}

/// Rows by a param, the metric or a column; those without a figure last.
fn sort(
    table: &mut ResultTable,
    sweep: &Sweep,
    columns: &[Column],
    wanted: &str,
) -> Result<(), Failure> {
    let (name, turned) = match wanted.strip_prefix('-') {
        Some(name) => (name, true),
        None => (wanted, false),
    };
    let metric = sweep.metric.as_ref().map(|metric| metric.name.text.as_str());
    let number = |text: &str| text.parse::<f64>().ok();
    let key: Vec<(Option<f64>, String)> = table
        .rows
        .iter()
        .map(|row| {
            if let Some(place) = table.params.iter().position(|param| param == name) {
                let value = &row.values[place];
                return Some((number(value), value.clone()));
            }
            if metric == Some(name) {
                return Some((row.metric.mean, String::new()));
            }
            let column = columns.iter().find(|column| column.name == name)?;
            Some((column.mean(row).mean, String::new()))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            let known = table.params.iter().map(String::as_str).chain(metric);
            let known = known.chain(columns.iter().map(|column| column.name.as_str()));
            Failure::usage(format!("--sort {wanted}: no such column"))
                .help(format!("one of {}", known.collect::<Vec<_>>().join(", ")))
        })?;
    let mut order: Vec<usize> = (0..table.rows.len()).collect();
    order.sort_by(|a, b| {
        let ((x, xs), (y, ys)) = (&key[*a], &key[*b]);
        let by_value = match (x, y) {
            (Some(x), Some(y)) => x.total_cmp(y),
            _ => xs.cmp(ys),
        };
        let by_value = if turned { by_value.reverse() } else { by_value };
        x.is_none().cmp(&y.is_none()).then(by_value)
    });
    let rows = std::mem::take(&mut table.rows);
    let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
    table.rows = order.into_iter().filter_map(|place| rows[place].take()).collect();
    Ok(())
}

/// The table and the effects, as a person reads them in a terminal.
#[must_use]
pub fn terminal(sweep: &Sweep, status: &SweepStatus, look: OutputStyle) -> String {
    let table = sweep::table(sweep, &status.trials, &status.figures);
    as_text(sweep, status, &table, &[], look)
}

fn as_text(
    sweep: &Sweep,
    status: &SweepStatus,
    table: &ResultTable,
    columns: &[Column],
    look: OutputStyle,
) -> String {
    let mut out = String::new();
    if !sweep.question.is_empty() {
        out += &format!(" {}\n", crate::text::clean(&sweep.question));
    }
    out += &screen(&rows(sweep, table, columns), table.params.len(), look);
    if let Some(words) = table.words(figure) {
        let mut letters = words.chars();
        let first = letters.next().map(char::to_lowercase).into_iter().flatten();
        out += &format!("\n\n best: {}", first.chain(letters).collect::<String>());
    }
    let effects = effects(table);
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
fn rows(sweep: &Sweep, table: &ResultTable, columns: &[Column]) -> Vec<Vec<String>> {
    let metric = sweep.metric.as_ref().map_or("metric", |m| m.name.text.as_str());
    let compared = table.rows.iter().any(|r| r.against_baseline.is_some());
    let mut head: Vec<String> = table.params.clone();
    head.extend(["n", metric, "95 %", "spread", "range"].map(str::to_owned));
    head.extend(compared.then(|| "against baseline".to_owned()));
    head.extend(columns.iter().map(|column| column.name.clone()));
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
        for column in columns {
            let of = column.mean(row);
            let spread = of.spread.map_or_else(String::new, |s| format!(" ± {}", figure(s)));
            line.push(of.mean.map_or_else(|| "–".to_owned(), |x| figure(x) + &spread));
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

fn markdown(sweep: &Sweep, table: &ResultTable, columns: &[Column]) -> String {
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
    out += &one(&rows(sweep, table, columns));
    if !table.effects.is_empty() {
        out += &format!("\n{}", one(&effects(table)));
    }
    out
}

/// One line a trial: what statistics programs want.
fn csv(sweep: &Sweep, status: &SweepStatus, columns: &[Column]) -> String {
    let params = sweep.params();
    let metric = sweep.metric.as_ref().map_or("metric", |m| m.name.text.as_str());
    let head = ["trial"].into_iter().chain(params.iter().copied()).chain(["done", metric]);
    let head = head.chain(columns.iter().map(|column| column.name.as_str()));
    let mut out = head.map(field).collect::<Vec<_>>().join(",") + "\n";
    for (i, trial) in status.trials.iter().enumerate() {
        let mut row = vec![field(&trial.label)];
        row.extend(params.iter().map(|p| field(&trial.value(p).unwrap_or_default())));
        row.push(status.is_done(i).to_string());
        let cell = |figure: Option<f64>| figure.map_or_else(String::new, |x| x.to_string());
        row.push(cell(status.figures[i]));
        row.extend(columns.iter().map(|column| cell(column.figures[i])));
        out += &(row.join(",") + "\n");
    }
    out
}

fn as_json(sweep: &Sweep, status: &SweepStatus, table: &ResultTable, columns: &[Column]) -> String {
    let trials = status.trials.iter().enumerate().map(|(i, trial)| {
        let values: serde_json::Map<String, serde_json::Value> = sweep
            .params()
            .into_iter()
            .filter_map(|p| Some((p.to_owned(), json!(trial.value(p)?))))
            .collect();
        json!({ "trial": trial.label, "values": values, "done": status.is_done(i),
                "figure": status.figures[i],
                "columns": columns.iter().map(|c| (c.name.clone(), json!(c.figures[i])))
                    .collect::<serde_json::Map<_, _>>() })
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
