//! Why a stage must run, or why it ran, down to the root.
//! Decides nothing: it words verdicts and what entries say.

use super::diff::PipelineState;
use super::{Project, unfinished::Unfinished};
use crate::graph::{Producer, gate};
use crate::identity::{Change, Identity};
use crate::plan::{Plan, Reason, StageChange, Verdict};
use crate::report::words;

/// One step of an explanation.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Edges between it and the stage that was asked about.
    pub depth: usize,
    pub stage: String,
    pub text: String,
}

/// Why a stage must run, or why it ran, and the stages before it that are the cause.
#[must_use]
pub fn explain(project: &Project, plan: &Plan, target: usize) -> Vec<Explanation> {
    let mut steps = Vec::new();
    walk(project, plan, target, &mut steps);
    steps
}

/// How a stage differs from what it is in another state of the pipeline, and the stages before it
/// that are the cause.
#[must_use]
pub fn explain_against(
    project: &Project,
    plan: &Plan,
    other: &PipelineState,
    target: usize,
) -> Vec<Explanation> {
    let mut steps = Vec::new();
    walk_against(project, plan, other, target, &mut steps);
    steps
}

/// Depth first from `target` upwards, each stage once. A list instead of recursion: chains may be
/// ten thousand stages long.
fn walk(project: &Project, plan: &Plan, target: usize, steps: &mut Vec<Explanation>) {
    let mut seen = vec![false; project.graph.stages.len()];
    let mut todo = vec![(target, 0)];
    let heads = project.heads();
    while let Some((stage, depth)) = todo.pop() {
        if std::mem::replace(&mut seen[stage], true) {
            continue;
        }
        let node = &project.graph.stages[stage];
        let left = |identity: Option<&Identity>, reason: Option<&Reason>| {
            let left = Unfinished::of(project, &heads, &node.name, identity);
            left.words(reason, &project.graph.path, &node.name)
        };
        let mut causes: Vec<usize> = Vec::new();
        let text = match &plan.verdicts[stage] {
            None => continue,
            Some(Verdict::Hit(entry)) => {
                let gates: Vec<String> = entry
                    .made
                    .accepted
                    .iter()
                    .map(|g| format!("; accepted: {g}"))
                    .chain(
                        plan.gates
                            .get(&stage)
                            .map(|u| format!("; gate not met: {}", gate::sentence(u))),
                    )
                    .collect();
                let reason = serde_json::from_value(entry.made.reason.clone()).ok();
                if let Some(reason) = &reason {
                    causes = upstream_causes(project, stage, reason);
                }
                let said =
                    reason.map_or_else(|| "for an unknown reason".into(), |r| words::cause(&r));
                let state = if depth == 0 { "up to date; it last ran" } else { "ran" };
                format!(
                    "{state} {}: {said}{}",
                    entry.made.at.get(..16).unwrap_or("").replace('T', " "),
                    gates.concat()
                )
            }
            Some(Verdict::Miss(identity, reason)) => {
                causes = upstream_causes(project, stage, reason);
                match reason {
                    Reason::NeverRun => format!("runs: {}", left(Some(identity), Some(reason))),
                    _ => and(format!("runs: {}", long_reason(reason)), &left(Some(identity), None)),
                }
            }
            Some(Verdict::Barred(by)) => {
                causes.push(*by);
                format!("does not run: the gate of `{}` is not met", project.graph.stages[*by].name)
            }
            Some(Verdict::Wait(upstream)) => {
                causes.clone_from(upstream);
                let names: Vec<&str> =
                    upstream.iter().map(|u| project.graph.stages[*u].name.as_str()).collect();
                and(format!("waits for {}", names.join(", ")), &left(None, None))
            }
        };
        steps.push(Explanation { depth, stage: node.name.clone(), text });
        todo.extend(causes.into_iter().rev().map(|c| (c, depth + 1)));
    }
}

fn and(text: String, more: &str) -> String {
    if more.is_empty() { text } else { format!("{text}; {more}") }
}

/// Depth first from `target` upwards: how each stage differs from what it is on another side.
fn walk_against(
    project: &Project,
    plan: &Plan,
    side: &PipelineState,
    target: usize,
    steps: &mut Vec<Explanation>,
) {
    let mut seen = vec![false; project.graph.stages.len()];
    let mut todo = vec![(target, 0)];
    while let Some((stage, depth)) = todo.pop() {
        if std::mem::replace(&mut seen[stage], true) {
            continue;
        }
        let name = project.graph.stages[stage].name.clone();
        let now = match &plan.verdicts[stage] {
            Some(Verdict::Hit(entry)) => {
                let whole = project.store.entry(&entry.fingerprint).ok().flatten();
                whole.map(|whole| whole.identity)
            }
            Some(Verdict::Miss(identity, _)) => Some(identity.clone()),
            _ => None,
        };
        let then = side.stages.get(&name).map(|known| known.identity.as_ref());
        let mut causes = Vec::new();
        let text = match (now, then) {
            (_, None) => format!("is not in {}", side.label),
            (Some(now), Some(Some(then))) => {
                let changes = now.changes_from(then);
                if changes.is_empty() {
                    format!("is the same as in {}", side.label)
                } else {
                    let changes = changes.into_iter().map(StageChange::Identity);
                    let reason = Reason::Changed { changes: changes.collect() };
                    causes = upstream_causes(project, stage, &reason);
                    long_reason(&reason)
                }
            }
            _ => {
                causes = project.graph.upstream(stage);
                "cannot be compared before something upstream has run".to_owned()
            }
        };
        steps.push(Explanation { depth, stage: name, text });
        todo.extend(causes.into_iter().rev().map(|c| (c, depth + 1)));
    }
}

fn long_reason(reason: &Reason) -> String {
    match reason {
        Reason::EntryUnreadable { message } => format!("its entry is unreadable ({message})"),
        Reason::Changed { changes } => {
            let digests = changes.iter().map(|change| match change {
                StageChange::Identity(Change::Input {
                    port,
                    old: Some(old),
                    new: Some(new),
                    members,
                }) => {
                    let said = match members.as_slice() {
                        [] => format!("input {port} changed"),
                        members => format!("input {port}: {}", words::members(members)),
                    };
                    format!("{said} ({old} → {new})")
                }
                other => words::stage_change(other),
            });
            digests.collect::<Vec<_>>().join(", ")
        }
        reason => words::reason(reason),
    }
}

/// Stages behind the inputs that changed.
fn upstream_causes(project: &Project, stage: usize, reason: &Reason) -> Vec<usize> {
    let Reason::Changed { changes } = reason else { return Vec::new() };
    let graph = &project.graph;
    let mut found = Vec::new();
    for change in changes {
        let StageChange::Identity(Change::Input { port, .. }) = change else { continue };
        for producer in graph.connected(stage, &port.port, port.name.as_deref()) {
            if let Producer::Output { stage, .. } = producer {
                found.push(stage);
            }
        }
    }
    found.dedup();
    found
}
