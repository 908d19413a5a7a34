//! What there is to label in a stage that asks people, and what it still lacks.
//! Decides nothing about votes.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, Project};
use crate::graph::Producer;
use crate::label::{self, AskOrder, Assignment};
use crate::plan::{Plan, Selection, Verdict};
use crate::votes;

/// What there is to label in a stage.
///
/// # Errors
/// The stage does not ask people, or its pairs were never made.
pub fn assignment(project: &Project, name: &str) -> Result<Assignment, Failure> {
    let selection = Selection::new(&project.graph, &[name.to_owned()], &[], &[])?;
    let stage = project.graph.find(name).expect("invariant: the selection found it");
    // Before the plan: what is wrong with the stage itself comes first.
    asks_people(project, stage)?;
    let plan = project.plan(&selection)?;
    let pairs = pairs_path(project, &plan, stage)?;
    assemble(project, stage, pairs)
}

/// Names of the stages that ask people.
#[must_use]
pub fn stages_that_ask(project: &Project) -> Vec<String> {
    let all = project.graph.stages.iter().enumerate();
    let asking = all.filter(|(stage, _)| asks_people(project, *stage).is_ok());
    asking.map(|(_, node)| node.name.clone()).collect()
}

/// Where the votes of a stage lie.
///
/// # Errors
/// It does not ask people.
pub fn votes_folder(project: &Project, name: &str) -> Result<PathBuf, Failure> {
    Selection::new(&project.graph, &[name.to_owned()], &[], &[])?;
    let stage = project.graph.find(name).expect("invariant: the selection found it");
    Ok(assemble(project, stage, None)?.votes)
}

/// The settings of a stage that asks people.
fn asks_people(project: &Project, stage: usize) -> Result<label::PeopleSettings, Failure> {
    let node = &project.graph.stages[stage];
    let people = node.params.get("labeler").and_then(|l| l.get("people"));
    let none = || {
        Failure::usage(format!("stage `{}` does not ask people", node.name))
            .help("its labeler must be `people: { votes: FOLDER }`")
    };
    settings(people.ok_or_else(none)?)
}

/// What there is to label in a stage, given where its pairs lie.
pub fn assemble(
    project: &Project,
    stage: usize,
    pairs: Option<PathBuf>,
) -> Result<Assignment, Failure> {
    let people = asks_people(project, stage)?;
    let node = &project.graph.stages[stage];
    let ready = node.params.get("ready_when").unwrap_or(&Value::Null);
    let path_of = |port_type: &str| {
        let sources = node.inputs.iter().flat_map(|i| &i.from).filter_map(|p| match p {
            Producer::Source(source) => Some(&project.graph.sources[*source]),
            Producer::Output { .. } => None,
        });
        let mut fitting = sources.filter(|s| s.port_type == port_type);
        let path = fitting.next().map(|s| PathBuf::from(&s.path));
        path.map(|p| std::path::absolute(&p).unwrap_or(p))
    };
    let wrong = |e: label::AssignmentError| Failure::usage(e.to_string());
    let pairs = match pairs {
        Some(path) => label::read_pairs(&path).map_err(wrong)?,
        None => Vec::new(),
    };
    let disagreement = match people.order {
        AskOrder::Disagreement => disagreement(project, stage).map_err(wrong)?,
        AskOrder::Random => HashMap::new(),
    };
    Ok(Assignment {
        pipeline: project.graph.name.clone(),
        stage: node.name.clone(),
        votes: path_of(votes::PORT_TYPE).expect("invariant: the schema asks for votes"),
        ready: settings(ready)?,
        gold: match path_of("gold") {
            Some(path) => label::read_gold(&path).map_err(wrong)?,
            None => Vec::new(),
        },
        guidelines: match path_of("guidelines") {
            Some(path) => label::read_guidelines(&path).map_err(wrong)?,
            None => None,
        },
        people,
        pairs,
        disagreement,
    })
}

/// What a stage that asks people still lacks; `None`: nothing, or nobody can tell yet.
#[must_use]
pub fn lack(project: &Project, plan: &Plan, stage: usize) -> Option<String> {
    let (assignment, folder) = votes_of(project, plan, stage)?;
    label::readiness(&assignment, &votes::Effective::of(&folder)).lack()
}

/// What there is to label in a stage whose pairs are made, and the votes so far; `None`: it does
/// not ask people, or its pairs or votes cannot be read.
#[must_use]
pub fn votes_of(
    project: &Project,
    plan: &Plan,
    stage: usize,
) -> Option<(Assignment, votes::Folder)> {
    asks_people(project, stage).ok()?;
    let node = &project.graph.stages[stage];
    let pairs = node.inputs.iter().find(|i| i.port == "pairs").map(|i| i.from[0]);
    let path = match pairs {
        None => None,
        Some(Producer::Source(source)) => project.source_path(source),
        Some(Producer::Output { stage, port }) => {
            let Some(Some(Verdict::Hit(entry))) = plan.verdicts.get(stage) else { return None };
            let name = &project.graph.stages[stage].outputs[port].name;
            Some(project.store.object_path(&entry.outputs[name].digest))
        }
    };
    let assignment = assemble(project, stage, path).ok()?;
    let folder = votes::Folder::read(&assignment.votes).ok()?;
    Some((assignment, folder))
}

fn settings<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    serde_json::from_value(value.clone()).map_err(|error| {
        Failure::usage(format!("the stage's settings are not those of a label page: {error}"))
    })
}

/// Where the pairs of a stage lie; `None` when nothing is connected.
fn pairs_path(project: &Project, plan: &Plan, stage: usize) -> Result<Option<PathBuf>, Failure> {
    let graph = &project.graph;
    let Some(input) = graph.stages[stage].inputs.iter().find(|i| i.port == "pairs") else {
        return Ok(None);
    };
    match input.from[0] {
        Producer::Source(source) => Ok(project.source_path(source)),
        Producer::Output { stage: from, port } => {
            let name = &graph.stages[from].name;
            let Some((entry, stale)) = project.newest(plan, from) else {
                let file = &graph.path;
                return Err(Failure::usage(format!(
                    "there are no pairs yet: stage `{name}` was never made"
                ))
                .help(format!("preflow run {file} {name}")));
            };
            if let Some(why) = stale {
                (project.choices.warn)(&format!(
                    "these pairs are the last that `{name}` made; the next run makes others ({why})"
                ));
            }
            let digest = entry.outputs[&graph.stages[from].outputs[port].name].digest;
            Ok(Some(project.store.object_path(&digest)))
        }
    }
}

/// What the last stage that was trained on these labels says about how unsure it is.
fn disagreement(
    project: &Project,
    stage: usize,
) -> Result<HashMap<String, f64>, label::AssignmentError> {
    let graph = &project.graph;
    let heads = project.heads();
    let mut downstream = BTreeSet::from([stage]);
    for next in stage + 1..graph.stages.len() {
        if graph.upstream(next).iter().any(|up| downstream.contains(up)) {
            downstream.insert(next);
        }
    }
    for next in downstream {
        let node = &graph.stages[next];
        let Some(port) = node.outputs.iter().find(|o| o.port_type == "dataset/disagreement") else {
            continue;
        };
        let entry =
            heads.stages.get(&node.name).and_then(|f| project.store.entry(f).ok().flatten());
        let Some(output) = entry.as_ref().and_then(|e| e.outputs.get(&port.name)) else { continue };
        let path: &Path = &project.store.object_path(&output.digest);
        if path.exists() {
            return label::read_disagreement(path);
        }
    }
    Ok(HashMap::new())
}
