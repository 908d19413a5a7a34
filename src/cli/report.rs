//! `preflow report`: the run report as one HTML file.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use super::workspace::{self, Loaded};
use super::{Exit, Global, label};
use crate::columns::ReadError;
use crate::html::read::{self, OutputFile};
use crate::html::{self, LabelQuality, Note, ReportData, StageReport, StageState, Trouble};
use crate::plan::{Plan, Selection, Verdict};
use crate::report::{Look, Style, line};
use crate::store::heads::Heads;
use crate::store::{Entry, StoreError, write_atomic};

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub words: Vec<String>,
    /// Where to write it
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Open it when it is written
    #[arg(long)]
    pub open: bool,
}

/// Writes a page and prints its path; with `open`, also shows it. Where it cannot be shown, that
/// is said and no failure.
///
/// # Errors
/// The file cannot be written.
pub fn write_page(output: &Path, what: &str, html: &str, open: bool) -> Result<Exit, Failure> {
    let path = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
    write_atomic(&path, html.as_bytes()).map_err(|e| {
        let e = std::io::Error::new(e.kind(), format!("write `{}`: {e}", path.display()));
        Failure::Store(StoreError::Io(e))
    })?;
    let mut out = std::io::stdout().lock();
    line(&mut out, &format!(" {what}: {}", path.display()));
    if open && let Err(e) = crate::exec::open::open(&path) {
        super::complain(&format!("note: not opened: {e}\n"));
    }
    Ok(Exit::Done)
}

/// Writes the report and prints its path.
///
/// # Errors
/// The pipeline is wrong, or the file cannot be written.
pub fn report(args: &ReportArgs, global: &Global, look: Look) -> Result<Exit, Failure> {
    let (file, rest) = workspace::file_and_names(&args.words)?;
    if !rest.is_empty() {
        return Err(Failure::usage("`report` takes one pipeline file"));
    }
    let loaded = workspace::load(&file, global)?;
    let all = Selection::new(&loaded.graph, &[], &[], &[])?;
    let plan = loaded.plan(&all)?;
    let (data, problems) = gather(&loaded, &plan, &file, global);
    for problem in problems {
        super::complain(&format!("{} {problem}\n", look.paint(Style::Warning, "warning:")));
    }
    let html = html::render(&data);
    write_page(&args.output, "report", &html, args.open)
}

/// All that is made and up to date, and what of it could not be read.
#[must_use]
pub fn gather(
    loaded: &Loaded,
    plan: &Plan,
    file: &Path,
    global: &Global,
) -> (ReportData, Vec<ReadError>) {
    let mut data = ReportData {
        pipeline: loaded.graph.name.clone(),
        command: command("run", &file.display().to_string(), global),
        stages: stages(loaded, plan),
        environment: environment(plan),
        quality: quality(loaded, plan),
        ..ReportData::default()
    };
    let mut problems = read::fill(&mut data, &outputs(loaded, plan));
    problems.sort_by_key(ToString::to_string);
    (data, problems)
}

/// What a reader types to get the same artifacts.
pub fn command(verb: &str, file: &str, global: &Global) -> String {
    let mut words = vec![format!("preflow {verb}"), file.to_owned()];
    words.extend(global.profile.iter().map(|p| format!("--profile {p}")));
    words.extend(global.sets.iter().map(|s| format!("--set '{s}'")));
    words.join(" ")
}

fn stages(loaded: &Loaded, plan: &Plan) -> Vec<StageReport> {
    let heads = loaded.heads();
    let nodes = loaded.graph.stages.iter().zip(&plan.verdicts).enumerate();
    nodes
        .map(|(index, (node, verdict))| {
            let entry = entry(verdict.as_ref());
            let report = StageReport {
                name: node.name.clone(),
                kind: node.kind.clone(),
                state: match verdict {
                    Some(Verdict::Hit(_)) => StageState::Done,
                    Some(Verdict::Miss(..)) => StageState::NotRun,
                    _ => StageState::Waiting,
                },
                seconds: entry.map(|e| e.made.seconds),
                upstream: loaded.graph.upstream(index),
                notes: entry.map(notes).into_iter().flatten().chain(gate(plan, index)).collect(),
                fingerprint: entry.map(|e| e.fingerprint.hex()).unwrap_or_default(),
                params: html::params(&node.params),
                ..StageReport::default()
            };
            match trouble(loaded, plan, &heads, index, verdict.as_ref()) {
                Some((state, trouble)) => StageReport { state, trouble: Some(trouble), ..report },
                None => report,
            }
        })
        .collect()
}

/// Why a stage is not made, where somebody can do something about it.
fn trouble(
    loaded: &Loaded,
    plan: &Plan,
    heads: &Heads,
    stage: usize,
    verdict: Option<&Verdict>,
) -> Option<(StageState, Trouble)> {
    let (name, file) = (&loaded.graph.stages[stage].name, &loaded.graph.path);
    if !matches!(verdict, Some(Verdict::Miss(..) | Verdict::Wait(_))) {
        return None;
    }
    if let Some(lack) = label::lack(loaded, plan, stage) {
        let trouble = Trouble {
            text: format!("waits for people: {lack}"),
            command: format!("preflow label serve {file} {name}"),
            ..Trouble::default()
        };
        return Some((StageState::Waiting, trouble));
    }
    let failed = heads.failed.get(name)?;
    let trouble = Trouble {
        text: super::unfinished::headline(failed),
        command: format!("preflow logs {file} {name}"),
        ..Trouble::default()
    };
    Some((StageState::Failed, trouble))
}

/// How people did, stage by stage. What cannot be read is `label stats`' business.
fn quality(loaded: &Loaded, plan: &Plan) -> Vec<LabelQuality> {
    let stages = (0..loaded.graph.stages.len()).filter_map(|stage| {
        let (assignment, folder) = label::votes_of(loaded, plan, stage)?;
        Some(LabelQuality {
            stage: assignment.stage.clone(),
            report: crate::label::quality(&assignment, &folder),
            min_seconds: assignment.people.quality.min_seconds,
        })
    });
    stages.collect()
}

/// What its gate misses, as a warning.
fn gate(plan: &Plan, stage: usize) -> Option<Note> {
    let text = super::plan::unmet(plan, stage);
    (!text.is_empty()).then_some(Note { warning: true, text })
}

fn notes(entry: &Entry) -> Vec<Note> {
    let notes = entry.made.notes.iter().map(|text| Note { warning: false, text: text.clone() });
    let accepted = entry.made.accepted.iter();
    let accepted = accepted.map(|gate| Note { warning: true, text: format!("accepted: {gate}") });
    notes.chain(accepted).collect()
}

fn entry(verdict: Option<&Verdict>) -> Option<&Entry> {
    match verdict {
        Some(Verdict::Hit(entry)) => Some(entry),
        _ => None,
    }
}

fn outputs(loaded: &Loaded, plan: &Plan) -> Vec<OutputFile> {
    let mut files = Vec::new();
    for (node, verdict) in loaded.graph.stages.iter().zip(&plan.verdicts) {
        let Some(entry) = entry(verdict.as_ref()) else { continue };
        for port in &node.outputs {
            if let Some(output) = entry.outputs.get(&port.name) {
                files.push(OutputFile {
                    stage: node.name.clone(),
                    port: port.name.clone(),
                    port_type: port.port_type.clone(),
                    path: loaded.store.object_path(&output.digest),
                });
            }
        }
    }
    files
}

/// What the artifacts were made with.
fn environment(plan: &Plan) -> Vec<(String, String)> {
    let entries = || plan.verdicts.iter().filter_map(|v| entry(v.as_ref()));
    let distinct = |value: &dyn Fn(&Entry) -> String| {
        let mut values: Vec<String> = entries().map(value).filter(|v| !v.is_empty()).collect();
        values.sort();
        values.dedup();
        values.join(", ")
    };
    let rows = [
        ("preflow", env!("CARGO_PKG_VERSION").to_owned()),
        ("worker", distinct(&|e| e.made.worker.clone())),
        ("backend", distinct(&|e| e.made.backend.clone())),
        ("device", distinct(&|e| e.made.device.clone())),
        ("threads", distinct(&|e| e.made.threads.to_string())),
        ("made", distinct(&|e| e.made.at.chars().take(10).collect())),
    ];
    rows.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)).collect()
}
