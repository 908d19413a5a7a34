//! `preflow verify --rerun STAGE`: make it again aside, and compare byte by byte.
//! The store stays as it is.

use std::time::Instant;

use serde_json::{Value, json};

use super::failure::Failure;
use super::perform::perform;
use super::workspace::{self, Loaded};
use super::{Exit, Global, complain};
use crate::columns::RowDifference;
use crate::compare::{ArrayDifference, Difference, Which, compare};
use crate::exec::{Outcome, Task};
use crate::plan::{Selection, Verdict};
use crate::report::table::{Cell, Table};
use crate::report::{self, Look, Style, line, words};
use crate::run::aside::{Made, Original};
use crate::store::{Entry, EntryOutput};
use crate::text::{self, clean};

/// One output, as it was made then and again.
struct Compared<'a> {
    port: &'a str,
    before: &'a EntryOutput,
    now: &'a EntryOutput,
    first: Option<Difference>,
}

/// Makes one stage again and says where it first differs. Exit 1: it does, or could not be made.
///
/// # Errors
/// The stage is unknown or not up to date; the store is damaged.
pub fn rerun(words: &[String], stage: &str, global: &Global, look: Look) -> Result<Exit, Failure> {
    let (file, rest) = workspace::file_and_names(words)?;
    if !rest.is_empty() {
        return Err(Failure::usage("`verify --rerun` takes one pipeline file and one stage"));
    }
    let loaded = workspace::load(&file, global)?;
    let selection = Selection::new(&loaded.graph, &[stage.to_owned()], &[], &[])?;
    let index = loaded.graph.find(stage).expect("invariant: the selection found it");
    let sources = loaded.digest_sources(&selection.wanted)?;
    let plan = loaded.judge(&selection, &sources)?;
    let original = Original {
        graph: &loaded.graph,
        store: &loaded.store,
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
    let _lease = loaded.store.shared_lease();
    let (aside, task) = original.begin(&super::run::options(&loaded, &Default::default())?)?;
    let (spec, started) = (task.clone(), Instant::now());
    let outcome = perform(task, look)?;
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
    let compared = compare_all(&loaded, entry, &made)?;
    let changes = surroundings(entry, &outcome, &spec);
    if global.json {
        let mut out = std::io::stdout().lock();
        line(&mut out, &as_json(stage, entry, &compared, &changes, seconds).to_string());
    } else {
        show(&compared, &changes, seconds, look);
    }
    let same = compared.iter().all(|c| c.first.is_none());
    Ok(if same { Exit::Done } else { Exit::StageFailed })
}

fn not_made(stage: &str, outcome: &Outcome, look: Look) -> Exit {
    match outcome {
        Outcome::Cancelled => return Exit::Interrupted,
        Outcome::Waiting { reason, .. } => {
            complain(&format!("stage `{stage}` now waits for people: {}\n", clean(reason)));
            return Exit::Waiting;
        }
        _ => {}
    }
    let text = report::failure(look, stage, outcome, "", "");
    complain(&format!("{text}\n  = note: it could not be made again; the store is unchanged\n"));
    Exit::StageFailed
}

/// Every output; those with other digests are looked into.
fn compare_all<'a>(
    loaded: &Loaded,
    entry: &'a Entry,
    made: &'a Made,
) -> Result<Vec<Compared<'a>>, Failure> {
    let mut compared = Vec::new();
    for (port, before) in &entry.outputs {
        let now = &made.outputs[port];
        let first = match before.digest == now.digest {
            true => None,
            false => {
                let found = compare(&loaded.store.object_path(&before.digest), &made.paths[port])
                    .map_err(crate::store::StoreError::from)?;
                Some(found.ok_or_else(|| {
                    Failure::usage(format!("output `{port}` changed while it was compared"))
                })?)
            }
        };
        compared.push(Compared { port, before, now, first });
    }
    Ok(compared)
}

/// What decides no identity and may still be why bytes differ: name, then, now.
fn surroundings(
    entry: &Entry,
    outcome: &Outcome,
    task: &Task,
) -> Vec<(&'static str, String, String)> {
    let made = &entry.made;
    let Outcome::Done { worker, backend, device, .. } = outcome else { return Vec::new() };
    let threads = task.spec.execution.threads.unwrap_or_default().to_string();
    let all = [
        ("threads", made.threads.to_string(), threads),
        ("device", made.device.clone(), device.clone()),
        ("backend", made.backend.clone(), backend.clone()),
        ("worker", made.worker.clone(), worker.clone()),
        ("preflow", made.version.clone(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    all.into_iter().filter(|(_, then, now)| then != now).collect()
}

fn show(
    compared: &[Compared],
    changes: &[(&'static str, String, String)],
    seconds: f64,
    look: Look,
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
    entry: &Entry,
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

/// Where two artifacts differ first, in words.
fn sentence(difference: &Difference) -> String {
    match difference {
        Difference::Kind { before, now } => format!("{before} → {now}"),
        Difference::File { file, only_in: Which::Before } => format!("no file `{file}` any longer"),
        Difference::File { file, only_in: Which::Now } => format!("file `{file}` is new"),
        Difference::Inside { file, first } => format!("{file}: {}", sentence(first)),
        Difference::Table { first } => row(first),
        Difference::Arrays { first } => array(first),
        Difference::Bytes { offset, before, now, same } => {
            let same = same.map_or_else(String::new, |what| format!("the same {what}, but "));
            let sizes = match before == now {
                true => format!("of {before}"),
                false => format!("on; {before} bytes → {now} bytes"),
            };
            format!("{same}other bytes from byte {offset} {sizes}")
        }
    }
}

fn row(difference: &RowDifference) -> String {
    match difference {
        RowDifference::Columns { before, now } => {
            format!("columns {} → {}", before.join(", "), now.join(", "))
        }
        RowDifference::Value { row, column, before, now } => {
            let (before, now) = words::differing(before, now);
            format!("row {row}, column `{column}`: {before} → {now}")
        }
        RowDifference::Rows { before, now } => {
            format!("the first {} rows agree; {before} rows → {now} rows", before.min(now))
        }
    }
}

fn array(difference: &ArrayDifference) -> String {
    let ArrayDifference { array, before, now, values, arrays } = difference;
    let (differing, all) = arrays;
    let first = match (before, now, values) {
        (Some(form), Some(_), Some(values)) => {
            let by = match (values.largest, values.not_finite) {
                (Some(by), 0) => format!(" by up to {by:.3e}"),
                (Some(by), n) => format!(" by up to {by:.3e}, {n} of them not finite"),
                (None, 0) => String::new(),
                (None, n) => format!(", {n} of them not finite"),
            };
            format!("{form}: {} of {} values differ{by}", values.differing, values.of)
        }
        (Some(before), Some(now), None) => format!("{before} → {now}"),
        (Some(_), None, _) => "is gone".to_owned(),
        _ => "is new".to_owned(),
    };
    format!("array `{array}` {first}; {differing} of {all} arrays differ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::ValueDifference;

    #[test]
    fn differences_are_told_in_words() {
        let values = ValueDifference {
            differing: 12,
            of: 512,
            first: 3,
            largest: Some(3.1e-7),
            not_finite: 0,
        };
        let form = Some("F32 [64, 8]".to_owned());
        let first = ArrayDifference {
            array: "wte".into(),
            before: form.clone(),
            now: form.clone(),
            values: Some(values),
            arrays: (3, 24),
        };
        let gone = ArrayDifference { now: None, values: None, ..first.clone() };
        let file = "model.safetensors".to_owned();
        let inside = Difference::Inside { file, first: Box::new(Difference::Arrays { first }) };
        assert_eq!(
            sentence(&inside),
            "model.safetensors: array `wte` F32 [64, 8]: 12 of 512 values differ by up to \
             3.100e-7; 3 of 24 arrays differ"
        );
        assert_eq!(array(&gone), "array `wte` is gone; 3 of 24 arrays differ");
        let value = RowDifference::Value {
            row: 3,
            column: "text".into(),
            before: format!("{} good {}", "x".repeat(90), "y".repeat(90)),
            now: format!("{} bad {}", "x".repeat(90), "y".repeat(90)),
        };
        assert_eq!(row(&value), "row 3, column `text`: …xxxxx good yyyy… → …xxxxx bad yyyy…");
        let bytes = |before, now, same| Difference::Bytes { offset: 7, before, now, same };
        assert_eq!(sentence(&bytes(9, 9, None)), "other bytes from byte 7 of 9");
        assert_eq!(
            sentence(&bytes(9, 7, Some("rows"))),
            "the same rows, but other bytes from byte 7 on; 9 bytes → 7 bytes"
        );
    }
}
