//! Who is asked what next: pairs, leases, gold items and repeats of one assignment.
//! Knows neither files nor clocks; times are milliseconds that callers pass in.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use sha2::{Digest as _, Sha256};

use super::assignment::Assignment;
use super::outlook::Room;
use super::settings::{AskOrder, Quality};
use crate::agreement::ADJUDICATOR;
use crate::votes::Side;

/// How long a pair is kept for one annotator.
pub const LEASE_MS: u64 = 10 * 60 * 1000;

/// A pair comes back as a repeat only after this many others.
const DISTANCE: usize = 10;

/// Candidates that are looked at before a repeat is given up.
const PROBES: usize = 8;

/// One question to one annotator: an item (a pair, or a gold item behind the pairs), and whether it
/// is asked again with sides swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    pub item: u32,
    pub repeat: bool,
}

/// Where an annotator stands with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionState {
    Voted,
    Skipped,
    /// Taken back: to be asked again.
    Retracted,
}

/// All questions of one assignment and who holds which.
#[derive(Debug, Clone)]
pub struct Queue {
    quality: Quality,
    /// By item; gold items that are no pair have no entry.
    need: Vec<u32>,
    votes: Vec<u32>,
    leased: Vec<u32>,
    /// Pair → place in the order, and back.
    place: Vec<u32>,
    pair_at: Vec<u32>,
    /// Places of pairs that lack votes and nobody holds.
    open: BTreeSet<u32>,
    gold: Vec<u32>,
    names: HashMap<String, usize>,
    people: Vec<Person>,
    /// When leases end: time, person, question.
    ends: BTreeSet<(u64, usize, Question)>,
    counted: u64,
    filled: u64,
    wanted: u64,
}

#[derive(Debug, Clone, Default)]
struct Person {
    name: String,
    states: HashMap<u32, QuestionState>,
    repeats: HashMap<u32, QuestionState>,
    /// Every open place before this one was taken, seen, or stands in `returned`.
    cursor: u32,
    returned: BTreeSet<u32>,
    hand: Vec<(Question, u64)>,
    /// Pairs in the order of their first vote.
    voted: Vec<u32>,
    gold: Option<Vec<u32>>,
}

/// Sixty-four bits that depend on the parts alone.
#[must_use]
pub fn hash(parts: &[&str]) -> u64 {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.as_bytes());
        sha.update([0]);
    }
    let bytes = sha.finalize();
    u64::from_be_bytes(bytes[..8].try_into().expect("invariant: 32 bytes hold 8"))
}

/// The same in [0, 1).
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept, and they fit")]
fn share(parts: &[&str]) -> f64 {
    (hash(parts) >> 11) as f64 / (1u64 << 53) as f64
}

/// Which response stands on the left when an annotator first sees a pair.
#[must_use]
pub fn side(annotator: &str, pair: &str) -> Side {
    if hash(&["preflow.side/1", annotator, pair]) & 1 == 0 { Side::A } else { Side::B }
}

impl Queue {
    /// The questions of an assignment; `gold` names the items that are gold, which may lie behind
    /// the pairs.
    ///
    /// # Panics
    /// Never: pairs are counted by 32 bits long before memory ends.
    #[must_use]
    pub fn new(assignment: &Assignment, gold: Vec<u32>) -> Self {
        let n = assignment.pairs.len();
        let people = &assignment.people;
        let size = |n: usize| u32::try_from(n).expect("invariant: pairs are counted by 32 bits");
        // Gold among the pairs is asked as gold alone, and is no vote.
        let need = (0..).zip(&assignment.pairs).map(|(i, p)| {
            if gold.binary_search(&i).is_ok() {
                return 0;
            }
            let several = share(&["preflow.overlap/1", &p.pair]) < people.overlap.fraction;
            if several { people.overlap.annotators.max(1) } else { 1 }
        });
        let need: Vec<u32> = need.collect();
        let dispute = |pair: &str| match people.order {
            AskOrder::Disagreement => assignment.disagreement.get(pair).copied(),
            AskOrder::Random => None,
        };
        let mut order: Vec<(f64, u64, u32)> = (0..size(n))
            .map(|i| {
                let name = &assignment.pairs[i as usize].pair;
                let first = -dispute(name).filter(|x| !x.is_nan()).unwrap_or(f64::NEG_INFINITY);
                (first, hash(&["preflow.order/1", name]), i)
            })
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let pair_at: Vec<u32> = order.into_iter().map(|(_, _, i)| i).collect();
        let mut place = vec![0; n];
        for (at, pair) in pair_at.iter().enumerate() {
            place[*pair as usize] = size(at);
        }
        let asked = |at: &u32| need[pair_at[*at as usize] as usize] > 0;
        let open = (0..size(n)).filter(asked).collect();
        Self {
            quality: people.quality.clone(),
            wanted: need.iter().map(|n| u64::from(*n)).sum(),
            need,
            votes: vec![0; n],
            leased: vec![0; n],
            place,
            pair_at,
            open,
            gold,
            names: HashMap::new(),
            people: Vec::new(),
            ends: BTreeSet::new(),
            counted: 0,
            filled: 0,
        }
    }

    /// Votes on pairs at hand, repeats left out; those that count towards what is wanted; what is
    /// wanted.
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        (self.counted, self.filled, self.wanted)
    }

    /// Votes that can still come. While nobody labels, nobody knows how many will.
    #[must_use]
    pub fn room(&self) -> Room {
        let people: Vec<&Person> = self.people.iter().filter(|p| p.name != ADJUDICATOR).collect();
        let mut room = Room::default();
        for item in self.lacking() {
            let lack = u64::from(self.need[item as usize] - self.votes[item as usize]);
            let of = |f: fn(&Person, u32) -> bool| {
                people.iter().filter(|person| f(person, item)).count() as u64
            };
            let (fresh, skipped) = (of(|p, i| !p.has_seen(i)), of(Person::has_skipped));
            let all = if people.is_empty() { lack } else { fresh };
            room.now += lack.min(all);
            room.with_skipped += lack.min(all + skipped);
            room.with_people += lack;
            room.skipped += u64::from(skipped > 0);
        }
        room
    }

    /// What an annotator skipped and that still lacks votes.
    #[must_use]
    pub fn skipped(&self, annotator: &str) -> Vec<Question> {
        let Some(who) = self.names.get(annotator) else { return Vec::new() };
        let skipped = self.lacking().filter(|item| self.people[*who].has_skipped(*item));
        skipped.map(|item| Question { item, repeat: false }).collect()
    }

    fn lacking(&self) -> impl Iterator<Item = u32> {
        let lacks = self.need.iter().zip(&self.votes).map(|(need, votes)| votes < need);
        (0u32..).zip(lacks).filter_map(|(item, lacks)| lacks.then_some(item))
    }

    /// How many people hold a question.
    #[must_use]
    pub fn active(&self) -> usize {
        self.people.iter().filter(|p| !p.hand.is_empty()).count()
    }

    /// What an annotator is asked, in this order: what they hold already, and new questions up to
    /// `count`. All of it is theirs for another [`LEASE_MS`].
    pub fn next(&mut self, annotator: &str, count: usize, now: u64) -> Vec<Question> {
        self.expire(now);
        let who = self.person(annotator);
        for at in 0..self.people[who].hand.len() {
            let (key, until) = self.people[who].hand[at];
            self.ends.remove(&(until, who, key));
            self.ends.insert((now + LEASE_MS, who, key));
            self.people[who].hand[at].1 = now + LEASE_MS;
        }
        while self.people[who].hand.len() < count {
            let Some(key) = self.draw(who) else { break };
            let end = self.people[who].hand.len();
            self.lease(who, key, now, end);
        }
        self.people[who].hand.iter().map(|(key, _)| *key).collect()
    }

    /// Notes what an annotator said, or that they took it back. A question that was taken back
    /// stays with them, in front, if `now` is given.
    pub fn record(
        &mut self,
        annotator: &str,
        key: Question,
        state: QuestionState,
        now: Option<u64>,
    ) {
        let who = self.person(annotator);
        self.release(who, key);
        let person = &mut self.people[who];
        if key.repeat {
            person.repeats.insert(key.item, state);
        } else {
            let before = person.states.insert(key.item, state);
            let is_gold = self.gold.binary_search(&key.item).is_ok();
            if state == QuestionState::Voted && before.is_none() && !is_gold {
                person.voted.push(key.item);
            }
            let is = u32::from(state == QuestionState::Voted);
            let was = u32::from(before == Some(QuestionState::Voted));
            self.count(key.item, was, is);
        }
        if state == QuestionState::Retracted {
            self.offer(who, key.item);
            if let Some(now) = now {
                self.lease(who, key, now, 0);
            }
        }
    }

    /// Gives back a question that was on an annotator's screen before this program was started.
    pub fn restore(&mut self, annotator: &str, key: Question, now: u64) {
        let who = self.person(annotator);
        let person = &self.people[who];
        let held = person.hand.iter().any(|(k, _)| *k == key);
        let open = if key.repeat {
            person.repeats.get(&key.item).is_none_or(|s| *s == QuestionState::Retracted)
        } else {
            !person.has_seen(key.item)
        };
        if open && !held {
            let end = person.hand.len();
            self.lease(who, key, now, end);
        }
    }

    /// Everything that is held: annotator and question.
    pub fn held(&self) -> impl Iterator<Item = (&str, Question)> {
        self.people.iter().flat_map(|p| p.hand.iter().map(|(key, _)| (p.name.as_str(), *key)))
    }

    fn person(&mut self, annotator: &str) -> usize {
        if let Some(who) = self.names.get(annotator) {
            return *who;
        }
        let who = self.people.len();
        self.people.push(Person { name: annotator.to_owned(), ..Person::default() });
        self.names.insert(annotator.to_owned(), who);
        who
    }

    fn expire(&mut self, now: u64) {
        while let Some((until, who, key)) = self.ends.first().copied().filter(|(t, ..)| *t <= now) {
            self.ends.remove(&(until, who, key));
            self.release(who, key);
            self.offer(who, key.item);
        }
    }

    /// Takes a question out of a hand, if it is there.
    fn release(&mut self, who: usize, key: Question) {
        let hand = &mut self.people[who].hand;
        let Some(at) = hand.iter().position(|(k, _)| *k == key) else { return };
        let (_, until) = hand.remove(at);
        self.ends.remove(&(until, who, key));
        if !key.repeat
            && let Some(leased) = self.leased.get_mut(key.item as usize)
        {
            *leased -= 1;
            self.settle(key.item);
        }
    }

    fn lease(&mut self, who: usize, key: Question, now: u64, at: usize) {
        let until = now + LEASE_MS;
        self.people[who].hand.insert(at, (key, until));
        self.ends.insert((until, who, key));
        if !key.repeat
            && let Some(leased) = self.leased.get_mut(key.item as usize)
        {
            *leased += 1;
            self.settle(key.item);
        }
    }

    fn count(&mut self, item: u32, was: u32, is: u32) {
        let i = item as usize;
        if self.need.get(i).is_none_or(|need| *need == 0) {
            return;
        }
        let votes = &mut self.votes[i];
        let before = u64::from((*votes).min(self.need[i]));
        *votes = *votes + is - was;
        self.filled = self.filled - before + u64::from((*votes).min(self.need[i]));
        self.counted = self.counted + u64::from(is) - u64::from(was);
        self.settle(item);
    }

    /// Opens or closes a pair, whichever its votes and leases ask for.
    fn settle(&mut self, item: u32) {
        let i = item as usize;
        let place = self.place[i];
        if self.votes[i] + self.leased[i] >= self.need[i] {
            self.open.remove(&place);
        } else if self.open.insert(place) {
            for person in &mut self.people {
                if person.cursor > place && !person.has_seen(item) {
                    person.returned.insert(place);
                }
            }
        }
    }

    /// Lets one annotator be asked a pair again that was open all the time.
    fn offer(&mut self, who: usize, item: u32) {
        if self.gold.binary_search(&item).is_ok() {
            self.people[who].gold.iter_mut().for_each(|left| left.push(item));
        }
        let Some(place) = self.place.get(item as usize).copied() else { return };
        let person = &mut self.people[who];
        if person.cursor > place && !person.has_seen(item) {
            person.returned.insert(place);
        }
    }

    /// A new question, or `None` when nothing is left for this annotator.
    fn draw(&mut self, who: usize) -> Option<Question> {
        let person = &self.people[who];
        let position = person.states.len() + person.repeats.len() + person.hand.len();
        let position = position.to_string();
        let kind = share(&["preflow.mix/1", &person.name, &position]);
        let Quality { gold_share, repeats, .. } = self.quality;
        if kind < gold_share
            && let Some(item) = self.draw_gold(who)
        {
            return Some(Question { item, repeat: false });
        }
        if (gold_share..gold_share + repeats).contains(&kind) {
            let at = hash(&["preflow.repeat/1", &self.people[who].name, &position]);
            if let Some(item) = self.people[who].repeat(at) {
                return Some(Question { item, repeat: true });
            }
        }
        self.draw_pair(who).map(|item| Question { item, repeat: false })
    }

    fn draw_gold(&mut self, who: usize) -> Option<u32> {
        let person = &mut self.people[who];
        let name = person.name.clone();
        let mut left = person.gold.take().unwrap_or_else(|| {
            let mut all = self.gold.clone();
            all.sort_by_key(|item| hash(&["preflow.gold/1", &name, &item.to_string()]));
            all
        });
        let mut drawn = None;
        while let Some(item) = left.pop() {
            if !person.has_seen(item) && !person.holds(item) {
                drawn = Some(item);
                break;
            }
        }
        person.gold = Some(left);
        drawn
    }

    fn draw_pair(&mut self, who: usize) -> Option<u32> {
        let person = &mut self.people[who];
        while let Some(place) = person.returned.pop_first() {
            let item = self.pair_at[place as usize];
            if self.open.contains(&place) && !person.has_seen(item) && !person.holds(item) {
                return Some(item);
            }
        }
        loop {
            let from = Bound::Included(person.cursor);
            let place = *self.open.range((from, Bound::Unbounded)).next()?;
            person.cursor = place + 1;
            let item = self.pair_at[place as usize];
            if !person.has_seen(item) && !person.holds(item) {
                return Some(item);
            }
        }
    }
}

impl Person {
    fn has_seen(&self, item: u32) -> bool {
        self.states.get(&item).is_some_and(|s| *s != QuestionState::Retracted)
    }

    fn has_skipped(&self, item: u32) -> bool {
        self.states.get(&item) == Some(&QuestionState::Skipped)
    }

    fn holds(&self, item: u32) -> bool {
        self.hand.iter().any(|(key, _)| key.item == item)
    }

    /// A pair to ask again, a good while after it was first asked.
    fn repeat(&self, at: u64) -> Option<u32> {
        let old = &self.voted[..self.voted.len().checked_sub(DISTANCE).filter(|n| *n > 0)?];
        let start = usize::try_from(at % old.len() as u64).expect("invariant: below a length");
        let fits = |item: &u32| {
            self.states.get(item) == Some(&QuestionState::Voted)
                && !self.repeats.contains_key(item)
                && !self.holds(*item)
        };
        old.iter().cycle().skip(start).take(PROBES.min(old.len())).copied().find(fits)
    }
}
