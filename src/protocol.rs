//! The wire between orchestrator and worker: one JSON task in, JSON lines out, and the catalog; and
//! [`questions`] to a worker that stays. Knows nothing of the store, the graph or any kind.

pub mod questions;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version of everything in this module. A worker that speaks another one is refused.
pub const PROTOCOL: u32 = 1;

/// One execution of a stage. The file that holds it reproduces the task:
/// `preflow-worker run task.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    pub protocol: u32,
    /// Name of the stage, for messages only.
    pub stage: String,
    pub kind: String,
    /// Version of the kind; a worker whose kind has another one refuses the task.
    pub version: u32,
    /// Complete and typed: every default is filled in.
    pub params: Map<String, Value>,
    /// Input port → what is connected. A port that takes one artifact has a list of one.
    pub inputs: BTreeMap<String, Vec<InputSpec>>,
    /// Output port → path to create. The parent exists, the path does not.
    pub outputs: BTreeMap<String, String>,
    /// Directory for the worker's own files; kept for the next attempt when this one fails.
    pub scratch: String,
    /// Directory for what outside services answered, kept between runs and shared by all stages of
    /// the kind: a question that was asked before is not asked again. Need not exist; may be
    /// deleted at any time. Absent: the worker keeps answers in its scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
    pub execution: Execution,
}

/// One artifact at an input port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Name of the stage or source it comes from. Part of the identity on ports that take many.
    pub name: String,
    /// Port type, for example `dataset/pairs`.
    #[serde(rename = "type")]
    pub port_type: String,
    /// Files or directories to read. More than one only for a source with a glob.
    pub paths: Vec<String>,
    /// A source: people named its files. What stages make has names of preflow's own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub source: bool,
}

/// Level of a note that most people need not read.
pub const DETAIL: &str = "detail";

/// How far a stage is that goes on from here: a worker that leaves a checkpoint in its scratch
/// writes this beside it, as JSON to [`CHECKPOINT`], so that others can tell without knowing what
/// its checkpoints hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoesOnAt {
    pub done: u64,
    /// 0 when unknown.
    pub total: u64,
    pub unit: String,
}

/// Where [`GoesOnAt`] stands in a worker's scratch.
pub const CHECKPOINT: &str = "checkpoint.json";

/// How a stage is run. Never part of the identity: the keys under `run:` in a pipeline file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Execution {
    /// CPU threads; also what the stage takes from the cpu pool. Absent: the kind's own habit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// `cpu`, `cuda:N`, `mps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Seconds after which an attempt is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Further attempts after a failure.
    pub retries: u32,
    /// Seconds between checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<f64>,
    /// Bytes taken from the memory pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Devices taken from the gpu pool.
    pub gpus: u32,
    /// Names of environment variables passed on besides the usual few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Somebody reads what is written while it is written: [`Event::Text`] is asked for. Not under
    /// `run:`; outside of runs only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
}

/// One line of a worker's stdout. Unknown events are skipped by the reader: strict in what changes
/// results, lenient in what only informs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First line.
    Hello { protocol: u32, catalog: String, worker: String, backend: String, device: String },
    /// `done` of `total` units of work; `total` 0 when unknown.
    Progress { done: u64, total: u64, unit: String },
    /// Figures at one step. A value that is not finite is sent as null.
    Metric { step: u64, values: BTreeMap<String, Option<f64>> },
    /// Something a person should read. `level` is `info`, `warn`, or [`DETAIL`]: shown to those
    /// only who ask for more.
    Note { level: String, text: String },
    /// A piece of the text that is being written, where [`Execution::stream`] asks for it.
    Text { text: String },
    /// An output port is complete.
    Output {
        port: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<u64>,
    },
    /// Last line on success: the figures worth keeping beside the entry.
    Done { summary: BTreeMap<String, Option<f64>> },
    /// Last line on failure. `chain`: causes, outermost first.
    Failed {
        message: String,
        chain: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
    /// Last line when people must act first. `reason` completes "waiting for people: ".
    Waiting {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        have: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        need: Option<u64>,
    },
}

/// What a worker offers: the answer to `describe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogDoc {
    /// Version of this document: [`PROTOCOL`].
    pub protocol: u32,
    /// It also answers `validate`: see [`ValidateSpec`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub validates: bool,
    /// Every file that decides what the worker says and does, from the top of the workspace: its
    /// program, and what that loads. While none of them changed it is not asked again; a worker
    /// that names none is asked each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    pub kinds: Vec<KindDoc>,
}

/// What `validate` reads on stdin: stages of one pipeline that are to run. The worker answers with
/// a [`ValidateDoc`] on stdout; nothing is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidateSpec {
    pub protocol: u32,
    /// Inputs are looked at too: of those that exist the paths are named. Else only those of
    /// sources that are folders, and what is in them is not judged.
    #[serde(default)]
    pub inputs: bool,
    /// In topological order. Those that need not be looked at are there for what depends on them.
    pub stages: Vec<StageSpec>,
}

/// One stage to be looked at before it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    pub stage: String,
    pub kind: String,
    pub version: u32,
    pub params: Map<String, Value>,
    /// Input port → what is connected.
    pub inputs: BTreeMap<String, Vec<ConnectionSpec>>,
    /// Problems of this stage are asked for.
    pub wanted: bool,
}

/// What an input is connected to. `paths` are those that exist and are named: none where the
/// artifact is not made yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSpec {
    /// Name of the stage or source in the pipeline file.
    pub name: String,
    #[serde(rename = "type")]
    pub port_type: String,
    /// Place in [`ValidateSpec::stages`] of the stage that makes it; `None` for a source.
    pub stage: Option<usize>,
    pub paths: Vec<String>,
}

/// The answer to `validate`: what cannot work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ValidateDoc {
    pub problems: Vec<ProblemDoc>,
    /// Place of a stage in [`ValidateSpec::stages`] → figures that it may report at its end; `*` at
    /// the end of a name stands for anything. Of stages that are not there nothing is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<usize, Vec<String>>,
}

/// One thing that cannot work, or seldom does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProblemDoc {
    /// Place in [`ValidateSpec::stages`].
    pub stage: usize,
    /// Param or input port it is about, `train.lr`; empty: the stage as a whole.
    pub field: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// It may work, but seldom does: people are told, and the stage runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
}

/// One stage kind, as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindDoc {
    pub name: String,
    /// Bumped by hand whenever equal identities would give other bytes.
    pub version: u32,
    /// One line, no period.
    pub summary: String,
    pub inputs: Vec<InputDoc>,
    /// The first one is what a reference to the bare stage name means.
    pub outputs: Vec<OutputDoc>,
    /// JSON Schema (draft-07, no `$ref`) of the params object. `default` on every optional param.
    /// Keyword `x-unit` allows typed units: `count` (k M G T), `fraction` (%), `seconds`
    /// (ms s m h d), `bytes` (KiB MiB GiB TiB, kB MB GB TB). Keyword `x-source`: the string is a
    /// path, read at input port `port` as `type`; the worker finds the port's name in its place.
    pub params: Value,
    /// Set for kinds whose ports are named by the pipeline file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_ports: Option<OpenPorts>,
    /// The stage is a plain program: the orchestrator starts it itself, no worker is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramDoc>,
    /// CPU threads a stage of this kind takes when `run.threads` is absent; 0: the whole pool.
    #[serde(default)]
    pub threads: u32,
    /// Metrics worth watching while a stage runs, the most telling first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub live: Vec<String>,
}

/// An input port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputDoc {
    pub name: String,
    /// Port types it takes. `*` takes any.
    pub accepts: Vec<String>,
    /// Takes a list; the names of what is connected are then part of the identity.
    #[serde(default, skip_serializing_if = "is_false")]
    pub many: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    pub doc: String,
}

/// An output port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDoc {
    pub name: String,
    /// May hold `{param}`: replaced by the value of that string param.
    #[serde(rename = "type")]
    pub port_type: String,
    /// File name ending under `views/`, no dot; empty for a directory.
    pub extension: String,
    pub doc: String,
}

/// Ports that the pipeline file names: `inputs: {name: reference}`, `outputs: {name: type}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPorts {
    /// Key of the stage that maps port names to references.
    pub inputs: String,
    /// Key of the stage that maps port names to port types.
    pub outputs: String,
}

/// How a program stage names its command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramDoc {
    /// Param that holds the command: a string for `sh -c`, or a list of arguments.
    pub command: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this shape")]
fn is_false(b: &bool) -> bool {
    !*b
}
