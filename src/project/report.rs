//! What a report of a pipeline is made of: its stages, what they made, what stands in the way.
//! Does not know how it is shown.

use std::path::Path;

use super::rows::unmet;
use super::{Choices, Project, labelling, unfinished};
use crate::columns::ReadError;
use crate::html::read::{self, OutputFile};
use crate::html::{self, LabelQuality, Note, ReportData, StageProblem, StageReport, StageStatus};
use crate::plan::{Plan, Verdict};
use crate::report::words;
use crate::store::CachedEntry;
use crate::store::heads::Heads;

/// All that is made and up to date, and what of it could not be read.
#[must_use]
pub fn gather(project: &Project, plan: &Plan, file: &Path) -> (ReportData, Vec<ReadError>) {
    let mut data = ReportData {
        pipeline: project.graph.name.clone(),
        command: command("run", &file.display().to_string(), &project.choices),
        stages: stages(project, plan),
        environment: environment(plan),
        quality: quality(project, plan),
        ..ReportData::default()
    };
    let mut problems = read::fill(&mut data, &outputs(project, plan));
    problems.sort_by_key(ToString::to_string);
    (data, problems)
}

/// What a reader types to get the same artifacts.
pub fn command(verb: &str, file: &str, choices: &Choices) -> String {
    let mut words = vec![format!("preflow {verb}"), file.to_owned()];
    words.extend(choices.profile.iter().map(|p| format!("--profile {p}")));
    words.extend(choices.sets.iter().map(|s| format!("--set '{s}'")));
    words.join(" ")
}

fn stages(project: &Project, plan: &Plan) -> Vec<StageReport> {
    let heads = project.heads();
    let nodes = project.graph.stages.iter().zip(&plan.verdicts).enumerate();
    nodes
        .map(|(index, (node, verdict))| {
            let entry = entry(verdict.as_ref());
            let report = StageReport {
                name: node.name.clone(),
                kind: node.kind.clone(),
                state: match verdict {
                    Some(Verdict::Hit(_)) => StageStatus::Done,
                    Some(Verdict::Miss(..)) => StageStatus::NotRun,
                    _ => StageStatus::Waiting,
                },
                seconds: entry.map(|e| e.made.seconds),
                upstream: project.graph.upstream(index),
                notes: entry.map(notes).into_iter().flatten().chain(gate(plan, index)).collect(),
                fingerprint: entry.map(|e| e.fingerprint.hex()).unwrap_or_default(),
                params: html::params(&node.params),
                ..StageReport::default()
            };
            match trouble(project, plan, &heads, index, verdict.as_ref()) {
                Some((state, trouble)) => StageReport { state, trouble: Some(trouble), ..report },
                None => report,
            }
        })
        .collect()
}

/// Why a stage is not made, where somebody can do something about it.
fn trouble(
    project: &Project,
    plan: &Plan,
    heads: &Heads,
    stage: usize,
    verdict: Option<&Verdict>,
) -> Option<(StageStatus, StageProblem)> {
    let (name, file) = (&project.graph.stages[stage].name, &project.graph.path);
    if !matches!(verdict, Some(Verdict::Miss(..) | Verdict::Wait(_))) {
        return None;
    }
    if let Some(lack) = labelling::lack(project, plan, stage) {
        let trouble = StageProblem {
            text: format!("waits for people: {lack}"),
            command: format!("preflow label serve {file} {name}"),
            ..StageProblem::default()
        };
        return Some((StageStatus::Waiting, trouble));
    }
    let failed = heads.failed.get(name)?;
    let trouble = StageProblem {
        text: unfinished::headline(failed),
        command: format!("preflow logs {file} {name}"),
        ..StageProblem::default()
    };
    Some((StageStatus::Failed, trouble))
}

/// How people did, stage by stage. What cannot be read is `label stats`' business.
fn quality(project: &Project, plan: &Plan) -> Vec<LabelQuality> {
    let stages = (0..project.graph.stages.len()).filter_map(|stage| {
        let (assignment, folder) = labelling::votes_of(project, plan, stage)?;
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
    let text = unmet(plan, stage);
    (!text.is_empty()).then_some(Note { warning: true, text })
}

fn notes(entry: &CachedEntry) -> Vec<Note> {
    let notes = entry.made.notes.iter().map(|text| Note { warning: false, text: text.clone() });
    let accepted = entry.made.accepted.iter();
    let accepted = accepted.map(|gate| Note { warning: true, text: format!("accepted: {gate}") });
    notes.chain(accepted).collect()
}

fn entry(verdict: Option<&Verdict>) -> Option<&CachedEntry> {
    match verdict {
        Some(Verdict::Hit(entry)) => Some(entry),
        _ => None,
    }
}

fn outputs(project: &Project, plan: &Plan) -> Vec<OutputFile> {
    let mut files = Vec::new();
    for (node, verdict) in project.graph.stages.iter().zip(&plan.verdicts) {
        let Some(entry) = entry(verdict.as_ref()) else { continue };
        for port in &node.outputs {
            if let Some(output) = entry.outputs.get(&port.name) {
                files.push(OutputFile {
                    stage: node.name.clone(),
                    port: port.name.clone(),
                    port_type: port.port_type.clone(),
                    path: project.store.object_path(&output.digest),
                });
            }
        }
    }
    files
}

/// What the artifacts were made with.
fn environment(plan: &Plan) -> Vec<(String, String)> {
    let entries = || plan.verdicts.iter().filter_map(|v| entry(v.as_ref()));
    let distinct = |value: &dyn Fn(&CachedEntry) -> String| {
        let mut values: Vec<String> = entries().map(value).filter(|v| !v.is_empty()).collect();
        values.sort();
        values.dedup();
        values.join(", ")
    };
    let rows = [
        ("preflow", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", distinct(&|e| words::commit(&e.made.commit))),
        ("worker", distinct(&|e| e.made.worker.clone())),
        ("backend", distinct(&|e| e.made.backend.clone())),
        ("device", distinct(&|e| e.made.device.clone())),
        ("threads", distinct(&|e| e.made.threads.to_string())),
        ("made", distinct(&|e| e.made.at.chars().take(10).collect())),
    ];
    rows.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)).collect()
}
