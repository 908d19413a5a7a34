//! `preflow label`: from a pipeline file and a stage to what there is to label.
//! Decides nothing about votes.

mod ask;
mod export;
mod import;
mod links;
mod screen;
mod serve;
mod stats;
mod wait;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::workspace::{self, Loaded};
use super::{Exit, Global, complain};
use crate::agreement::ADJUDICATOR;
use crate::graph::Producer;
use crate::label::{self, AskOrder, Assignment};
use crate::plan::{Plan, Selection, Verdict};
use crate::report::{Look, Style};
use crate::votes::{self, Effective, Folder};
pub use serve::Page;
pub use wait::Asking;

#[derive(Debug, Subcommand)]
pub enum LabelVerb {
    /// Open the label page
    Serve(serve::ServeArgs),
    /// Label in the terminal
    Ask(ask::AskArgs),
    /// Show how much annotators agree, and how each does
    Stats(stats::StatsArgs),
    /// Read votes or preferences of other tools
    Import(import::ImportArgs),
    /// Write labels for other tools
    Export(export::ExportArgs),
    /// List the links to a label page that were given out
    Links(links::LinksArgs),
    /// Take links back, one by one
    Revoke(links::RevokeArgs),
}

/// Does what the verb says.
///
/// # Errors
/// See each verb.
pub fn label(verb: &LabelVerb, global: &Global, look: Look) -> Result<Exit, Failure> {
    match verb {
        LabelVerb::Serve(args) => serve::serve(args, global, look),
        LabelVerb::Ask(args) => ask::ask(args, global, look),
        LabelVerb::Stats(args) => stats::stats(args, global, look),
        LabelVerb::Import(args) => import::import(args, global, look),
        LabelVerb::Export(args) => export::export(args, global, look),
        LabelVerb::Links(args) => links::links(args, global, look),
        LabelVerb::Revoke(args) => links::revoke(args, global),
    }
}

/// The pipeline and what there is to label in one of its stages.
///
/// # Errors
/// The stage does not ask people, or its pairs were never made.
pub fn open(words: &[String], global: &Global) -> Result<(Loaded, Assignment), Failure> {
    let (file, names) = workspace::file_and_names(words)?;
    let [name] = names.as_slice() else {
        return Err(
            Failure::usage("one stage is labelled at a time").help("preflow label VERB FILE STAGE")
        );
    };
    let loaded = workspace::load(&file, global)?;
    let assignment = assignment(&loaded, name)?;
    Ok((loaded, assignment))
}

/// The annotator that was named, or else the user.
///
/// # Errors
/// The name cannot be one of a file.
pub fn annotator(named: Option<&str>) -> Result<String, Failure> {
    match named {
        None => Ok(serve::fit(&std::env::var("USER").unwrap_or_default())),
        Some(ADJUDICATOR) => Err(Failure::usage(format!(
            "`{ADJUDICATOR}` is whoever settles disputes, on the admin page"
        ))
        .help("choose another name")),
        Some(name) if votes::is_annotator(&votes::composed(name)) => Ok(votes::composed(name)),
        Some(name) => Err(Failure::usage(format!("`{name}` is no name for an annotator"))
            .help("names are lower-case letters, digits, `-` and `_`, 64 at most")),
    }
}

/// Says of stages that wait for people why what they wait for does not come, where it cannot.
pub fn tell_what_holds_up(loaded: &Loaded, waiting: &[String], look: Look) {
    for name in waiting {
        // The run has told already what is wrong with the stage or its votes.
        let Ok(assignment) = assignment(loaded, name) else { continue };
        let Ok(folder) = Folder::read(&assignment.votes) else { continue };
        let ready = label::readiness(&assignment, &Effective::of(&folder));
        if let Some(why) = stats::outlook(&assignment, &ready).and_then(|o| o.why()) {
            complain(&format!(" {} {name}  {why}\n", look.paint(Style::Warning, "◌")));
        }
    }
}

/// What there is to label in a stage.
///
/// # Errors
/// As [`open`].
pub fn assignment(loaded: &Loaded, name: &str) -> Result<Assignment, Failure> {
    let selection = Selection::new(&loaded.graph, &[name.to_owned()], &[], &[])?;
    let stage = loaded.graph.find(name).expect("invariant: the selection found it");
    // Before the plan: what is wrong with the stage itself comes first.
    asks_people(loaded, stage)?;
    let plan = loaded.plan(&selection)?;
    let pairs = pairs_path(loaded, &plan, stage)?;
    assemble(loaded, stage, pairs)
}

/// The settings of a stage that asks people.
fn asks_people(loaded: &Loaded, stage: usize) -> Result<label::PeopleSettings, Failure> {
    let node = &loaded.graph.stages[stage];
    let people = node.params.get("labeler").and_then(|l| l.get("people"));
    let none = || {
        Failure::usage(format!("stage `{}` does not ask people", node.name))
            .help("its labeler must be `people: { votes: FOLDER }`")
    };
    settings(people.ok_or_else(none)?)
}

/// What there is to label in a stage, given where its pairs lie.
fn assemble(loaded: &Loaded, stage: usize, pairs: Option<PathBuf>) -> Result<Assignment, Failure> {
    let people = asks_people(loaded, stage)?;
    let node = &loaded.graph.stages[stage];
    let ready = node.params.get("ready_when").unwrap_or(&Value::Null);
    let path_of = |port_type: &str| {
        let sources = node.inputs.iter().flat_map(|i| &i.from).filter_map(|p| match p {
            Producer::Source(source) => Some(&loaded.graph.sources[*source]),
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
        AskOrder::Disagreement => disagreement(loaded, stage).map_err(wrong)?,
        AskOrder::Random => std::collections::HashMap::new(),
    };
    Ok(Assignment {
        pipeline: loaded.graph.name.clone(),
        stage: node.name.clone(),
        votes: path_of(votes::PORT_TYPE).expect("invariant: the schema asks for votes"),
        ready: settings(ready)?,
        gold: match path_of("gold") {
            Some(path) => label::read_gold(&path).map_err(wrong)?,
            None => Vec::new(),
        },
        people,
        pairs,
        disagreement,
    })
}

/// What a stage that asks people still lacks; `None`: nothing, or nobody can tell yet.
#[must_use]
pub fn lack(loaded: &Loaded, plan: &Plan, stage: usize) -> Option<String> {
    let (assignment, folder) = votes_of(loaded, plan, stage)?;
    label::readiness(&assignment, &votes::Effective::of(&folder)).lack()
}

/// What there is to label in a stage whose pairs are made, and the votes so far; `None`: it does
/// not ask people, or its pairs or votes cannot be read.
#[must_use]
pub fn votes_of(loaded: &Loaded, plan: &Plan, stage: usize) -> Option<(Assignment, votes::Folder)> {
    asks_people(loaded, stage).ok()?;
    let node = &loaded.graph.stages[stage];
    let pairs = node.inputs.iter().find(|i| i.port == "pairs").map(|i| i.from[0]);
    let path = match pairs {
        None => None,
        Some(Producer::Source(source)) => Some(PathBuf::from(&loaded.graph.sources[source].path)),
        Some(Producer::Output { stage, port }) => {
            let Some(Some(Verdict::Hit(entry))) = plan.verdicts.get(stage) else { return None };
            let name = &loaded.graph.stages[stage].outputs[port].name;
            Some(loaded.store.object_path(&entry.outputs[name].digest))
        }
    };
    let assignment = assemble(loaded, stage, path).ok()?;
    let folder = votes::Folder::read(&assignment.votes).ok()?;
    Some((assignment, folder))
}

fn settings<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    serde_json::from_value(value.clone()).map_err(|error| {
        Failure::usage(format!("the stage's settings are not those of a label page: {error}"))
    })
}

/// Where the pairs of a stage lie; `None` when nothing is connected.
fn pairs_path(loaded: &Loaded, plan: &Plan, stage: usize) -> Result<Option<PathBuf>, Failure> {
    let graph = &loaded.graph;
    let Some(input) = graph.stages[stage].inputs.iter().find(|i| i.port == "pairs") else {
        return Ok(None);
    };
    match input.from[0] {
        Producer::Source(source) => Ok(Some(PathBuf::from(&graph.sources[source].path))),
        Producer::Output { stage: from, port } => {
            let name = &graph.stages[from].name;
            let Some((entry, stale)) = loaded.newest(plan, from) else {
                let file = &graph.path;
                return Err(Failure::usage(format!(
                    "there are no pairs yet: stage `{name}` was never made"
                ))
                .help(format!("preflow run {file} {name}")));
            };
            if let Some(why) = stale {
                complain(&format!(
                    "warning: these pairs are the last that `{name}` made; the next run makes others ({why})\n"
                ));
            }
            let digest = entry.outputs[&graph.stages[from].outputs[port].name].digest;
            Ok(Some(loaded.store.object_path(&digest)))
        }
    }
}

/// What the last stage that was trained on these labels says about how unsure it is.
fn disagreement(
    loaded: &Loaded,
    stage: usize,
) -> Result<std::collections::HashMap<String, f64>, label::AssignmentError> {
    let graph = &loaded.graph;
    let heads = loaded.heads();
    let mut downstream = std::collections::BTreeSet::from([stage]);
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
        let entry = heads.stages.get(&node.name).and_then(|f| loaded.store.entry(f).ok().flatten());
        let Some(output) = entry.as_ref().and_then(|e| e.outputs.get(&port.name)) else { continue };
        let path: &Path = &loaded.store.object_path(&output.digest);
        if path.exists() {
            return label::read_disagreement(path);
        }
    }
    Ok(std::collections::HashMap::new())
}
