//! The runner: performs what the scheduler asks for, and tells it how that ended. Owns all that
//! touches the store, the journal and the clock. Knows nothing of processes; it starts futures and
//! hears of their ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{debug, trace};

use super::committer::Committer;
use super::event::{Reporter, RunEvent};
use super::journal::Journal;
use super::sync::RemoteSync;
use super::{Inputs, Message, RunError, RunOptions};
use crate::exec::{Outcome, Stop};
use crate::graph::gate;
use crate::identity::{Digest, Fingerprint};
use crate::plan::{Judge, Reason, Verdict};
use crate::protocol::{DETAIL, Event};
use crate::schedule::pools::Share;
use crate::schedule::{Action, Miss, Notice, Rules, Scheduler};
use crate::store::heads::{FailedAttempt, Heads};
use crate::store::{CachedEntry, Lookup, Scratch};

/// Resources and bookkeeping of one running attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    /// Attempts before it that were lost.
    pub(super) lost: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) reason: Reason,
    pub(super) share: Share,
    pub(super) started: Instant,
    pub(super) logs: PathBuf,
    pub(super) notes: Vec<String>,
    pub(super) figures: gate::Figures,
}

/// Where futures say what happened, and where they hear that it is time to stop.
pub(super) struct Channels {
    pub(super) messages: mpsc::UnboundedSender<Message>,
    pub(super) events: mpsc::UnboundedSender<(usize, Event)>,
    pub(super) stop: watch::Sender<Stop>,
    /// Turns true when nobody need wait for people any longer.
    pub(super) leave: watch::Sender<bool>,
}

/// What the pipeline used before this run, and what failed in it.
pub(super) struct History {
    pub(super) before: Heads,
    /// Why that could not be read.
    trouble: Option<String>,
    pub(super) failed: BTreeMap<String, FailedAttempt>,
    /// When it was last written because a stage failed.
    pub(super) kept: Option<Instant>,
}

/// Scratch files of stages that are sealed: what reads them, and what is left to clear away.
#[derive(Default)]
pub(super) struct Leftovers {
    /// Paths of outputs that are hashed but not yet published, by stage and port.
    pub(super) unpublished: BTreeMap<usize, BTreeMap<String, PathBuf>>,
    /// Stages whose scratch some task reads: cleared away at the end.
    pub(super) in_use: BTreeSet<usize>,
    pub(super) scratches: Vec<Scratch>,
}

pub struct Runner<'a> {
    pub(super) inputs: Inputs<'a>,
    pub(super) options: &'a RunOptions,
    pub(super) reporter: &'a mut dyn Reporter,
    pub(super) channels: Channels,
    pub(super) journal: Journal,
    pub(super) committer: Committer,
    pub(super) scheduler: Scheduler<'a>,
    pub(super) history: History,
    pub(super) attempts: BTreeMap<usize, Attempt>,
    pub(super) leftovers: Leftovers,
    /// Objects whose bytes were read in this run, and are what they should be.
    pub(super) verified: Rc<RefCell<BTreeSet<Digest>>>,
    pub(super) sync: RemoteSync,
    pub(super) begun: Instant,
    pub(super) interrupts: u32,
    pub(super) condition: DiskCondition,
    /// Stages whose outputs may have no names for people yet.
    pub(super) unnamed: Vec<usize>,
}

/// What the disk turned out to be.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct DiskCondition {
    /// It failed, or the store could not be trusted.
    pub(super) failed: bool,
    /// Something was written to it.
    pub(super) written: bool,
}

impl<'a> Runner<'a> {
    pub fn new(
        mut inputs: Inputs<'a>,
        options: &'a RunOptions,
        reporter: &'a mut dyn Reporter,
        channels: Channels,
    ) -> Self {
        let published = channels.messages.clone();
        let committer = Committer::start(Arc::clone(&inputs.store), move |done| {
            let _ = published.send(Message::Published(Box::new(done)));
        });
        let heads = inputs.store.heads(&options.heads_key);
        let trouble = heads.as_ref().err().map(ToString::to_string);
        // They are written anew when something has run.
        let before = heads
            .unwrap_or_else(|_| Heads { pipeline: options.heads_key.clone(), ..Heads::default() });
        let rules = Rules {
            keep_going: options.keep_going,
            asks_remote: inputs.remote.is_some(),
            open_stages: options.open_stages,
            machine: options.pools.clone(),
        };
        let selection = std::mem::take(&mut inputs.selection);
        let scheduler = Scheduler::new(inputs.graph, selection, rules, inputs.locked.take());
        Self {
            options,
            reporter,
            channels,
            journal: Journal::create(&inputs.store.run_path(&options.id)),
            committer,
            scheduler,
            history: History { failed: before.failed.clone(), before, trouble, kept: None },
            attempts: BTreeMap::new(),
            leftovers: Leftovers::default(),
            verified: Rc::default(),
            sync: RemoteSync::new(inputs.remote.clone()),
            begun: Instant::now(),
            interrupts: 0,
            condition: DiskCondition::default(),
            unnamed: Vec::new(),
            inputs,
        }
    }

    pub fn begin(&mut self, wanted: &BTreeSet<usize>) {
        let graph = self.inputs.graph;
        self.tell(RunEvent::RunStarted {
            run: self.options.id.clone(),
            at: self.options.at.clone(),
            pipeline: graph.path.clone(),
            key: self.options.heads_key.clone(),
            name: graph.name.clone(),
            command: self.options.command.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stages: wanted.iter().map(|s| graph.stages[*s].name.clone()).collect(),
            jobs: self.options.pools.threads,
        });
        if let Some(trouble) = self.history.trouble.take() {
            self.warn(format!("what this pipeline made last is not known: {trouble}"));
        }
    }

    /// Does all that can be done without waiting. False: the run is over.
    pub fn advance(&mut self) -> Result<bool, RunError> {
        while let Some(action) = self.scheduler.next_action() {
            trace!(?action, "the scheduler asks");
            match action {
                Action::Judge(stage) => self.judge(stage)?,
                Action::Ask(stage, miss) => self.ask_remote(stage, &miss.identity),
                Action::Start(stage, miss, share) => self.start(stage, miss, share)?,
                Action::Tell(notice) => self.notice(notice),
            }
        }
        if self.scheduler.is_halted() {
            self.channels.leave.send_replace(true);
        }
        if self.scheduler.only_publishes() {
            self.committer.hurry();
        }
        Ok(!self.scheduler.is_idle())
    }

    pub fn handle(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Event(stage, event) => self.worker_said(stage, event),
            Message::Ended(stage, slot, outcome) => self.ended(stage, *slot, outcome),
            Message::InputsDamaged(stage, slot, producers) => {
                drop(slot);
                self.remake(stage, &producers)?;
            }
            Message::InputChanged(stage, slot, (from, reading)) => {
                self.input_changed(stage, *slot, &from, &reading);
            }
            Message::Sealed(stage, result) => self.sealed(stage, *result),
            Message::Published(done) => self.published(*done),
            Message::LookAgain(stage) => self.scheduler.look_again(stage),
            Message::Answered(stage, answer) => self.people_answered(stage, answer),
            Message::Fetching(stage, done, total) => self.fetching(stage, done, total),
            Message::Found(stage, found) => self.fetch_ended(stage, *found),
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
                    heads: &self.history.before,
                };
                let forced = self.scheduler.is_forced(stage);
                judge.judge(stage, &self.scheduler, forced)?
            }
        };
        debug!(stage = %self.name(stage), verdict = verdict.word(), "judged");
        self.scheduler.judged(stage, &verdict);
        Ok(())
    }

    /// What the plan found of a stage. Once something runs, what was sound a moment ago may not be.
    fn planned(&mut self, stage: usize) -> Option<Box<CachedEntry>> {
        let plan = self.inputs.plan.as_mut().filter(|_| !self.condition.written)?;
        match plan.verdicts[stage].take() {
            Some(Verdict::Hit(entry)) => Some(entry),
            _ => None,
        }
    }

    fn start(&mut self, stage: usize, miss: Miss, share: Share) -> Result<(), RunError> {
        if !self.condition.written {
            self.inputs.store.prepare_for_writing()?;
            self.condition.written = true;
            self.options.host.ask();
        }
        let Miss { identity, reason } = miss;
        // What looks like an entry and is none is no hit either.
        let anew =
            self.scheduler.is_forced(stage) || matches!(reason, Reason::EntryUnreadable { .. });
        match self.inputs.store.lookup(identity, anew) {
            Err(e) => self.fail_storage(stage, &e),
            Ok(Lookup::Hit(entry)) => {
                let summary = &entry.made.summary;
                self.scheduler.reused(stage, entry.fingerprint, &entry.outputs, summary);
            }
            Ok(Lookup::Busy) => self.look_again(stage),
            Ok(Lookup::Miss(slot)) => {
                let attempt = Attempt {
                    number: 1,
                    lost: 0,
                    fingerprint: slot.fingerprint(),
                    reason,
                    share,
                    started: Instant::now(),
                    logs: PathBuf::new(),
                    notes: Vec::new(),
                    figures: gate::Figures::new(),
                };
                self.attempt(stage, slot, attempt);
            }
        }
        Ok(())
    }

    fn look_again(&mut self, stage: usize) {
        self.scheduler.busy(stage);
        let name = self.name(stage);
        self.tell(RunEvent::StageBusy { stage: name });
        let sender = self.channels.messages.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = sender.send(Message::LookAgain(stage));
        });
    }

    /// What the scheduler found out by itself.
    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Reused { stage, fingerprint } => {
                self.show(stage);
                let stage = self.name(stage);
                self.history.failed.remove(&stage);
                self.tell(RunEvent::StageReused { stage, fingerprint });
            }
            Notice::Blocked { stage, by } => {
                let (stage, by) = (self.name(stage), self.name(by));
                self.tell(RunEvent::StageBlocked { stage, by });
            }
            Notice::GateUnmet { stage, unmet, accepted } => {
                let stage = self.name(stage);
                self.tell(RunEvent::GateUnmet { stage, unmet, accepted });
            }
            Notice::Refused { stage, message } => {
                let help = "run without --locked to make what the files say now, and commit the \
                            lock file";
                let outcome = Outcome::Failed { message, chain: vec![], help: Some(help.into()) };
                self.tell_failure(stage, outcome, false);
            }
        }
    }

    fn worker_said(&mut self, stage: usize, event: Event) {
        let name = self.name(stage);
        match event {
            Event::Progress { done, total, unit } => {
                self.tell(RunEvent::Progress { stage: name, done, total, unit });
            }
            Event::Metric { step, values } => {
                self.tell(RunEvent::Metric { stage: name, step, values });
            }
            Event::Note { level, text } => {
                if let Some(attempt) = self.attempts.get_mut(&stage)
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
        self.scheduler.halt();
        self.channels.leave.send_replace(true);
        self.tell(RunEvent::Interrupted { times: self.interrupts });
        let stop = if self.interrupts > 1 { Stop::Now } else { Stop::Gently };
        let _ = self.channels.stop.send(stop);
    }

    pub(super) fn name(&self, stage: usize) -> String {
        self.inputs.graph.stages[stage].name.clone()
    }

    pub(super) fn tell(&mut self, event: RunEvent) {
        self.journal.write(self.begun.elapsed().as_secs_f64(), &event);
        self.reporter.event(&event);
    }
}
