//! `preflow plan` and `preflow status`: what would run, why, and how long; what is there.

use clap::Args;
use serde_json::{Value, json};

use super::format::FormatArgs;
use super::{Exit, Global};
use crate::plan::{Plan, Reason, Selection, Verdict};
use crate::project::rows::{PlanRow, RowState, rows};
use crate::project::{self, Failure, Project, locate, validate};
use crate::report::table::{Cell, GLUE, Table};
use crate::report::{OutputStyle, Style, line};
use crate::store::{CachedEntry, SourceDigest};
use crate::text::{self, markdown};

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Pipeline file, then stages [default: all]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    /// As in `run`
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
    /// As in `run`
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// As in `run`
    #[arg(long, value_name = "STAGE")]
    pub accept_gate: Vec<String>,
    /// Exit 5 where something would run, 3 where people or a gate are waited for
    #[arg(long)]
    pub exit_code: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Prints the plan; nothing runs.
///
/// # Errors
/// The pipeline, its sources or the store are wrong.
pub fn plan(args: &PlanArgs, pipeline: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, targets) = locate::file_and_names(&args.words)?;
    let project = project::load_to_judge(&file, &pipeline.choices())?;
    let selection = Selection::new(&project.graph, &targets, &args.from, &args.force)?;
    let selection = project.accepting(selection, &args.accept_gate)?;
    let sources = project.digest_sources(&selection.wanted)?;
    let plan = project.judge(&selection, &sources)?;
    validate::refuse(&project, &plan, &sources)?;
    let rows = rows(&project, &plan);
    let exit = if args.exit_code { exit_of(&rows) } else { Exit::Done };
    let mut out = std::io::stdout().lock();
    if pipeline.json {
        line(&mut out, &as_json(&rows));
        return Ok(exit);
    }
    let look = args.format.style(look);
    if look.markdown {
        line(&mut out, as_markdown(&rows, look).trim_end());
        return Ok(exit);
    }
    line(&mut out, table(rows.iter()).text(look).trim_end());
    line(&mut out, &last_line(&rows));
    for fetched in to_fetch(&project, &plan, &sources) {
        line(&mut out, &look.paint(Style::Dim, &format!(" {fetched} first")));
    }
    let runs = rows.iter().any(|r| r.state == RowState::Run);
    if let Some(config) = project.remote()?.filter(|_| runs) {
        let text = format!(" of that, what {} holds is fetched, not made", config.location);
        line(&mut out, &look.paint(Style::Dim, &text));
    }
    Ok(exit)
}

/// What would be fetched before anything runs.
fn to_fetch(project: &Project, plan: &Plan, sources: &[Option<SourceDigest>]) -> Vec<String> {
    let missing = project.to_fetch(&plan.running(), sources);
    let one = |source: usize| {
        let node = &project.graph.sources[source];
        let bytes = sources[source].as_ref().map_or(0, |source| source.bytes);
        let size = if bytes > 0 { format!(", {},", text::bytes(bytes)) } else { String::new() };
        format!("`{}`{size} is fetched from {}", node.name, node.path)
    };
    missing.into_iter().map(one).collect()
}

fn exit_of(rows: &[PlanRow]) -> Exit {
    let has = |states: &[RowState]| rows.iter().any(|row| states.contains(&row.state));
    match () {
        () if has(&[RowState::Run]) => Exit::WouldRun,
        () if has(&[RowState::People, RowState::Gate, RowState::Wait]) => Exit::Waiting,
        () => Exit::Done,
    }
}

/// What would happen first; what is reused is folded.
fn as_markdown(rows: &[PlanRow], look: OutputStyle) -> String {
    let (reused, others): (Vec<&PlanRow>, Vec<_>) =
        rows.iter().partition(|row| row.state == RowState::Reuse);
    let mut out = format!("**{}**\n", markdown::escaped(last_line(rows).trim()));
    if !others.is_empty() {
        out.push_str(&format!("\n{}", table(others.into_iter()).text(look)));
    }
    if !reused.is_empty() {
        let title = format!("{} reused", text::counted(reused.len(), "stage"));
        let list = table(reused.into_iter()).text(look);
        out.push_str(&format!("\n{}", markdown::folded(&title, &list)));
    }
    out
}

fn table<'a>(rows: impl Iterator<Item = &'a PlanRow>) -> Table {
    let mut table = Table::new(&[2]);
    table.right(3);
    table.row(["stage", "state", "why", "   est"].map(|head| Cell::styled(Style::Dim, head)));
    for row in rows {
        let style = match row.state {
            RowState::Run => Style::Busy,
            RowState::Wait | RowState::Gate | RowState::People => Style::Warning,
            RowState::Reuse => Style::Dim,
        };
        let est = match (row.state, row.seconds) {
            (RowState::Reuse, _) => "–".to_owned(),
            (_, Some(s)) if row.alike => format!("~{}", text::seconds(s)),
            (_, Some(s)) => text::seconds(s),
            _ => "?".to_owned(),
        };
        table.row([
            Cell::from(row.stage.as_str()),
            Cell::styled(style, row.state.word()),
            Cell::from(row.why.as_str()),
            Cell::from(est),
        ]);
    }
    table
}

fn last_line(rows: &[PlanRow]) -> String {
    let count = |state| rows.iter().filter(|r| r.state == state).count();
    let sum = |reused: bool| -> f64 {
        let counts = |state| {
            if reused {
                state == RowState::Reuse
            } else {
                [RowState::Run, RowState::Wait].contains(&state)
            }
        };
        rows.iter().filter(|r| counts(r.state)).filter_map(|r| r.seconds).sum()
    };
    let (run, wait, reused) = (count(RowState::Run), count(RowState::Wait), count(RowState::Reuse));
    let counted = |state, what: &str| match count(state) {
        0 => String::new(),
        n => format!(" · {n} {what}"),
    };
    let gated =
        counted(RowState::People, "waiting for people") + &counted(RowState::Gate, "behind a gate");
    if run + wait == 0 && gated.is_empty() {
        return format!(" nothing to do: {reused} reused, saves ~{}", text::seconds(sum(true)));
    }
    let unknown =
        |r: &PlanRow| [RowState::Run, RowState::Wait].contains(&r.state) && r.seconds.is_none();
    let unknown = rows.iter().any(unknown);
    let time = text::price(sum(false), unknown);
    let mut text = format!(" {run} run · {wait} wait{gated} · {reused} reused   {time}");
    if reused > 0 {
        text.push_str(&format!(", saves ~{}", text::seconds(sum(true))));
    }
    text
}

fn as_json(rows: &[PlanRow]) -> String {
    let one = |r: &PlanRow| {
        let from = r.seconds.map(|_| if r.alike { "others" } else { "itself" });
        let row = json!({ "stage": r.stage, "state": r.state.word(), "why": r.why, "seconds": r.seconds,
                          "estimated_from": from });
        with(row, r.unfinished.json())
    };
    let list: Vec<_> = rows.iter().map(one).collect();
    json!({ "stages": list }).to_string()
}

/// The same object with the fields that have a value.
fn with(mut row: Value, fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    for (name, value) in fields {
        if let Some(value) = value {
            row[name] = value;
        }
    }
    row
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Pipeline file, then stages [default: all]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Prints what each stage's artifacts are and when they were made.
///
/// # Errors
/// As [`plan`].
pub fn status(args: &StatusArgs, pipeline: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, targets) = locate::file_and_names(&args.words)?;
    let project = project::load_to_judge(&file, &pipeline.choices())?;
    let selection = Selection::new(&project.graph, &targets, &[], &[])?;
    let plan = project.plan(&selection)?;
    let rows = rows(&project, &plan);
    let mut out = std::io::stdout().lock();
    let look = args.format.style(look);
    let mut list = Vec::new();
    let mut table = Table::new(&[3]);
    table.marked();
    if look.markdown {
        table.row(["", "stage", "state", "made or why not"]);
    }
    let verdicts = plan.verdicts.iter().flatten();
    for (row, verdict) in rows.iter().zip(verdicts) {
        let (mark, style, state) = match row.state {
            RowState::Reuse => ("✓", Style::Good, "up to date"),
            RowState::Run => match (&row.unfinished, verdict) {
                (left, _) if left.failed.is_some() && !left.changed => {
                    ("✗", Style::Error, "failed")
                }
                (_, Verdict::Miss(_, Reason::NeverRun)) => ("✗", Style::Busy, "not made"),
                _ => ("✗", Style::Busy, "stale"),
            },
            RowState::People => ("◌", Style::Warning, "waiting"),
            _ => ("◌", Style::Warning, "unknown"),
        };
        let text = match verdict {
            Verdict::Hit(entry) => {
                let bytes = entry.outputs.values().map(|o| o.bytes).sum();
                list.push(json!({
                    "stage": row.stage, "state": state, "at": entry.made.at,
                    "seconds": entry.made.seconds, "bytes": bytes,
                    "fingerprint": entry.fingerprint, "outputs": crate::plan::digests(&entry.outputs),
                    "gate": row.why,
                }));
                made(entry, bytes, &row.why)
            }
            _ => {
                let item = json!({"stage": row.stage, "state": state, "why": row.why});
                list.push(with(item, row.unfinished.json()));
                row.why.clone()
            }
        };
        table.row([
            Cell::styled(style, mark),
            Cell::from(row.stage.as_str()),
            Cell::from(format!("{state:<10}")),
            Cell::from(text),
        ]);
    }
    if !pipeline.json {
        line(&mut out, table.text(look).trim_end());
    }
    if pipeline.json {
        line(&mut out, &json!({ "stages": list }).to_string());
    }
    Ok(Exit::Done)
}

/// When, how long, how large, which; folded between these, not within.
fn made(entry: &CachedEntry, bytes: u64, gate: &str) -> String {
    let at: String = entry.made.at.chars().take(16).collect();
    let (took, size) = (text::seconds(entry.made.seconds), text::bytes(bytes));
    let (at, size) = (at.replace('T', &GLUE.to_string()), size.replace(' ', &GLUE.to_string()));
    let gate = if gate.is_empty() { String::new() } else { format!("  {gate}") };
    format!("{at}  {took:>6}  {size:>10}  {}{gate}", entry.fingerprint.short())
}
