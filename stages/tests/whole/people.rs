//! People in the loop, from one YAML file: the run waits, votes come, and only what follows from them
//! runs again.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::workspace::{Workspace, stages};
use preflow::label::read_pairs;
use preflow::votes::{Choice, Ledger, PairText, Side, Vote};

const PEOPLE: &str = "pipelines/people.yaml";

/// The smoke pipeline with people in place of the program that labels.
fn space() -> Workspace {
    let space = Workspace::new();
    let smoke = space.0.path().join("pipelines/smoke.yaml");
    let text = std::fs::read_to_string(smoke).expect("read");
    let simulated = "labeler: { simulated: { rules: !include ../datasets/workshop/gold.yaml } }";
    assert!(text.contains(simulated));
    let people = "labeler: { people: { votes: ../votes, overlap: { fraction: 20% } } }\n    \
                  ready_when: { votes: 100 }";
    let text = text.replace(simulated, people).replace("name: smoke", "name: people");
    std::fs::write(space.0.path().join(PEOPLE), text).expect("written");
    space
}

fn pairs(space: &Workspace) -> Vec<PairText> {
    read_pairs(&space.0.path().join("cache/views/people/pairs/pairs.parquet")).expect("pairs")
}

fn votes(space: &Workspace) -> PathBuf {
    space.0.path().join("votes")
}

fn vote(space: &Workspace, annotator: &str, pair: &PairText, choice: Choice, rev: u32) {
    let vote = Vote {
        pair: pair.pair.clone(),
        choice,
        shown_left: Side::A,
        ms: 1500,
        at: format!("2026-01-01T00:00:{rev:02}Z"),
        note: String::new(),
        reasons: Vec::new(),
        rev,
        id: format!("{annotator}-{}-{rev}", pair.pair),
        repeat: false,
    };
    let ledger = Ledger::new(&votes(space), annotator).expect("a name");
    ledger.append(&[vote], std::slice::from_ref(pair)).expect("written");
}

/// Somebody who likes answers that take some words.
fn taste(pair: &PairText) -> Choice {
    let words = |text: &str| text.split_whitespace().count();
    match words(&pair.a).cmp(&words(&pair.b)) {
        std::cmp::Ordering::Greater => Choice::A,
        std::cmp::Ordering::Equal => Choice::Tie,
        std::cmp::Ordering::Less => Choice::B,
    }
}

#[test]
fn votes_start_what_waits_and_later_ones_run_only_what_follows_from_them() {
    let space = space();
    let (text, code) = space.preflow(&["run", PEOPLE]);
    assert_eq!(code, Some(3), "{text}");
    let command = format!("0 of 100 votes    → preflow label serve {PEOPLE} labels");
    assert!(text.contains(&command), "{text}");
    assert!(text.contains("7 done · 1 waiting · 7 blocked"), "what needs no votes is made: {text}");

    let pairs = pairs(&space);
    assert!(pairs.len() >= 140, "{} pairs", pairs.len());
    for pair in &pairs[..80] {
        vote(&space, "ann", pair, taste(pair), 0);
    }
    let plan = space.ok(&["plan", PEOPLE]);
    assert!(plan.contains("80 of 100 votes") && plan.contains("1 waiting for people"), "{plan}");
    for pair in &pairs[60..100] {
        vote(&space, "ben", pair, taste(pair), 0);
    }
    let text = space.ok(&["run", PEOPLE]);
    let after = ["labels", "reward", "ppo", "online", "kto", "answers", "scored", "eval"];
    let ran: HashSet<String> = stages(&text, "▸ ").into_iter().collect();
    assert_eq!(ran, after.map(str::to_owned).into(), "{text}");
    assert!(!text.contains("SIMULATED"), "{text}");

    // A vote taken back and made again, a skip, and a pair that is not sampled change nothing.
    vote(&space, "ann", &pairs[0], Choice::Retracted, 1);
    vote(&space, "ann", &pairs[0], taste(&pairs[0]), 2);
    vote(&space, "ann", &pairs[130], Choice::Skip, 0);
    assert!(space.ok(&["run", PEOPLE]).contains("nothing to do"));
    vote(&space, "ann", &PairText::new("another", "x", "y"), Choice::A, 0);
    let text = space.ok(&["run", PEOPLE]);
    assert_eq!(stages(&text, "▸ "), ["labels"], "the labels are the same bytes: {text}");

    // What changed is told in votes, and upstream of the votes nothing runs.
    for pair in &pairs[100..138] {
        vote(&space, "ben", pair, taste(pair), 0);
    }
    for pair in &pairs[..3] {
        vote(&space, "ann", pair, Choice::BothBad, 3);
    }
    let plan = space.ok(&["plan", PEOPLE]);
    assert!(plan.contains("+38 votes, 3 revised (used pairs 100 → 138)"), "{plan}");
    let text = space.ok(&["run", PEOPLE]);
    let ran: HashSet<String> = stages(&text, "▸ ").into_iter().collect();
    assert_eq!(ran, after.map(str::to_owned).into(), "{text}");

    // The report tells how the annotators do, and where a policy comes from can be told.
    space.ok(&["report", PEOPLE]);
    let html = std::fs::read_to_string(space.0.path().join("report.html")).expect("report");
    assert!(html.contains("Krippendorff") && html.contains("Annotators"), "figures of quality");
    assert!(!html.contains("No person compared"), "nobody is called simulated");
    let trace = space.ok(&["trace", "cache/views/people/ppo/model"]);
    assert!(trace.contains("votes: ann 81, ben 78"), "{trace}");

    let stats = space.ok(&["label", "stats", PEOPLE, "labels", "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(stats["quality"]["overall"]["pairs"], 138);
    assert_eq!(stats["quality"]["overall"]["unused"], 1);
}

const FEW: &str = "\
preflow: 1
name: few
sources: { asked: { path: asked.csv, as: file } }
stages:
  pairs: { kind: prepare, data: asked, as: pairs }
  labels:
    kind: collect_labels
    pairs: pairs
    labeler: { people: { votes: few-votes } }
    ready_when: { votes: 3 }
  size: { kind: command, inputs: { i: labels }, outputs: { o: file }, command: 'wc -c < $IN_i > $OUT_o' }
";

#[test]
fn a_run_that_waits_shows_the_page_and_goes_on_when_there_are_enough_votes() {
    let space = Workspace::new();
    let folder = space.0.path();
    std::fs::write(folder.join("few.yaml"), FEW).expect("written");
    let rows = "prompt,response_a,response_b\np,good,bad\nq,good,bad\nr,good,bad\ns,good,bad\n";
    std::fs::write(folder.join("asked.csv"), rows).expect("written");
    let mut child = Command::new(space.program())
        .args(["run", "few.yaml", "--wait", "--annotator", "ann", "--port", "0"])
        .current_dir(folder)
        .env("PREFLOW_WORKER", env!("CARGO_BIN_EXE_preflow-worker"))
        .env("XDG_STATE_HOME", folder.join(".state"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let link = lines.by_ref().map_while(Result::ok).find(|l| l.contains("http://127.0.0.1:"));
    assert!(link.is_some_and(|l| l.contains("ann")), "the page of the annotator");
    // As `git pull` would bring them: the run notices by itself, and only when there are enough.
    let ledger = Ledger::new(&folder.join("few-votes"), "ben").expect("a name");
    for (i, prompt) in ["p", "q", "r"].into_iter().enumerate() {
        let pair = PairText::new(prompt, "good", "bad");
        let vote = Vote {
            pair: pair.pair.clone(),
            choice: Choice::B,
            shown_left: Side::A,
            ms: 900,
            at: "2026-01-01T00:00:00Z".to_owned(),
            note: String::new(),
            reasons: Vec::new(),
            rev: 0,
            id: i.to_string(),
            repeat: false,
        };
        assert!(child.try_wait().expect("waits").is_none(), "{i} votes are too few");
        ledger.append(&[vote], &[pair]).expect("written");
    }
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().expect("ends").code(), Some(0), "{rest:?}");
    assert!(rest.iter().any(|l| l.contains("size") && l.contains("done")), "{rest:?}");
}
