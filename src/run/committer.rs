//! The committer: a thread that publishes what is ready together, so that many stages share one
//! sync. Knows nothing of the graph.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::store::{Entry, Scratch, Sealed, Store, StoreError};

/// Largest group that shares one pair of syncs.
const GROUP: usize = 256;

/// A stage's outputs to publish, or a scratch to clear away.
enum Work {
    Publish(usize, Box<Sealed>),
    Discard(Scratch),
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
    while let Ok(first) = queue.recv() {
        let (mut stages, mut group, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        for work in std::iter::once(first).chain(queue.try_iter().take(GROUP)) {
            match work {
                Work::Publish(stage, sealed) => {
                    stages.push(stage);
                    group.push(*sealed);
                }
                Work::Discard(left) => scratch.push(left),
            }
        }
        if !group.is_empty() {
            for published in stages.into_iter().zip(store.publish(group)) {
                tell(published);
            }
        }
        for left in scratch {
            store.discard(left);
        }
    }
}
