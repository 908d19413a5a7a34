//! Labels of people: from the canonical form of votes to `dataset/labels`.

use preflow::protocol::Event;
use preflow::votes::{Ballot, Choice, Effective, Judged, PairText, Side};
use preflow_stages::data::Column;
use preflow_stages::training::preferences;
use serde_json::{Value, json};

use crate::harness::*;

/// Answers as sampled, and what people say of the pair: `a` is the one that sorts first.
type Said<'a> = (&'a str, &'a str, &'a [(&'a str, Choice)]);

fn text(i: usize, one: &str, other: &str) -> PairText {
    PairText::new(&format!("prompt {i}"), one, other)
}

/// The canonical form of votes; a name that ends with `2` repeats.
fn votes(said: &[Said], with_text: bool) -> Vec<u8> {
    let judged = |(i, (one, other, ballots)): (usize, &Said)| {
        let PairText { pair, prompt, a, b } = text(i, one, other);
        let ballot = |(name, choice): &(&str, Choice)| Ballot {
            annotator: name.trim_end_matches('2').into(),
            repeat: name.ends_with('2'),
            choice: *choice,
            shown_left: Side::A,
            reasons: Vec::new(),
        };
        let ballots = ballots.iter().map(ballot).collect();
        (pair.clone(), Judged { pair, text: with_text.then_some([prompt, a, b]), ballots })
    };
    Effective { pairs: said.iter().enumerate().map(judged).collect() }.to_bytes()
}

fn sampled(said: &[Said], which: &[usize]) -> String {
    let row = |i: &usize| {
        let (one, other, _) = said[*i];
        let pair = text(*i, one, other).pair;
        json!({"pair": pair, "prompt": format!("prompt {i}"), "response_a": one,
               "response_b": other, "finished_a": true, "finished_b": i.is_multiple_of(2), "bucket": "seen"})
        .to_string()
            + "\n"
    };
    which.iter().map(row).collect()
}

fn people(more: &Value, ready: &Value) -> Value {
    let mut people = json!({
        "votes": "votes", "question": "Which?", "aggregate": "majority", "reuse": "sampled",
        "overlap": {"fraction": 0.0, "annotators": 2}, "order": "random",
        "quality": {"gold": "", "gold_share": 0.0, "repeats": 0.0, "min_seconds": 1.0},
    });
    for (name, value) in more.as_object().expect("an object") {
        people[name] = value.clone();
    }
    json!({"labeler": {"people": people}, "ready_when": ready})
}

const SAID: [Said; 5] = [
    ("good", "bad", &[("ann", Choice::BMuch), ("ben", Choice::B)]),
    ("bad", "good", &[("ann", Choice::B), ("ann2", Choice::A), ("ben", Choice::A)]),
    ("x", "y", &[("ann", Choice::BothBad)]),
    ("p", "q", &[("ann", Choice::A), ("adjudicator", Choice::B), ("ben", Choice::A)]),
    ("old", "older", &[("ben", Choice::A)]),
];

#[test]
fn votes_become_labels_of_the_sampled_sides() {
    let shop = Workshop::new();
    shop.write("votes", votes(&SAID, true));
    // Not in the order of the votes, one pair twice, one without votes.
    let rows = sampled(&SAID, &[3, 0, 2, 1, 0]);
    let unseen = json!({"pair": "?", "prompt": "new", "response_a": "1", "response_b": "2", "finished_a": true, "finished_b": true, "bucket": "new"});
    shop.write("pairs.jsonl", format!("{rows}{unseen}\n"));
    let params = people(&json!({}), &json!({"votes": 8, "alpha": -1.0}));
    let inputs: [(&str, &[&str]); 2] = [("pairs", &["pairs.jsonl"]), ("votes", &["votes"])];
    let ran = shop.run("l", "collect_labels", params.clone(), &inputs);
    let (summary, table) = (ran.summary(), shop.table("l.labels.parquet"));
    assert_eq!(
        table.texts("prompt").expect("text"),
        ["prompt 3", "prompt 0", "prompt 2", "prompt 1"]
    );
    // Of pair 0 people chose what sorts last, which was sampled first.
    assert_eq!(table.texts("choice").expect("text"), ["b", "a", "both_bad", "tie"]);
    assert_eq!(table.texts("chosen").expect("text"), ["q", "good", "x", "bad"]);
    assert_eq!(table.texts("rejected").expect("text"), ["p", "bad", "y", "good"]);
    assert_eq!(table.bools("tie", false).expect("a column"), [false, false, true, true]);
    assert_eq!(table.floats("strength", -1.0).expect("a column"), [1.0, 1.5, 0.0, 0.0]);
    assert_eq!(table.floats("votes", -1.0).expect("a column"), [2.0, 2.0, 1.0, 2.0]);
    assert_eq!(table.floats("agreement", -1.0).expect("a column"), [0.0, 1.0, 1.0, 0.5]);
    assert_eq!(table.texts("voters").expect("text")[0], "ann ben adjudicator");
    assert_eq!(table.texts("bucket").expect("text"), ["seen"; 4]);
    assert_eq!(table.bools("finished_b", true).expect("a column"), [false, true, true, false]);
    assert_eq!(table.bools("simulated", true).expect("a column"), [false; 4]);
    for (name, expected) in [
        ("labels", 4.0),
        ("labels/ties", 2.0),
        ("labels/votes", 8.0),
        ("labels/annotators", 3.0),
        ("labels/pairs_used", 4.0),
        ("labels/unused_votes", 1.0),
        ("labels/simulated", 0.0),
        // Pairs 0 and 3 agree, pair 1 does not.
        ("labels/agreement", 2.0 / 3.0),
    ] {
        assert!((summary[name] - expected).abs() < 1e-12, "{name}: {summary:?}");
    }
    let bytes = fs_err::read(shop.path("l.labels.parquet")).expect("bytes");
    shop.run("again", "collect_labels", params.clone(), &inputs).summary();
    assert_eq!(fs_err::read(shop.path("again.labels.parquet")).expect("bytes"), bytes);
    assert!(table.column("reasons").is_none(), "nobody marked any");
    // Reasons: of those who agree with the choice, all where votes are even.
    let marked = votes(&SAID, true);
    let marked = String::from_utf8(marked).expect("text");
    let marked = marked.replace(
        r#"{"annotator":"ann","choice":"b","shown_left":"a"}"#,
        r#"{"annotator":"ann","choice":"b","shown_left":"a","reasons":["long","rude"]}"#,
    );
    shop.write("marked", marked);
    let inputs_marked: [(&str, &[&str]); 2] = [("pairs", &["pairs.jsonl"]), ("votes", &["marked"])];
    shop.run("marked", "collect_labels", params, &inputs_marked).summary();
    let marked = shop.table("marked.labels.parquet");
    assert_eq!(marked.texts("reasons").expect("text"), ["", "", "", "long, rude"]);
    assert_eq!(marked.texts("chosen").expect("text"), table.texts("chosen").expect("text"));
    let each = people(&json!({"aggregate": "each_vote"}), &json!({"votes": 0, "alpha": -1.0}));
    assert_eq!(shop.run("each", "collect_labels", each, &inputs).summary()["labels"], 6.0);
}

#[test]
fn two_bad_answers_keep_their_own_ends() {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    shop.write("votes", votes(&SAID, true));
    shop.write(
        "pairs.jsonl",
        sampled(&SAID, &[2]).replace("true", "false").replace("_a\":false", "_a\":true"),
    );
    let params = people(&json!({}), &json!({"votes": 0, "alpha": -1.0}));
    let inputs: [(&str, &[&str]); 2] = [("pairs", &["pairs.jsonl"]), ("votes", &["votes"])];
    shop.run("l", "collect_labels", params, &inputs).summary();
    let table = shop.table("l.labels.parquet");
    let mut cx = context(&shop, "r", "train_reward");
    let read = preferences(&mut cx, &vocabulary, preflow_stages::data::Room::new(64), &table)
        .expect("a preference");
    // `x` was finished, `y` was not.
    assert_eq!(table.texts("choice").expect("text"), ["both_bad"]);
    assert_eq!((read[0].chosen.completion.len(), read[0].rejected.completion.len()), (2, 1));
}

#[test]
fn all_votes_that_were_kept_count_without_any_pairs() {
    let shop = Workshop::new();
    shop.write("votes", votes(&SAID, true));
    shop.write("pairs.jsonl", sampled(&SAID, &[1]));
    let params = people(&json!({"reuse": "all"}), &json!({"votes": 0, "alpha": -1.0}));
    let alone: [(&str, &[&str]); 1] = [("votes", &["votes"])];
    let ran = shop.run("l", "collect_labels", params.clone(), &alone);
    assert_eq!((ran.summary()["labels"], ran.summary()["labels/unused_votes"]), (5.0, 0.0));
    let table = shop.table("l.labels.parquet");
    assert!(matches!(table.column("pair"), Some(Column::Text(_))));
    let both: [(&str, &[&str]); 2] = [("pairs", &["pairs.jsonl"]), ("votes", &["votes"])];
    assert_eq!(shop.run("m", "collect_labels", params.clone(), &both).summary()["labels"], 5.0);
    let table = shop.table("m.labels.parquet");
    // The sampled one first, with its side; of the others nothing is known but their texts.
    assert_eq!(table.texts("prompt").expect("text")[0], "prompt 1");
    let Some(Column::Text(buckets)) = table.column("bucket") else { panic!("no buckets") };
    assert_eq!(buckets.iter().flatten().count(), 1);
    // Votes whose text nobody kept cannot be brought back.
    shop.write("votes", votes(&SAID, false));
    assert_eq!(shop.run("n", "collect_labels", params, &both).summary()["labels"], 1.0);
    let sampled_only = people(&json!({}), &json!({"votes": 0, "alpha": -1.0}));
    let failure = shop.run("o", "collect_labels", sampled_only, &alone).failure();
    assert!(failure.contains("`pairs` is not connected") && failure.contains("reuse"), "{failure}");
}

#[test]
fn too_few_votes_wait_and_say_for_how_many() {
    let shop = Workshop::new();
    shop.write("votes", votes(&SAID, true));
    shop.write("none", votes(&[], true));
    shop.write("pairs.jsonl", sampled(&SAID, &[0, 1, 2, 3]));
    let wait = |file: &str, ready: Value| {
        let params = people(&json!({}), &ready);
        let inputs: [(&str, &[&str]); 2] = [("pairs", &["pairs.jsonl"]), ("votes", &[file])];
        let ran = shop.run("l", "collect_labels", params, &inputs);
        assert_eq!(ran.code, Some(0));
        match ran.events.last() {
            Some(Event::Waiting { reason, have, need }) => (reason.clone(), *have, *need),
            other => panic!("not waiting: {other:?}"),
        }
    };
    let (reason, have, need) = wait("votes", json!({"votes": 400, "alpha": -1.0}));
    assert_eq!(reason, "8 of 400 votes (1 more on pairs that are not sampled now)");
    assert_eq!((have, need), (Some(8), Some(400)));
    // Nothing is no label, even where nothing is asked for.
    assert_eq!(wait("none", json!({"votes": 0, "alpha": -1.0})).0, "0 of 1 votes");
    let (reason, ..) = wait("votes", json!({"votes": 2, "alpha": 0.9}));
    assert!(reason.starts_with("agreement 0."), "{reason}");
}

#[test]
fn gold_items_measure_annotators_and_are_no_labels() {
    let shop = Workshop::new();
    shop.write("votes", votes(&SAID, true));
    shop.write("pairs.jsonl", sampled(&SAID, &[0, 1, 2, 3]));
    // In a gold item `a` is its first answer: `good`, which sorts last.
    shop.write("gold.jsonl", "{\"prompt\": \"prompt 1\", \"response_a\": \"good\", \"response_b\": \"bad\", \"choice\": \"a\"}\n");
    let params = people(&json!({}), &json!({"votes": 0, "alpha": -1.0}));
    let inputs: [(&str, &[&str]); 3] =
        [("pairs", &["pairs.jsonl"]), ("votes", &["votes"]), ("gold", &["gold.jsonl"])];
    let summary = shop.run("l", "collect_labels", params, &inputs).summary();
    assert_eq!((summary["labels"], summary["labels/votes"]), (3.0, 6.0));
    assert_eq!((summary["labels/gold_accuracy"], summary["labels/unused_votes"]), (0.5, 1.0));
}
