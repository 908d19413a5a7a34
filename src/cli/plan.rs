//! `preflow plan` and `preflow status`: what would run, why, and how long; what is there.

use clap::Args;
use serde_json::{Value, json};

use super::ahead;
use super::failure::Failure;
use super::label;
use super::remote;
use super::unfinished::Unfinished;
use super::workspace::{self, Loaded};
use super::{Exit, Global};
use crate::graph::gate;
use crate::plan::estimate::Estimator;
use crate::plan::{Plan, Selection, Verdict};
use crate::report::table::{Cell, GLUE, Table};
use crate::report::{Look, Style, line};
use crate::store::Entry;
use crate::text;

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
}

/// One line of the table.
pub struct Row {
    pub stage: String,
    /// `reuse`, `run`, `people` (it lacks their votes), `wait`, `gate`.
    pub state: &'static str,
    pub why: String,
    /// What it took where it is made; what it will take where not, if the store has an idea.
    pub seconds: Option<f64>,
    /// `seconds` are those of other stages like it: this one never ran.
    pub alike: bool,
    pub unfinished: Unfinished,
}

/// Rows of a plan in graph order.
pub fn rows(loaded: &Loaded, plan: &Plan) -> Vec<Row> {
    let heads = loaded.heads();
    let estimator = Estimator::new(&loaded.graph, &loaded.store, &heads);
    let mut rows = Vec::new();
    // What stages still lack from people; each folder of votes is read once.
    let mut lacks: Vec<Option<String>> = Vec::with_capacity(plan.verdicts.len());
    for (stage, verdict) in plan.verdicts.iter().enumerate() {
        let miss = matches!(verdict, Some(Verdict::Miss(..)));
        lacks.push(miss.then(|| label::lack(loaded, plan, stage)).flatten());
        let Some(verdict) = verdict else { continue };
        let name = loaded.graph.stages[stage].name.clone();
        let unfinished = match verdict {
            Verdict::Hit(_) => Unfinished::default(),
            Verdict::Miss(identity, _) => Unfinished::of(loaded, &heads, &name, Some(identity)),
            _ => Unfinished::of(loaded, &heads, &name, None),
        };
        let (state, why) = match verdict {
            Verdict::Hit(_) => ("reuse", unmet(plan, stage)),
            Verdict::Miss(_, reason) => match &lacks[stage] {
                Some(lack) => ("people", lack.clone()),
                None => ("run", unfinished.words(Some(reason), &loaded.graph.path, &name)),
            },
            Verdict::Wait(upstream) => {
                let waits = waits_for(loaded, plan, &lacks, upstream);
                let left = unfinished.words(None, &loaded.graph.path, &name);
                ("wait", if left.is_empty() { waits } else { format!("{waits}; {left}") })
            }
            Verdict::Barred(by) => {
                let by = &loaded.graph.stages[*by].name;
                ("gate", format!("gate of `{by}` not met"))
            }
        };
        let (seconds, alike) = match verdict {
            Verdict::Hit(entry) => (Some(entry.made.seconds), false),
            _ => estimator.of(stage).map_or((None, false), |e| {
                (Some(e.seconds * (1.0 - unfinished.share_done())), !e.own)
            }),
        };
        rows.push(Row { stage: name, state, why, seconds, alike, unfinished });
    }
    rows
}

/// What the gate of a finished stage misses; empty when it is met.
pub fn unmet(plan: &Plan, stage: usize) -> String {
    let missed = plan.gates.get(&stage);
    missed.map_or_else(String::new, |unmet| format!("gate not met: {}", gate::sentence(unmet)))
}

fn waits_for(loaded: &Loaded, plan: &Plan, lacks: &[Option<String>], upstream: &[usize]) -> String {
    let said: Vec<String> = upstream
        .iter()
        .map(|up| {
            let name = &loaded.graph.stages[*up].name;
            match &plan.verdicts[*up] {
                Some(Verdict::Miss(..)) if lacks[*up].is_some() => {
                    format!("{name} waits for people")
                }
                Some(Verdict::Miss(..)) => format!("{name} runs"),
                _ => format!("{name} may change"),
            }
        })
        .collect();
    said.join(", ")
}

/// Prints the plan; nothing runs.
///
/// # Errors
/// The pipeline, its sources or the store are wrong.
pub fn plan(args: &PlanArgs, pipeline: &Global, look: Look) -> Result<Exit, Failure> {
    let (file, targets) = workspace::file_and_names(&args.words)?;
    let loaded = workspace::load_to_judge(&file, pipeline)?;
    let selection = Selection::new(&loaded.graph, &targets, &args.from, &args.force)?;
    let selection = loaded.accepting(selection, &args.accept_gate)?;
    let sources = loaded.digest_sources(&selection.wanted)?;
    let plan = loaded.judge(&selection, &sources)?;
    ahead::refuse(&loaded, &plan, &sources, pipeline)?;
    let rows = rows(&loaded, &plan);
    let mut out = std::io::stdout().lock();
    if pipeline.json {
        line(&mut out, &as_json(&rows));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[2]);
    table.right(3);
    table.row(["stage", "state", "why", "   est"].map(|head| Cell::styled(Style::Dim, head)));
    for row in &rows {
        let style = match row.state {
            "run" => Style::Busy,
            "wait" | "gate" | "people" => Style::Warning,
            _ => Style::Dim,
        };
        let est = match (row.state, row.seconds) {
            ("reuse", _) => "–".to_owned(),
            (_, Some(s)) if row.alike => format!("~{}", text::seconds(s)),
            (_, Some(s)) => text::seconds(s),
            _ => "?".to_owned(),
        };
        table.row([
            Cell::from(row.stage.as_str()),
            Cell::styled(style, row.state),
            Cell::from(row.why.as_str()),
            Cell::from(est),
        ]);
    }
    line(&mut out, table.text(look).trim_end());
    line(&mut out, &last_line(&rows));
    let runs = rows.iter().any(|r| r.state == "run");
    if let Some(config) = remote::config(pipeline, &loaded.root)?.filter(|_| runs) {
        let text = format!(" of that, what {} holds is fetched, not made", config.site);
        line(&mut out, &look.paint(Style::Dim, &text));
    }
    Ok(Exit::Done)
}

fn last_line(rows: &[Row]) -> String {
    let count = |state| rows.iter().filter(|r| r.state == state).count();
    let sum = |reused: bool| -> f64 {
        let counts =
            |state| if reused { state == "reuse" } else { ["run", "wait"].contains(&state) };
        rows.iter().filter(|r| counts(r.state)).filter_map(|r| r.seconds).sum()
    };
    let (run, wait, reused) = (count("run"), count("wait"), count("reuse"));
    let counted = |state, what: &str| match count(state) {
        0 => String::new(),
        n => format!(" · {n} {what}"),
    };
    let gated = counted("people", "waiting for people") + &counted("gate", "behind a gate");
    if run + wait == 0 && gated.is_empty() {
        return format!(" nothing to do: {reused} reused, saves ~{}", text::seconds(sum(true)));
    }
    let unknown = |r: &Row| ["run", "wait"].contains(&r.state) && r.seconds.is_none();
    let unknown = rows.iter().any(unknown);
    let time = text::price(sum(false), unknown);
    let mut text = format!(" {run} run · {wait} wait{gated} · {reused} reused   {time}");
    if reused > 0 {
        text.push_str(&format!(", saves ~{}", text::seconds(sum(true))));
    }
    text
}

fn as_json(rows: &[Row]) -> String {
    let one = |r: &Row| {
        let from = r.seconds.map(|_| if r.alike { "others" } else { "itself" });
        let row = json!({ "stage": r.stage, "state": r.state, "why": r.why, "seconds": r.seconds,
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
}

/// Prints what each stage's artifacts are and when they were made.
///
/// # Errors
/// As [`plan`].
pub fn status(args: &StatusArgs, pipeline: &Global, look: Look) -> Result<Exit, Failure> {
    let (file, targets) = workspace::file_and_names(&args.words)?;
    let loaded = workspace::load_to_judge(&file, pipeline)?;
    let selection = Selection::new(&loaded.graph, &targets, &[], &[])?;
    let plan = loaded.plan(&selection)?;
    let rows = rows(&loaded, &plan);
    let mut out = std::io::stdout().lock();
    let mut list = Vec::new();
    let mut table = Table::new(&[3]);
    table.marked();
    let verdicts = plan.verdicts.iter().flatten();
    for (row, verdict) in rows.iter().zip(verdicts) {
        let (mark, style, state) = match row.state {
            "reuse" => ("✓", Style::Good, "up to date"),
            "run" => ("✗", Style::Busy, "stale"),
            "people" => ("◌", Style::Warning, "waiting"),
            _ => ("◌", Style::Warning, "unknown"),
        };
        let text = match verdict {
            Verdict::Hit(entry) => {
                let bytes = entry.outputs.values().map(|o| o.bytes).sum();
                list.push(json!({
                    "stage": row.stage, "state": state, "at": entry.made.at,
                    "seconds": entry.made.seconds, "bytes": bytes,
                    "fingerprint": entry.fingerprint, "outputs": crate::plan::outputs_of(entry),
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
fn made(entry: &Entry, bytes: u64, gate: &str) -> String {
    let at: String = entry.made.at.chars().take(16).collect();
    let (took, size) = (text::seconds(entry.made.seconds), text::bytes(bytes));
    let (at, size) = (at.replace('T', &GLUE.to_string()), size.replace(' ', &GLUE.to_string()));
    let gate = if gate.is_empty() { String::new() } else { format!("  {gate}") };
    format!("{at}  {took:>6}  {size:>10}  {}{gate}", entry.fingerprint.short())
}
