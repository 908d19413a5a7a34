//! The shared remote beside a run: what the others made is fetched instead of made, what is made
//! here is sent. A remote in trouble never stops a run that does not require it.
//! Knows nothing of how bytes travel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Message;
use super::event::RunEvent;
use super::machine::{Machine, State};
use crate::exec::{Outcome, Stop};
use crate::identity::{Fingerprint, Identity};
use crate::plan::Reason;
use crate::remote::{Config, Expected, Fetched, Mode, Progress, Remote, RemoteError, Sent};
use crate::store::{Entry, Store};

/// How often transfers tell how far they are.
const TICK: Duration = Duration::from_millis(250);
/// Entries that are sent at one time; the remote bounds its requests itself.
const ENTRIES: usize = 4;

/// What a fetch came to; `None`: it is not there.
pub(super) type Found = Result<Option<(Entry, Fetched)>, RemoteError>;

/// An entry to be sent; `again`: over what lies there.
#[derive(Debug, Clone, Copy)]
struct Upload {
    fingerprint: Fingerprint,
    again: bool,
}

/// The remote as this run knows it.
#[derive(Debug, Default)]
pub(super) struct Link {
    config: Option<Config>,
    remote: Option<Remote>,
    /// It was in trouble: nobody asks again in this run.
    down: bool,
    uploads: Option<mpsc::UnboundedSender<Upload>>,
    /// What the remote holds of these is no good.
    damaged: BTreeSet<Fingerprint>,
    /// Entries on their way up.
    sending: BTreeSet<Fingerprint>,
    progress: Arc<Progress>,
    sent: Sent,
    /// Entries that are up.
    entries: usize,
}

impl Link {
    #[must_use]
    pub fn new(config: Option<Config>) -> Self {
        Self { config, ..Self::default() }
    }

    /// What is made here is to be sent.
    fn is_writable(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.mode == Mode::ReadWrite)
    }

    fn is_required(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.required)
    }
}

impl Machine<'_> {
    /// The remote, opened when first needed: a run with nothing to do never looks for it.
    fn remote(&mut self) -> Option<Remote> {
        if self.link.down {
            return None;
        }
        if self.link.remote.is_none() {
            let config = self.link.config.clone()?;
            match Remote::open(config) {
                Ok(remote) => self.link.remote = Some(remote),
                Err(error) => self.trouble(None, &error),
            }
        }
        self.link.remote.clone()
    }

    /// Asks the remote for what must otherwise be made. False: there is nobody to ask.
    pub(super) fn ask_remote(&mut self, stage: usize, identity: &Identity, why: &Reason) -> bool {
        if *why == Reason::Forced || self.halted || self.link.config.is_none() {
            return false;
        }
        let Some(remote) = self.remote() else { return false };
        let fingerprint = identity.fingerprint();
        let (store, sender) = (Arc::clone(&self.inputs.store), self.sender.clone());
        let node = &self.inputs.graph.stages[stage];
        let locked = self.inputs.locked.as_ref().and_then(|lock| lock.stages.get(&node.name));
        let ports = node.outputs.iter().map(|o| o.name.as_str());
        let expected = Expected::new(ports, locked.map(|stage| &stage.outputs));
        let mut stop = self.stop.subscribe();
        self.states[stage] = State::Asking(identity.clone(), why.clone());
        self.active += 1;
        tokio::task::spawn_local(async move {
            let progress = Arc::new(Progress::default());
            let fetch = remote.fetch(&store, &fingerprint, &expected, &progress);
            tokio::pin!(fetch);
            let mut ticks = tokio::time::interval(TICK);
            let found = loop {
                tokio::select! {
                    found = &mut fetch => break found,
                    // What came so far is kept.
                    () = stopped(&mut stop) => break Ok(None),
                    _ = ticks.tick() => if progress.total() > 0 {
                        let (done, total) = (progress.bytes(), progress.total());
                        let _ = sender.send(Message::Fetching(stage, done, total));
                    },
                }
            };
            let _ = sender.send(Message::Found(stage, Box::new(found)));
        });
        true
    }

    pub(super) fn fetching(&mut self, stage: usize, done: u64, total: u64) {
        let stage = self.name(stage);
        let unit = "bytes".to_owned();
        self.tell(RunEvent::Fetching { stage: stage.clone() });
        self.tell(RunEvent::Progress { stage, done, total, unit });
    }

    /// The remote's answer: use it, or make the stage after all.
    pub(super) fn found(&mut self, stage: usize, found: Found) {
        self.active -= 1;
        let state = std::mem::replace(&mut self.states[stage], State::Pending);
        let State::Asking(identity, reason) = state else {
            unreachable!("invariant: only who asks is answered")
        };
        match found {
            Ok(Some((entry, fetched))) => {
                self.writable = true;
                self.states[stage] = State::Fetched;
                self.verified.extend(entry.outputs.values().map(|output| output.digest));
                let event = RunEvent::StageFetched {
                    stage: self.name(stage),
                    fingerprint: entry.fingerprint,
                    files: fetched.files,
                    bytes: fetched.bytes,
                };
                self.take(stage, entry.into(), event);
                return;
            }
            Ok(None) => {}
            Err(RemoteError::Store(error)) if error.is_storage() => {
                return self.fail_storage(stage, &error);
            }
            Err(error) => {
                if !error.is_lasting() {
                    self.link.damaged.insert(identity.fingerprint());
                }
                self.trouble(Some(stage), &error);
                if error.is_lasting() && self.link.is_required() {
                    return self.fail(stage);
                }
            }
        }
        self.states[stage] = State::Queued(identity, reason);
        self.queued.insert(stage);
    }

    /// Tells what is wrong. Whoever requires the remote has a stage that fails.
    fn trouble(&mut self, stage: Option<usize>, error: &RemoteError) {
        let lasting = error.is_lasting();
        if lasting && std::mem::replace(&mut self.link.down, true) {
            return;
        }
        let stage = stage.map(|stage| self.name(stage));
        let required = lasting && self.link.is_required();
        self.storage |= required;
        let event = match stage {
            Some(stage) if required => RunEvent::StageFailed {
                stage,
                outcome: Outcome::Failed {
                    message: error.to_string(),
                    chain: vec![],
                    help: error.help().map(str::to_owned),
                },
                retrying: false,
                log: String::new(),
                again: String::new(),
                storage: true,
            },
            stage => RunEvent::RemoteTrouble {
                stage,
                message: error.to_string(),
                help: error.help().map(str::to_owned),
                lasting,
            },
        };
        self.tell(event);
    }

    /// What was made is to be sent: at once, and by a later run if that does not work.
    pub(super) fn send(&mut self, fingerprint: Fingerprint) {
        if !self.link.is_writable() {
            return;
        }
        // A note that cannot be written costs a `push` by hand.
        let _ = self.inputs.store.queue_upload(&fingerprint);
        self.upload(fingerprint);
    }

    fn upload(&mut self, fingerprint: Fingerprint) {
        let Some(remote) = self.remote() else { return };
        let uploads = self.link.uploads.get_or_insert_with(|| {
            let (uploads, queue) = mpsc::unbounded_channel();
            let store = Arc::clone(&self.inputs.store);
            let progress = Arc::clone(&self.link.progress);
            tokio::task::spawn_local(serve(remote, store, queue, self.sender.clone(), progress));
            uploads
        });
        let again = self.link.damaged.contains(&fingerprint);
        if uploads.send(Upload { fingerprint, again }).is_ok() {
            self.link.sending.insert(fingerprint);
        }
    }

    pub(super) fn uploaded(&mut self, fingerprint: Fingerprint, sent: Result<Sent, RemoteError>) {
        self.link.sending.remove(&fingerprint);
        match sent {
            Ok(sent) => {
                self.link.entries += 1;
                self.link.sent.files += sent.files;
                self.link.sent.bytes += sent.bytes;
                self.link.sent.already += sent.already;
            }
            Err(error) => {
                if error.is_lasting() {
                    // Who waits for the same would hear the same.
                    self.link.sending.clear();
                    self.link.uploads = None;
                } else {
                    // A later run would fare no better: `push` is for whoever mended it.
                    let _ = self.inputs.store.unqueue_upload(&fingerprint);
                }
                self.trouble(None, &error);
            }
        }
        if self.link.sending.is_empty() {
            self.sending();
        }
    }

    /// All stages are settled: what earlier runs left to be sent goes too, where the remote is
    /// known to answer.
    pub(super) fn send_the_rest(&mut self) {
        let answers = self.link.remote.is_some() && !self.link.down && !self.halted;
        if !self.link.is_writable() || !answers {
            return;
        }
        for fingerprint in self.inputs.store.queued_uploads().unwrap_or_default() {
            if !self.link.sending.contains(&fingerprint) {
                self.upload(fingerprint);
            }
        }
    }

    /// Something is on its way up, and nobody asked to stop.
    pub(super) fn is_sending(&self) -> bool {
        !self.link.sending.is_empty() && self.interrupts == 0
    }

    pub(super) fn sending(&mut self) {
        let (done, total) = (self.link.progress.bytes(), self.link.progress.total());
        let entries = self.link.sending.len();
        self.tell(RunEvent::Sending { entries, done, total });
    }

    /// What went up and what still waits, when there is anything to say.
    pub(super) fn tell_uploads(&mut self) {
        if !self.link.is_writable() {
            return;
        }
        let waiting = self.inputs.store.queued_uploads().unwrap_or_default().len();
        let Link { sent, entries, .. } = self.link;
        if entries + waiting > 0 {
            let (files, bytes) = (sent.files, sent.bytes);
            self.tell(RunEvent::Sent { entries, files, bytes, waiting });
        }
    }
}

/// Ends when the user asked to stop; never, when nobody can ask any longer.
async fn stopped(stop: &mut watch::Receiver<Stop>) {
    if stop.wait_for(|stop| !matches!(stop, Stop::Go)).await.is_err() {
        std::future::pending().await
    }
}

/// Sends what is asked for, some at a time.
async fn serve(
    remote: Remote,
    store: Arc<Store>,
    mut queue: mpsc::UnboundedReceiver<Upload>,
    sender: mpsc::UnboundedSender<Message>,
    progress: Arc<Progress>,
) {
    let mut under_way = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            next = queue.recv(), if under_way.len() < ENTRIES => {
                let Some(Upload { fingerprint, again }) = next else { break };
                let (remote, store) = (remote.clone(), Arc::clone(&store));
                let progress = Arc::clone(&progress);
                under_way.spawn_local(async move {
                    (fingerprint, remote.send_as(&store, &fingerprint, again, &progress).await)
                });
            }
            Some(done) = under_way.join_next() => {
                let (fingerprint, sent) = done.expect("invariant: a transfer does not panic");
                let _ = sender.send(Message::Uploaded(fingerprint, sent));
            }
            _ = ticks.tick() => {
                if !under_way.is_empty() {
                    let _ = sender.send(Message::Sending);
                }
            }
        }
    }
}
