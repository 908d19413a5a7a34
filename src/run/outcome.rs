//! What follows from the end of an attempt: seal and publish, try again, wait, block.
//! Knows nothing of how tasks are started.

use std::path::Path;
use std::time::{Duration, Instant};

use super::committer::Published;
use super::event::RunEvent;
use super::machine::{Machine, State};
use super::{Known, Message, RunError, task};
use crate::exec::{Outcome, log};
use crate::graph::GraphStage;
use crate::identity::Fingerprint;
use crate::plan::digests;
use crate::store::heads::FailedAttempt;
use crate::store::reading::Reading;
use crate::store::{Entry, Health, Provenance, Sealed, Slot, StoreError};

/// With less than this left, bytes, a disk counts as full.
const FULL: u64 = 64 * 1024;

/// Characters of an error that are kept beside the heads; the log has all of it.
const LONGEST_HEADLINE: usize = 300;

/// Time between two records of failures.
const BETWEEN_HEADS: Duration = Duration::from_secs(1);

/// Files up to this size are hashed without a thread of their own.
const SMALL: u64 = 64 * 1024;

impl Machine<'_> {
    pub(super) fn ended(
        &mut self,
        stage: usize,
        slot: Slot,
        outcome: Outcome,
    ) -> Result<(), RunError> {
        match outcome {
            Outcome::Done { summary, worker, backend, device } => {
                let accepted = self.acceptances(stage);
                let Known { commit, cpu, .. } = self.options.host.known();
                let State::Running(attempt) = &mut self.states[stage] else { return Ok(()) };
                attempt.figures.clone_from(&summary);
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
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    commit,
                    cpu,
                    accepted,
                };
                let files = task::output_paths(&self.inputs.graph.stages[stage], &slot);
                let sender = self.sender.clone();
                let small = files.values().all(|path| is_small(path));
                let seal = move || {
                    let _ = sender.send(Message::Sealed(stage, Box::new(slot.seal(files, made))));
                };
                if small {
                    // Waking another thread would take longer than hashing.
                    seal();
                } else {
                    tokio::task::spawn_blocking(seal);
                }
            }
            Outcome::Waiting { reason, have, need } => {
                drop(slot);
                self.release(stage);
                let (name, remedy) = (self.name(stage), self.remedy(stage));
                self.tell(RunEvent::StageWaiting { stage: name, reason, have, need, remedy });
                self.wait_for_people(stage);
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

    /// A stage read what is no longer what it was: whoever reads it next looks first.
    pub(super) fn input_changed(&mut self, stage: usize, slot: Slot, from: &str, what: &Reading) {
        self.verified.remove(&what.digest());
        let outcome = Outcome::Failed {
            message: format!(
                "what stage `{from}` made changed while the stage read it; the result is not kept"
            ),
            chain: vec![format!("`{}` is not what it was", what.path().display())],
            help: Some(
                "something writes to files of the store: a process that a stage left behind, or the \
                 stage itself; mend that, then run again"
                    .into(),
            ),
        };
        self.failed(stage, slot, outcome);
    }

    pub(super) fn failed(&mut self, stage: usize, slot: Slot, outcome: Outcome) {
        let retries = self.inputs.graph.stages[stage].execution.retries;
        let name = self.name(stage);
        // A program on a full disk says this or that; the disk itself says it plainly.
        let full = self.inputs.store.free_bytes().filter(|free| *free < FULL);
        self.storage |= full.is_some();
        let place = self.inputs.store.root().display().to_string();
        let outcome = match full {
            None => outcome,
            Some(free) => disk_full(&outcome, free, &place),
        };
        let State::Running(attempt) = &mut self.states[stage] else { return };
        let retrying = attempt.number <= retries && !self.halted && full.is_none();
        log::conclude(&attempt.logs, &outcome);
        let log = log::path(&attempt.logs).display().to_string();
        let fingerprint = attempt.fingerprint;
        if !retrying {
            self.remember_failure(stage, fingerprint, &outcome);
        }
        let State::Running(attempt) = &mut self.states[stage] else { return };
        let event = RunEvent::StageFailed {
            stage: name,
            outcome,
            retrying,
            log,
            again: again(&self.inputs.graph.stages[stage], &attempt.logs.join("task.json")),
            storage: full.is_some(),
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

    /// Keeps how the stage failed until it succeeds, on the disk at once: a run may go on for
    /// hours, or be killed. Many failures in a row wait for each other.
    fn remember_failure(&mut self, stage: usize, fingerprint: Fingerprint, outcome: &Outcome) {
        let error: String = outcome.headline().chars().take(LONGEST_HEADLINE).collect();
        let (run, at) = (self.options.id.clone(), jiff::Timestamp::now().to_string());
        let failed = FailedAttempt { fingerprint, run, at, error };
        self.heads.failed.insert(self.name(stage), failed);
        if self.heads_kept.is_none_or(|at| at.elapsed() >= BETWEEN_HEADS) {
            // A store that cannot be written is told when the run ends.
            let _ = self.inputs.store.save_heads(&self.heads);
            self.heads_kept = Some(Instant::now());
        }
    }

    pub(super) fn fail(&mut self, stage: usize) {
        self.states[stage] = State::Failed;
        if !self.options.keep_going {
            self.halt();
        }
        self.block_downstream(stage);
    }

    pub(super) fn fail_storage(&mut self, stage: usize, error: &StoreError) {
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
            again: String::new(),
            storage: true,
        };
        self.tell(event);
        self.fail(stage);
    }

    pub(super) fn sealed(
        &mut self,
        stage: usize,
        result: Result<Sealed, Box<(Slot, StoreError)>>,
    ) -> Result<(), RunError> {
        let sealed = match result {
            Ok(sealed) => sealed,
            Err(refused) => {
                let (slot, e) = *refused;
                if e.is_storage() {
                    drop(slot);
                    self.release(stage);
                    self.fail_storage(stage, &e);
                } else {
                    let outcome =
                        Outcome::Failed { message: e.to_string(), chain: vec![], help: None };
                    self.failed(stage, slot, outcome);
                }
                return Ok(());
            }
        };
        let outputs = sealed.outputs().iter().map(|(p, o)| (p.clone(), o.digest)).collect();
        if let Some(port) = self.differs_from_lock(stage, &outputs) {
            self.release(stage);
            drop(sealed);
            let message = format!("its output `{port}` is not what the lock file says");
            self.refuse_by_lock(stage, &message);
            return Ok(());
        }
        let state = std::mem::replace(&mut self.states[stage], State::Pending);
        let State::Running(mut attempt) = state else { return Ok(()) };
        self.pools.give_back(std::mem::take(&mut attempt.share));
        // Before anything downstream is judged.
        self.gates.pass(self.inputs.graph, stage, &attempt.figures);
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
        self.sealed += 1;
        self.committer.publish(stage, sealed);
        self.unlock(stage);
        Ok(())
    }

    pub(super) fn published(&mut self, (stage, result): Published) {
        self.unpublished[stage] = None;
        self.active -= 1;
        self.sealed -= 1;
        self.states[stage] = State::Done;
        let (entry, scratch) = match result {
            Ok(done) => done,
            Err(e) if e.is_storage() => return self.fail_storage(stage, &e),
            Err(e) => return self.fail_late(stage, &e),
        };
        if self.lent.contains(&stage) {
            self.leftovers.push(scratch);
        } else {
            self.committer.discard(scratch);
        }
        let unchanged = self.is_unchanged(stage, &entry);
        let (fingerprint, outputs) = (entry.fingerprint, digests(&entry.outputs));
        let made = self.settle(stage, entry.into());
        self.send(fingerprint);
        let event = RunEvent::StageDone {
            stage: self.name(stage),
            fingerprint,
            seconds: made.seconds,
            outputs,
            summary: made.summary,
            unchanged,
        };
        self.tell(event);
        self.tell_gate(stage);
    }

    /// A result that was complete and cannot be published, though the disk is well.
    fn fail_late(&mut self, stage: usize, error: &StoreError) {
        let changed = matches!(error, StoreError::OutputChanged { .. });
        let help =
            "a process that the stage left behind still writes to it; let the stage wait for it";
        let event = RunEvent::StageFailed {
            stage: self.name(stage),
            outcome: Outcome::Failed {
                message: error.to_string(),
                chain: vec![],
                help: changed.then(|| help.to_owned()),
            },
            retrying: false,
            log: String::new(),
            again: String::new(),
            storage: false,
        };
        self.tell(event);
        self.fail(stage);
    }

    fn is_unchanged(&self, stage: usize, entry: &Entry) -> bool {
        let Some(old) = self.old_heads.stages.get(&self.inputs.graph.stages[stage].name) else {
            return false;
        };
        let old: Option<Fingerprint> = Some(*old).filter(|f| *f != entry.fingerprint);
        let old = old.and_then(|f| self.inputs.store.entry(&f).ok().flatten());
        old.is_some_and(|old| digests(&old.outputs) == digests(&entry.outputs))
    }

    /// Inputs of `stage` turned out damaged: their producers are judged again, and it after them.
    pub(super) fn remake(&mut self, stage: usize, producers: &[usize]) -> Result<(), RunError> {
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
                        self.inputs.store.quarantine(&output.digest, Some(output.bytes))?;
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
    pub(super) fn release(&mut self, stage: usize) {
        if let State::Running(attempt) | State::Sealed(attempt) = &mut self.states[stage] {
            self.pools.give_back(std::mem::take(&mut attempt.share));
        }
        self.active -= 1;
    }

    pub(super) fn block_downstream(&mut self, stage: usize) {
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
}

/// How to perform a task by hand; programs have none.
fn again(stage: &GraphStage, task: &Path) -> String {
    if !task.exists() {
        return String::new();
    }
    let built_in = || vec!["preflow-worker".to_owned()];
    let worker = stage.worker.clone().unwrap_or_else(built_in).join(" ");
    format!("{worker} run {}", task.display())
}

fn is_small(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() <= SMALL)
}

fn disk_full(outcome: &Outcome, free: u64, place: &str) -> Outcome {
    let said = match outcome {
        Outcome::Failed { message, chain, .. } => {
            std::iter::once(message).chain(chain).cloned().collect()
        }
        Outcome::Crashed { how, tail, .. } => vec![how.clone(), tail.clone()],
        other => vec![format!("{other:?}")],
    };
    Outcome::Failed {
        message: format!("the disk that holds `{place}` is full: {free} bytes are free"),
        chain: said.into_iter().filter(|s| !s.is_empty()).collect(),
        help: Some("free space, or choose another place with --cache; then run again".into()),
    }
}
