//! Talking to a model that a stage made: which kind does it, the task, and what it answers.
//! Does not know how answers are shown.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::execution::worker_command;
use super::{Failure, Project};
use crate::catalog::Catalog;
use crate::columns::each_batch;
use crate::conversation::Content;
use crate::exec::{Program, Task};
use crate::graph::GraphOutput;
use crate::plan::Selection;
use crate::protocol::{Execution, InputSpec, KindDoc, PROTOCOL, TaskSpec};
use crate::store::{StoreError, write_atomic};

/// Kinds that can be talked to: the first answers prompts, the second scores answers.
pub const ANSWERS: &str = "sample";
pub const SCORES: &str = "score";

/// The kind that talks to an output of the stage, and that output.
///
/// # Errors
/// There is none.
pub fn talker<'a>(
    project: &'a Project,
    catalog: &'a Catalog,
    stage: usize,
    port: Option<&str>,
) -> Result<(&'a KindDoc, &'a GraphOutput), Failure> {
    let stages = &project.graph.stages;
    let kinds = [ANSWERS, SCORES].into_iter().filter_map(|k| catalog.kind(k));
    let kinds: Vec<&KindDoc> = kinds.map(|k| &k.doc).collect();
    let of = |output: &GraphOutput| {
        let takes = |k: &&&KindDoc| model_port(k).is_some_and(|a| a.contains(&output.port_type));
        kinds.iter().find(takes).copied()
    };
    let outputs = stages[stage].outputs.iter().filter(|o| port.is_none_or(|p| p == o.name));
    let found = outputs.filter_map(|o| Some((of(o)?, o))).next();
    found.ok_or_else(|| {
        let name = &stages[stage].name;
        let able: Vec<&str> = stages
            .iter()
            .filter(|s| s.outputs.iter().any(|o| of(o).is_some()))
            .map(|s| s.name.as_str())
            .collect();
        let port = port.map_or_else(String::new, |p| format!(" at port `{p}`"));
        Failure::usage(format!("stage `{name}` makes no model{port} that can be talked to"))
            .help(format!("stages that do: {}", able.join(", ")))
    })
}

fn model_port(kind: &KindDoc) -> Option<&Vec<String>> {
    kind.inputs.iter().find(|i| i.name == "model").map(|i| &i.accepts)
}

/// The newest made output: what is up to date, or else what was made last, which is then said.
///
/// # Errors
/// What stops a plan.
pub fn find_model(
    project: &Project,
    selection: &Selection,
    stage: usize,
    port: &GraphOutput,
) -> Result<Option<PathBuf>, Failure> {
    let plan = project.plan(selection)?;
    let Some((entry, stale)) = project.newest(&plan, stage) else { return Ok(None) };
    let Some(output) = entry.outputs.get(&port.name) else { return Ok(None) };
    if let Some(why) = stale {
        let at = entry.made.at.get(..16).unwrap_or("").replace('T', " ");
        let name = &project.graph.stages[stage].name;
        (project.choices.warn)(&format!("`{name}` is stale ({why}); this is the one made {at}"));
    }
    Ok(Some(project.store.object_path(&output.digest)))
}

/// The task that a worker performs: its inputs and what it makes lie in `dir`; `stream`: it tells
/// what it writes while it writes.
///
/// # Errors
/// Nothing can be written there.
pub fn task(
    dir: &Path,
    kind: &KindDoc,
    stage: &str,
    (port, model): (&GraphOutput, &Path),
    rows: &[Value],
    params: Map<String, Value>,
    stream: bool,
) -> Result<Task, Failure> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (input, output) = (dir.join("rows.jsonl"), dir.join("out.parquet"));
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let spec = |name: &str, port_type: &str, path: &Path| {
        vec![InputSpec {
            name: name.into(),
            port_type: port_type.into(),
            paths: vec![text(path)],
            source: false,
        }]
    };
    let inputs = kind.inputs.iter().map(|i| {
        let connected = match i.name.as_str() {
            "model" => spec(stage, &port.port_type, model),
            _ => spec("command line", &i.accepts[0], &input),
        };
        (i.name.clone(), connected)
    });
    let spec = TaskSpec {
        protocol: PROTOCOL,
        stage: stage.to_owned(),
        kind: kind.name.clone(),
        version: kind.version,
        params,
        inputs: inputs.collect(),
        outputs: kind.outputs.iter().map(|o| (o.name.clone(), text(&output))).collect(),
        scratch: text(dir),
        answers: None,
        execution: Execution { stream, ..Execution::default() },
    };
    let json = serde_json::to_vec_pretty(&spec).expect("invariant: a task is JSON");
    write_atomic(&input, lines.as_bytes())
        .and_then(|()| write_atomic(&dir.join("task.json"), &json))
        .map_err(StoreError::from)?;
    Ok(Task {
        lists: Vec::new(),
        stage: 0,
        spec,
        program: Program::Worker(worker_command()),
        cwd: dir.to_owned(),
        logs: dir.to_owned(),
        timeout: None,
        gpus: Vec::new(),
    })
}

/// One answer of the worker.
pub struct Answer {
    pub prompt: String,
    pub text: String,
    pub finished: bool,
    /// Its length, tokens; 0: not said.
    pub tokens: u64,
    pub score: Option<f64>,
}

/// What the worker made.
///
/// # Errors
/// The file cannot be read.
pub fn answers(path: &Path) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::new();
    each_batch(path, usize::MAX, |columns| {
        let (prompts, texts) = (columns.texts("prompt"), columns.texts("completion"));
        // What the system says is known to whoever asks.
        let asked = |prompt: &String| Content::of_written(prompt).last_text().to_owned();
        let (finished, scores) = (columns.flags("finished"), columns.numbers("score"));
        let lengths = columns.numbers("tokens");
        for (i, (prompt, text)) in prompts.into_iter().zip(texts).enumerate() {
            let prompt = asked(&prompt);
            let (finished, tokens) = (finished[i], lengths[i].unwrap_or_default() as u64);
            answers.push(Answer { prompt, text, finished, tokens, score: scores[i] });
        }
    })
    .map_err(|e| Failure::usage(e.to_string()))?;
    Ok(answers)
}
