//! The shared remote beside a run: what the others made is fetched instead of made, what is made
//! here is sent. A remote in trouble never stops a run that does not require it.
//! Knows nothing of how bytes travel.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Message;
use super::event::RunEvent;
use super::runner::Runner;
use super::sync::{RemoteSync, Upload};
use crate::exec::{Outcome, Stop};
use crate::identity::{Fingerprint, Identity};
use crate::remote::{Expected, Fetched, Remote, RemoteError, Sent, TransferProgress};
use crate::store::{Entry, Store};

/// How often transfers tell how far they are.
const TICK: Duration = Duration::from_millis(250);
/// Entries that are sent at one time; the remote bounds its requests itself.
const ENTRIES: usize = 4;

/// What a fetch came to; `None`: it is not there.
pub(super) type FetchResult = Result<Option<(Entry, Fetched)>, RemoteError>;

impl Runner<'_> {
    /// The remote, opened when first needed: a run with nothing to do never looks for it.
    fn remote(&mut self) -> Option<Remote> {
        if self.sync.down {
            return None;
        }
        if self.sync.remote.is_none() {
            let config = self.sync.config.clone()?;
            match Remote::open(config) {
                Ok(remote) => self.sync.remote = Some(remote),
                Err(error) => self.trouble(None, &error),
            }
        }
        self.sync.remote.clone()
    }

    /// Asks the remote for what must otherwise be made.
    pub(super) fn ask_remote(&mut self, stage: usize, identity: &Identity) {
        let Some(remote) = self.remote() else { return self.scheduler.not_found(stage) };
        let fingerprint = identity.fingerprint();
        let (store, sender) = (Arc::clone(&self.inputs.store), self.channels.messages.clone());
        let ports = self.inputs.graph.stages[stage].outputs.iter().map(|o| o.name.as_str());
        let locked = self.scheduler.locked(stage).map(|stage| &stage.outputs);
        let expected = Expected::new(ports, locked);
        let mut stop = self.channels.stop.subscribe();
        tokio::task::spawn_local(async move {
            let progress = Arc::new(TransferProgress::default());
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
            let _ = sender.send(Message::Found(stage, Box::new((fingerprint, found))));
        });
    }

    pub(super) fn fetching(&mut self, stage: usize, done: u64, total: u64) {
        let stage = self.name(stage);
        let unit = "bytes".to_owned();
        self.tell(RunEvent::Fetching { stage: stage.clone() });
        self.tell(RunEvent::Progress { stage, done, total, unit });
    }

    /// The remote's answer: use it, or make the stage after all.
    pub(super) fn fetch_ended(
        &mut self,
        stage: usize,
        (wanted, found): (Fingerprint, FetchResult),
    ) {
        match found {
            Ok(Some((entry, fetched))) => {
                self.condition.written = true;
                let digests = entry.outputs.values().map(|output| output.digest);
                self.verified.borrow_mut().extend(digests);
                let name = self.name(stage);
                self.history.failed.remove(&name);
                self.tell(RunEvent::StageFetched {
                    stage: name,
                    fingerprint: entry.fingerprint,
                    files: fetched.files,
                    bytes: fetched.bytes,
                });
                let Entry { fingerprint, outputs, made, .. } = entry;
                self.scheduler.fetched(stage, fingerprint, &outputs, &made.summary);
                self.show(stage);
            }
            Ok(None) => self.scheduler.not_found(stage),
            Err(RemoteError::Store(error)) if error.is_storage() => {
                self.fail_storage(stage, &error);
            }
            Err(error) => {
                if !error.is_lasting() {
                    self.sync.damaged.insert(wanted);
                }
                self.trouble(Some(stage), &error);
                if error.is_lasting() && self.sync.is_required() {
                    self.scheduler.failed(stage);
                } else {
                    self.scheduler.not_found(stage);
                }
            }
        }
    }

    /// Tells what is wrong. Whoever requires the remote has a stage that fails.
    fn trouble(&mut self, stage: Option<usize>, error: &RemoteError) {
        let lasting = error.is_lasting();
        if lasting && std::mem::replace(&mut self.sync.down, true) {
            return;
        }
        let stage = stage.map(|stage| self.name(stage));
        let required = lasting && self.sync.is_required();
        self.condition.failed |= required;
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
        if !self.sync.is_writable() {
            return;
        }
        // A note that cannot be written costs a `push` by hand.
        let _ = self.inputs.store.queue_upload(&fingerprint);
        self.upload(fingerprint);
    }

    fn upload(&mut self, fingerprint: Fingerprint) {
        let Some(remote) = self.remote() else { return };
        let uploads = self.sync.uploads.get_or_insert_with(|| {
            let (uploads, queue) = mpsc::unbounded_channel();
            let store = Arc::clone(&self.inputs.store);
            let progress = Arc::clone(&self.sync.progress);
            tokio::task::spawn_local(serve(
                remote,
                store,
                queue,
                self.channels.messages.clone(),
                progress,
            ));
            uploads
        });
        let again = self.sync.damaged.contains(&fingerprint);
        if uploads.send(Upload { fingerprint, again }).is_ok() {
            self.sync.sending.insert(fingerprint);
        }
    }

    pub(super) fn uploaded(&mut self, fingerprint: Fingerprint, sent: Result<Sent, RemoteError>) {
        self.sync.sending.remove(&fingerprint);
        match sent {
            Ok(sent) => {
                self.sync.entries += 1;
                self.sync.sent.files += sent.files;
                self.sync.sent.bytes += sent.bytes;
                self.sync.sent.already += sent.already;
            }
            Err(error) => {
                if error.is_lasting() {
                    // Who waits for the same would hear the same.
                    self.sync.sending.clear();
                    self.sync.uploads = None;
                } else {
                    // A later run would fare no better: `push` is for whoever mended it.
                    let _ = self.inputs.store.unqueue_upload(&fingerprint);
                }
                self.trouble(None, &error);
            }
        }
        if self.sync.sending.is_empty() {
            self.sending();
        }
    }

    /// All stages are settled: what earlier runs left to be sent goes too, where the remote is
    /// known to answer.
    pub(super) fn send_the_rest(&mut self) {
        let answers = self.sync.remote.is_some() && !self.sync.down && !self.scheduler.is_halted();
        if !self.sync.is_writable() || !answers {
            return;
        }
        for fingerprint in self.inputs.store.queued_uploads().unwrap_or_default() {
            if !self.sync.sending.contains(&fingerprint) {
                self.upload(fingerprint);
            }
        }
    }

    /// Something is on its way up, and nobody asked to stop.
    pub(super) fn is_sending(&self) -> bool {
        !self.sync.sending.is_empty() && self.interrupts == 0
    }

    pub(super) fn sending(&mut self) {
        let (done, total) = (self.sync.progress.bytes(), self.sync.progress.total());
        let entries = self.sync.sending.len();
        self.tell(RunEvent::Sending { entries, done, total });
    }

    /// What went up and what still waits, when there is anything to say.
    pub(super) fn tell_uploads(&mut self) {
        if !self.sync.is_writable() {
            return;
        }
        let waiting = self.inputs.store.queued_uploads().unwrap_or_default().len();
        let RemoteSync { sent, entries, .. } = self.sync;
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
    progress: Arc<TransferProgress>,
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
