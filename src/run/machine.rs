//! The state machine behind a run: what each stage is waiting for, and what follows from each
//! message. Knows nothing of processes; it starts futures and hears of their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::committer::{Committer, Published};
use super::event::{RunEvent, Totals};
use super::journal::Journal;
use super::pools::{Pools, Share};
use super::{Inputs, Message, Options, RunError, Summary, task};
use crate::exec::{Outcome, Stop};
use crate::graph::Producer;
use crate::identity::{Digest, Fingerprint, Identity};
use crate::plan::{Judge, Outputs, Reason, Verdict, outputs_of};
use crate::protocol::{Event, InputSpec};
use crate::report::Reporter;
use crate::store::heads::Heads;
use crate::store::views::View;
use crate::store::{
    Entry, EntryOutput, Health, Lookup, Provenance, Scratch, Sealed, Slot, StoreError,
};

/// Where a stage stands.
#[derive(Debug)]
enum State {
    /// Nobody wants it.
    Unwanted,
    /// Upstream is not settled, or it is in `ready`.
    Pending,
    /// A miss that waits for its share of the machine.
    Queued(Identity, Reason),
    Running(Attempt),
    /// Outputs hashed; the entry is on its way to the disk.
    Sealed(Attempt),
    Reused,
    Done,
    Failed,
    Waiting,
    Blocked,
}

/// What is held while a stage runs.
#[derive(Debug)]
struct Attempt {
    number: u32,
    reason: Reason,
    share: Share,
    started: Instant,
    logs: PathBuf,
    notes: Vec<String>,
}

pub struct Machine<'a> {
    inputs: Inputs<'a>,
    options: &'a Options,
    reporter: &'a mut dyn Reporter,
    sender: mpsc::UnboundedSender<Message>,
    stop: watch::Sender<Stop>,
    events: mpsc::UnboundedSender<(usize, Event)>,
    journal: Journal,
    committer: Committer,
    heads: Heads,
    old_heads: Heads,
    digests: Vec<Option<Digest>>,
    downstream: Vec<Vec<usize>>,
    states: Vec<State>,
    known: Vec<Option<Outputs>>,
    /// Size and files of the outputs, to check them before use.
    made: Vec<Option<BTreeMap<String, EntryOutput>>>,
    /// Paths of outputs that are hashed but not yet published.
    unpublished: Vec<Option<BTreeMap<String, PathBuf>>>,
    /// Stages whose scratch some task reads: cleared away at the end.
    lent: BTreeSet<usize>,
    leftovers: Vec<Scratch>,
    verified: BTreeSet<Digest>,
    ready: BTreeSet<usize>,
    queued: BTreeSet<usize>,
    /// Stages that run, seal or publish, or wait for another process.
    active: usize,
    pools: Pools,
    begun: Instant,
    interrupts: u32,
    halted: bool,
    storage: bool,
    writable: bool,
}

impl<'a> Machine<'a> {
    pub fn new(
        inputs: Inputs<'a>,
        options: &'a Options,
        reporter: &'a mut dyn Reporter,
        sender: mpsc::UnboundedSender<Message>,
        stop: watch::Sender<Stop>,
    ) -> Self {
        let n = inputs.graph.stages.len();
        let mut downstream = vec![Vec::new(); n];
        for stage in 0..n {
            for up in inputs.graph.upstream(stage) {
                downstream[up].push(stage);
            }
        }
        let (events, mut heard) = mpsc::unbounded_channel();
        let forward = sender.clone();
        tokio::task::spawn_local(async move {
            while let Some((stage, event)) = heard.recv().await {
                let _ = forward.send(Message::Event(stage, event));
            }
        });
        let published = sender.clone();
        let committer = Committer::start(Arc::clone(&inputs.store), move |done| {
            let _ = published.send(Message::Published(Box::new(done)));
        });
        let old_heads = inputs.store.heads(&options.heads_key);
        Self {
            digests: inputs.sources.iter().map(|s| s.as_ref().map(|s| s.digest)).collect(),
            options,
            reporter,
            sender,
            stop,
            events,
            journal: Journal::create(&inputs.store.run_path(&options.id)),
            committer,
            heads: old_heads.clone(),
            old_heads,
            downstream,
            states: (0..n).map(|_| State::Unwanted).collect(),
            known: vec![None; n],
            made: vec![None; n],
            unpublished: vec![None; n],
            lent: BTreeSet::new(),
            leftovers: Vec::new(),
            verified: BTreeSet::new(),
            ready: BTreeSet::new(),
            queued: BTreeSet::new(),
            active: 0,
            pools: options.pools.clone(),
            begun: Instant::now(),
            interrupts: 0,
            halted: false,
            storage: false,
            writable: false,
            inputs,
        }
    }

    pub fn begin(&mut self) -> Result<(), RunError> {
        let graph = self.inputs.graph;
        let wanted = self.inputs.selection.wanted.clone();
        self.tell(RunEvent::RunStarted {
            run: self.options.id.clone(),
            at: self.options.at.clone(),
            pipeline: graph.path.clone(),
            name: graph.name.clone(),
            command: self.options.command.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stages: wanted.iter().map(|s| graph.stages[*s].name.clone()).collect(),
            jobs: self.options.pools.threads,
        });
        for stage in wanted {
            self.states[stage] = State::Pending;
            if graph.upstream(stage).is_empty() {
                self.ready.insert(stage);
            }
        }
        Ok(())
    }

    /// Does all that can be done without waiting. False: the run is over.
    pub fn advance(&mut self) -> Result<bool, RunError> {
        loop {
            if let Some(stage) = self.ready.pop_first() {
                self.judge(stage)?;
            } else if !self.start_one()? {
                break;
            }
        }
        Ok(self.active > 0)
    }

    pub fn handle(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Event(stage, event) => self.hear(stage, event),
            Message::Ended(stage, slot, outcome) => self.ended(stage, *slot, outcome)?,
            Message::InputsDamaged(stage, slot, producers) => {
                drop(slot);
                self.remake(stage, &producers)?;
            }
            Message::Sealed(stage, result) => self.sealed(stage, *result)?,
            Message::Published(done) => self.published(*done),
            Message::LookAgain(stage) => {
                self.active -= 1;
                self.ready.insert(stage);
            }
            Message::Interrupt => self.interrupt(),
        }
        Ok(())
    }

    fn judge(&mut self, stage: usize) -> Result<(), RunError> {
        let judge = Judge {
            graph: self.inputs.graph,
            store: &self.inputs.store,
            sources: &self.digests,
            heads: &self.old_heads,
        };
        let forced = self.inputs.selection.forced.contains(&stage);
        match judge.judge(stage, &self.known, forced)? {
            Verdict::Hit(entry) => self.reuse(stage, *entry),
            Verdict::Wait(_) => {}
            Verdict::Miss(identity, reason) => {
                self.states[stage] = State::Queued(identity, reason);
                self.queued.insert(stage);
            }
        }
        Ok(())
    }

    fn reuse(&mut self, stage: usize, entry: Entry) {
        self.states[stage] = State::Reused;
        let fingerprint = entry.fingerprint;
        self.settle(stage, &entry);
        let stage_name = self.name(stage);
        self.tell(RunEvent::StageReused { stage: stage_name, fingerprint });
        self.unlock(stage);
    }

    fn settle(&mut self, stage: usize, entry: &Entry) {
        let name = self.name(stage);
        super::update_heads(&mut self.heads, &name, entry.fingerprint);
        self.known[stage] = Some(outputs_of(entry));
        self.made[stage] = Some(entry.outputs.clone());
    }

    /// Downstream stages whose every upstream is known become ready to be judged.
    fn unlock(&mut self, stage: usize) {
        for &next in &self.downstream[stage] {
            let complete =
                || self.inputs.graph.upstream(next).iter().all(|up| self.known[*up].is_some());
            if matches!(self.states[next], State::Pending) && complete() {
                self.ready.insert(next);
            }
        }
    }

    /// Starts the first queued stage that fits. False: none does, or none may.
    fn start_one(&mut self) -> Result<bool, RunError> {
        if self.halted {
            return Ok(false);
        }
        for stage in self.queued.clone() {
            let node = &self.inputs.graph.stages[stage];
            let threads = self.options.pools.threads_for(&node.execution, node.kind_threads);
            if let Some(share) = self.pools.take(threads, &node.execution) {
                self.queued.remove(&stage);
                self.start(stage, share)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn start(&mut self, stage: usize, share: Share) -> Result<(), RunError> {
        let state = std::mem::replace(&mut self.states[stage], State::Pending);
        let State::Queued(identity, reason) = state else {
            unreachable!("invariant: only queued stages are started")
        };
        if !self.writable {
            self.inputs.store.prepare_for_writing()?;
            self.writable = true;
        }
        let forced = self.inputs.selection.forced.contains(&stage);
        match self.inputs.store.lookup(identity, forced) {
            Err(e) => {
                self.pools.give_back(share);
                self.fail_storage(stage, &e);
            }
            Ok(Lookup::Hit(entry)) => {
                self.pools.give_back(share);
                self.reuse(stage, *entry);
            }
            Ok(Lookup::Busy) => {
                self.pools.give_back(share);
                self.look_again(stage);
            }
            Ok(Lookup::Miss(slot)) => {
                let attempt = Attempt {
                    number: 1,
                    reason,
                    share,
                    started: Instant::now(),
                    logs: PathBuf::new(),
                    notes: Vec::new(),
                };
                self.active += 1;
                self.attempt(stage, slot, attempt);
            }
        }
        Ok(())
    }

    fn look_again(&mut self, stage: usize) {
        let name = self.name(stage);
        self.tell(RunEvent::StageBusy { stage: name });
        self.active += 1;
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = sender.send(Message::LookAgain(stage));
        });
    }

    fn attempt(&mut self, stage: usize, slot: Slot, mut attempt: Attempt) {
        let node = &self.inputs.graph.stages[stage];
        let mut logs = self.inputs.store.run_path(&self.options.id).join(&node.name);
        if attempt.number > 1 {
            logs = logs.join(format!("attempt-{}", attempt.number));
        }
        attempt.logs.clone_from(&logs);
        let (inputs, checks) = self.task_inputs(stage);
        let task =
            task::build(stage, node, &slot, inputs, &attempt.share, logs, self.options);
        let event = RunEvent::StageStarted {
            stage: node.name.clone(),
            fingerprint: slot.fingerprint(),
            attempt: attempt.number,
            reason: attempt.reason.clone(),
        };
        self.tell(event);
        self.states[stage] = State::Running(attempt);
        let task = match task {
            Ok(task) => task,
            Err(e) => {
                drop(slot);
                self.release(stage);
                return self.fail_storage(stage, &e);
            }
        };
        let (sender, store) = (self.sender.clone(), Arc::clone(&self.inputs.store));
        let running =
            self.inputs.executor.start(task, self.events.clone(), self.stop.subscribe());
        tokio::task::spawn_local(async move {
            let slot = Box::new(slot);
            if !checks.is_empty() {
                let damaged = tokio::task::spawn_blocking(move || verify(&store, checks)).await;
                let damaged = damaged.expect("invariant: checking does not panic");
                if !damaged.is_empty() {
                    let _ = sender.send(Message::InputsDamaged(stage, slot, damaged));
                    return;
                }
            }
            let outcome = running.await;
            let _ = sender.send(Message::Ended(stage, slot, outcome));
        });
    }

    /// Paths of the inputs, and the objects among them whose bytes nobody has read in this run.
    fn task_inputs(
        &mut self,
        stage: usize,
    ) -> (BTreeMap<String, Vec<InputSpec>>, Vec<(usize, EntryOutput)>) {
        let graph = self.inputs.graph;
        let mut checks = Vec::new();
        let mut all = BTreeMap::new();
        for input in &graph.stages[stage].inputs {
            let mut specs = Vec::new();
            for &producer in &input.from {
                let paths = match producer {
                    Producer::Source(source) => {
                        let source = self.inputs.sources[source].as_ref();
                        source.expect("invariant: needed sources are hashed first").paths.clone()
                    }
                    Producer::Output { stage: from, port } => {
                        let name = &graph.stages[from].outputs[port].name;
                        vec![self.output_path(from, name, &mut checks)]
                    }
                };
                specs.push(InputSpec {
                    name: graph.producer_name(producer).to_owned(),
                    port_type: graph.producer_type(producer).to_owned(),
                    paths: paths.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
                });
            }
            all.insert(input.port.clone(), specs);
        }
        (all, checks)
    }

    fn output_path(
        &mut self,
        from: usize,
        port: &str,
        checks: &mut Vec<(usize, EntryOutput)>,
    ) -> PathBuf {
        if let Some(paths) = &self.unpublished[from] {
            self.lent.insert(from);
            return paths[port].clone();
        }
        let made = self.made[from].as_ref().expect("invariant: upstream is settled");
        let output = &made[port];
        if self.verified.insert(output.digest) {
            checks.push((from, output.clone()));
        }
        self.inputs.store.object_path(&output.digest)
    }

    fn hear(&mut self, stage: usize, event: Event) {
        let name = self.name(stage);
        match event {
            Event::Progress { done, total, unit } => {
                self.tell(RunEvent::Progress { stage: name, done, total, unit });
            }
            Event::Metric { step, values } => {
                self.tell(RunEvent::Metric { stage: name, step, values });
            }
            Event::Note { level, text } => {
                if let State::Running(attempt) = &mut self.states[stage] {
                    attempt.notes.push(text.clone());
                }
                self.tell(RunEvent::Note { stage: name, level, text });
            }
            _ => {}
        }
    }

    fn ended(&mut self, stage: usize, slot: Slot, outcome: Outcome) -> Result<(), RunError> {
        match outcome {
            Outcome::Done { summary, worker, backend, device } => {
                let State::Running(attempt) = &self.states[stage] else { return Ok(()) };
                if let Some(outcome) = self.input_changed(stage) {
                    self.failed(stage, slot, outcome);
                    return Ok(());
                }
                let made = Provenance {
                    run: self.options.id.clone(),
                    at: self.options.at.clone(),
                    seconds: attempt.started.elapsed().as_secs_f64(),
                    worker,
                    backend,
                    device,
                    threads: attempt.share.threads,
                    reason: serde_json::to_value(&attempt.reason).unwrap_or_default(),
                    summary,
                    notes: attempt.notes.clone(),
                };
                let files = task::output_paths(&self.inputs.graph.stages[stage], &slot);
                let sender = self.sender.clone();
                tokio::task::spawn_blocking(move || {
                    let _ = sender.send(Message::Sealed(stage, Box::new(slot.seal(files, made))));
                });
            }
            Outcome::Waiting { reason, have, need } => {
                drop(slot);
                self.release(stage);
                self.states[stage] = State::Waiting;
                let name = self.name(stage);
                self.tell(RunEvent::StageWaiting { stage: name, reason, have, need });
                self.block_downstream(stage);
            }
            Outcome::Cancelled => {
                drop(slot);
                self.release(stage);
                self.states[stage] = State::Pending;
            }
            outcome => self.failed(stage, slot, outcome),
        }
        Ok(())
    }

    fn input_changed(&self, stage: usize) -> Option<Outcome> {
        let graph = self.inputs.graph;
        let changed = graph.stages[stage].inputs.iter().flat_map(|i| &i.from).find_map(|p| {
            let Producer::Source(source) = p else { return None };
            let digest = self.inputs.sources[*source].as_ref()?;
            let path = digest.changed_since()?;
            Some((graph.sources[*source].name.clone(), path.display().to_string()))
        });
        changed.map(|(name, path)| Outcome::Failed {
            message: format!("source `{name}` changed while the stage ran; the result is not kept"),
            chain: vec![format!("`{path}` is not what was hashed when the run began")],
            help: Some("run again when nobody writes to it".into()),
        })
    }

    fn failed(&mut self, stage: usize, slot: Slot, outcome: Outcome) {
        let retries = self.inputs.graph.stages[stage].execution.retries;
        let name = self.name(stage);
        let State::Running(attempt) = &mut self.states[stage] else { return };
        let retrying = attempt.number <= retries && !self.halted;
        let event = RunEvent::StageFailed {
            stage: name,
            outcome,
            retrying,
            log: attempt.logs.join("log.txt").display().to_string(),
            task: attempt.logs.join("task.json").display().to_string(),
            storage: false,
        };
        self.tell(event);
        if retrying {
            let State::Running(mut attempt) =
                std::mem::replace(&mut self.states[stage], State::Pending)
            else {
                unreachable!("invariant: just seen running")
            };
            attempt.number += 1;
            attempt.started = Instant::now();
            attempt.notes.clear();
            return self.attempt(stage, slot, attempt);
        }
        let outputs = task::output_paths(&self.inputs.graph.stages[stage], &slot);
        slot.give_up(&outputs);
        self.release(stage);
        self.fail(stage);
    }

    fn fail(&mut self, stage: usize) {
        self.states[stage] = State::Failed;
        self.halted |= !self.options.keep_going;
        self.block_downstream(stage);
    }

    fn fail_storage(&mut self, stage: usize, error: &StoreError) {
        self.storage = true;
        let store = self.inputs.store.root().display();
        let event = RunEvent::StageFailed {
            stage: self.name(stage),
            outcome: Outcome::Failed {
                message: format!("the result could not be kept in `{store}`"),
                chain: vec![error.to_string()],
                help: Some("free space or mend the disk, then run again; nothing is lost".into()),
            },
            retrying: false,
            log: String::new(),
            task: String::new(),
            storage: true,
        };
        self.tell(event);
        self.fail(stage);
    }

    fn sealed(
        &mut self,
        stage: usize,
        result: Result<Sealed, (Slot, StoreError)>,
    ) -> Result<(), RunError> {
        let sealed = match result {
            Ok(sealed) => sealed,
            Err((slot, e)) if e.is_storage() => {
                drop(slot);
                self.release(stage);
                self.fail_storage(stage, &e);
                return Ok(());
            }
            Err((slot, e)) => {
                let outcome =
                    Outcome::Failed { message: e.to_string(), chain: vec![], help: None };
                self.failed(stage, slot, outcome);
                return Ok(());
            }
        };
        let state = std::mem::replace(&mut self.states[stage], State::Pending);
        let State::Running(mut attempt) = state else { return Ok(()) };
        self.pools.give_back(std::mem::take(&mut attempt.share));
        self.states[stage] = State::Sealed(attempt);
        let outputs = sealed.outputs();
        self.known[stage] = Some(outputs.iter().map(|(p, o)| (p.clone(), o.digest)).collect());
        self.made[stage] = Some(outputs.clone());
        self.verified.extend(outputs.values().map(|o| o.digest));
        let paths = outputs.keys().map(|port| {
            let path = sealed.path(port).expect("invariant: sealed outputs have paths");
            (port.clone(), path.to_owned())
        });
        self.unpublished[stage] = Some(paths.collect());
        self.committer.publish(stage, sealed);
        self.unlock(stage);
        Ok(())
    }

    fn published(&mut self, (stage, result): Published) {
        self.unpublished[stage] = None;
        self.active -= 1;
        self.states[stage] = State::Done;
        let (entry, scratch) = match result {
            Ok(done) => done,
            Err(e) => return self.fail_storage(stage, &e),
        };
        if self.lent.contains(&stage) {
            self.leftovers.push(scratch);
        } else {
            self.committer.discard(scratch);
        }
        let unchanged = self.is_unchanged(stage, &entry);
        self.settle(stage, &entry);
        let event = RunEvent::StageDone {
            stage: self.name(stage),
            fingerprint: entry.fingerprint,
            seconds: entry.made.seconds,
            outputs: outputs_of(&entry),
            summary: entry.made.summary,
            unchanged,
        };
        self.tell(event);
    }

    fn is_unchanged(&self, stage: usize, entry: &Entry) -> bool {
        let Some(old) = self.old_heads.stages.get(&self.inputs.graph.stages[stage].name) else {
            return false;
        };
        let old: Option<Fingerprint> = Some(*old).filter(|f| *f != entry.fingerprint);
        let old = old.and_then(|f| self.inputs.store.entry(&f).ok().flatten());
        old.is_some_and(|old| outputs_of(&old) == outputs_of(entry))
    }

    /// Inputs of `stage` turned out damaged: their producers are judged again, and it after them.
    fn remake(&mut self, stage: usize, producers: &[usize]) -> Result<(), RunError> {
        self.release(stage);
        self.states[stage] = State::Pending;
        for &producer in producers {
            let name = self.name(producer);
            let text = "an output was damaged in the store; it is made again".to_owned();
            self.tell(RunEvent::Note { stage: name, level: "warn".into(), text });
            if let Some(made) = self.made[producer].take() {
                for output in made.values() {
                    self.verified.remove(&output.digest);
                    if self.inputs.store.check(output, true)? == Health::Damaged {
                        self.inputs.store.quarantine(&output.digest)?;
                    }
                }
            }
            self.known[producer] = None;
            self.states[producer] = State::Pending;
            self.ready.insert(producer);
        }
        Ok(())
    }

    /// A running stage is over: its share of the machine is free again.
    fn release(&mut self, stage: usize) {
        if let State::Running(attempt) | State::Sealed(attempt) = &mut self.states[stage] {
            self.pools.give_back(std::mem::take(&mut attempt.share));
        }
        self.active -= 1;
    }

    fn block_downstream(&mut self, stage: usize) {
        let by = self.name(stage);
        let mut todo = self.downstream[stage].clone();
        while let Some(next) = todo.pop() {
            if matches!(self.states[next], State::Pending) && !self.ready.contains(&next) {
                self.states[next] = State::Blocked;
                let event = RunEvent::StageBlocked { stage: self.name(next), by: by.clone() };
                self.tell(event);
                todo.extend(&self.downstream[next]);
            }
        }
    }

    fn interrupt(&mut self) {
        self.interrupts += 1;
        self.halted = true;
        self.tell(RunEvent::Interrupted { times: self.interrupts });
        let _ = self.stop.send(if self.interrupts > 1 { Stop::Now } else { Stop::Gently });
    }

    pub fn finish(mut self) -> Result<Summary, RunError> {
        for scratch in std::mem::take(&mut self.leftovers) {
            self.committer.discard(scratch);
        }
        let totals = self.totals();
        let summary =
            Summary { totals, interrupted: self.interrupts > 0, storage: self.storage };
        self.leave_records()?;
        self.tell(RunEvent::RunEnded {
            totals,
            seconds: self.begun.elapsed().as_secs_f64(),
            exit: summary.exit(),
        });
        Ok(summary)
    }

    /// Heads, views and the memo; on a store that cannot be written they are left as they are.
    fn leave_records(&mut self) -> Result<(), RunError> {
        let store = &self.inputs.store;
        let graph = self.inputs.graph;
        if self.writable {
            store.sync()?;
        }
        let mut views = Vec::new();
        for (stage, known) in self.known.iter().enumerate() {
            let Some(known) = known else { continue };
            for output in &graph.stages[stage].outputs {
                let name = match output.extension.as_str() {
                    "" => output.name.clone(),
                    extension => format!("{}.{extension}", output.name),
                };
                let digest = known[&output.name];
                views.push(View { stage: graph.stages[stage].name.clone(), name, digest });
            }
        }
        let kept = store.save_heads(&self.heads).and_then(|()| {
            store.refresh_views(&graph.name, &views)?;
            store.save_memo();
            Ok(())
        });
        match kept {
            Err(e) if self.writable => Err(e.into()),
            _ => Ok(()),
        }
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for state in &self.states {
            match state {
                State::Unwanted => {}
                State::Reused => totals.reused += 1,
                State::Done => totals.done += 1,
                State::Failed => totals.failed += 1,
                State::Waiting => totals.waiting += 1,
                State::Blocked => totals.blocked += 1,
                _ => totals.skipped += 1,
            }
        }
        totals
    }

    fn name(&self, stage: usize) -> String {
        self.inputs.graph.stages[stage].name.clone()
    }

    fn tell(&mut self, event: RunEvent) {
        self.journal.write(self.begun.elapsed().as_secs_f64(), &event);
        self.reporter.event(&event);
    }
}

/// Producers among `checks` whose object is not what its name says.
fn verify(store: &crate::store::Store, checks: Vec<(usize, EntryOutput)>) -> Vec<usize> {
    let bad = |output: &EntryOutput| !matches!(store.check(output, true), Ok(Health::Good));
    let mut producers: Vec<usize> =
        checks.into_iter().filter(|(_, o)| bad(o)).map(|(p, _)| p).collect();
    producers.dedup();
    producers
}
