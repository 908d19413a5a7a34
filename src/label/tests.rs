//! Who is asked what, and what becomes of the answers: exact overlaps under any order of events,
//! undo, submissions sent twice, folders that change underneath, disks that are full.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;

use super::queue::{LEASE_MS, Question, QuestionState, Queue, side};
use super::*;
use crate::votes::{Choice, Effective, Folder, PairText, Side, Vote};

fn assignment(votes: &Path, pairs: usize, people: &serde_json::Value) -> Assignment {
    let mut all = serde_json::json!({
        "votes": "votes", "question": "Which?", "aggregate": "majority", "reuse": "sampled", "order": "random",
        "overlap": { "fraction": 0.0, "annotators": 2 },
        "quality": { "gold_share": 0.0, "repeats": 0.0, "min_seconds": 1.0 },
    });
    for (key, value) in people.as_object().expect("an object") {
        all[key] = value.clone();
    }
    Assignment {
        guidelines: None,
        pipeline: "demo".into(),
        stage: "labels".into(),
        votes: votes.to_owned(),
        people: serde_json::from_value(all).expect("settings"),
        ready: ReadyWhen { votes: 0, alpha: -1.0 },
        pairs: (0..pairs)
            .map(|i| PairText::new(&format!("p{i}"), &format!("x{i}"), &format!("y{i}")))
            .collect(),
        gold: Vec::new(),
        disagreement: HashMap::new(),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test owns its folder")]
fn guidelines_that_say_nothing_are_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("how.md");
    for (text, read) in [("", None), (" \n\t\n", None), ("# How\n", Some("# How\n"))] {
        std::fs::write(&path, text).expect("written");
        assert_eq!(read_guidelines(&path).expect("text").as_deref(), read);
    }
}

fn queue(pairs: usize, people: &serde_json::Value) -> Queue {
    Queue::new(&assignment(Path::new("/votes"), pairs, people), Vec::new())
}

fn overlap(fraction: f64, annotators: u32) -> serde_json::Value {
    serde_json::json!({ "overlap": { "fraction": fraction, "annotators": annotators } })
}

fn fresh(item: u32) -> Question {
    Question { item, repeat: false }
}

/// What may happen to a queue.
#[derive(Debug, Clone)]
enum Event {
    Ask(u8, u8),
    Vote(u8, u8),
    Skip(u8),
    Undo(u8),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..16u8, 1..6u8).prop_map(|(who, count)| Event::Ask(who, count)),
        8 => (0..16u8, 0..6u8).prop_map(|(who, which)| Event::Vote(who, which)),
        1 => (0..16u8).prop_map(Event::Skip),
        2 => (0..16u8).prop_map(Event::Undo),
        1 => Just(Event::Restart),
    ];
    proptest::collection::vec(event, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Sixteen people in any order, with undo, skips and restarts: while leases hold, no pair is
    /// voted on by more people than it needs, and in the end each by exactly as many.
    #[test]
    fn overlap_is_exact(events in events(), annotators in 2..5u32, seed in 0..1000u64) {
        let settings = overlap(0.4, annotators);
        let mut queue = queue(40, &settings);
        let name = |who: u8| format!("ann{who}-{seed}");
        let mut said: BTreeMap<(String, u32), QuestionState> = BTreeMap::new();
        let mut hands: BTreeMap<String, Vec<Question>> = BTreeMap::new();
        for event in events {
            match event {
                Event::Ask(who, count) => {
                    let hand = queue.next(&name(who), usize::from(count), 5);
                    hands.insert(name(who), hand);
                }
                Event::Vote(who, which) => {
                    let Some(hand) = hands.get_mut(&name(who)) else { continue };
                    if hand.is_empty() { continue; }
                    let key = hand.remove(usize::from(which) % hand.len());
                    queue.record(&name(who), key, QuestionState::Voted, None);
                    said.insert((name(who), key.item), QuestionState::Voted);
                }
                Event::Skip(who) => {
                    let Some(key) = hands.get_mut(&name(who)).and_then(Vec::pop) else { continue };
                    queue.record(&name(who), key, QuestionState::Skipped, None);
                    said.insert((name(who), key.item), QuestionState::Skipped);
                }
                Event::Undo(who) => {
                    let mine = said.iter().rev().find(|((n, _), s)| {
                        *n == name(who) && **s == QuestionState::Voted
                    });
                    let Some(item) = mine.map(|((_, item), _)| *item) else { continue };
                    queue.record(&name(who), fresh(item), QuestionState::Retracted, Some(5));
                    said.insert((name(who), item), QuestionState::Retracted);
                    hands.entry(name(who)).or_default().insert(0, fresh(item));
                }
                Event::Restart => {
                    let held: Vec<(String, Question)> =
                        queue.held().map(|(who, key)| (who.to_owned(), key)).collect();
                    queue = self::queue(40, &settings);
                    for ((who, item), state) in &said {
                        queue.record(who, fresh(*item), *state, None);
                    }
                    for (who, key) in held {
                        queue.restore(&who, key, 5);
                    }
                }
            }
            let mut votes: HashMap<u32, u32> = HashMap::new();
            for ((_, item), _) in said.iter().filter(|(_, s)| **s == QuestionState::Voted) {
                *votes.entry(*item).or_default() += 1;
            }
            prop_assert!(votes.values().all(|n| *n <= annotators));
            let (counted, filled, _) = queue.totals();
            prop_assert_eq!(counted, filled, "more votes on a pair than it needs");
            prop_assert_eq!(counted, votes.values().map(|n| u64::from(*n)).sum::<u64>());
        }
        // Everybody works on until nothing is left; those who skipped may be needed no more.
        for round in 0..400u64 {
            let who = format!("late{}", round % 8);
            for key in queue.next(&who, 3, 5 + LEASE_MS * 2) {
                queue.record(&who, key, QuestionState::Voted, None);
            }
        }
        let (counted, filled, wanted) = queue.totals();
        prop_assert_eq!((counted, filled), (wanted, wanted));
    }
}

#[test]
fn a_lease_ends_and_a_late_answer_is_one_more_vote() {
    let mut queue = queue(1, &overlap(0.0, 2));
    assert_eq!(queue.next("ann", 4, 0), [fresh(0)]);
    assert!(queue.next("bob", 4, LEASE_MS - 1).is_empty());
    assert_eq!(queue.next("bob", 4, LEASE_MS), [fresh(0)]);
    queue.record("bob", fresh(0), QuestionState::Voted, None);
    queue.record("ann", fresh(0), QuestionState::Voted, None);
    assert_eq!(queue.totals(), (2, 1, 1));
    assert!(queue.next("cleo", 4, LEASE_MS + 1).is_empty());
}

#[test]
fn asking_again_keeps_a_lease_alive() {
    let mut queue = queue(1, &overlap(0.0, 2));
    for minutes in 0..60 {
        assert_eq!(queue.next("ann", 1, minutes * 60_000), [fresh(0)]);
        assert!(queue.next("bob", 1, minutes * 60_000).is_empty());
    }
}

#[test]
fn what_one_skips_goes_to_another_and_not_back() {
    let mut queue = queue(3, &overlap(0.0, 2));
    let hand = queue.next("ann", 3, 0);
    queue.record("ann", hand[0], QuestionState::Skipped, None);
    assert_eq!(queue.next("ann", 3, 0), hand[1..]);
    assert_eq!(queue.next("bob", 3, 0), [hand[0]]);
}

#[test]
fn the_most_disputed_come_first() {
    let mut of = assignment(Path::new("/votes"), 50, &serde_json::json!({"order": "disagreement"}));
    for (i, pair) in of.pairs.iter().enumerate().take(20) {
        of.disagreement.insert(pair.pair.clone(), i as f64);
    }
    let mut queue = Queue::new(&of, Vec::new());
    let asked: Vec<u32> = queue.next("ann", 50, 0).iter().map(|k| k.item).collect();
    assert_eq!(asked[..20], (0..20).rev().collect::<Vec<u32>>());
    assert_eq!(asked[20..].iter().collect::<BTreeSet<_>>().len(), 30);
}

#[test]
fn gold_and_repeats_come_in_their_shares() {
    let settings = serde_json::json!({
        "quality": { "gold_share": 0.1, "repeats": 0.2, "min_seconds": 1.0 }
    });
    let of = assignment(Path::new("/votes"), 2000, &settings);
    let gold: Vec<u32> = (2000..2300).collect();
    let mut queue = Queue::new(&of, gold.clone());
    let mut asked: Vec<Question> = Vec::new();
    for _ in 0..1500 {
        let key = queue.next("ann", 4, 0)[0];
        assert!(!asked.contains(&key), "{key:?} was asked before");
        if key.repeat {
            let first = asked.iter().position(|k| *k == fresh(key.item)).expect("asked before");
            assert!(asked.len() - first >= 8, "repeated after {}", asked.len() - first);
            assert!(!gold.contains(&key.item));
        }
        queue.record("ann", key, QuestionState::Voted, None);
        asked.push(key);
    }
    let gold = asked.iter().filter(|k| gold.contains(&k.item)).count();
    let repeats = asked.iter().filter(|k| k.repeat).count();
    assert!((110..190).contains(&gold), "{gold} of 1500 were gold");
    assert!((250..350).contains(&repeats), "{repeats} of 1500 were repeats");
}

#[test]
fn sides_are_even_and_depend_on_annotator_and_pair_alone() {
    let left = |who: &str| (0..2000).filter(|i| side(who, &format!("pair{i}")) == Side::A).count();
    // Four standard deviations of a fair coin.
    for who in ["ann", "bob"] {
        assert!((910..1090).contains(&left(who)), "{}", left(who));
    }
    let same = (0..2000).filter(|i| {
        let pair = format!("pair{i}");
        side("ann", &pair) == side("bob", &pair)
    });
    assert!((910..1090).contains(&same.count()));
}

#[test]
fn what_can_still_come_follows_from_pairs_people_and_skips() {
    let room = |queue: &Queue| {
        let Room { now, with_skipped, with_people, skipped } = queue.room();
        (now, with_skipped, with_people, skipped)
    };
    let mut queue = queue(3, &overlap(1.0, 2));
    assert_eq!(room(&queue), (6, 6, 6, 0), "nobody knows how many will come");
    queue.record("ann", fresh(0), QuestionState::Voted, None);
    assert_eq!(room(&queue), (2, 2, 5, 0), "alone, nobody gives two votes on one pair");
    queue.next("bob", 1, 0);
    assert_eq!(room(&queue), (5, 5, 5, 0));
    queue.record("bob", fresh(0), QuestionState::Skipped, None);
    queue.record("bob", fresh(1), QuestionState::Skipped, None);
    assert_eq!(room(&queue), (3, 5, 5, 2));
    assert_eq!(queue.skipped("bob"), [fresh(0), fresh(1)]);
    assert_eq!(queue.skipped("ann"), []);
    queue.record("bob", fresh(0), QuestionState::Retracted, None);
    assert_eq!(room(&queue), (4, 5, 5, 1));
    // Whoever settles disputes is no annotator; what has its votes holds nothing up.
    queue.record(crate::agreement::ADJUDICATOR, fresh(2), QuestionState::Skipped, None);
    assert_eq!(room(&queue), (4, 5, 5, 1));
    for (who, item) in [("ann", 1), ("cid", 1), ("ann", 2), ("bob", 2), ("bob", 0)] {
        queue.record(who, fresh(item), QuestionState::Voted, None);
    }
    assert_eq!(room(&queue), (0, 0, 0, 0));
}

// ---- the session ----------------------------------------------------------------------------------

fn now(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
}

fn submission(session: &LabelSession, id: &str, pair: &str, pick: Pick, left: Side) -> Submission {
    Submission {
        id: id.into(),
        pairs: session.digest().into(),
        pair: pair.into(),
        repeat: false,
        pick,
        left,
        ms: 1500,
        note: String::new(),
        reasons: Vec::new(),
    }
}

fn open(dir: &Path, pairs: usize) -> LabelSession {
    LabelSession::open(assignment(&dir.join("votes"), pairs, &serde_json::json!({})), None)
        .expect("opens")
}

fn latest(dir: &Path) -> Vec<Choice> {
    let folder = Folder::read(&dir.join("votes")).expect("readable");
    folder.latest("ann").into_values().map(|v: &Vote| v.choice).collect()
}

fn lines(dir: &Path) -> usize {
    let text = std::fs::read_to_string(dir.join("votes/ann.jsonl"));
    text.map_or(0, |t| t.lines().count())
}

#[test]
fn the_left_one_is_the_one_on_the_left() {
    for (pick, on_a, on_b) in [
        (Pick::Left, Choice::A, Choice::B),
        (Pick::RightMuch, Choice::BMuch, Choice::AMuch),
        (Pick::Tie, Choice::Tie, Choice::Tie),
        (Pick::Skip, Choice::Skip, Choice::Skip),
    ] {
        assert_eq!((pick.choice(Side::A), pick.choice(Side::B)), (on_a, on_b));
        assert_eq!(Pick::of(on_b, Side::B), Some(pick));
    }
}

#[test]
fn a_submission_counts_once_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp");
    let session = open(dir.path(), 5);
    let (pair, _) = session.next("ann", 1, now(0)).expect("asked").remove(0);
    let item = session.item("ann", &pair, false).expect("at hand");
    assert_eq!(item.left, side("ann", &pair));
    let vote = submission(&session, "one", &pair, Pick::Left, item.left);
    let kept = session.vote("ann", &vote, now(1)).expect("kept");
    assert_eq!(session.vote("ann", &vote, now(2)).expect("known"), kept);
    let other = Submission { pick: Pick::Right, ..vote.clone() };
    assert_eq!(session.vote("ann", &other, now(3)).expect("known"), kept);
    // Somebody else's submission of that name is another one.
    session.vote("bob", &vote, now(3)).expect("kept");
    drop(session);
    let session = open(dir.path(), 5);
    assert_eq!(session.vote("ann", &vote, now(4)).expect("known"), kept);
    assert_eq!(lines(dir.path()), 1);
    assert!(session.next("ann", 9, now(5)).expect("asked").iter().all(|(p, _)| *p != pair));
}

#[test]
fn reasons_are_kept_with_the_vote_and_come_back_with_it() {
    let dir = tempfile::tempdir().expect("temp");
    let session = open(dir.path(), 2);
    let (pair, _) = session.next("ann", 1, now(0)).expect("asked").remove(0);
    let marked = |reasons: &[&str]| Submission {
        reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
        ..submission(&session, "one", &pair, Pick::Left, Side::A)
    };
    let long = "x".repeat(41);
    let many = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for bad in [&["a, b"][..], &[""], &[" a"], &["two\nlines"], &[long.as_str()], &many] {
        let refused = session.vote("ann", &marked(bad), now(1)).expect_err("refused");
        assert!(matches!(refused, SessionError::BadSubmission(_)), "{refused}");
    }
    assert_eq!(lines(dir.path()), 0);
    let kept = session.vote("ann", &marked(&["rude", "long", "rude"]), now(1)).expect("kept");
    assert_eq!(kept.reasons, ["long", "rude"]);
    let past = session.undo("ann", "two", None, now(2)).expect("taken back");
    assert_eq!(past.reasons, ["long", "rude"]);
    let folder = Folder::read(&dir.path().join("votes")).expect("readable");
    let reasons = |v: &Vote| v.reasons.clone();
    assert_eq!(folder.votes["ann"].iter().map(reasons).collect::<Vec<_>>(), [kept.reasons, vec![]]);
}

#[test]
fn skips_are_taken_back_once_and_their_pairs_asked_again() {
    let dir = tempfile::tempdir().expect("temp");
    let session = open(dir.path(), 3);
    for (i, pick) in [Pick::Skip, Pick::Left, Pick::Skip].into_iter().enumerate() {
        let (pair, _) = session.next("ann", 1, now(0)).expect("asked").remove(0);
        let vote = submission(&session, &format!("v{i}"), &pair, pick, Side::A);
        session.vote("ann", &vote, now(0)).expect("kept");
    }
    assert_eq!(session.next("ann", 1, now(1)).expect("asked"), []);
    let why = session.outlook(now(1)).expect("known").why().expect("it stands still");
    assert!(why.starts_with("at most 1 of the 3 votes can come: 2 pairs were skipped"), "{why}");
    assert_eq!(session.ask_again("ann", now(2)).expect("taken back"), 2);
    assert_eq!(session.ask_again("ann", now(2)).expect("nothing is left"), 0);
    assert_eq!(lines(dir.path()), 5);
    assert_eq!(session.outlook(now(3)).expect("known").why(), None);
    // The same after a restart, and what follows from votes never saw any of it.
    drop(session);
    let session = open(dir.path(), 3);
    assert_eq!(session.next("ann", 9, now(3)).expect("asked").len(), 2);
    let folder = Folder::read(&dir.path().join("votes")).expect("readable");
    assert_eq!(Effective::of(&folder).votes(), 1);
}

#[test]
fn undo_walks_back_to_the_first_vote_and_not_beyond() {
    let dir = tempfile::tempdir().expect("temp");
    let mut session = open(dir.path(), 6);
    let mut order = Vec::new();
    for i in 0..5 {
        let (pair, _) = session.next("ann", 3, now(i)).expect("asked").remove(0);
        let vote = submission(&session, &format!("v{i}"), &pair, Pick::Tie, Side::A);
        session.vote("ann", &vote, now(i)).expect("kept");
        order.push(pair);
    }
    for (i, pair) in (0..).zip(order.iter().rev()) {
        let past = session.undo("ann", &format!("u{i}"), None, now(10 + i)).expect("undone");
        assert_eq!((&past.pair, past.pick), (pair, Pick::Tie));
        // The same submission again takes nothing else back.
        let again = session.undo("ann", &format!("u{i}"), None, now(10 + i)).expect("known");
        assert_eq!(again.pair, *pair);
        assert_eq!(session.next("ann", 1, now(10 + i)).expect("asked")[0].0, *pair);
        if i == 2 {
            session = open(dir.path(), 6);
        }
    }
    let error = session.undo("ann", "u9", None, now(30)).expect_err("nothing is left");
    assert!(matches!(error, SessionError::NothingToUndo));
    assert_eq!(latest(dir.path()), [Choice::Retracted; 5]);
    // Voting again counts, and what follows from votes is as if nothing had been undone.
    let vote = submission(&session, "again", &order[0], Pick::Left, Side::A);
    assert_eq!(session.vote("ann", &vote, now(40)).expect("kept").rev, 2);
    let folder = Folder::read(&dir.path().join("votes")).expect("readable");
    assert_eq!(Effective::of(&folder).votes(), 1);
    assert_eq!(session.progress("ann", now(40)).expect("known").mine, 1);
}

#[test]
fn a_vote_can_be_revised_and_stands_in_the_history_once() {
    let dir = tempfile::tempdir().expect("temp");
    let session = open(dir.path(), 3);
    let hand = session.next("ann", 3, now(0)).expect("asked");
    for (i, (pair, _)) in (0..).zip(&hand) {
        let vote = submission(&session, &format!("v{i}"), pair, Pick::Left, Side::A);
        session.vote("ann", &vote, now(i)).expect("kept");
    }
    let again = submission(&session, "again", &hand[0].0, Pick::RightMuch, Side::A);
    assert_eq!(session.vote("ann", &again, now(9)).expect("kept").rev, 1);
    let history = session.history("ann", 9, now(9)).expect("readable");
    let said: Vec<(&str, Pick)> = history.iter().map(|p| (p.pair.as_str(), p.pick)).collect();
    let [first, second, third] = [0, 1, 2].map(|i: usize| hand[i].0.as_str());
    assert_eq!(said, [(first, Pick::RightMuch), (third, Pick::Left), (second, Pick::Left)]);
    assert!(session.history("bob", 9, now(9)).expect("readable").is_empty());
    assert_eq!(session.progress("ann", now(9)).expect("known").votes, 3);
}

#[test]
fn nobody_takes_back_what_others_said() {
    let dir = tempfile::tempdir().expect("temp");
    let session = open(dir.path(), 2);
    let pair = session.next("ann", 1, now(0)).expect("asked").remove(0).0;
    session
        .vote("ann", &submission(&session, "v", &pair, Pick::Left, Side::A), now(0))
        .expect("kept");
    for named in [None, Some((pair.as_str(), false))] {
        assert!(session.undo("bob", "u", named, now(1)).is_err());
    }
    assert_eq!(latest(dir.path()), [Choice::A]);
}

#[test]
fn votes_of_others_are_noticed_and_their_pairs_not_asked() {
    let dir = tempfile::tempdir().expect("temp");
    let (one, other) = (open(dir.path(), 4), open(dir.path(), 4));
    let all: Vec<String> =
        one.next("ann", 4, now(0)).expect("asked").into_iter().map(|(pair, _)| pair).collect();
    for (i, pair) in all.iter().enumerate().skip(1) {
        let vote = submission(&one, &format!("v{i}"), pair, Pick::Left, Side::A);
        one.vote("ann", &vote, now(1)).expect("kept");
    }
    let left = other.next("bob", 4, now(5)).expect("asked");
    assert_eq!(left, [(all[0].clone(), false)]);
    // What stands on bob's screen stays his when the folder changes once more.
    let late = submission(&one, "late", &all[1], Pick::Right, Side::A);
    one.vote("dan", &late, now(6)).expect("kept");
    assert!(other.next("cleo", 4, now(8)).expect("asked").is_empty());
    assert_eq!(other.next("bob", 4, now(8)).expect("asked"), left);
    assert_eq!(other.progress("bob", now(8)).expect("known").votes, 4);
}

#[test]
fn a_conflict_of_git_stops_voting_until_it_is_mended() {
    let dir = tempfile::tempdir().expect("temp");
    let session = open(dir.path(), 4);
    let hand = session.next("ann", 2, now(0)).expect("asked");
    let vote = submission(&session, "v", &hand[0].0, Pick::Left, Side::A);
    session.vote("ann", &vote, now(1)).expect("kept");
    let path = dir.path().join("votes/ann.jsonl");
    let line = std::fs::read_to_string(&path).expect("readable");
    #[expect(clippy::disallowed_methods, reason = "the test makes a conflict")]
    std::fs::write(&path, format!("<<<<<<< HEAD\n{line}=======\n>>>>>>> b\n")).expect("written");
    let second = submission(&session, "w", &hand[1].0, Pick::Left, Side::A);
    for later in [5, 6] {
        let error = session.vote("ann", &second, now(later)).expect_err("refused").to_string();
        assert!(error.contains("ann.jsonl:1: a conflict of git"), "{error}");
    }
    #[expect(clippy::disallowed_methods, reason = "the test mends it")]
    std::fs::write(&path, line).expect("written");
    session.vote("ann", &second, now(9)).expect("kept");
    assert_eq!(lines(dir.path()), 2);
}

#[test]
fn other_pairs_are_refused_but_an_answer_sent_twice_is_known() {
    let dir = tempfile::tempdir().expect("temp");
    let session = open(dir.path(), 3);
    let pair = session.next("ann", 1, now(0)).expect("asked").remove(0).0;
    let vote = submission(&session, "v", &pair, Pick::Left, Side::A);
    session.vote("ann", &vote, now(0)).expect("kept");
    drop(session);
    let session = open(dir.path(), 4);
    assert!(session.vote("ann", &vote, now(1)).is_ok());
    let second = Submission { id: "w".into(), ..vote.clone() };
    assert!(matches!(session.vote("ann", &second, now(1)), Err(SessionError::OtherPairs)));
    let moved = Submission { pairs: session.digest().into(), pair: "sha256:0".into(), ..second };
    assert!(matches!(session.vote("ann", &moved, now(1)), Err(SessionError::UnknownPair)));
    assert_eq!(lines(dir.path()), 1);
}

#[test]
fn one_page_a_folder_and_a_terminal_beside_it() {
    let dir = tempfile::tempdir().expect("temp");
    let cache = dir.path().join("cache");
    let of = || assignment(&dir.path().join("votes"), 3, &serde_json::json!({}));
    let first = LabelSession::open(of(), Some(&cache)).expect("opens");
    first.announce("http://127.0.0.1:8765");
    let error = LabelSession::open(of(), Some(&cache)).expect_err("taken").to_string();
    assert!(error.ends_with("(http://127.0.0.1:8765)"), "{error}");
    assert!(LabelSession::open(of(), None).is_ok());
    drop(first);
    assert!(LabelSession::open(of(), Some(&cache)).is_ok());
}

#[test]
fn a_folder_has_one_name_before_and_after_its_first_vote() {
    let dir = tempfile::tempdir().expect("temp");
    std::fs::create_dir(dir.path().join("real")).expect("made");
    std::os::unix::fs::symlink("real", dir.path().join("link")).expect("linked");
    let spelled = [dir.path().join("real/votes"), dir.path().join("link/votes")];
    let names = || spelled.each_ref().map(|path| super::session::votes_name(path));
    let before = names();
    assert_eq!(before[0], before[1]);
    std::fs::create_dir(&spelled[0]).expect("made");
    assert_eq!(names(), before);
}

#[test]
fn what_is_on_a_screen_stays_there_over_a_restart() {
    let dir = tempfile::tempdir().expect("temp");
    let cache = dir.path().join("cache");
    let of = || assignment(&dir.path().join("votes"), 8, &serde_json::json!({}));
    let time = Timestamp::now();
    let session = LabelSession::open(of(), Some(&cache)).expect("opens");
    let ann = session.next("ann", 4, time).expect("asked");
    drop(session);
    let session = LabelSession::open(of(), Some(&cache)).expect("opens");
    let bob = session.next("bob", 8, time).expect("asked");
    assert_eq!(bob.len(), 4);
    assert!(bob.iter().all(|question| !ann.contains(question)));
    assert_eq!(session.next("ann", 4, time).expect("asked"), ann);
}

#[test]
fn a_repeat_is_shown_the_other_way_round_and_is_no_vote() {
    let dir = tempfile::tempdir().expect("temp");
    let settings = serde_json::json!({
        "quality": { "gold_share": 0.0, "repeats": 0.5, "min_seconds": 1.0 }
    });
    let of = assignment(&dir.path().join("votes"), 100, &settings);
    let session = LabelSession::open(of, None).expect("opens");
    let mut repeats = 0;
    for i in 0..60 {
        let (pair, repeat) = session.next("ann", 4, now(i)).expect("asked").remove(0);
        let item = session.item("ann", &pair, repeat).expect("at hand");
        assert_eq!(item.left == side("ann", &pair), !repeat);
        let text = session.texts(&pair).expect("at hand");
        assert_eq!(item.one == text.a, item.left == Side::A);
        let vote = submission(&session, &format!("v{i}"), &pair, Pick::Left, item.left);
        session.vote("ann", &Submission { repeat, ..vote }, now(i)).expect("kept");
        repeats += u64::from(repeat);
    }
    assert!(repeats > 5, "{repeats}");
    let progress = session.progress("ann", now(99)).expect("known");
    assert_eq!((progress.mine, progress.votes), (60 - repeats, 60 - repeats));
}

// ---- the routes --------------------------------------------------------------------------------

mod walk {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Method, Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;
    use crate::http::{Guard, Role, Signer, Who};
    use crate::label::call::App;
    use crate::label::routes::{ROUTES, Route, router};

    const HOST: &str = "127.0.0.1:8765";
    const ORIGIN: &str = "http://127.0.0.1:8765";

    struct Site {
        dir: tempfile::TempDir,
        router: Router,
        signer: Signer,
    }

    fn site(open: bool, public: Option<(&str, &str)>) -> Site {
        let dir = tempfile::tempdir().expect("temp");
        let session = Arc::new(super::open(dir.path(), 3));
        let signer = Signer::open(dir.path(), &["demo", "labels"]).expect("a key");
        let public = public.map(|(s, a)| (s.to_owned(), a.to_owned()));
        let guard = Guard { signer: signer.clone(), open, public };
        let expires = jiff::SignedDuration::from_hours(1);
        let app = App { session, guard, base: "http://127.0.0.1:8765".into(), expires };
        Site { dir, router: router(Arc::new(app)), signer }
    }

    fn cookie(signer: &Signer, role: Role, seconds: i64) -> String {
        let until = Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let name = if role == Role::Admin { "admin" } else { "ann" };
        let now = until.saturating_sub(jiff::SignedDuration::from_secs(1)).expect("a time");
        let session = signer.session(&signer.sign(role, name, until), now).expect("valid then");
        format!("{}={session}", signer.cookie(role))
    }

    fn role(route: &Route) -> Role {
        if route.who == Who::Admin { Role::Admin } else { Role::Annotator }
    }

    /// Status and body of a request to a route with these headers.
    fn ask(site: &Site, route: &Route, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let path = route.path.replace("{token}", "a.b.c").replace("{pair}", "sha256:0");
        let path = path.replace("{name}", "ann");
        let mut request =
            Request::builder().method(Method::from(route.method)).uri(path.replace("{part}", "a"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if route.changes { "{}" } else { "" };
        send(
            site,
            request.header("content-type", "application/json").body(body.into()).expect("ok"),
        )
    }

    fn send(site: &Site, request: Request<Body>) -> (StatusCode, String) {
        let is_api = request.uri().path().starts_with("/api/");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let reply = runtime.expect("a runtime").block_on(async {
            let reply = site.router.clone().oneshot(request).await.expect("infallible");
            let (parts, body) = reply.into_parts();
            (parts, axum::body::to_bytes(body, usize::MAX).await.expect("whole"))
        });
        let (parts, body) = reply;
        let header = |name: &str| parts.headers[name].to_str().expect("text").to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'; "));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store");
        let body = String::from_utf8(body.to_vec()).expect("text");
        if is_api {
            let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(json["error"].is_string(), !parts.status.is_success(), "{json}");
        }
        (parts.status, body)
    }

    #[test]
    fn every_route_refuses_other_hosts() {
        let site = site(false, None);
        for route in ROUTES {
            let valid = cookie(&site.signer, role(route), 60);
            for host in [
                "evil.example",
                "evil.example:8765",
                "127.0.0.1.evil.example",
                "localhost.evil.example",
                "ann@127.0.0.1:8765",
                "192.168.1.7:8765",
                "0.0.0.0:8765",
                "[2001:db8::1]:8765",
                "",
                "a b",
            ] {
                let headers = [("host", host), ("origin", ORIGIN), ("cookie", &valid)];
                let own = format!("http://{host}");
                let same = [("host", host), ("origin", own.as_str()), ("cookie", &valid)];
                for headers in [headers, same] {
                    assert_eq!(ask(&site, route, &headers).0, 403, "{} {host}", route.path);
                }
            }
            let without = [("origin", ORIGIN), ("cookie", &*valid)];
            assert_eq!(ask(&site, route, &without).0, 403, "{}", route.path);
            let twice = [("host", HOST), ("host", "evil.example"), ("cookie", &*valid)];
            assert_eq!(ask(&site, route, &twice).0, 403, "{}", route.path);
        }
    }

    #[test]
    fn every_route_but_the_way_in_refuses_whoever_has_no_link() {
        let site = site(false, None);
        let elsewhere = tempfile::tempdir().expect("temp");
        let key = |path: &Path, scope: &[&str]| Signer::open(path, scope).expect("a key");
        let other_server = key(elsewhere.path(), &["demo", "labels"]);
        let other_stage = key(site.dir.path(), &["demo", "other"]);
        for route in ROUTES.iter().filter(|route| route.who != Who::Anyone) {
            let role = role(route);
            let name = site.signer.cookie(role);
            let until = Timestamp::now() + jiff::SignedDuration::from_secs(60);
            let signed = |signer: &Signer| {
                let token = signer.sign(role, "ann", until);
                format!("{name}={}", signer.session(&token, Timestamp::now()).expect("valid"))
            };
            let link = format!("{name}={}", site.signer.sign(role, "ann", until));
            let valid = signed(&site.signer);
            let forged = format!("{}0", &valid[..valid.len() - 1]);
            let forged =
                if forged == valid { format!("{}1", &valid[..valid.len() - 1]) } else { forged };
            let refused = [
                String::new(),
                format!("{name}="),
                forged,
                cookie(&site.signer, role, -1),
                signed(&other_server),
                signed(&other_stage),
                link,
                valid.replace("=a.", "=m.").replace(".ann.", ".bob."),
                valid.replacen(&name, "preflow_a_0", 1),
            ];
            for cookie in &refused {
                let headers = [("host", HOST), ("origin", ORIGIN), ("cookie", cookie)];
                assert_eq!(ask(&site, route, &headers).0, 401, "{} {cookie}", route.path);
            }
            let headers = [("host", HOST), ("origin", ORIGIN), ("cookie", &valid)];
            let status = ask(&site, route, &headers).0;
            assert!(![401, 403].contains(&status.as_u16()), "{} {status}", route.path);
            // Each role has its own cookie; none opens what is the other's.
            let other = if role == Role::Admin { Role::Annotator } else { Role::Admin };
            let theirs = cookie(&site.signer, other, 60);
            let renamed = theirs.replacen(&site.signer.cookie(other), &name, 1);
            for cookie in [theirs, renamed] {
                let headers = [("host", HOST), ("origin", ORIGIN), ("cookie", &*cookie)];
                let status = ask(&site, route, &headers).0.as_u16();
                assert!([401, 403].contains(&status), "{} {cookie} {status}", route.path);
            }
        }
        assert!(!site.dir.path().join("votes").exists(), "something was written");
    }

    #[test]
    fn every_route_that_changes_something_refuses_other_pages() {
        let site = site(false, None);
        let mut seen = 0;
        for route in ROUTES.iter().filter(|route| route.changes) {
            let valid = cookie(&site.signer, role(route), 60);
            for origin in [
                "http://evil.example",
                "null",
                "",
                "https://127.0.0.1:8765",
                "http://127.0.0.1:8766",
                "http://127.0.0.1",
                "http://localhost:8765",
                "http://127.0.0.1:8765.evil.example",
                "http://127.0.0.1:8765/",
            ] {
                let headers = [("host", HOST), ("cookie", &*valid), ("origin", origin)];
                assert_eq!(ask(&site, route, &headers).0, 403, "{} {origin}", route.path);
            }
            let without = [("host", HOST), ("cookie", &*valid)];
            assert_eq!(ask(&site, route, &without).0, 403, "{}", route.path);
            let twice = [
                ("host", HOST),
                ("cookie", &*valid),
                ("origin", ORIGIN),
                ("origin", "http://evil.example"),
            ];
            assert_eq!(ask(&site, route, &twice).0, 403, "{}", route.path);
            seen += 1;
        }
        assert!(seen >= 3);
        assert!(!site.dir.path().join("votes").exists(), "something was written");
    }

    #[test]
    fn what_is_not_in_the_table_is_not_there() {
        let site = site(false, None);
        let ask = |method: &str, path: &str, host: &str| {
            let request = Request::builder().method(method).uri(path).header("host", host);
            send(&site, request.body(Body::empty()).expect("ok")).0.as_u16()
        };
        for path in ["/api/secret", "/votes/ann.jsonl", "/../key", "/api/text/../../key", "/in/"] {
            assert_eq!(ask("GET", path, HOST), 404, "{path}");
            assert_eq!(ask("GET", path, "evil.example"), 403, "{path}");
        }
        for route in ROUTES.iter().filter(|route| !route.path.contains('{')) {
            let methods = ["PUT", "DELETE", "PATCH", if route.changes { "GET" } else { "POST" }];
            for method in methods {
                assert_eq!(ask(method, route.path, HOST), 405, "{method} {}", route.path);
                assert_eq!(ask(method, route.path, "evil.example"), 403, "{method}");
            }
        }
    }

    #[test]
    fn a_tunnel_and_a_proxy_are_this_page_too() {
        let vote = ROUTES.iter().find(|route| route.path == "/api/next").expect("there");
        let tries = |site: &Site, host: &str, origin: &str| {
            let valid = cookie(&site.signer, Role::Annotator, 60);
            ask(site, vote, &[("host", host), ("origin", origin), ("cookie", &valid)]).0.as_u16()
        };
        let own = site(false, None);
        assert_eq!(tries(&own, "localhost:9000", "http://localhost:9000"), 400);
        assert_eq!(tries(&own, "[::1]:9000", "http://[::1]:9000"), 400);
        let public = site(false, Some(("https", "label.example.org")));
        assert_eq!(tries(&public, "label.example.org", "https://label.example.org"), 400);
        assert_eq!(tries(&public, "label.example.org", "http://label.example.org"), 403);
        assert_eq!(tries(&public, "other.example.org", "https://other.example.org"), 403);
        let open = site(true, None);
        assert_eq!(tries(&open, "192.168.1.7:8765", "http://192.168.1.7:8765"), 400);
        assert_eq!(tries(&open, "evil.example:8765", "http://evil.example:8765"), 403);
    }

    #[test]
    fn a_link_becomes_a_cookie_that_only_this_page_sees() {
        let site = site(false, None);
        let until = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let token = site.signer.sign(Role::Annotator, "ann", until);
        let request = Request::builder().uri(format!("/in/{token}")).header("host", HOST);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let request = request.body(Body::empty()).expect("ok");
        let reply = runtime
            .expect("a runtime")
            .block_on(site.router.clone().oneshot(request))
            .expect("infallible");
        assert_eq!(reply.status(), 200);
        let set = reply.headers()["set-cookie"].to_str().expect("text");
        assert!(!set.contains(&token), "{set}");
        let path = format!("Path={}/;", site.signer.path());
        for part in ["HttpOnly", "SameSite=Strict", &path] {
            assert!(set.contains(part), "{set}");
        }
        let place = format!("0; url={}/", site.signer.path());
        assert_eq!(reply.headers()["refresh"].to_str().expect("text"), place);
        let bad = Request::builder().uri(format!("/in/{token}0")).header("host", HOST);
        assert_eq!(send(&site, bad.body(Body::empty()).expect("ok")).0, 401);
    }
}
