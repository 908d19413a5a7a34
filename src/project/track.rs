//! Trackers that see a run while it happens: MLflow, Trackio, W&B by one small program, TensorBoard
//! by its files. None of it is part of any result; a tracker that fails is told once, and the run
//! goes on. Does not know what figures mean.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Project;
use crate::exec::companion::Companion;
use crate::exec::git;
use crate::exec::programs::installed;
use crate::files;
use crate::run::RunEvent;
use crate::tensorboard::{Scalar, event_file, events};
use crate::workspace::{TrackTool, Tracker};

/// What is told to a tracker by another program.
const BRIDGE: &str = include_str!("track/bridge.py");
/// How long a tracker may take when the run is over.
const PATIENCE: Duration = Duration::from_secs(20);

/// Trackers of one run.
pub struct Tracking<'a> {
    project: &'a Project,
    /// Told when the first stage starts: a run with nothing to do is nothing to track.
    begun: Option<RunEvent>,
    trackers: Vec<(Tracker, State)>,
    /// The highest step of each stage so far: figures at its end stand there.
    steps: BTreeMap<String, u64>,
}

/// How far a tracker has come.
enum State {
    Waiting,
    Bridge(Companion),
    Files(PathBuf),
    /// It failed, or is done.
    Over,
}

impl<'a> Tracking<'a> {
    /// Of the workspace's trackers; nothing starts yet.
    #[must_use]
    pub fn of(project: &'a Project) -> Self {
        let trackers = project.workspace.track.iter().map(|t| (t.clone(), State::Waiting));
        Self { project, begun: None, trackers: trackers.collect(), steps: BTreeMap::new() }
    }

    /// Tells all trackers what happened.
    pub fn event(&mut self, event: &RunEvent) {
        if self.trackers.is_empty() {
            return;
        }
        match event {
            RunEvent::RunStarted { .. } => self.begun = Some(event.clone()),
            RunEvent::StageStarted { .. } => self.start(),
            RunEvent::Metric { stage, step, values } => {
                let last = self.steps.entry(stage.clone()).or_default();
                *last = (*last).max(*step);
                self.figures(event, stage, *step, values);
            }
            RunEvent::StageDone { stage, summary, .. } => {
                let last = self.steps.get(stage).copied().unwrap_or(0);
                self.figures(event, stage, last, summary);
            }
            RunEvent::RunEnded { .. } => self.end(event),
            _ => {}
        }
    }

    /// Starts what waits, once.
    fn start(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let mut first = serde_json::to_value(&begun).expect("invariant: an event is JSON");
        first["params"] = Value::Object(params(self.project));
        first["commit"] = json!(git::commit(&self.project.root).id);
        let RunEvent::RunStarted { run, .. } = &begun else { return };
        for (tracker, state) in &mut self.trackers {
            let started = match tracker.tool {
                TrackTool::TensorBoard => {
                    let folder = self.project.root.join(&tracker.place).join(run);
                    fs_err::create_dir_all(&folder)
                        .map(|()| State::Files(folder))
                        .map_err(|e| e.to_string())
                }
                _ => bridge(tracker, &self.project.root).map(|mut companion| {
                    companion.tell(first.to_string());
                    State::Bridge(companion)
                }),
            };
            *state = started.unwrap_or_else(|why| {
                warn(self.project, tracker, &why);
                State::Over
            });
        }
    }

    fn figures(
        &mut self,
        event: &RunEvent,
        stage: &str,
        step: u64,
        values: &BTreeMap<String, Option<f64>>,
    ) {
        let mut line = serde_json::to_value(event).expect("invariant: an event is JSON");
        line["last_step"] = json!(step);
        for (tracker, state) in &mut self.trackers {
            let failed = match state {
                State::Bridge(companion) => !companion.tell(line.to_string()),
                State::Files(folder) => match append(folder, stage, step, values) {
                    Ok(()) => false,
                    Err(error) => {
                        warn(self.project, tracker, &error.to_string());
                        *state = State::Over;
                        continue;
                    }
                },
                State::Waiting | State::Over => false,
            };
            if failed {
                close(self.project, tracker, state);
            }
        }
    }

    fn end(&mut self, event: &RunEvent) {
        let line = serde_json::to_string(event).expect("invariant: an event is JSON");
        for (tracker, state) in &mut self.trackers {
            if let State::Bridge(companion) = state {
                companion.tell(line.clone());
            }
            close(self.project, tracker, state);
        }
    }
}

/// Ends a tracker, and says what went wrong.
fn close(project: &Project, tracker: &Tracker, state: &mut State) {
    if let State::Bridge(companion) = std::mem::replace(state, State::Over)
        && let Err(why) = companion.end(PATIENCE)
    {
        warn(project, tracker, &why);
    }
}

fn warn(project: &Project, tracker: &Tracker, why: &str) {
    let tool = tracker.tool.word();
    (project.choices.warn)(&format!("{tool} does not track this run: {why}"));
}

/// The program that speaks to a tracker, in the Python of this program's environment, or on PATH.
fn bridge(tracker: &Tracker, root: &Path) -> Result<Companion, String> {
    let own = std::env::current_exe().ok().map(|exe| exe.with_file_name("python3"));
    let python = own.filter(|python| python.exists()).or_else(|| installed("python3"));
    let python = python.ok_or("it needs python3, which is not on PATH")?;
    let place = match tracker.tool {
        TrackTool::Mlflow => std::env::var("MLFLOW_TRACKING_URI").ok().filter(|s| !s.is_empty()),
        _ => None,
    };
    let place = place.unwrap_or_else(|| tracker.place.clone());
    if tracker.tool == TrackTool::Mlflow
        && !["http://", "https://"].iter().any(|s| place.starts_with(s))
    {
        return Err(format!("`{place}` is no address of a server (http:// or https://)"));
    }
    Companion::start(&python, &["-c", BRIDGE, tracker.tool.word(), &place], root)
        .map_err(|e| format!("{} cannot be started: {e}", python.display()))
}

/// Kind and params of all stages.
fn params(project: &Project) -> Map<String, Value> {
    let stages = project.graph.stages.iter();
    stages
        .map(|node| {
            let mut params = node.portable_params();
            params.insert("kind".to_owned(), json!(node.kind));
            (node.name.clone(), Value::Object(params))
        })
        .collect()
}

/// Adds figures to the event file of a stage.
fn append(
    folder: &Path,
    stage: &str,
    step: u64,
    values: &BTreeMap<String, Option<f64>>,
) -> std::io::Result<()> {
    let now = jiff::Timestamp::now().as_duration().as_secs_f64();
    let step = i64::try_from(step).unwrap_or(i64::MAX);
    let known = values.iter().filter_map(|(name, x)| Some((name, (*x)?)));
    let scalars: Vec<Scalar> =
        known.map(|(tag, value)| Scalar { tag: tag.clone(), step, value }).collect();
    if scalars.is_empty() {
        return Ok(());
    }
    let folder = folder.join(stage);
    let path = folder.join("events.out.tfevents.preflow");
    let is_new = !path.exists();
    fs_err::create_dir_all(&folder)?;
    let bytes = if is_new { event_file(now, &scalars) } else { events(now, &scalars) };
    files::append_own(&path)?.write_all(&bytes)
}
