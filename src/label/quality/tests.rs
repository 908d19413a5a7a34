//! Figures of a small folder of votes, counted by hand.

use super::*;
use crate::label::{Aggregate, AskOrder, Gold, Overlap, PeopleSettings, Quality, ReadyWhen};

/// Pair `i`: `b` is the longer answer.
fn text(i: usize) -> PairText {
    PairText::new(&format!("prompt {i}"), "a", "bb")
}

fn assignment(pairs: usize, ready: ReadyWhen) -> Assignment {
    Assignment {
        guidelines: None,
        pipeline: "p".into(),
        stage: "labels".into(),
        votes: "votes".into(),
        people: PeopleSettings {
            guidelines: String::new(),
            reasons: Vec::new(),
            votes: String::new(),
            question: "Which?".into(),
            aggregate: Aggregate::Majority,
            reuse: Reuse::Sampled,
            overlap: Overlap { fraction: 1.0, annotators: 2 },
            order: AskOrder::Random,
            quality: Quality { gold_share: 0.0, ..Quality::default() },
        },
        ready,
        pairs: (0..pairs).map(text).collect(),
        gold: vec![
            Gold { text: text(100), choice: Choice::A },
            Gold { text: text(101), choice: Choice::B },
        ],
        disagreement: HashMap::new(),
    }
}

const ANY: ReadyWhen = ReadyWhen { votes: 0, alpha: -1.0 };

fn vote(i: usize, choice: Choice, second: usize) -> Vote {
    Vote {
        pair: text(i).pair,
        choice,
        shown_left: if i.is_multiple_of(2) { Side::A } else { Side::B },
        ms: 500 * (1 + second as u64 % 4),
        at: format!("2026-01-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60),
        note: String::new(),
        reasons: Vec::new(),
        rev: 0,
        id: format!("{i}-{second}"),
        repeat: false,
    }
}

fn folder(votes: &[(&str, Vec<Vote>)]) -> Folder {
    let votes = votes.iter().map(|(name, votes)| ((*name).to_owned(), votes.clone())).collect();
    let texts = (0..200).map(text).map(|t| (t.pair.clone(), t)).collect();
    Folder { votes, texts, problems: Vec::new() }
}

#[test]
fn each_annotator_is_counted_apart() {
    let ann = vec![
        vote(0, Choice::A, 0),
        vote(1, Choice::BMuch, 10),
        vote(2, Choice::Tie, 20),
        vote(3, Choice::Skip, 30),
        vote(4, Choice::A, 630),
        vote(100, Choice::AMuch, 640),
        vote(101, Choice::A, 650),
        Vote { repeat: true, ..vote(0, Choice::AMuch, 660) },
        Vote { repeat: true, ..vote(1, Choice::Tie, 670) },
        vote(150, Choice::A, 680),
    ];
    let ben = vec![vote(0, Choice::A, 0), vote(1, Choice::A, 4), vote(2, Choice::BothBad, 8)];
    let report = quality(&assignment(10, ANY), &folder(&[("ann", ann), ("ben", ben)]));
    let ann = &report.annotators[0];
    assert_eq!((ann.votes, ann.skips, ann.ties), (5, 1, 1));
    // Nine gaps, one of them a pause: eight votes in eighty seconds.
    assert_eq!(ann.per_hour, Some(360.0));
    // Seconds 0.5, 1.5, 0.5, 1.5, 0.5 in the order of the votes.
    assert_eq!((ann.seconds, ann.too_fast), (Some(0.5), 3));
    // For the left one: pair 0 (a left), 1 (b left), 4 (a left), 150 (a left).
    let left = ann.left.expect("four votes for one answer");
    assert_eq!((left.value, left.n), (1.0, 4));
    let longer = ann.longer.expect("four");
    assert_eq!((longer.value, longer.n), (0.25, 4));
    assert_eq!(ann.gold.map(|g| (g.value, g.n)), Some((0.5, 2)));
    assert_eq!(ann.consistency.map(|g| (g.value, g.n)), Some((0.5, 2)));
    // Pairs 0, 1, 2 with ben: same, not, both neither.
    assert_eq!(ann.agreement.map(|g| g.n), Some(3));
    assert!((ann.agreement.expect("three").value - 2.0 / 3.0).abs() < 1e-12);
    assert!(ann.too_few && report.too_few);
    let overall = &report.overall;
    assert_eq!((overall.pairs, overall.shared, overall.votes, overall.unused), (4, 3, 7, 1));
    assert!((overall.percent.expect("three").value - 2.0 / 3.0).abs() < 1e-12);
    // Votes for an answer: pair 0 agrees, pair 1 does not.
    assert_eq!(overall.ceiling, Some((0.5, 0.5)));
    assert_eq!(report.disputes.len(), 1);
    assert_eq!(report.disputes[0].pair, text(1).pair);
    assert_eq!(
        report.disputes[0].votes,
        [("ann".to_owned(), Choice::BMuch), ("ben".to_owned(), Choice::A)]
    );
}

#[test]
fn the_adjudicator_settles_disputes_and_is_no_agreement() {
    let ann = vec![vote(0, Choice::A, 0), vote(1, Choice::B, 9)];
    let ben = vec![vote(0, Choice::B, 0), vote(1, Choice::B, 9)];
    let with = [("ann", ann), ("ben", ben), (ADJUDICATOR, vec![vote(0, Choice::A, 0)])];
    let before = quality(&assignment(2, ANY), &folder(&with[..2]));
    let after = quality(&assignment(2, ANY), &folder(&with));
    assert_eq!((before.disputes.len(), after.disputes.len()), (1, 0));
    assert_eq!(before.overall.alpha_ordinal, after.overall.alpha_ordinal);
    assert_eq!((before.overall.votes, after.overall.votes), (4, 5));
    let judge = after.annotators.iter().find(|a| a.annotator == ADJUDICATOR).expect("listed");
    assert_eq!(judge.agreement, None);
}

#[test]
fn readiness_counts_votes_in_use_and_asks_for_agreement() {
    let ask = |votes, alpha| assignment(4, ReadyWhen { votes, alpha });
    let mixed = vec![
        vote(0, Choice::A, 0),
        vote(1, Choice::B, 1),
        vote(2, Choice::A, 2),
        vote(100, Choice::A, 3),
        vote(150, Choice::A, 4),
        Vote { repeat: true, ..vote(0, Choice::A, 5) },
    ];
    let one = Effective::of(&folder(&[("ann", mixed.clone())]));
    let found = readiness(&ask(3, -1.0), &one);
    assert_eq!((found.votes, found.alpha, found.ready), (3, None, true));
    assert!(!readiness(&ask(4, -1.0), &one).ready);
    // Nobody to agree with: an alpha that is asked for is not reached.
    assert!(!readiness(&ask(3, 0.1), &one).ready);
    let two = Effective::of(&folder(&[("ann", mixed.clone()), ("ben", mixed)]));
    let found = readiness(&ask(6, 0.9), &two);
    assert_eq!((found.votes, found.alpha, found.ready), (6, Some(1.0), true));
    // All that were ever kept: the pair that is no longer sampled counts again, gold never.
    let mut all = ask(8, 0.9);
    all.people.reuse = Reuse::All;
    assert_eq!(readiness(&all, &two).votes, 8);
}

#[test]
fn reasons_are_counted_over_the_votes_in_use() {
    let marked = |vote: Vote, reasons: &[&str]| Vote {
        reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
        ..vote
    };
    let ann = vec![
        marked(vote(0, Choice::A, 0), &["long", "rude"]),
        marked(vote(1, Choice::B, 1), &["rude"]),
        // No longer sampled; a repeat; taken back.
        marked(vote(900, Choice::B, 2), &["rude"]),
        Vote { repeat: true, ..marked(vote(0, Choice::A, 3), &["long"]) },
        marked(vote(2, Choice::Retracted, 4), &["long"]),
    ];
    let report = quality(&assignment(4, ANY), &folder(&[("ann", ann)]));
    let counts: Vec<_> =
        report.overall.reasons.iter().map(|r| (r.reason.as_str(), r.votes)).collect();
    assert_eq!(counts, [("rude", 2), ("long", 1)]);
}

#[test]
fn an_empty_folder_has_no_figures_but_no_fault() {
    let report = quality(&assignment(3, ANY), &Folder::default());
    assert!(report.annotators.is_empty() && report.disputes.is_empty() && report.too_few);
    assert_eq!((report.overall.pairs, report.overall.percent), (0, None));
    assert!(serde_json::to_string(&report).expect("JSON").contains("\"fleiss\":null"));
}
