//! Entries looked at before somebody asks for them: those that a pipeline used last are read and
//! checked by a second thread while the pipeline file is still being read.
//! Knows nothing of plans; whatever it did not find is looked up as always.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::Store;
use super::digest::{Signature, now};
use super::pack::{Pack, Seen, read_row, write_row};
use crate::files;
use crate::identity::Fingerprint;

/// With fewer entries than this a thread costs more than it saves.
const WORTHWHILE: usize = 32;

/// Entries that one thread takes at a time.
const CHUNK: usize = 8;

/// The pack is written anew when more than one entry in this many was not in it: reading a few
/// files takes less time than that.
const FEW: usize = 16;

/// What was looked at, and what the thread may still be at.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    running: Option<Arc<Work>>,
    found: HashMap<Fingerprint, Seen>,
    /// What was found may have been damaged or removed since.
    stale: bool,
    /// The pipeline, and all rows for its pack, when that is to be written.
    unpacked: Option<(String, Vec<u8>)>,
    /// The collector stays away as long as anybody may believe what was found.
    _lease: Option<File>,
}

/// Shared by the two threads.
#[derive(Debug)]
struct Work {
    pipeline: String,
    /// Read by whichever thread comes first.
    wanted: OnceLock<(Vec<Fingerprint>, Pack)>,
    /// First one of `wanted` that nobody has taken.
    next: AtomicUsize,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    seen: Vec<(Fingerprint, Seen)>,
    /// Rows of those that the pack does not have.
    fresh: Vec<Vec<u8>>,
}

impl Work {
    fn help(&self, store: &Store) {
        let (wanted, pack) = self.wanted.get_or_init(|| {
            let wanted: Vec<Fingerprint> =
                store.heads(&self.pipeline).unwrap_or_default().stages.into_values().collect();
            match wanted.len() {
                ..WORTHWHILE => Default::default(),
                _ => (wanted, store.load_pack(&self.pipeline)),
            }
        });
        loop {
            let start = self.next.fetch_add(CHUNK, Ordering::Relaxed).min(wanted.len());
            let chunk = &wanted[start..wanted.len().min(start + CHUNK)];
            if chunk.is_empty() {
                return;
            }
            let mut found = Found::default();
            for fingerprint in chunk {
                found.look(store, pack, fingerprint);
            }
            let mut all = self.found.lock().expect("invariant: pushing does not panic");
            all.seen.extend(found.seen);
            all.fresh.extend(found.fresh);
        }
    }

    /// All rows for the pack; `None` when nearly all of them are in it.
    fn repack(&self, found: &Found) -> Option<(String, Vec<u8>)> {
        let (wanted, pack) = self.wanted.get()?;
        let news = found.fresh.len() * FEW > found.seen.len();
        news.then(|| {
            let old = wanted.iter().filter_map(|fingerprint| pack.row(fingerprint));
            let fresh = found.fresh.iter().map(Vec::as_slice);
            // Of two rows for one entry the later one counts.
            (self.pipeline.clone(), old.chain(fresh).flatten().copied().collect())
        })
    }
}

impl Found {
    /// Looks at one entry; nothing is found where it, or what it made, is not sound.
    fn look(&mut self, store: &Store, pack: &Pack, fingerprint: &Fingerprint) {
        let known = pack.row(fingerprint).and_then(|row| {
            let meta = std::fs::symlink_metadata(store.entry_path(fingerprint)).ok()?;
            read_row(row, &Signature::of(&meta))
        });
        let seen = known.or_else(|| {
            let start = now();
            let (entry, signature) = store.signed_entry(fingerprint).ok()??;
            let seen = Seen { outputs: entry.outputs, made: entry.made };
            if !signature.is_racy(start) {
                self.fresh.extend(write_row(fingerprint, &signature, &seen));
            }
            Some(seen)
        });
        let sound = seen.filter(|seen| matches!(store.health_of(&seen.outputs), Ok(None)));
        self.seen.extend(sound.map(|seen| (*fingerprint, seen)));
    }
}

impl Store {
    /// Begins to look at the entries that `pipeline` used last.
    pub fn look_ahead(self: &Arc<Self>, pipeline: &str) {
        let lease = files::open_own(&self.root().join("lease.lock"));
        let Some(lease) = lease.ok().filter(|file| file.try_lock_shared().is_ok()) else { return };
        let work = Arc::new(Work {
            pipeline: pipeline.to_owned(),
            wanted: OnceLock::new(),
            next: AtomicUsize::new(0),
            found: Mutex::default(),
        });
        let (store, shared) = (Arc::clone(self), Arc::clone(&work));
        std::thread::spawn(move || shared.help(&store));
        *self.ahead() = Ahead { running: Some(work), _lease: Some(lease), ..Ahead::default() };
    }

    /// What the entry of that fingerprint says, when it was looked at ahead and its objects are
    /// sound. Given out once: who asks again wants to know how it is then.
    #[must_use]
    pub fn seen_ahead(&self, fingerprint: &Fingerprint) -> Option<Seen> {
        let mut ahead = self.ahead();
        if let Some(work) = ahead.running.take() {
            work.help(self);
            // The other thread may be in the middle of a chunk: a scheduler can take longer to get
            // back to it than looking those few up.
            let found = std::mem::take(&mut *work.found.lock().unwrap_or_else(|e| e.into_inner()));
            ahead.unpacked = work.repack(&found);
            ahead.found = found.seen.into_iter().collect();
        }
        let seen = ahead.found.remove(fingerprint)?;
        let stale = ahead.stale;
        drop(ahead);
        // What it says was read and checked; whether that is still so is seen without reading.
        let still = || {
            self.entry_path(fingerprint).exists()
                && matches!(self.health_of(&seen.outputs), Ok(None))
        };
        (!stale || still()).then_some(seen)
    }

    /// From now on what was found is looked at once more when it is asked for.
    pub fn doubt_ahead(&self) {
        let mut ahead = self.ahead();
        ahead.running = None;
        ahead.stale = true;
    }

    /// The pipeline that was looked at ahead and all rows for its pack, when that is to be written.
    pub(super) fn unpacked(&self) -> Option<(String, Vec<u8>)> {
        self.ahead().unpacked.take()
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().expect("invariant: no thread panics while it holds what was seen ahead")
    }
}
