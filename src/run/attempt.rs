//! Attempts: from a stage whose turn has come to a running task. Inputs are checked before use.
//! Knows nothing of what follows when it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tracing::{Instrument as _, info, info_span};

use super::runner::{Attempt, Channels, Runner};
use super::{Message, RunEvent, task};
use crate::exec::{Outcome, Running, Task};
use crate::graph::{Graph, Producer};
use crate::identity::Digest;
use crate::protocol::InputSpec;
use crate::store::reading::Reading;
use crate::store::{EntryOutput, Health, Slot, SourceDigest, SourceFiles, Store, StoreError};

/// Input port → what is connected, as the task is told.
pub(super) type InputSpecs = BTreeMap<String, Vec<InputSpec>>;

/// Producing stage and object, to be read in full before use.
pub(super) type Checks = Vec<(usize, EntryOutput)>;

impl Runner<'_> {
    pub(super) fn attempt(&mut self, stage: usize, slot: Slot, mut attempt: Attempt) {
        let node = &self.inputs.graph.stages[stage];
        let mut logs = self.inputs.store.run_path(&self.options.id).join(&node.name);
        if attempt.number > 1 {
            logs = logs.join(format!("attempt-{}", attempt.number));
        }
        attempt.logs.clone_from(&logs);
        let (task, checks, readings) = match self.task_inputs(stage) {
            Ok((inputs, checks, readings)) => {
                let share = &attempt.share;
                let answers = self.inputs.store.answers_path(&node.kind);
                let folders = task::Folders { logs, answers };
                let task = task::build(stage, node, &slot, inputs, share, folders, self.options);
                let lists = self.inputs.graph.ports_of_several(stage);
                (task.map(|task| Task { lists, ..task }), checks, readings)
            }
            Err(error) => (Err(error), Vec::new(), Vec::new()),
        };
        let event = RunEvent::StageStarted {
            stage: node.name.clone(),
            fingerprint: slot.fingerprint(),
            attempt: attempt.number,
            reason: attempt.reason.clone(),
        };
        self.tell(event);
        let number = attempt.number;
        self.attempts.insert(stage, attempt);
        let task = match task {
            Ok(task) => task,
            Err(e) => {
                drop(slot);
                return self.fail_storage(stage, &e);
            }
        };
        let (sender, store) = (self.channels.messages.clone(), Arc::clone(&self.inputs.store));
        let verified = Rc::clone(&self.verified);
        let watched = watched(self.inputs.graph, &self.inputs.sources, stage);
        let running = self.start_task(task);
        let stage_span = info_span!("stage", name = %node.name, fingerprint = %slot.fingerprint());
        let span = info_span!(parent: &stage_span, "attempt", number);
        let work = async move {
            let slot = Box::new(slot);
            if !checks.is_empty() {
                let at = Arc::clone(&store);
                let digests: Vec<Digest> = checks.iter().map(|(_, o)| o.digest).collect();
                let damaged = tokio::task::spawn_blocking(move || verify(&at, checks)).await;
                let damaged = damaged.expect("invariant: checking does not panic");
                if !damaged.is_empty() {
                    let _ = sender.send(Message::InputsDamaged(stage, slot, damaged));
                    return;
                }
                // Only now: who starts meanwhile reads for itself.
                verified.borrow_mut().extend(digests);
            }
            info!("started");
            let mut outcome = running.await;
            info!(outcome = %outcome.headline(), "ended");
            let is_done = matches!(outcome, Outcome::Done { .. });
            if is_done && watched.iter().any(|(_, files)| files.looks_changed()) {
                let store = Arc::clone(&store);
                let look = move || input_changed(&watched, &store);
                let changed = tokio::task::spawn_blocking(look).await;
                let changed = changed.expect("invariant: looking at files does not panic");
                outcome = changed.unwrap_or(outcome);
            }
            if matches!(outcome, Outcome::Done { .. })
                && let Some(changed) = changed_object(readings, &store).await
            {
                let _ = sender.send(Message::InputChanged(stage, slot, changed));
                return;
            }
            let _ = sender.send(Message::Ended(stage, slot, outcome));
        };
        tokio::task::spawn_local(work.instrument(span));
        self.show_unnamed();
    }

    /// Paths of the inputs, the objects among them whose bytes nobody has read in this run, and how
    /// all of them look before they are read.
    pub(super) fn task_inputs(
        &mut self,
        stage: usize,
    ) -> Result<(InputSpecs, Checks, Vec<Watch>), StoreError> {
        let graph = self.inputs.graph;
        let (mut checks, mut readings) = (Vec::new(), Vec::new());
        let all = input_specs(graph, stage, |producer| match producer {
            Producer::Source(source) => {
                let source = self.inputs.sources[source].as_ref();
                let source = source.expect("invariant: needed sources are hashed first");
                if let Some(content) = &source.content {
                    self.inputs.store.keep_content(content)?;
                }
                self.inputs.store.keep_members(source);
                Ok(source.paths.clone())
            }
            Producer::Output { stage: from, port } => {
                let name = &graph.stages[from].outputs[port].name;
                let path = self.output_path(from, name, &mut checks);
                let reading = Reading::begin(path.clone(), self.output_of(from, name));
                readings.push((graph.stages[from].name.clone(), reading));
                Ok(vec![path])
            }
        })?;
        Ok((all, checks, readings))
    }

    fn output_path(&mut self, from: usize, port: &str, checks: &mut Checks) -> PathBuf {
        if let Some(paths) = self.leftovers.unpublished.get(&from) {
            self.leftovers.in_use.insert(from);
            return paths[port].clone();
        }
        let output = self.output_of(from, port).clone();
        let path = self.inputs.store.object_path(&output.digest);
        if !self.verified.borrow().contains(&output.digest) {
            checks.push((from, output));
        }
        path
    }

    fn output_of(&self, stage: usize, port: &str) -> &EntryOutput {
        &self.scheduler.outputs(stage).expect("invariant: upstream is settled")[port]
    }

    fn start_task(&self, task: Task) -> Running {
        let Channels { events, stop, .. } = &self.channels;
        self.inputs.executor.start(task, events.clone(), stop.subscribe())
    }
}

/// What a task of the stage is told of its inputs; `paths` says where each of them lies.
pub(super) fn input_specs(
    graph: &Graph,
    stage: usize,
    mut paths: impl FnMut(Producer) -> Result<Vec<PathBuf>, StoreError>,
) -> Result<InputSpecs, StoreError> {
    let mut all = BTreeMap::new();
    for input in &graph.stages[stage].inputs {
        let mut specs = Vec::new();
        for &producer in &input.from {
            let paths = paths(producer)?;
            specs.push(InputSpec {
                name: graph.producer_name(producer).to_owned(),
                port_type: graph.producer_type(producer).to_owned(),
                paths: paths.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
                source: matches!(producer, Producer::Source(_)),
            });
        }
        all.insert(input.port.clone(), specs);
    }
    Ok(all)
}

/// An object that a stage reads, and the stage that made it.
pub(super) type Watch = (String, Reading);

/// An object that a stage read and that is no longer what it was before: what was made from it
/// counts for nothing. Reads what looks changed.
async fn changed_object(readings: Vec<Watch>, store: &Arc<Store>) -> Option<Watch> {
    let doubted: Vec<Watch> = readings.into_iter().filter(|(_, r)| r.looks_changed()).collect();
    if doubted.is_empty() {
        return None;
    }
    let store = Arc::clone(store);
    let read = move || {
        let changed = doubted.into_iter().find(|(_, reading)| reading.has_changed())?;
        store.doubt(&changed.1);
        Some(changed)
    };
    tokio::task::spawn_blocking(read).await.expect("invariant: reading files does not panic")
}

/// The sources that a stage reads, by name.
pub(super) type WatchedSources = Vec<(String, SourceFiles)>;

/// See [`WatchedSources`].
pub(super) fn watched(
    graph: &Graph,
    sources: &[Option<SourceDigest>],
    stage: usize,
) -> WatchedSources {
    let from = graph.stages[stage].inputs.iter().flat_map(|i| &i.from);
    let sources = from.filter_map(|producer| match producer {
        Producer::Source(source) => {
            Some((graph.sources[*source].name.clone(), sources[*source].as_ref()?.files.clone()))
        }
        Producer::Output { .. } => None,
    });
    sources.collect()
}

/// A source whose bytes are no longer what was hashed: what was made from it counts for nothing.
/// Reads what looks changed.
pub(super) fn input_changed(watched: &WatchedSources, store: &Store) -> Option<Outcome> {
    let changed = watched.iter().find_map(|(name, files)| {
        let path = files.looks_changed().then(|| files.changed_since(store)).flatten()?;
        Some((name, path.display().to_string()))
    });
    changed.map(|(name, path)| Outcome::Failed {
        message: format!("source `{name}` changed while the stage ran; the result is not kept"),
        chain: vec![format!("`{path}` is not what was hashed when the run began")],
        help: Some("run again when nobody writes to it".into()),
    })
}

/// Producers among `checks` whose object is not what its name says.
fn verify(store: &Store, checks: Checks) -> Vec<usize> {
    let bad = |output: &EntryOutput| !matches!(store.check(output, true), Ok(Health::Good));
    let mut producers: Vec<usize> =
        checks.into_iter().filter(|(_, o)| bad(o)).map(|(p, _)| p).collect();
    producers.dedup();
    producers
}
