//! The state machine behind a run: what each stage is waiting for, and what follows from each
//! message. Knows nothing of processes; it starts futures and hears of their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::committer::Committer;
use super::event::{Reporter, RunEvent};
use super::journal::Journal;
use super::pools::{Pools, Share};
use super::remote::Link;
use super::{Inputs, Message, Options, RunError};
use crate::exec::Stop;
use crate::graph::gate;
use crate::identity::{Digest, Fingerprint, Identity};
use crate::plan::{Gates, Judge, Outputs, Reason, Verdict, digests};
use crate::protocol::{DETAIL, Event};
use crate::store::heads::Heads;
use crate::store::{CachedEntry, EntryOutput, Lookup, Provenance, Scratch};

/// Where a stage stands.
#[derive(Debug)]
pub(super) enum State {
    /// Nobody wants it.
    Unwanted,
    /// Upstream is not settled, or it is in `ready`.
    Pending,
    /// A miss that the remote is asked about.
    Asking(Identity, Reason),
    /// A miss that waits for its share of the machine.
    Queued(Identity, Reason),
    Running(Attempt),
    /// Outputs hashed; the entry is on its way to the disk.
    Sealed(Attempt),
    Reused,
    /// Reused, from the remote.
    Fetched,
    Done,
    Failed,
    Waiting,
    Blocked,
}

/// What is held while a stage runs.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) reason: Reason,
    pub(super) share: Share,
    pub(super) started: Instant,
    pub(super) logs: PathBuf,
    pub(super) notes: Vec<String>,
    pub(super) figures: gate::Figures,
}

pub struct Machine<'a> {
    pub(super) inputs: Inputs<'a>,
    pub(super) options: &'a Options,
    pub(super) reporter: &'a mut dyn Reporter,
    pub(super) sender: mpsc::UnboundedSender<Message>,
    pub(super) stop: watch::Sender<Stop>,
    pub(super) events: mpsc::UnboundedSender<(usize, Event)>,
    pub(super) journal: Journal,
    pub(super) committer: Committer,
    pub(super) heads: Heads,
    pub(super) old_heads: Heads,
    /// Why they could not be read.
    pub(super) heads_trouble: Option<String>,
    /// When the heads were last written because a stage failed.
    pub(super) heads_kept: Option<Instant>,
    pub(super) upstream: Vec<Vec<usize>>,
    pub(super) downstream: Vec<Vec<usize>>,
    pub(super) states: Vec<State>,
    pub(super) known: Vec<Option<Outputs>>,
    /// Size and files of the outputs, to check them before use.
    pub(super) made: Vec<Option<BTreeMap<String, EntryOutput>>>,
    /// What made them.
    pub(super) settled: Vec<Option<Fingerprint>>,
    pub(super) gates: Gates,
    /// The nearest stage upstream whose gate is closed.
    pub(super) behind: Vec<Option<usize>>,
    /// Gates upstream that are not met and that the user accepted: for the provenance.
    pub(super) accepted: Vec<BTreeSet<usize>>,
    /// Paths of outputs that are hashed but not yet published.
    pub(super) unpublished: Vec<Option<BTreeMap<String, PathBuf>>>,
    /// Stages whose scratch some task reads: cleared away at the end.
    pub(super) lent: BTreeSet<usize>,
    pub(super) leftovers: Vec<Scratch>,
    pub(super) verified: BTreeSet<Digest>,
    pub(super) ready: BTreeSet<usize>,
    pub(super) queued: BTreeSet<usize>,
    /// Stages that run, seal or publish, or wait for another process.
    pub(super) active: usize,
    /// Of those, the ones whose outputs are hashed.
    pub(super) sealed: usize,
    pub(super) pools: Pools,
    pub(super) link: Link,
    pub(super) begun: Instant,
    pub(super) interrupts: u32,
    pub(super) halted: bool,
    /// Turns true when nobody need wait for people any longer.
    pub(super) leave: watch::Sender<bool>,
    pub(super) storage: bool,
    pub(super) writable: bool,
}

impl<'a> Machine<'a> {
    pub fn new(
        inputs: Inputs<'a>,
        options: &'a Options,
        reporter: &'a mut dyn Reporter,
        sender: mpsc::UnboundedSender<Message>,
        events: mpsc::UnboundedSender<(usize, Event)>,
        stop: watch::Sender<Stop>,
    ) -> Self {
        let n = inputs.graph.stages.len();
        let upstream: Vec<Vec<usize>> = (0..n).map(|s| inputs.graph.upstream(s)).collect();
        let mut downstream = vec![Vec::new(); n];
        for (stage, ups) in upstream.iter().enumerate() {
            for up in ups {
                downstream[*up].push(stage);
            }
        }
        let published = sender.clone();
        let committer = Committer::start(Arc::clone(&inputs.store), move |done| {
            let _ = published.send(Message::Published(Box::new(done)));
        });
        let heads = inputs.store.heads(&options.heads_key);
        let heads_trouble = heads.as_ref().err().map(ToString::to_string);
        // They are written anew when something has run.
        let old_heads = heads
            .unwrap_or_else(|_| Heads { pipeline: options.heads_key.clone(), ..Heads::default() });
        Self {
            options,
            reporter,
            sender,
            stop,
            events,
            journal: Journal::create(&inputs.store.run_path(&options.id)),
            committer,
            heads: old_heads.clone(),
            old_heads,
            heads_trouble,
            heads_kept: None,
            upstream,
            downstream,
            states: (0..n).map(|_| State::Unwanted).collect(),
            known: vec![None; n],
            made: vec![None; n],
            settled: vec![None; n],
            gates: Gates::new(&inputs.selection),
            behind: vec![None; n],
            accepted: vec![BTreeSet::new(); n],
            unpublished: vec![None; n],
            lent: BTreeSet::new(),
            leftovers: Vec::new(),
            verified: BTreeSet::new(),
            ready: BTreeSet::new(),
            queued: BTreeSet::new(),
            active: 0,
            sealed: 0,
            pools: options.pools.clone(),
            link: Link::new(inputs.remote.clone()),
            begun: Instant::now(),
            interrupts: 0,
            halted: false,
            leave: watch::channel(false).0,
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
        if let Some(trouble) = self.heads_trouble.take() {
            self.warn(format!("what this pipeline made last is not known: {trouble}"));
        }
        for stage in wanted {
            self.states[stage] = State::Pending;
            if self.upstream[stage].is_empty() {
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
        if self.sealed > 0 && self.sealed == self.active {
            self.committer.hurry();
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
            Message::InputChanged(stage, slot, (from, reading)) => {
                self.input_changed(stage, *slot, &from, &reading);
            }
            Message::Sealed(stage, result) => self.sealed(stage, *result)?,
            Message::Published(done) => self.published(*done),
            Message::LookAgain(stage) => {
                self.active -= 1;
                self.ready.insert(stage);
            }
            Message::Answered(stage, answer) => self.answered(stage, answer),
            Message::Fetching(stage, done, total) => self.fetching(stage, done, total),
            Message::Found(stage, found) => self.found(stage, *found),
            Message::Sending => self.sending(),
            Message::Uploaded(fingerprint, sent) => self.uploaded(fingerprint, sent),
            Message::Interrupt => self.interrupt(),
        }
        Ok(())
    }

    fn judge(&mut self, stage: usize) -> Result<(), RunError> {
        let verdict = match self.planned(stage) {
            Some(entry) => Verdict::Hit(entry),
            None => {
                let judge = Judge {
                    graph: self.inputs.graph,
                    store: &self.inputs.store,
                    sources: &self.inputs.sources,
                    heads: &self.old_heads,
                };
                let forced = self.inputs.selection.forced.contains(&stage);
                judge.judge(stage, &self.known, forced)?
            }
        };
        self.look_upstream(stage);
        match (verdict, self.behind[stage]) {
            (Verdict::Hit(entry), _)
                if self.differs_from_lock(stage, &digests(&entry.outputs)).is_some() =>
            {
                self.refuse_by_lock(
                    stage,
                    "the store holds another result of it than the lock file names; \
                     `preflow pull` fetches that one",
                );
            }
            (Verdict::Hit(entry), _) => self.reuse(stage, *entry),
            (Verdict::Wait(_) | Verdict::Barred(_), _) => {}
            (Verdict::Miss(..), Some(gate)) => self.bar(stage, gate),
            (Verdict::Miss(identity, _), None) if self.is_barred_by_lock(stage, &identity) => {
                self.refuse_by_lock(stage, "it is not what the lock file says it is");
            }
            (Verdict::Miss(identity, reason), None)
                if self.ask_remote(stage, &identity, &reason) => {}
            (Verdict::Miss(identity, reason), None) => {
                self.states[stage] = State::Queued(identity, reason);
                self.queued.insert(stage);
            }
        }
        Ok(())
    }

    /// What the plan found of a stage. Once something runs, what was sound a moment ago may not be.
    fn planned(&mut self, stage: usize) -> Option<Box<CachedEntry>> {
        let plan = self.inputs.plan.as_mut().filter(|_| !self.writable)?;
        match plan.verdicts[stage].take() {
            Some(Verdict::Hit(entry)) => Some(entry),
            _ => None,
        }
    }

    fn reuse(&mut self, stage: usize, entry: CachedEntry) {
        self.states[stage] = State::Reused;
        let event =
            RunEvent::StageReused { stage: self.name(stage), fingerprint: entry.fingerprint };
        self.take(stage, entry, event);
    }

    /// An entry that was there settles the stage.
    pub(super) fn take(&mut self, stage: usize, entry: CachedEntry, event: RunEvent) {
        let figures = self.settle(stage, entry).summary;
        self.tell(event);
        self.gates.pass(self.inputs.graph, stage, &figures);
        self.tell_gate(stage);
        self.unlock(stage);
    }

    /// Returns how the entry was made.
    pub(super) fn settle(&mut self, stage: usize, entry: CachedEntry) -> Provenance {
        let name = self.name(stage);
        self.heads.failed.remove(&name);
        self.heads.stages.insert(name, entry.fingerprint);
        self.settled[stage] = Some(entry.fingerprint);
        self.known[stage] = Some(digests(&entry.outputs));
        self.made[stage] = Some(entry.outputs);
        entry.made
    }

    /// Downstream stages whose every upstream is known become ready to be judged.
    pub(super) fn unlock(&mut self, stage: usize) {
        for &next in &self.downstream[stage] {
            let complete = || self.upstream[next].iter().all(|up| self.known[*up].is_some());
            if matches!(self.states[next], State::Pending) && complete() {
                self.ready.insert(next);
            }
        }
    }

    /// Starts the first queued stage that fits. False: none does, or none may.
    fn start_one(&mut self) -> Result<bool, RunError> {
        // Every stage takes a thread: without one there is no need to ask a thousand of them.
        if self.halted || self.pools.threads == 0 || self.active >= self.options.open_stages {
            return Ok(false);
        }
        let fits = self.queued.iter().find_map(|&stage| {
            let node = &self.inputs.graph.stages[stage];
            let threads = self.options.pools.threads_for(&node.execution, node.kind_threads);
            Some((stage, self.pools.take(threads, &node.execution)?))
        });
        let Some((stage, share)) = fits else { return Ok(false) };
        self.queued.remove(&stage);
        self.start(stage, share)?;
        Ok(true)
    }

    fn start(&mut self, stage: usize, share: Share) -> Result<(), RunError> {
        let state = std::mem::replace(&mut self.states[stage], State::Pending);
        let State::Queued(identity, reason) = state else {
            unreachable!("invariant: only queued stages are started")
        };
        if !self.writable {
            self.inputs.store.prepare_for_writing()?;
            self.writable = true;
            self.options.host.ask();
        }
        // What looks like an entry and is none is no hit either.
        let anew = self.inputs.selection.forced.contains(&stage)
            || matches!(reason, Reason::EntryUnreadable { .. });
        match self.inputs.store.lookup(identity, anew) {
            Err(e) => {
                self.pools.give_back(share);
                self.fail_storage(stage, &e);
            }
            Ok(Lookup::Hit(entry)) => {
                self.pools.give_back(share);
                self.reuse(stage, (*entry).into());
            }
            Ok(Lookup::Busy) => {
                self.pools.give_back(share);
                self.look_again(stage);
            }
            Ok(Lookup::Miss(slot)) => {
                let attempt = Attempt {
                    number: 1,
                    fingerprint: slot.fingerprint(),
                    reason,
                    share,
                    started: Instant::now(),
                    logs: PathBuf::new(),
                    notes: Vec::new(),
                    figures: gate::Figures::new(),
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
                if let State::Running(attempt) = &mut self.states[stage]
                    && level != DETAIL
                {
                    attempt.notes.push(text.clone());
                }
                self.tell(RunEvent::Note { stage: name, level, text });
            }
            _ => {}
        }
    }

    fn interrupt(&mut self) {
        self.interrupts += 1;
        self.halt();
        self.tell(RunEvent::Interrupted { times: self.interrupts });
        let _ = self.stop.send(if self.interrupts > 1 { Stop::Now } else { Stop::Gently });
    }

    /// Nothing more is started.
    pub(super) fn halt(&mut self) {
        self.halted = true;
        self.leave.send_replace(true);
    }

    pub(super) fn name(&self, stage: usize) -> String {
        self.inputs.graph.stages[stage].name.clone()
    }

    pub(super) fn tell(&mut self, event: RunEvent) {
        self.journal.write(self.begun.elapsed().as_secs_f64(), &event);
        self.reporter.event(&event);
    }
}
