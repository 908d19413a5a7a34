//! Entries looked at before somebody asks for them: those that a pipeline used last are read and
//! checked by a second thread while the pipeline file is still being read.
//! Knows nothing of plans; whatever it did not find is looked up as always.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;

use super::{Entry, Store};
use crate::identity::Fingerprint;

/// With fewer entries than this a thread costs more than it saves.
const WORTHWHILE: usize = 32;

/// Entries that one thread takes at a time.
const CHUNK: usize = 16;

/// What was looked at, and the thread that may still be at it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    running: Option<(Arc<Work>, JoinHandle<()>)>,
    found: HashMap<Fingerprint, Entry>,
    /// What was found may have been damaged or removed since.
    stale: bool,
    /// The collector stays away as long as anybody may believe what was found.
    _lease: Option<File>,
}

/// Shared by the two threads.
#[derive(Debug, Default)]
struct Work {
    wanted: OnceLock<Vec<Fingerprint>>,
    /// First one of `wanted` that nobody has taken.
    next: AtomicUsize,
    found: Mutex<Vec<Entry>>,
}

impl Work {
    fn help(&self, store: &Store) {
        let Some(wanted) = self.wanted.get() else { return };
        loop {
            let start = self.next.fetch_add(CHUNK, Ordering::Relaxed).min(wanted.len());
            let chunk = &wanted[start..wanted.len().min(start + CHUNK)];
            if chunk.is_empty() {
                return;
            }
            let sound = chunk.iter().filter_map(|fingerprint| {
                let entry = store.entry(fingerprint).ok()??;
                matches!(store.health(&entry), Ok(None)).then_some(entry)
            });
            let sound: Vec<Entry> = sound.collect();
            self.found.lock().expect("invariant: pushing does not panic").extend(sound);
        }
    }
}

impl Store {
    /// Begins to look at the entries that `pipeline` used last.
    pub fn look_ahead(self: &Arc<Self>, pipeline: &str) {
        let lease = File::open(self.root().join("lease.lock"));
        let Some(lease) = lease.ok().filter(|file| file.try_lock_shared().is_ok()) else { return };
        let work = Arc::new(Work::default());
        let (store, shared, pipeline) = (Arc::clone(self), Arc::clone(&work), pipeline.to_owned());
        let thread = std::thread::spawn(move || {
            let wanted: Vec<Fingerprint> = store.heads(&pipeline).stages.into_values().collect();
            if wanted.len() >= WORTHWHILE {
                let _ = shared.wanted.set(wanted);
                shared.help(&store);
            }
        });
        let running = Some((work, thread));
        *self.ahead() = Ahead { running, _lease: Some(lease), ..Ahead::default() };
    }

    /// The entry of that fingerprint, when it was looked at ahead and its objects are sound. Given
    /// out once: who asks again wants to know how it is then.
    #[must_use]
    pub fn seen_ahead(&self, fingerprint: &Fingerprint) -> Option<Entry> {
        let mut ahead = self.ahead();
        if let Some((work, thread)) = ahead.running.take() {
            work.help(self);
            // It looks only at what nobody needs when it fails.
            let _ = thread.join();
            let found = std::mem::take(&mut *work.found.lock().unwrap_or_else(|e| e.into_inner()));
            ahead.found = found.into_iter().map(|entry| (entry.fingerprint, entry)).collect();
        }
        let entry = ahead.found.remove(fingerprint)?;
        let stale = ahead.stale;
        drop(ahead);
        // What it says was read and checked; whether that is still so is seen without reading.
        let still =
            || self.entry_path(fingerprint).exists() && matches!(self.health(&entry), Ok(None));
        (!stale || still()).then_some(entry)
    }

    /// From now on what was found is looked at once more when it is asked for.
    pub fn doubt_ahead(&self) {
        let mut ahead = self.ahead();
        ahead.running = None;
        ahead.stale = true;
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().expect("invariant: no thread panics while it holds what was seen ahead")
    }
}
