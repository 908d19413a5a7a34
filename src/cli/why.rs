//! `preflow why STAGE`: why it must run, or why it ran, down to the root.

use clap::Args;
use serde_json::json;

use super::{Exit, Global};
use crate::graph::{Producer, gate};
use crate::identity::{Change, Identity};
use crate::plan::{Plan, Reason, Selection, StageChange, Verdict};
use crate::project::diff::PipelineState;
use crate::project::{self, Failure, Project, locate, unfinished::Unfinished};
use crate::report::table::hang;
use crate::report::{OutputStyle, Style, line, words};

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Pipeline file and the stage
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// Why it is not what it was in this run (its id, `last`), commit, or other pipeline file
    #[arg(long, value_name = "A")]
    pub against: Option<String>,
}

/// One step of an explanation.
struct Step {
    depth: usize,
    stage: String,
    text: String,
}

/// Columns before which a folded text goes on, at most.
const DEEPEST: usize = 30;

/// Prints the explanation.
///
/// # Errors
/// The pipeline, its sources or the store are wrong.
pub fn why(args: &WhyArgs, pipeline: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("`why` explains one stage").help("preflow why FILE STAGE"));
    };
    let loaded = project::load(&file, &pipeline.choices())?;
    let selection = Selection::new(&loaded.graph, std::slice::from_ref(name), &[], &[])?;
    let plan = loaded.plan(&selection)?;
    let target = loaded.graph.find(name).expect("invariant: the selection found it");
    let mut steps = Vec::new();
    match &args.against {
        None => explain(&loaded, &plan, target, &mut steps),
        Some(word) => {
            let side = PipelineState::named(word, &file, &pipeline.choices())?;
            explain_against(&loaded, &plan, &side, target, &mut steps);
        }
    }
    let mut out = std::io::stdout().lock();
    if pipeline.json {
        let list: Vec<_> = steps
            .iter()
            .map(|s| json!({"depth": s.depth, "stage": s.stage, "why": s.text}))
            .collect();
        line(&mut out, &json!({ "stage": name, "because": list }).to_string());
        return Ok(Exit::Done);
    }
    for step in steps {
        let indent = "   ".repeat(step.depth);
        let arrow = if step.depth > 0 { "← " } else { "" };
        let stage = look.paint(Style::Strong, &step.stage);
        let before = indent.len() + arrow.chars().count() + step.stage.chars().count() + 3;
        let text = hang(&step.text, before.min(DEEPEST), look);
        line(&mut out, &format!(" {indent}{arrow}{stage}  {text}"));
    }
    Ok(Exit::Done)
}

/// Depth first from `target` upwards, each stage once. A list instead of recursion: chains may be
/// ten thousand stages long.
fn explain(loaded: &Project, plan: &Plan, target: usize, steps: &mut Vec<Step>) {
    let mut seen = vec![false; loaded.graph.stages.len()];
    let mut todo = vec![(target, 0)];
    let heads = loaded.heads();
    while let Some((stage, depth)) = todo.pop() {
        if std::mem::replace(&mut seen[stage], true) {
            continue;
        }
        let node = &loaded.graph.stages[stage];
        let left = |identity: Option<&Identity>, reason: Option<&Reason>| {
            let left = Unfinished::of(loaded, &heads, &node.name, identity);
            left.words(reason, &loaded.graph.path, &node.name)
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
                    causes = upstream_causes(loaded, stage, reason);
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
                causes = upstream_causes(loaded, stage, reason);
                match reason {
                    Reason::NeverRun => format!("runs: {}", left(Some(identity), Some(reason))),
                    _ => and(format!("runs: {}", long_reason(reason)), &left(Some(identity), None)),
                }
            }
            Some(Verdict::Barred(by)) => {
                causes.push(*by);
                format!("does not run: the gate of `{}` is not met", loaded.graph.stages[*by].name)
            }
            Some(Verdict::Wait(upstream)) => {
                causes.clone_from(upstream);
                let names: Vec<&str> =
                    upstream.iter().map(|u| loaded.graph.stages[*u].name.as_str()).collect();
                and(format!("waits for {}", names.join(", ")), &left(None, None))
            }
        };
        steps.push(Step { depth, stage: node.name.clone(), text });
        todo.extend(causes.into_iter().rev().map(|c| (c, depth + 1)));
    }
}

fn and(text: String, more: &str) -> String {
    if more.is_empty() { text } else { format!("{text}; {more}") }
}

/// Depth first from `target` upwards: how each stage differs from what it is on another side.
fn explain_against(
    loaded: &Project,
    plan: &Plan,
    side: &PipelineState,
    target: usize,
    steps: &mut Vec<Step>,
) {
    let mut seen = vec![false; loaded.graph.stages.len()];
    let mut todo = vec![(target, 0)];
    while let Some((stage, depth)) = todo.pop() {
        if std::mem::replace(&mut seen[stage], true) {
            continue;
        }
        let name = loaded.graph.stages[stage].name.clone();
        let now = match &plan.verdicts[stage] {
            Some(Verdict::Hit(entry)) => {
                let whole = loaded.store.entry(&entry.fingerprint).ok().flatten();
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
                    causes = upstream_causes(loaded, stage, &reason);
                    long_reason(&reason)
                }
            }
            _ => {
                causes = loaded.graph.upstream(stage);
                "cannot be compared before something upstream has run".to_owned()
            }
        };
        steps.push(Step { depth, stage: name, text });
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
fn upstream_causes(loaded: &Project, stage: usize, reason: &Reason) -> Vec<usize> {
    let Reason::Changed { changes } = reason else { return Vec::new() };
    let graph = &loaded.graph;
    let mut found = Vec::new();
    for change in changes {
        let StageChange::Identity(Change::Input { port, .. }) = change else { continue };
        for input in graph.stages[stage].inputs.iter().filter(|i| i.port == port.port) {
            for producer in &input.from {
                let name = port.name.as_deref();
                let named = name.is_none_or(|name| graph.producer_name(*producer) == name);
                if let (Producer::Output { stage, .. }, true) = (producer, named) {
                    found.push(*stage);
                }
            }
        }
    }
    found.dedup();
    found
}
