//! The graph of one pipeline: typed stages, edges checked port type to port type, an order.
//! Knows nothing of files that exist, time or processes.

mod codec;
pub mod gate;
mod order;
mod resolve;
mod stage_decl;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::catalog::Catalog;
use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::Pipeline;
use crate::protocol::Execution;
pub use gate::{Condition, Unmet};

/// A pipeline with every reference resolved. `stages` is in topological order (ties: file order).
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub name: String,
    /// The pipeline file, as given.
    pub path: String,
    pub sources: Vec<GraphSource>,
    pub stages: Vec<GraphStage>,
}

/// An artifact nobody makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphSource {
    pub name: String,
    /// Joined to the pipeline file's directory; may hold a glob. Of files elsewhere their address.
    pub path: String,
    pub origin: SourceOrigin,
    pub port_type: String,
    #[serde(skip)]
    pub span: Span,
}

/// Where the files of a source are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceOrigin {
    /// At its path.
    #[default]
    Here,
    Hub(HubFiles),
    /// One file of the web; `sha256` in hexadecimal.
    Url {
        url: String,
        sha256: String,
    },
}

/// Files of a repository of a hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HubFiles {
    /// `ORG/NAME`, or `datasets/ORG/NAME`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// One file or a pattern; `None`: those that a model is read from.
    pub files: Option<String>,
}

/// One stage, typed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphStage {
    /// Unique in the graph.
    pub name: String,
    /// What the pipeline file calls it: what other stages know it by. Stages of several trials of a
    /// sweep share one.
    pub word: String,
    pub kind: String,
    pub version: u32,
    /// Validated, defaulted, canonical: integers as integers, floats as floats.
    pub params: Map<String, Value>,
    /// Params that name files: JSON pointer, and the port where the content arrives.
    pub files: Vec<(String, String)>,
    /// In the order of the kind's ports.
    pub inputs: Vec<GraphInput>,
    /// The first one is the primary output.
    pub outputs: Vec<GraphOutput>,
    pub execution: Execution,
    /// What its figures must be before anything that depends on it runs; never part of the
    /// identity.
    pub gate: Vec<Condition>,
    /// Default for `execution.threads`; 0: the whole pool.
    pub kind_threads: u32,
    /// Metrics worth watching while it runs.
    pub live: Vec<String>,
    /// Command of the worker that performs it; `None`: the built-in one.
    pub worker: Option<Vec<String>>,
    /// The worker can be asked what is wrong with it before it runs.
    #[serde(default)]
    pub validates: bool,
    /// Param that holds the command line when the stage is a plain program.
    pub program: Option<String>,
    #[serde(skip)]
    pub span: Span,
}

impl GraphSource {
    /// A param of a stage names it: `labels.votes`.
    #[must_use]
    pub fn is_of_param(&self) -> bool {
        self.name.contains('.')
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphInput {
    pub port: String,
    pub many: bool,
    pub from: Vec<Producer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphOutput {
    pub name: String,
    pub port_type: String,
    /// File ending under `views/`; empty for a directory or an unnamed format.
    pub extension: String,
}

/// What makes a name a pattern.
pub const WILDCARDS: [char; 3] = ['*', '?', '['];

/// What an input is connected to: indices into the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Producer {
    Source(usize),
    Output { stage: usize, port: usize },
}

impl GraphStage {
    /// The params with the port's name in place of each path: what a result depends on, and what a
    /// worker is told.
    #[must_use]
    pub fn portable_params(&self) -> Map<String, Value> {
        let mut params = Value::Object(self.params.clone());
        for (pointer, port) in &self.files {
            if let Some(path) = params.pointer_mut(pointer) {
                *path = Value::String(port.clone());
            }
        }
        match params {
            Value::Object(params) => params,
            _ => unreachable!("invariant: params are an object"),
        }
    }
}

impl GraphSource {
    /// Ending of the file name, without the dot; `None` where there is none.
    #[must_use]
    pub fn ending(&self) -> Option<String> {
        let file = match &self.origin {
            SourceOrigin::Here => &self.path,
            SourceOrigin::Hub(HubFiles { files, .. }) => files.as_ref()?,
            SourceOrigin::Url { url, .. } => url.split('?').next()?,
        };
        let ending = std::path::Path::new(file).extension()?;
        Some(ending.to_string_lossy().into_owned())
    }

    /// The path without its detours, for people: `pipelines/../data` is `data`.
    #[must_use]
    pub fn shown_path(&self) -> String {
        if self.is_here() { without_detours(&self.path) } else { self.path.clone() }
    }

    /// Its files are on this machine, at its path.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.origin == SourceOrigin::Here
    }

    /// It may match several files.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        match &self.origin {
            SourceOrigin::Here => self.path.contains(WILDCARDS),
            SourceOrigin::Hub(hub) => hub.files.as_ref().is_some_and(|f| f.contains(WILDCARDS)),
            SourceOrigin::Url { .. } => false,
        }
    }
}

/// A path in which no folder is entered only to leave it again.
fn without_detours(path: &str) -> String {
    let mut parts: Vec<Component> = Vec::new();
    for part in Path::new(path).components() {
        match (part, parts.last()) {
            (Component::ParentDir, Some(Component::Normal(_))) => drop(parts.pop()),
            (Component::CurDir, _) => {}
            _ => parts.push(part),
        }
    }
    let whole: PathBuf = parts.iter().collect();
    if whole.as_os_str().is_empty() { ".".to_owned() } else { whole.to_string_lossy().into_owned() }
}

impl Graph {
    /// Follows every reference and fits every param. Collects as many problems as it can.
    pub fn resolve(pipeline: &Pipeline, catalog: &Catalog) -> Result<Self, Diagnostics> {
        resolve::resolve(pipeline, catalog)
    }

    /// Input ports of a stage that several paths may stand at: those that take a list, and those
    /// of a pattern.
    #[must_use]
    pub fn ports_of_several(&self, stage: usize) -> Vec<String> {
        let is_pattern = |producer: &Producer| match producer {
            Producer::Source(source) => self.sources[*source].is_pattern(),
            Producer::Output { .. } => false,
        };
        let inputs = self.stages[stage].inputs.iter();
        let several = inputs.filter(|input| input.many || input.from.iter().any(is_pattern));
        several.map(|input| input.port.clone()).collect()
    }

    /// Stages that `stage` reads from, without repeats, ascending.
    #[must_use]
    pub fn upstream(&self, stage: usize) -> Vec<usize> {
        let mut all: Vec<usize> = self.stages[stage]
            .inputs
            .iter()
            .flat_map(|i| &i.from)
            .filter_map(|p| match p {
                Producer::Output { stage, .. } => Some(*stage),
                Producer::Source(_) => None,
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What connects to an input port of a stage; with `name`, only what is called so.
    pub fn connected<'a>(
        &'a self,
        stage: usize,
        port: &'a str,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = Producer> + 'a {
        let inputs = self.stages[stage].inputs.iter().filter(move |input| input.port == port);
        let all = inputs.flat_map(|input| input.from.iter().copied());
        all.filter(move |from| name.is_none_or(|name| self.producer_name(*from) == name))
    }

    /// What the pipeline file calls the stage or source behind a producer.
    #[must_use]
    pub fn producer_name(&self, producer: Producer) -> &str {
        match producer {
            Producer::Source(i) => &self.sources[i].name,
            Producer::Output { stage, .. } => &self.stages[stage].word,
        }
    }

    /// Port type of a producer.
    #[must_use]
    pub fn producer_type(&self, producer: Producer) -> &str {
        match producer {
            Producer::Source(i) => &self.sources[i].port_type,
            Producer::Output { stage, port } => &self.stages[stage].outputs[port].port_type,
        }
    }

    /// Sources that these stages read.
    #[must_use]
    pub fn sources_read<'a>(&self, stages: impl IntoIterator<Item = &'a usize>) -> BTreeSet<usize> {
        let inputs = stages.into_iter().flat_map(|stage| &self.stages[*stage].inputs);
        let from = inputs.flat_map(|input| &input.from);
        let sources = from.filter_map(|from| match from {
            Producer::Source(source) => Some(*source),
            Producer::Output { .. } => None,
        });
        sources.collect()
    }

    /// Where the sources are that a stage reads, by port, or by their name on a port that takes
    /// many.
    #[must_use]
    pub fn sources_of(&self, stage: usize) -> BTreeMap<String, String> {
        let inputs = self.stages[stage].inputs.iter();
        let all = inputs.flat_map(|input| input.from.iter().map(move |from| (input, from)));
        let sources = all.filter_map(|(input, from)| {
            let Producer::Source(source) = from else { return None };
            let source = &self.sources[*source];
            let at = if input.many { &source.name } else { &input.port };
            Some((at.clone(), source.shown_path()))
        });
        sources.collect()
    }

    /// Index of the stage of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|s| s.name == name)
    }
}

/// Everything wrong with a pipeline, in file order. Never empty.
pub type Diagnostics = Vec<Diagnostic>;

/// The stage whose name is nearest to what was typed.
#[must_use]
pub fn suggest_stage(graph: &Graph, typed: &str) -> Option<String> {
    let names = graph.stages.iter().map(|s| s.name.as_str());
    crate::diagnostic::did_you_mean(typed, names).map(str::to_owned)
}
