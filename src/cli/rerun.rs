//! `preflow verify --rerun STAGE`: make it again aside, and compare byte by byte.
//! The store stays as it is.

use std::time::Instant;

use serde_json::{Value, json};

use super::perform::perform;
use super::{Exit, Global, complain};
use crate::exec::Outcome;
use crate::plan::{Selection, Verdict};
use crate::project::rerun::{Compared, compare_all, environment};
use crate::project::{self, Failure, execution, locate};
use crate::report::differences::sentence;
use crate::report::table::{Cell, Table};
use crate::report::{self, OutputStyle, Style, line, words};
use crate::run::rerun::RerunSource;
use crate::store::CachedEntry;
use crate::text::{self, clean};

/// Makes one stage again and says where it first differs. Exit 1: it does, or could not be made.
///
/// # Errors
/// The stage is unknown or not up to date; the store is damaged.
pub fn rerun(
    words: &[String],
    stage: &str,
    global: &Global,
    look: OutputStyle,
) -> Result<Exit, Failure> {
    let (file, rest) = locate::file_and_names(words)?;
    if !rest.is_empty() {
        return Err(Failure::usage("`verify --rerun` takes one pipeline file and one stage"));
    }
    let project = project::load(&file, &global.choices())?;
    let selection = Selection::new(&project.graph, &[stage.to_owned()], &[], &[])?;
    let index = project.graph.find(stage).expect("invariant: the selection found it");
    let mut sources = project.digest_sources(&selection.wanted)?;
    let plan = project.judge(&selection, &sources)?;
    if !super::fetch::fetch_for(&project, &[index], &mut sources, look, global.json)? {
        return Ok(Exit::Interrupted);
    }
    let original = RerunSource {
        graph: &project.graph,
        store: &project.store,
        sources: &sources,
        plan: &plan,
        stage: index,
    };
    let Some(entry) = original.entry(index) else {
        let why = match &plan.verdicts[index] {
            Some(Verdict::Miss(_, reason)) => words::reason(reason),
            _ => "a stage before it must run first".to_owned(),
        };
        return Err(Failure::usage(format!(
            "stage `{stage}` is not up to date ({why}): there is nothing to compare with"
        ))
        .help(format!("`preflow run {} {stage}` makes it", file.display())));
    };
    // Keeps the collector away; a store that cannot be written has none.
    let _lease = project.store.shared_lease();
    let (aside, task) = original.begin(&execution::options(&project, Default::default())?)?;
    let (spec, started) = (task.clone(), Instant::now());
    let outcome = perform(task, look, &mut |_| {})?;
    let seconds = started.elapsed().as_secs_f64();
    let outcome = match outcome {
        done @ Outcome::Done { .. } => original.changed().unwrap_or(done),
        other => other,
    };
    if !matches!(outcome, Outcome::Done { .. }) {
        return Ok(not_made(stage, &outcome, look));
    }
    let made = match aside.seal() {
        Ok(made) => made,
        Err(e) if e.is_storage() => return Err(e.into()),
        Err(e) => {
            let outcome = Outcome::Failed { message: e.to_string(), chain: vec![], help: None };
            return Ok(not_made(stage, &outcome, look));
        }
    };
    let compared = compare_all(&project, entry, &made)?;
    let changes = environment(entry, &outcome, &spec);
    if global.json {
        let mut out = std::io::stdout().lock();
        line(&mut out, &as_json(stage, entry, &compared, &changes, seconds).to_string());
    } else {
        show(&compared, &changes, seconds, look);
    }
    let same = compared.iter().all(|c| c.first.is_none());
    Ok(if same { Exit::Done } else { Exit::StageFailed })
}

fn not_made(stage: &str, outcome: &Outcome, look: OutputStyle) -> Exit {
    match outcome {
        Outcome::Cancelled => return Exit::Interrupted,
        Outcome::Waiting { reason, .. } => {
            complain(&format!("stage `{stage}` now waits for people: {}\n", clean(reason)));
            return Exit::Waiting;
        }
        _ => {}
    }
    let text = report::failure(look, stage, outcome, (None, "", ""));
    complain(&format!("{text}\n  = note: it could not be made again; the store is unchanged\n"));
    Exit::StageFailed
}

fn show(
    compared: &[Compared],
    changes: &[(&'static str, String, String)],
    seconds: f64,
    look: OutputStyle,
) {
    let mut out = std::io::stdout().lock();
    let differing = compared.iter().filter(|c| c.first.is_some()).count();
    let noun = |n: usize| if n == 1 { "output" } else { "outputs" };
    let took = format!("made again in {}", text::seconds(seconds));
    let all = compared.len();
    if differing == 0 {
        line(&mut out, &format!(" reproduced: {all} {}, the same bytes; {took}", noun(all)));
        return;
    }
    let mut table = Table::new(&[2]);
    table.marked();
    for Compared { port, first, .. } in compared {
        let (mark, text) = match first {
            None => (Cell::styled(Style::Good, "✓"), "the same bytes".to_owned()),
            Some(first) => (Cell::styled(Style::Bad, "✗"), sentence(first)),
        };
        table.row([mark, Cell::from(*port), Cell::from(text)]);
    }
    line(&mut out, table.text(look).trim_end());
    line(&mut out, &format!(" not reproduced: {differing} of {all} {}; {took}", noun(all)));
    for (name, then, now) in changes {
        let shown = |text: &str| if text.is_empty() { "–".to_owned() } else { clean(text) };
        let text = format!("   {name} then {}, now {}", shown(then), shown(now));
        line(&mut out, &look.paint(Style::Dim, &text));
    }
}

fn as_json(
    stage: &str,
    entry: &CachedEntry,
    compared: &[Compared],
    changes: &[(&'static str, String, String)],
    seconds: f64,
) -> Value {
    let outputs = compared.iter().map(|c| {
        json!({"port": c.port, "same": c.first.is_none(), "before": c.before.digest,
            "now": c.now.digest, "first": c.first})
    });
    let changes =
        changes.iter().map(|(name, then, now)| json!({"name": name, "then": then, "now": now}));
    json!({"stage": stage, "fingerprint": entry.fingerprint,
        "reproduced": compared.iter().all(|c| c.first.is_none()), "seconds": seconds,
        "outputs": outputs.collect::<Vec<_>>(), "surroundings": changes.collect::<Vec<_>>()})
}
