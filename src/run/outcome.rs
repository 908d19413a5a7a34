//! What follows from the end of an attempt: seal and publish, try again, wait, block.
//! Knows nothing of how tasks are started.

use std::path::Path;
use std::time::{Duration, Instant};

use super::committer::Published;
use super::event::RunEvent;
use super::runner::Runner;
use super::{HostFacts, Message, RunError, task};
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

/// How often a stage is started again because what ran it is gone; then the place is to blame.
const MOST_LOST: u32 = 3;

impl Runner<'_> {
    pub(super) fn ended(&mut self, stage: usize, slot: Slot, outcome: Outcome) {
        match outcome {
            Outcome::Done { summary, worker, backend, device } => {
                let accepted = self.scheduler.acceptances(stage);
                let HostFacts { commit, cpu, .. } = self.options.host.known();
                let Some(attempt) = self.attempts.get_mut(&stage) else { return };
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
                    sources: self.inputs.graph.sources_of(stage),
                };
                let files = task::output_paths(&self.inputs.graph.stages[stage], &slot);
                let sender = self.channels.messages.clone();
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
                self.attempts.remove(&stage);
                let (name, remedy) = (self.name(stage), self.remedy(stage));
                self.tell(RunEvent::StageWaiting { stage: name, reason, have, need, remedy });
                self.wait_for_people(stage);
            }
            Outcome::Cancelled => {
                drop(slot);
                self.attempts.remove(&stage);
                self.scheduler.cancelled(stage);
            }
            outcome => self.failed(stage, slot, outcome),
        }
    }

    /// A stage read what is no longer what it was: whoever reads it next looks first.
    pub(super) fn input_changed(&mut self, stage: usize, slot: Slot, from: &str, what: &Reading) {
        self.verified.borrow_mut().remove(&what.digest());
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
        self.condition.failed |= full.is_some();
        let place = self.inputs.store.root().display().to_string();
        let outcome = match full {
            None => outcome,
            Some(free) => disk_full(&outcome, free, &place),
        };
        let Some(mut attempt) = self.attempts.remove(&stage) else { return };
        let is_lost = matches!(outcome, Outcome::Lost { .. });
        let may_retry = match is_lost {
            true => attempt.lost < MOST_LOST,
            false => attempt.number - attempt.lost <= retries,
        };
        let retrying = may_retry && !self.scheduler.is_halted() && full.is_none();
        log::conclude(&attempt.logs, &outcome);
        let log = log::path(&attempt.logs).display().to_string();
        if !retrying {
            self.remember_failure(stage, attempt.fingerprint, &outcome);
        }
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
            attempt.number += 1;
            attempt.lost += u32::from(is_lost);
            attempt.started = Instant::now();
            attempt.notes.clear();
            return self.attempt(stage, slot, attempt);
        }
        let outputs = task::output_paths(&self.inputs.graph.stages[stage], &slot);
        slot.give_up(&outputs);
        self.scheduler.failed(stage);
    }

    /// Keeps how the stage failed until it succeeds, on the disk at once: a run may go on for
    /// hours, or be killed. Many failures in a row wait for each other.
    fn remember_failure(&mut self, stage: usize, fingerprint: Fingerprint, outcome: &Outcome) {
        let error: String = outcome.headline().chars().take(LONGEST_HEADLINE).collect();
        let (run, at) = (self.options.id.clone(), jiff::Timestamp::now().to_string());
        let failed = FailedAttempt { fingerprint, run, at, error };
        self.history.failed.insert(self.name(stage), failed);
        if self.history.kept.is_none_or(|at| at.elapsed() >= BETWEEN_HEADS) {
            // A store that cannot be written is told when the run ends.
            let _ = self.inputs.store.save_heads(&self.heads());
            self.history.kept = Some(Instant::now());
        }
    }

    pub(super) fn fail_storage(&mut self, stage: usize, error: &StoreError) {
        self.condition.failed = true;
        let store = self.inputs.store.root().display();
        let outcome = Outcome::Failed {
            message: format!("the result could not be kept in `{store}`"),
            chain: vec![error.to_string()],
            help: Some("free space or mend the disk, then run again; nothing is lost".into()),
        };
        self.attempts.remove(&stage);
        self.tell_failure(stage, outcome, true);
        self.scheduler.failed(stage);
    }

    /// A failure that no attempt is to blame for: there is no log. `storage`: the disk is.
    pub(super) fn tell_failure(&mut self, stage: usize, outcome: Outcome, storage: bool) {
        self.tell(RunEvent::StageFailed {
            stage: self.name(stage),
            outcome,
            retrying: false,
            log: String::new(),
            again: String::new(),
            storage,
        });
    }

    pub(super) fn sealed(&mut self, stage: usize, result: Result<Sealed, Box<(Slot, StoreError)>>) {
        let sealed = match result {
            Ok(sealed) => sealed,
            Err(refused) => {
                let (slot, e) = *refused;
                if !e.is_storage() {
                    let outcome =
                        Outcome::Failed { message: e.to_string(), chain: vec![], help: None };
                    return self.failed(stage, slot, outcome);
                }
                drop(slot);
                return self.fail_storage(stage, &e);
            }
        };
        let Some(attempt) = self.attempts.remove(&stage) else { return };
        let outputs = sealed.outputs();
        if !self.scheduler.sealed(stage, outputs, &attempt.figures) {
            return;
        }
        self.verified.borrow_mut().extend(outputs.values().map(|o| o.digest));
        let paths = outputs.keys().map(|port| {
            let path = sealed.path(port).expect("invariant: sealed outputs have paths");
            (port.clone(), path.to_owned())
        });
        self.leftovers.unpublished.insert(stage, paths.collect());
        self.committer.publish(stage, sealed);
    }

    pub(super) fn published(&mut self, (stage, result): Published) {
        self.leftovers.unpublished.remove(&stage);
        let (entry, scratch) = match result {
            Ok(done) => done,
            Err(e) if e.is_storage() => return self.fail_storage(stage, &e),
            Err(e) => return self.fail_late(stage, &e),
        };
        if self.leftovers.in_use.contains(&stage) {
            self.leftovers.scratches.push(scratch);
        } else {
            self.committer.discard(scratch);
        }
        let unchanged = self.is_unchanged(stage, &entry);
        self.show(stage);
        let Entry { fingerprint, outputs, made, .. } = entry;
        let name = self.name(stage);
        self.history.failed.remove(&name);
        self.send(fingerprint);
        self.tell(RunEvent::StageDone {
            stage: name,
            fingerprint,
            seconds: made.seconds,
            outputs: digests(&outputs),
            summary: made.summary,
            unchanged,
        });
        self.scheduler.published(stage, fingerprint);
    }

    /// A result that was complete and cannot be published, though the disk is well.
    fn fail_late(&mut self, stage: usize, error: &StoreError) {
        let changed = matches!(error, StoreError::OutputChanged { .. });
        let help =
            "a process that the stage left behind still writes to it; let the stage wait for it";
        let outcome = Outcome::Failed {
            message: error.to_string(),
            chain: vec![],
            help: changed.then(|| help.to_owned()),
        };
        self.tell_failure(stage, outcome, false);
        self.scheduler.failed(stage);
    }

    fn is_unchanged(&self, stage: usize, entry: &Entry) -> bool {
        let Some(old) = self.history.before.stages.get(&self.inputs.graph.stages[stage].name)
        else {
            return false;
        };
        let old: Option<Fingerprint> = Some(*old).filter(|f| *f != entry.fingerprint);
        let old = old.and_then(|f| self.inputs.store.entry(&f).ok().flatten());
        old.is_some_and(|old| digests(&old.outputs) == digests(&entry.outputs))
    }

    /// Inputs of a stage turned out damaged: their producers are judged again, and it after them.
    pub(super) fn remake(&mut self, stage: usize, producers: &[usize]) -> Result<(), RunError> {
        self.attempts.remove(&stage);
        for &producer in producers {
            // Another reader has said so, and it is being made again.
            if !self.scheduler.has_entry(producer) {
                continue;
            }
            let name = self.name(producer);
            let text = "an output was damaged in the store; it is made again".to_owned();
            self.tell(RunEvent::Note { stage: name, level: "warn".into(), text });
            for output in self.scheduler.outputs(producer).into_iter().flat_map(|o| o.values()) {
                self.verified.borrow_mut().remove(&output.digest);
                if self.inputs.store.check(output, true)? == Health::Damaged {
                    self.inputs.store.quarantine(&output.digest, Some(output.bytes))?;
                }
            }
        }
        self.scheduler.inputs_damaged(stage, producers);
        Ok(())
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
