//! The one owner of an assignment, its queue and its folder of votes. Whoever asks people, in a
//! browser or in a terminal, comes here. Knows nothing of screens.

mod lock;
mod stalled;

pub use lock::{real_path, votes_name};

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;

use self::lock::take_lock;
use crate::label::assignment::Assignment;
use crate::label::error::SessionError;
use crate::label::folder_snapshot::FolderSnapshot;
use crate::label::leases::{Lease, LeaseFile};
use crate::label::quality::{QualityReport, quality};
use crate::label::question::{Item, LabelProgress, Past, Submission};
use crate::label::queue::{self, Question, QuestionState, Queue};
use crate::label::vote_index::VoteIndex;
use crate::votes::{
    Choice, Folder, Ledger, MOST_REASONS, PairText, Side, Vote, is_annotator, is_reason,
};

/// The longest note on a vote, in characters.
pub const LONGEST_NOTE: usize = 2000;
/// Leases of earlier days are not kept.
const RECENT_MS: u64 = 60 * 60 * 1000;
/// Questions that an annotator gets back from an earlier session.
const MOST_ON_SCREENS: usize = 64;

/// Labelling of one assignment: asks, keeps votes, and tells how it stands.
#[derive(Debug)]
pub struct LabelSession {
    assignment: Assignment,
    /// Gold items that are no pair stand behind the pairs.
    extra: Vec<PairText>,
    gold: Vec<u32>,
    digest: String,
    state: Mutex<SessionState>,
}

/// What changes while people label.
#[derive(Debug)]
struct SessionState {
    queue: Queue,
    votes: VoteIndex,
    snapshot: FolderSnapshot,
    leases: Option<LeaseFile>,
    lock: Option<std::fs::File>,
    /// Of the votes as they are.
    figures: Option<Arc<QualityReport>>,
    /// Counts changes of the votes.
    version: u64,
}

impl LabelSession {
    /// Opens the folder of votes. `cache` is where notes about leases are kept; with it there is
    /// only one session on this folder.
    ///
    /// # Errors
    /// Votes that cannot be read; another session that has them.
    pub fn open(assignment: Assignment, cache: Option<&Path>) -> Result<Self, SessionError> {
        let mut extra = Vec::new();
        let mut index = crate::label::vote_index::PairNumbers::new(&assignment.pairs);
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
        let state = SessionState {
            queue: Queue::new(&assignment, gold.clone()),
            votes: VoteIndex::new(index),
            snapshot: FolderSnapshot::default(),
            leases: None,
            lock,
            figures: None,
            version: 0,
        };
        let session = Self { assignment, extra, gold, digest, state: Mutex::new(state) };
        let now = Timestamp::now();
        let mut state = session.state();
        session.reload(&mut state, now)?;
        if let Some(cache) = cache {
            session.restore(&mut state, &cache.join(format!("{name}.leases")), now)?;
        }
        drop(state);
        Ok(session)
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
        if let Some(file) = &mut self.state().lock {
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
    ) -> Result<Vec<(String, bool)>, SessionError> {
        check_name(annotator)?;
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        let before: Vec<Question> =
            state.queue.held().filter(|(who, _)| *who == annotator).map(|(_, key)| key).collect();
        let keys = state.queue.next(annotator, count, millis(now));
        let new = keys.iter().filter(|key| !before.contains(key));
        let new: Vec<Lease> = new.map(|key| self.lease(annotator, *key, now)).collect();
        if !new.is_empty()
            && let Some(file) = &mut state.leases
        {
            file.append(&new)
                .map_err(|source| SessionError::Cache { path: file.path().to_owned(), source })?;
        }
        Ok(keys.into_iter().map(|key| (self.text(key.item).pair.clone(), key.repeat)).collect())
    }

    /// A question with its texts.
    ///
    /// # Errors
    /// The pair is not at hand.
    pub fn item(&self, annotator: &str, pair: &str, repeat: bool) -> Result<Item, SessionError> {
        let key = self.key(pair, repeat)?;
        let text = self.text(key.item);
        let left = self.state().votes.shown_left(annotator, Question { repeat: false, ..key });
        let left = left.unwrap_or_else(|| queue::side(annotator, pair));
        let left = if repeat { left.other() } else { left };
        let (one, other) = match left {
            Side::A => (&text.a, &text.b),
            Side::B => (&text.b, &text.a),
        };
        let (one, other) = (one.clone(), other.clone());
        Ok(Item { pair: pair.to_owned(), repeat, left, prompt: text.prompt.clone(), one, other })
    }

    /// The texts of a pair, as they are.
    ///
    /// # Errors
    /// The pair is not at hand.
    pub fn texts(&self, pair: &str) -> Result<&PairText, SessionError> {
        Ok(self.text(self.key(pair, false)?.item))
    }

    /// Keeps a vote; it is on the disk when this returns. The same submission again changes
    /// nothing.
    ///
    /// # Errors
    /// See [`SessionError`]; nothing was kept.
    pub fn vote(
        &self,
        annotator: &str,
        vote: &Submission,
        now: Timestamp,
    ) -> Result<Vote, SessionError> {
        check_name(annotator)?;
        check_id(&vote.id)?;
        if vote.note.chars().count() > LONGEST_NOTE {
            return Err(SessionError::BadSubmission("the note is longer than 2000 characters"));
        }
        // Also one that is no longer offered: it was when the annotator marked it.
        let most = vote.reasons.len() <= MOST_REASONS;
        if !most || !vote.reasons.iter().all(|reason| is_reason(reason)) {
            return Err(SessionError::BadSubmission("`reasons` are at most seven short texts"));
        }
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        if let Some(stored) = state.votes.stored(annotator, &vote.id) {
            return Ok(stored.clone());
        }
        if vote.pairs != self.digest {
            return Err(SessionError::OtherPairs);
        }
        let key = self.known(&state, &vote.pair, vote.repeat)?;
        let first = Question { repeat: false, ..key };
        if vote.repeat && state.votes.latest(annotator, first).is_none() {
            return Err(SessionError::BadSubmission("this pair was never asked before"));
        }
        let line = Vote {
            pair: vote.pair.clone(),
            choice: vote.pick.choice(vote.left),
            shown_left: vote.left,
            ms: vote.ms.min(24 * 60 * 60 * 1000),
            at: format!("{now:.3}"),
            note: vote.note.clone(),
            // Each once, whatever order they were marked in.
            reasons: vote.reasons.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            rev: state.votes.next_rev(annotator, key),
            id: vote.id.clone(),
            repeat: vote.repeat,
        };
        self.keep(&mut state, annotator, key, &line)?;
        let said =
            if line.choice == Choice::Skip { QuestionState::Skipped } else { QuestionState::Voted };
        state.queue.record(annotator, key, said, None);
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
    ) -> Result<Past, SessionError> {
        check_name(annotator)?;
        check_id(id)?;
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        if let Some(stored) = state.votes.stored(annotator, id).cloned() {
            let key = self.known(&state, &stored.pair, stored.repeat)?;
            return state
                .votes
                .before(annotator, key, stored.rev)
                .ok_or(SessionError::NothingToUndo);
        }
        let key = match named {
            Some((pair, repeat)) => self.known(&state, pair, repeat)?,
            None => state.votes.last(annotator).ok_or(SessionError::NothingToUndo)?,
        };
        let old = state.votes.latest(annotator, key).cloned().ok_or(SessionError::NothingToUndo)?;
        let past = Past::of(&old).ok_or(SessionError::NothingToUndo)?;
        let line = Vote {
            choice: Choice::Retracted,
            ms: 0,
            at: format!("{now:.3}"),
            note: String::new(),
            reasons: Vec::new(),
            rev: old.rev + 1,
            id: id.to_owned(),
            ..old
        };
        self.keep(&mut state, annotator, key, &line)?;
        state.queue.record(annotator, key, QuestionState::Retracted, Some(millis(now)));
        if let Some(file) = &mut state.leases {
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
    ) -> Result<Vec<Past>, SessionError> {
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        Ok(state.votes.history(annotator).filter_map(Past::of).take(count).collect())
    }

    /// How far it is.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn progress(&self, annotator: &str, now: Timestamp) -> Result<LabelProgress, SessionError> {
        let mut state = self.state();
        self.refresh(&mut state, now)?;
        let (votes, filled, wanted) = state.queue.totals();
        let goal = match self.assignment.ready.votes {
            0 => wanted,
            n => n,
        };
        Ok(LabelProgress {
            mine: state.votes.count(annotator),
            votes,
            goal,
            left: wanted - filled,
            active: state.queue.active(),
        })
    }

    /// How each annotator does and how much they agree.
    ///
    /// # Errors
    /// Votes that somebody else damaged.
    pub fn quality(&self, now: Timestamp) -> Result<Arc<QualityReport>, SessionError> {
        let version = {
            let mut state = self.state();
            self.refresh(&mut state, now)?;
            if let Some(figures) = &state.figures {
                return Ok(Arc::clone(figures));
            }
            state.version
        };
        // Takes a while: votes go on meanwhile.
        let folder = Folder::read(&self.assignment.votes)?;
        let figures = Arc::new(quality(&self.assignment, &folder));
        let mut state = self.state();
        if state.version == version {
            state.figures = Some(Arc::clone(&figures));
        }
        Ok(figures)
    }

    fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().expect("invariant: no thread panics while it holds the session")
    }

    fn text(&self, item: u32) -> &PairText {
        let (i, pairs) = (item as usize, &self.assignment.pairs);
        pairs.get(i).unwrap_or_else(|| &self.extra[i - pairs.len()])
    }

    fn key(&self, pair: &str, repeat: bool) -> Result<Question, SessionError> {
        self.known(&self.state(), pair, repeat)
    }

    fn known(
        &self,
        state: &SessionState,
        pair: &str,
        repeat: bool,
    ) -> Result<Question, SessionError> {
        let item = state.votes.index().get(pair).ok_or(SessionError::UnknownPair)?;
        Ok(Question { item, repeat })
    }

    fn lease(&self, annotator: &str, key: Question, now: Timestamp) -> Lease {
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
        state: &mut SessionState,
        annotator: &str,
        key: Question,
        line: &Vote,
    ) -> Result<(), SessionError> {
        let text = Some(self.text(key.item)).filter(|_| !state.votes.has_text(key.item));
        let ledger = Ledger::new(&self.assignment.votes, annotator)?;
        let texts: Vec<PairText> = text.into_iter().cloned().collect();
        let folder = &self.assignment.votes;
        let written = (line, texts.first());
        state.snapshot.record_own_write(folder, annotator, written, || {
            ledger.append(std::slice::from_ref(line), &texts)
        })?;
        state.votes.add(annotator, key, line.clone());
        (state.figures, state.version) = (None, state.version + 1);
        Ok(())
    }

    /// Reads the folder again if somebody else wrote to it.
    fn refresh(&self, state: &mut SessionState, now: Timestamp) -> Result<(), SessionError> {
        if state.snapshot.changed(&self.assignment.votes, millis(now))? {
            self.reload(state, now)?;
        }
        Ok(())
    }

    fn reload(&self, state: &mut SessionState, now: Timestamp) -> Result<(), SessionError> {
        // The snapshot first: what is written meanwhile is found the next time.
        state.snapshot.forget();
        let snapshot = FolderSnapshot::of(&self.assignment.votes)?;
        let folder = Folder::read(&self.assignment.votes)?;
        let now = millis(now);
        let on_screens: Vec<(String, Question)> =
            state.queue.held().map(|(who, key)| (who.to_owned(), key)).collect();
        state.queue = Queue::new(&self.assignment, self.gold.clone());
        for (annotator, key, standing) in state.votes.reload(&folder) {
            state.queue.record(annotator, key, standing, None);
        }
        for (who, key) in on_screens {
            state.queue.restore(&who, key, now);
        }
        state.snapshot = snapshot;
        (state.figures, state.version) = (None, state.version + 1);
        Ok(())
    }

    /// Gives back what was on screens when an earlier session ended.
    fn restore(
        &self,
        state: &mut SessionState,
        path: &Path,
        now: Timestamp,
    ) -> Result<(), SessionError> {
        let now = millis(now);
        let recent =
            |l: &Lease| l.at <= now && now - l.at < RECENT_MS && is_annotator(&l.annotator);
        let mut kept: Vec<Lease> = Vec::new();
        for lease in newest(LeaseFile::read(path).into_iter().filter(recent), &state.votes) {
            if let Some(item) = state.votes.index().get(&lease.pair) {
                let key = Question { item, repeat: lease.repeat };
                state.queue.restore(&lease.annotator, key, now);
                kept.push(lease);
            }
        }
        let live: std::collections::HashSet<(String, Question)> =
            state.queue.held().map(|(who, key)| (who.to_owned(), key)).collect();
        kept.retain(|lease| {
            let item = state.votes.index().get(&lease.pair).expect("invariant: looked up above");
            live.contains(&(lease.annotator.clone(), Question { item, repeat: lease.repeat }))
        });
        let wrong = |source| SessionError::Cache { path: path.to_owned(), source };
        state.leases = Some(LeaseFile::create(path, &kept).map_err(wrong)?);
        Ok(())
    }
}

/// The newest leases of each annotator that no vote has answered, in their order. A screen holds
/// few; more are left where votes were taken out of the folder.
fn newest(leases: impl Iterator<Item = Lease>, votes: &VoteIndex) -> Vec<Lease> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut leases: Vec<Lease> = leases.collect();
    leases.reverse();
    leases.retain(|lease| {
        let Some(item) = votes.index().get(&lease.pair) else { return false };
        let key = Question { item, repeat: lease.repeat };
        if votes.latest(&lease.annotator, key).is_some_and(|v| v.choice != Choice::Retracted) {
            return false;
        }
        let count = counts.entry(lease.annotator.clone()).or_default();
        *count += 1;
        *count <= MOST_ON_SCREENS
    });
    leases.reverse();
    leases
}

fn check_name(annotator: &str) -> Result<(), SessionError> {
    if is_annotator(annotator) { Ok(()) } else { Err(SessionError::BadName(annotator.to_owned())) }
}

fn check_id(id: &str) -> Result<(), SessionError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=64).contains(&id.len()) && id.chars().all(fits) {
        Ok(())
    } else {
        Err(SessionError::BadSubmission("`id` must be 1 to 64 letters, digits and `-`"))
    }
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}
