//! The desk: the one owner of an assignment, its queue and its folder of votes. Whoever asks
//! people, in a browser or in a terminal, comes here. Knows nothing of screens.

mod stalled;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;

use crate::files;
use crate::label::assignment::Assignment;
use crate::label::books::Books;
use crate::label::error::DeskError;
use crate::label::exchange::plain;
use crate::label::leases::{Lease, LeaseFile};
use crate::label::quality::{QualityReport, quality};
use crate::label::question::{Item, Past, Progress, Submission};
use crate::label::queue::{self, Key, Queue, State};
use crate::label::stamps::Stamps;
use crate::text::{Shown, mark_changes};
use crate::votes::{Choice, Folder, Ledger, PairText, Side, Vote, is_annotator};

/// Characters of an answer that are shown before someone asks for all of it.
const LONGEST: usize = 20_000;
/// The longest note on a vote, in characters.
pub const LONGEST_NOTE: usize = 2000;
/// Leases of earlier days are not kept.
const RECENT_MS: u64 = 60 * 60 * 1000;
/// Questions that an annotator gets back from an earlier desk.
const MOST_ON_SCREENS: usize = 64;

/// See the head of this file.
#[derive(Debug)]
pub struct Desk {
    assignment: Assignment,
    /// Gold items that are no pair stand behind the pairs.
    extra: Vec<PairText>,
    gold: Vec<u32>,
    digest: String,
    state: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    queue: Queue,
    books: Books,
    stamps: Stamps,
    leases: Option<LeaseFile>,
    lock: Option<std::fs::File>,
    /// Of the votes as they are.
    figures: Option<Arc<QualityReport>>,
    /// Counts changes of the votes.
    version: u64,
}

impl Desk {
    /// Opens the folder of votes. `cache` is where notes about leases are kept; with it the desk is
    /// the only one of its kind on this folder.
    ///
    /// # Errors
    /// Votes that cannot be read; another desk that has them.
    pub fn open(assignment: Assignment, cache: Option<&Path>) -> Result<Self, DeskError> {
        let mut extra = Vec::new();
        let mut index = crate::label::books::Index::new(&assignment.pairs);
        let mut gold: Vec<u32> = assignment
            .gold
            .iter()
            .map(|item| {
                index.get(&item.text.pair).unwrap_or_else(|| {
                    extra.push(item.text.clone());
                    index.push(&item.text.pair)
                })
            })
            .collect();
        gold.sort_unstable();
        gold.dedup();
        let digest = assignment.digest().to_string();
        let name = votes_name(&assignment.votes);
        let lock = match cache {
            Some(cache) => Some(take_lock(cache, &name)?),
            None => None,
        };
        let held = Held {
            queue: Queue::new(&assignment, gold.clone()),
            books: Books::new(index),
            stamps: Stamps::default(),
            leases: None,
            lock,
            figures: None,
            version: 0,
        };
        let desk = Self { assignment, extra, gold, digest, state: Mutex::new(held) };
        let now = Timestamp::now();
        let mut held = desk.held();
        desk.reload(&mut held, now)?;
        if let Some(cache) = cache {
            desk.restore(&mut held, &cache.join(format!("{name}.leases")), now)?;
        }
        drop(held);
        Ok(desk)
    }

    #[must_use]
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Names the pairs at hand.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Writes into the lock who serves these votes, for whoever asks next. A courtesy.
    pub fn announce(&self, text: &str) {
        use std::io::{Seek as _, Write as _};
        if let Some(file) = &mut self.held().lock {
            let _ = file.set_len(0).and_then(|()| file.rewind());
            let _ = file.write_all(text.as_bytes());
        }
    }

    /// What an annotator is asked next, `count` questions ahead: pair, and whether it is a repeat.
    ///
    /// # Errors
    /// Votes that somebody else damaged; a disk that is full.
    pub fn next(
        &self,
        annotator: &str,
        count: usize,
        now: Timestamp,
    ) -> Result<Vec<(String, bool)>, DeskError> {
        check_name(annotator)?;
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        let before: Vec<Key> =
            held.queue.held().filter(|(who, _)| *who == annotator).map(|(_, key)| key).collect();
        let keys = held.queue.next(annotator, count, millis(now));
        let new = keys.iter().filter(|key| !before.contains(key));
        let new: Vec<Lease> = new.map(|key| self.lease(annotator, *key, now)).collect();
        if !new.is_empty()
            && let Some(file) = &mut held.leases
        {
            file.append(&new)
                .map_err(|source| DeskError::Cache { path: file.path().to_owned(), source })?;
        }
        Ok(keys.into_iter().map(|key| (self.text(key.item).pair.clone(), key.repeat)).collect())
    }

    /// A question with its texts.
    ///
    /// # Errors
    /// The pair is not at hand.
    pub fn item(&self, annotator: &str, pair: &str, repeat: bool) -> Result<Item, DeskError> {
        let key = self.key(pair, repeat)?;
        let text = self.text(key.item);
        let left = self.held().books.shown_left(annotator, Key { repeat: false, ..key });
        let left = left.unwrap_or_else(|| queue::side(annotator, pair));
        let left = if repeat { left.other() } else { left };
        let (one, other) = match left {
            Side::A => (&text.a, &text.b),
            Side::B => (&text.b, &text.a),
        };
        let (mut one, mut other) = (Shown::of(one, LONGEST), Shown::of(other, LONGEST));
        mark_changes(&mut one, &mut other);
        let prompt = Shown::of(&plain(&text.prompt), LONGEST);
        Ok(Item { pair: pair.to_owned(), repeat, left, prompt, one, other })
    }

    /// The texts of a pair, as they are.
    ///
    /// # Errors
    /// The pair is not at hand.
    pub fn texts(&self, pair: &str) -> Result<&PairText, DeskError> {
        Ok(self.text(self.key(pair, false)?.item))
    }

    /// Keeps a vote; it is on the disk when this returns. The same submission again changes
    /// nothing.
    ///
    /// # Errors
    /// See [`DeskError`]; nothing was kept.
    pub fn vote(
        &self,
        annotator: &str,
        vote: &Submission,
        now: Timestamp,
    ) -> Result<Vote, DeskError> {
        check_name(annotator)?;
        check_id(&vote.id)?;
        if vote.note.chars().count() > LONGEST_NOTE {
            return Err(DeskError::BadSubmission("the note is longer than 2000 characters"));
        }
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        if let Some(stored) = held.books.stored(annotator, &vote.id) {
            return Ok(stored.clone());
        }
        if vote.pairs != self.digest {
            return Err(DeskError::OtherPairs);
        }
        let key = self.known(&held, &vote.pair, vote.repeat)?;
        let first = Key { repeat: false, ..key };
        if vote.repeat && held.books.latest(annotator, first).is_none() {
            return Err(DeskError::BadSubmission("this pair was never asked before"));
        }
        let line = Vote {
            pair: vote.pair.clone(),
            choice: vote.pick.choice(vote.left),
            shown_left: vote.left,
            ms: vote.ms.min(24 * 60 * 60 * 1000),
            at: format!("{now:.3}"),
            note: vote.note.clone(),
            rev: held.books.next_rev(annotator, key),
            id: vote.id.clone(),
            repeat: vote.repeat,
        };
        self.keep(&mut held, annotator, key, &line)?;
        let state = if line.choice == Choice::Skip { State::Skipped } else { State::Voted };
        held.queue.record(annotator, key, state, None);
        Ok(line)
    }

    /// Takes back one of the annotator's own votes: the one named, else the last. It is theirs
    /// again. The same submission again changes nothing.
    ///
    /// # Errors
    /// There is none; the disk is full.
    pub fn undo(
        &self,
        annotator: &str,
        id: &str,
        named: Option<(&str, bool)>,
        now: Timestamp,
    ) -> Result<Past, DeskError> {
        check_name(annotator)?;
        check_id(id)?;
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        if let Some(stored) = held.books.stored(annotator, id).cloned() {
            let key = self.known(&held, &stored.pair, stored.repeat)?;
            return held.books.before(annotator, key, stored.rev).ok_or(DeskError::NothingToUndo);
        }
        let key = match named {
            Some((pair, repeat)) => self.known(&held, pair, repeat)?,
            None => held.books.last(annotator).ok_or(DeskError::NothingToUndo)?,
        };
        let old = held.books.latest(annotator, key).cloned().ok_or(DeskError::NothingToUndo)?;
        let past = Past::of(&old).ok_or(DeskError::NothingToUndo)?;
        let line = Vote {
            choice: Choice::Retracted,
            ms: 0,
            at: format!("{now:.3}"),
            note: String::new(),
            rev: old.rev + 1,
            id: id.to_owned(),
            ..old
        };
        self.keep(&mut held, annotator, key, &line)?;
        held.queue.record(annotator, key, State::Retracted, Some(millis(now)));
        if let Some(file) = &mut held.leases {
            // The vote is taken back whether or not this note can be kept.
            let _ = file.append(&[self.lease(annotator, key, now)]);
        }
        Ok(past)
    }

    /// An annotator's own votes, the latest first.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn history(
        &self,
        annotator: &str,
        count: usize,
        now: Timestamp,
    ) -> Result<Vec<Past>, DeskError> {
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        Ok(held.books.history(annotator).filter_map(Past::of).take(count).collect())
    }

    /// How far it is.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn progress(&self, annotator: &str, now: Timestamp) -> Result<Progress, DeskError> {
        let mut held = self.held();
        self.refresh(&mut held, now)?;
        let (votes, filled, wanted) = held.queue.totals();
        let goal = match self.assignment.ready.votes {
            0 => wanted,
            n => n,
        };
        Ok(Progress {
            mine: held.books.count(annotator),
            votes,
            goal,
            left: wanted - filled,
            active: held.queue.active(),
        })
    }

    /// How each annotator does and how much they agree.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn quality(&self, now: Timestamp) -> Result<Arc<QualityReport>, DeskError> {
        let version = {
            let mut held = self.held();
            self.refresh(&mut held, now)?;
            if let Some(figures) = &held.figures {
                return Ok(Arc::clone(figures));
            }
            held.version
        };
        // Takes a while: votes go on meanwhile.
        let folder = Folder::read(&self.assignment.votes)?;
        let figures = Arc::new(quality(&self.assignment, &folder));
        let mut held = self.held();
        if held.version == version {
            held.figures = Some(Arc::clone(&figures));
        }
        Ok(figures)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.lock().expect("invariant: no thread panics while it holds the desk")
    }

    fn text(&self, item: u32) -> &PairText {
        let (i, pairs) = (item as usize, &self.assignment.pairs);
        pairs.get(i).unwrap_or_else(|| &self.extra[i - pairs.len()])
    }

    fn key(&self, pair: &str, repeat: bool) -> Result<Key, DeskError> {
        self.known(&self.held(), pair, repeat)
    }

    fn known(&self, held: &Held, pair: &str, repeat: bool) -> Result<Key, DeskError> {
        let item = held.books.index().get(pair).ok_or(DeskError::UnknownPair)?;
        Ok(Key { item, repeat })
    }

    fn lease(&self, annotator: &str, key: Key, now: Timestamp) -> Lease {
        Lease {
            annotator: annotator.to_owned(),
            pair: self.text(key.item).pair.clone(),
            repeat: key.repeat,
            at: millis(now),
        }
    }

    /// Writes a line, and the texts with the first on a pair.
    fn keep(
        &self,
        held: &mut Held,
        annotator: &str,
        key: Key,
        line: &Vote,
    ) -> Result<(), DeskError> {
        let text = Some(self.text(key.item)).filter(|_| !held.books.has_text(key.item));
        let ledger = Ledger::new(&self.assignment.votes, annotator)?;
        let texts: Vec<PairText> = text.into_iter().cloned().collect();
        let folder = &self.assignment.votes;
        let written = (line, texts.first());
        held.stamps.around(folder, annotator, written, || {
            ledger.append(std::slice::from_ref(line), &texts)
        })?;
        held.books.add(annotator, key, line.clone());
        (held.figures, held.version) = (None, held.version + 1);
        Ok(())
    }

    /// Reads the folder again if somebody else wrote to it.
    fn refresh(&self, held: &mut Held, now: Timestamp) -> Result<(), DeskError> {
        if held.stamps.changed(&self.assignment.votes, millis(now))? {
            self.reload(held, now)?;
        }
        Ok(())
    }

    fn reload(&self, held: &mut Held, now: Timestamp) -> Result<(), DeskError> {
        // Stamps first: what is written meanwhile is found the next time.
        held.stamps.forget();
        let stamps = Stamps::of(&self.assignment.votes)?;
        let folder = Folder::read(&self.assignment.votes)?;
        let now = millis(now);
        let on_screens: Vec<(String, Key)> =
            held.queue.held().map(|(who, key)| (who.to_owned(), key)).collect();
        held.queue = Queue::new(&self.assignment, self.gold.clone());
        held.books.reload(&folder, &mut held.queue);
        for (who, key) in on_screens {
            held.queue.restore(&who, key, now);
        }
        held.stamps = stamps;
        (held.figures, held.version) = (None, held.version + 1);
        Ok(())
    }

    /// Gives back what was on screens when an earlier desk ended.
    fn restore(&self, held: &mut Held, path: &Path, now: Timestamp) -> Result<(), DeskError> {
        let now = millis(now);
        let recent =
            |l: &Lease| l.at <= now && now - l.at < RECENT_MS && is_annotator(&l.annotator);
        let mut kept: Vec<Lease> = Vec::new();
        for lease in newest(LeaseFile::read(path).into_iter().filter(recent), &held.books) {
            if let Some(item) = held.books.index().get(&lease.pair) {
                let key = Key { item, repeat: lease.repeat };
                held.queue.restore(&lease.annotator, key, now);
                kept.push(lease);
            }
        }
        let live: std::collections::HashSet<(String, Key)> =
            held.queue.held().map(|(who, key)| (who.to_owned(), key)).collect();
        kept.retain(|lease| {
            let item = held.books.index().get(&lease.pair).expect("invariant: looked up above");
            live.contains(&(lease.annotator.clone(), Key { item, repeat: lease.repeat }))
        });
        let wrong = |source| DeskError::Cache { path: path.to_owned(), source };
        held.leases = Some(LeaseFile::create(path, &kept).map_err(wrong)?);
        Ok(())
    }
}

/// The newest leases of each annotator that no vote has answered, in their order. A screen holds
/// few; more are left where votes were taken out of the folder.
fn newest(leases: impl Iterator<Item = Lease>, books: &Books) -> Vec<Lease> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut leases: Vec<Lease> = leases.collect();
    leases.reverse();
    leases.retain(|lease| {
        let Some(item) = books.index().get(&lease.pair) else { return false };
        let key = Key { item, repeat: lease.repeat };
        if books.latest(&lease.annotator, key).is_some_and(|v| v.choice != Choice::Retracted) {
            return false;
        }
        let count = counts.entry(lease.annotator.clone()).or_default();
        *count += 1;
        *count <= MOST_ON_SCREENS
    });
    leases.reverse();
    leases
}

fn check_name(annotator: &str) -> Result<(), DeskError> {
    if is_annotator(annotator) { Ok(()) } else { Err(DeskError::BadName(annotator.to_owned())) }
}

fn check_id(id: &str) -> Result<(), DeskError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=64).contains(&id.len()) && id.chars().all(fits) {
        Ok(())
    } else {
        Err(DeskError::BadSubmission("`id` must be 1 to 64 letters, digits and `-`"))
    }
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// Names a folder of votes in the cache.
#[must_use]
pub fn votes_name(votes: &Path) -> String {
    format!("{:016x}", queue::hash(&["preflow.votes/1", &real_path(votes).to_string_lossy()]))
}

/// Where a folder really is, whether or not it is there yet: the first vote makes it, and must not
/// change what it is called.
#[must_use]
pub fn real_path(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let real = absolute.ancestors().find_map(|above| {
        let rest = absolute.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    // Joined with nothing, a path ends in a slash.
    real.map_or(absolute, |path| path.components().collect())
}

fn take_lock(cache: &Path, name: &str) -> Result<std::fs::File, DeskError> {
    let path = cache.join(format!("{name}.lock"));
    let wrong = |source| DeskError::Cache { path: path.clone(), source };
    fs_err::create_dir_all(cache).map_err(wrong)?;
    let file = files::update_own(&path).map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let place = files::read_to_string(&path, 4096).unwrap_or_default();
            Err(DeskError::Taken(place.chars().filter(|c| !c.is_control()).take(200).collect()))
        }
        Err(std::fs::TryLockError::Error(source)) => Err(wrong(source)),
    }
}
