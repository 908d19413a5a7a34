//! What every annotator said of what is at hand, as the votes folder has it, looked up by question
//! and by submission. Does not write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::question::Past;
use super::queue::{Question, QuestionState};
use crate::votes::{Choice, Folder, PairText, Side, Vote};

/// Name of a pair → its number.
#[derive(Debug, Default)]
pub struct PairNumbers(HashMap<String, u32>);

impl PairNumbers {
    #[must_use]
    pub fn new(pairs: &[PairText]) -> Self {
        let numbered = (0u32..).zip(pairs).map(|(i, p)| (p.pair.clone(), i));
        Self(numbered.collect())
    }

    #[must_use]
    pub fn get(&self, pair: &str) -> Option<u32> {
        self.0.get(pair).copied()
    }

    /// Numbers a further one.
    pub fn push(&mut self, pair: &str) -> u32 {
        let next = u32::try_from(self.0.len()).expect("invariant: pairs are counted by 32 bits");
        *self.0.entry(pair.to_owned()).or_insert(next)
    }
}

/// Votes of all annotators, found by question and by submission.
#[derive(Debug)]
pub struct VoteIndex {
    index: PairNumbers,
    of: HashMap<String, AnnotatorVotes>,
    /// Items whose text some file holds.
    texts: HashSet<u32>,
}

/// Those of one annotator.
#[derive(Debug, Default)]
struct AnnotatorVotes {
    /// Every revision of a question, the last one last.
    lines: HashMap<Question, Vec<Arc<Vote>>>,
    ids: HashMap<String, Arc<Vote>>,
    /// Questions by the time of their last line; that line's number.
    order: BTreeMap<u64, Question>,
    number: HashMap<Question, u64>,
    next: u64,
    /// Opinions, repeats left out.
    count: u64,
}

impl VoteIndex {
    #[must_use]
    pub fn new(index: PairNumbers) -> Self {
        Self { index, of: HashMap::new(), texts: HashSet::new() }
    }

    #[must_use]
    pub fn index(&self) -> &PairNumbers {
        &self.index
    }

    /// Everything anew from the folder. Returns where each question stands whose pair is at hand,
    /// in the order in which they came to stand there.
    pub fn reload<'f>(&mut self, folder: &'f Folder) -> Vec<(&'f str, Question, QuestionState)> {
        let mut standing = Vec::new();
        self.of.clear();
        self.texts = folder.texts.keys().filter_map(|pair| self.index.get(pair)).collect();
        for (annotator, votes) in &folder.votes {
            let last: HashSet<*const Vote> =
                folder.latest(annotator).into_values().map(std::ptr::from_ref).collect();
            // By time; a stable sort keeps the order of the file where times are equal. The line
            // that counts goes last among those of its question.
            let mut lines: Vec<&Vote> = votes.iter().collect();
            lines.sort_by(|a, b| a.at.cmp(&b.at));
            let (early, counting): (Vec<&Vote>, Vec<&Vote>) =
                lines.into_iter().partition(|v| !last.contains(&std::ptr::from_ref(*v)));
            for vote in early.into_iter().chain(counting) {
                let Some(item) = self.index.get(&vote.pair) else {
                    self.annotator(annotator).ids.insert(vote.id.clone(), Arc::new(vote.clone()));
                    continue;
                };
                let key = Question { item, repeat: vote.repeat };
                if last.contains(&std::ptr::from_ref(vote)) {
                    let state = match vote.choice {
                        Choice::Retracted => QuestionState::Retracted,
                        Choice::Skip => QuestionState::Skipped,
                        _ => QuestionState::Voted,
                    };
                    standing.push((annotator.as_str(), key, state));
                }
                self.add(annotator, key, vote.clone());
            }
        }
        standing
    }

    /// Notes a line that was written.
    pub fn add(&mut self, annotator: &str, key: Question, vote: Vote) {
        self.texts.insert(key.item);
        let own = self.annotator(annotator);
        let vote = Arc::new(vote);
        if !vote.id.is_empty() {
            own.ids.insert(vote.id.clone(), Arc::clone(&vote));
        }
        let lines = own.lines.entry(key).or_default();
        if !key.repeat {
            let before = lines.last().is_some_and(|v| v.choice.counts());
            own.count = own.count + u64::from(vote.choice.counts()) - u64::from(before);
        }
        let retracted = vote.choice == Choice::Retracted;
        lines.push(vote);
        if let Some(old) = own.number.remove(&key) {
            own.order.remove(&old);
        }
        if !retracted {
            own.order.insert(own.next, key);
            own.number.insert(key, own.next);
            own.next += 1;
        }
    }

    /// What was kept under a submission's id.
    #[must_use]
    pub fn stored(&self, annotator: &str, id: &str) -> Option<&Vote> {
        self.of.get(annotator)?.ids.get(id).map(Arc::as_ref)
    }

    /// The last word on a question.
    #[must_use]
    pub fn latest(&self, annotator: &str, key: Question) -> Option<&Vote> {
        self.of.get(annotator)?.lines.get(&key)?.last().map(Arc::as_ref)
    }

    /// What a revision replaced.
    #[must_use]
    pub fn before(&self, annotator: &str, key: Question, rev: u32) -> Option<Past> {
        let lines = self.of.get(annotator)?.lines.get(&key)?;
        let vote = lines.iter().rev().find(|v| v.rev < rev && v.choice != Choice::Retracted)?;
        Past::of(vote)
    }

    #[must_use]
    pub fn next_rev(&self, annotator: &str, key: Question) -> u32 {
        self.latest(annotator, key).map_or(0, |vote| vote.rev + 1)
    }

    /// The question that was answered last and not taken back.
    #[must_use]
    pub fn last(&self, annotator: &str) -> Option<Question> {
        self.of.get(annotator)?.order.last_key_value().map(|(_, key)| *key)
    }

    /// Votes that stand, the latest first.
    pub fn history(&self, annotator: &str) -> impl Iterator<Item = &Vote> {
        let own = self.of.get(annotator).into_iter();
        own.flat_map(|b| b.order.values().rev().filter_map(|key| b.lines[key].last()))
            .map(Arc::as_ref)
    }

    /// Which response stood on the left when a pair was last voted on.
    #[must_use]
    pub fn shown_left(&self, annotator: &str, key: Question) -> Option<Side> {
        self.latest(annotator, key).map(|vote| vote.shown_left)
    }

    #[must_use]
    pub fn has_text(&self, item: u32) -> bool {
        self.texts.contains(&item)
    }

    /// Opinions, repeats left out.
    #[must_use]
    pub fn count(&self, annotator: &str) -> u64 {
        self.of.get(annotator).map_or(0, |own| own.count)
    }

    fn annotator(&mut self, annotator: &str) -> &mut AnnotatorVotes {
        if !self.of.contains_key(annotator) {
            self.of.insert(annotator.to_owned(), AnnotatorVotes::default());
        }
        self.of.get_mut(annotator).expect("invariant: inserted above")
    }
}
