//! Preferences in and out: files of other tools become votes, votes become figures, labels files.

use crate::space::Space;

const PIPELINE: &str = "\
preflow: 1
name: people
sources:
  pairs: { path: pairs.jsonl, as: pairs }
stages:
  labels:
    kind: collect_labels
    pairs: pairs
    labeler: { people: { votes: votes } }
    ready_when: { votes: 50 }
  copied:
    kind: command
    inputs: { i: pairs }
    outputs: { labels: dataset/labels }
    command: 'cp made.parquet \"$OUT_labels\"'
";

/// Thirty pairs, the first answer better in all but every fifth.
fn space() -> Space {
    let space = Space::empty();
    let row = |i: usize, who: &str| {
        let choice = if i % 5 == usize::from(who == "ben") { "b" } else { "a" };
        format!(
            "{{\"prompt\": \"q{i}\", \"response_a\": \"yes {i}\", \"response_b\": \"no\", \
             \"choice\": \"{choice}\", \"who\": \"{who}\"}}\n"
        )
    };
    let votes = |who: &str| (0..30).map(|i| row(i, who)).collect::<String>();
    space.write("p.yaml", PIPELINE);
    space.write("pairs.jsonl", &votes("nobody"));
    space.write("given.jsonl", &(votes("ann") + &votes("ben")));
    space
}

#[test]
fn votes_come_in_once_and_are_counted() {
    let space = space();
    let import = |more: &[&str]| {
        let args = ["label", "import", "given.jsonl", "--votes", "votes", "--map", "annotator=who"];
        space.preflow(&[&args, more].concat())
    };
    let said = import(&["--pairs-out", "made.parquet"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("60 new votes on 30 pairs"), "{}", said.out);
    let bytes = space.read("votes/ann.jsonl");
    let again: serde_json::Value = serde_json::from_str(&import(&["--json"]).out).expect("JSON");
    assert_eq!((&again["known"], &again["added"]["ben"]), (&60.into(), &0.into()));
    assert_eq!(space.read("votes/ann.jsonl"), bytes);

    let stats = space.preflow(&["label", "stats", "p.yaml", "labels", "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats.out).expect("JSON");
    let overall = &stats["quality"]["overall"];
    assert_eq!((&overall["pairs"], &overall["votes"]), (&30.into(), &60.into()));
    // They differ where either found the second better: in two of five.
    assert!((overall["percent"]["value"].as_f64().expect("a share") - 0.6).abs() < 1e-12);
    assert_eq!(stats["quality"]["disputes"].as_array().map(Vec::len), Some(12));
    assert_eq!(stats["ready"]["ready"], true);
    let text = space.preflow(&["label", "stats", "p.yaml", "labels"]).out;
    for part in ["60 votes on 30 pairs", "agreement             60 %", "✓ 60 of 50 votes"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // What a stage made comes out in another form; what has no such columns is not made up.
    assert_eq!(space.preflow(&["run", "p.yaml", "copied"]).code, Some(0));
    let csv = space.preflow(&["label", "export", "p.yaml", "copied", "--format", "csv"]);
    assert!(csv.out.starts_with("pair,prompt,response_a,response_b,"), "{}", csv.out);
    assert_eq!(csv.out.lines().count(), 31);
    let trl = space.preflow(&["label", "export", "p.yaml", "copied", "--out", "x.jsonl"]);
    assert!(trl.code == Some(2) && trl.err.contains("no column `chosen`"), "{}", trl.err);
    let all = ["label", "export", "p.yaml", "copied", "--format", "parquet", "--out", "y.parquet"];
    assert_eq!(space.preflow(&all).code, Some(0));
    let [made, out] = ["made.parquet", "y.parquet"].map(|f| std::fs::read(space.path(f)));
    assert_eq!(made.expect("bytes"), out.expect("bytes"));
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_written() {
    let space = space();
    let given = space.read("given.jsonl") + "{\"prompt\": \"q\", \"answer\": \"x\"}\nhello\n";
    space.write("given.jsonl", &given);
    let args = ["label", "import", "given.jsonl", "--votes", "votes", "--annotator", "ann"];
    let said = space.preflow(&args);
    assert_eq!(said.code, Some(2));
    for part in ["given.jsonl:61: no chosen answer", "given.jsonl:62: not JSON", "--skip-bad"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!space.path("votes").exists());
    let said = space.preflow(&[&args[..], &["--skip-bad"]].concat());
    assert!(said.code == Some(0) && said.err.contains("2 rows cannot be read"), "{}", said.err);
    // Each pair was judged twice; the later row counts.
    assert!(said.out.contains("30 new votes") && said.out.contains("30 replaced"), "{}", said.out);
    let nobody = space.preflow(&["label", "import", "pairs.jsonl", "--votes", "other"]);
    assert!(nobody.code == Some(2) && nobody.err.contains("--annotator NAME"), "{}", nobody.err);
    let early = space.preflow(&["label", "export", "p.yaml", "labels"]);
    assert!(
        early.code == Some(2) && early.err.contains("preflow run p.yaml labels"),
        "{}",
        early.err
    );
}

#[test]
fn what_is_not_understood_is_asked_for_and_what_nobody_answered_is_told() {
    let space = Space::empty();
    let row = |i: u32| {
        let fields = format!("\"prompt\": \"q{i}\", \"a\": \"x\", \"b\": \"y\"");
        format!("{{{fields}, \"label\": {}}}\n", i % 2)
    };
    space.write("given.TXT", &(0..4).map(row).collect::<String>());
    let args = ["label", "import", "given.TXT", "--votes", "votes", "--annotator", "Анна"];
    let said = space.preflow(&[&args[..], &["--skip-bad"]].concat());
    assert_eq!(said.code, Some(2), "{}", said.out);
    for part in ["are the numbers 0, 1", "--choices a=0,b=1"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!space.path("votes").exists());
    let said = space.preflow(&[&args[..], &["--choices", "skip=0,b=1"]].concat());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("2 new votes on 2 pairs"), "{}", said.out);
    assert!(said.out.contains("2 records without an answer"), "{}", said.out);
    assert_eq!(space.read("votes/анна.jsonl").lines().count(), 2);
    let said = space.preflow(&[&args[..], &["--choices", "c=0"]].concat());
    assert!(said.code == Some(2) && said.err.contains("`c` is no choice"), "{}", said.err);
    space.write("given.TXT", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    let said = space.preflow(&args);
    assert!(said.code == Some(2) && said.err.contains("`git lfs pull`"), "{}", said.err);
}
