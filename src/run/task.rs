//! From a stage and its slot to a task: paths, environment, command line.
//! Knows nothing of when it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::RunOptions;
use crate::exec::{Program, Task};
use crate::graph::GraphStage;
use crate::protocol::{InputSpec, PROTOCOL, TaskSpec};
use crate::schedule::pools::Share;
use crate::store::{Slot, StoreError, write_atomic};

/// Where a task leaves what is no output.
pub struct Folders {
    /// Of this attempt.
    pub logs: PathBuf,
    /// Of the kind, between runs.
    pub answers: PathBuf,
}

/// Builds the task of `stage` and files its `task.json` in `logs`.
///
/// # Errors
/// The log directory or the scratch cannot be written.
pub fn build(
    index: usize,
    stage: &GraphStage,
    slot: &Slot,
    inputs: BTreeMap<String, Vec<InputSpec>>,
    share: &Share,
    Folders { logs, answers }: Folders,
    options: &RunOptions,
) -> Result<Task, StoreError> {
    let outputs = output_paths(stage, slot);
    slot.begin_attempt(outputs.values(), stage.program.is_none())?;
    fs_err::create_dir_all(&logs)?;
    let mut execution = stage.execution.clone();
    execution.threads = Some(share.threads);
    let spec = TaskSpec {
        protocol: PROTOCOL,
        stage: stage.name.clone(),
        kind: stage.kind.clone(),
        version: stage.version,
        params: stage.portable_params(),
        inputs,
        outputs: outputs
            .into_iter()
            .map(|(port, path)| (port, path.to_string_lossy().into_owned()))
            .collect(),
        scratch: slot.work_path().to_string_lossy().into_owned(),
        answers: Some(answers.to_string_lossy().into_owned()),
        execution,
    };
    let program = match &stage.program {
        None => {
            let text = serde_json::to_vec_pretty(&spec).expect("invariant: a task is JSON");
            write_task(&logs, &text)?;
            let worker = stage.worker.as_ref().unwrap_or(&options.worker);
            Program::Worker(worker.clone())
        }
        Some(param) => Program::Direct(command_line(&stage.params[param])),
    };
    Ok(Task {
        stage: index,
        spec,
        program,
        cwd: options.cwd.clone(),
        logs,
        timeout: stage.execution.timeout.map(std::time::Duration::from_secs_f64),
        gpus: share.gpus.clone(),
        lists: Vec::new(),
    })
}

/// Output port → path in the slot's scratch.
#[must_use]
pub fn output_paths(stage: &GraphStage, slot: &Slot) -> BTreeMap<String, PathBuf> {
    stage
        .outputs
        .iter()
        .map(|o| (o.name.clone(), slot.output_path(&o.name, &o.extension)))
        .collect()
}

fn write_task(logs: &std::path::Path, text: &[u8]) -> Result<(), StoreError> {
    Ok(write_atomic(&logs.join("task.json"), text)?)
}

/// A string is for the shell, a list is the program and its arguments.
fn command_line(command: &Value) -> Vec<String> {
    match command {
        Value::Array(items) => {
            items.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect()
        }
        Value::String(line) => vec!["sh".into(), "-c".into(), line.clone()],
        other => vec!["sh".into(), "-c".into(), other.to_string()],
    }
}
