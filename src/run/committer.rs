//! The committer: a thread that publishes what is ready together, so that many stages share one
//! sync. Knows nothing of the graph.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::store::{Entry, Scratch, Sealed, Store, StoreError};

/// Largest group that shares one pair of syncs.
const GROUP: usize = 256;

/// After a group, stages that are ready gather for this many times as long as it took: syncs keep
/// running stages from making files.
const GATHER: u32 = 10;

/// But no longer than this.
const PATIENCE: Duration = Duration::from_millis(50);

/// A stage's outputs to publish, or a scratch to clear away.
enum Work {
    Publish(usize, Box<Sealed>),
    Discard(Scratch),
    /// Nothing else will be ready before what is here is published.
    Hurry,
}

/// A published stage: its entry, and its scratch, still readable.
pub type Published = (usize, Result<(Entry, Scratch), StoreError>);

/// Handle on the thread. Dropping it waits until everything is published.
pub struct Committer {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// `tell` is called from the thread, once a published stage.
    #[must_use]
    pub fn start(store: Arc<Store>, tell: impl Fn(Published) + Send + 'static) -> Self {
        let (work, queue) = channel();
        let thread = std::thread::spawn(move || serve(&store, &queue, &tell));
        Self { work: Some(work), thread: Some(thread) }
    }

    pub fn publish(&self, stage: usize, sealed: Sealed) {
        self.send(Work::Publish(stage, Box::new(sealed)));
    }

    pub fn discard(&self, scratch: Scratch) {
        self.send(Work::Discard(scratch));
    }

    /// Nothing runs any more: whoever waits, waits for this thread.
    pub fn hurry(&self) {
        self.send(Work::Hurry);
    }

    fn send(&self, work: Work) {
        let sender = self.work.as_ref().expect("invariant: open until dropped");
        sender.send(work).expect("invariant: the committer lives as long as its handle");
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(store: &Store, queue: &Receiver<Work>, tell: &impl Fn(Published)) {
    let mut not_before = Instant::now();
    while let Ok(first) = queue.recv() {
        let (mut stages, mut group, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        let mut hurry = false;
        while let Some(work) = next {
            match work {
                Work::Publish(stage, sealed) => {
                    stages.push(stage);
                    group.push(*sealed);
                }
                Work::Discard(left) => scratch.push(left),
                Work::Hurry => hurry = true,
            }
            let wait = !hurry && !group.is_empty() && group.len() < GROUP;
            next = match wait {
                true => {
                    queue.recv_timeout(not_before.saturating_duration_since(Instant::now())).ok()
                }
                false => queue.try_iter().take(GROUP.saturating_sub(group.len())).next(),
            };
        }
        if !group.is_empty() {
            let begun = Instant::now();
            for published in stages.into_iter().zip(store.publish(group)) {
                tell(published);
            }
            not_before = Instant::now() + (begun.elapsed() * GATHER).min(PATIENCE);
        }
        for left in scratch {
            store.discard(left);
        }
    }
}
