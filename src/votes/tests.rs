//! Votes in files: what counts, what a writer's death leaves, what a merge makes of them.

use std::path::Path;

use super::*;

fn vote(pair: &str, choice: Choice, rev: u32) -> Vote {
    Vote {
        pair: pair.into(),
        choice,
        shown_left: Side::A,
        ms: 900,
        at: format!("2026-01-01T00:00:0{rev}Z"),
        note: String::new(),
        reasons: Vec::new(),
        rev,
        id: format!("{pair}-{rev}"),
        repeat: false,
    }
}

fn effective(dir: &Path) -> Effective {
    Effective::of(&Folder::read(dir).expect("readable"))
}

#[test]
fn a_pair_has_one_name_whatever_the_sides() {
    assert_eq!(pair_id("p", "a", "b"), pair_id("p", "b", "a"));
    assert_ne!(pair_id("p", "a", "b"), pair_id("p", "a", "c"));
    // printf '["preflow.pair/1","p","a","b"]' | sha256sum
    let expected = "sha256:f42908c8ff58bc99b2bba14923c11130e0f03ab844d60d94065d981da1b40de7";
    assert_eq!(pair_id("p", "b", "a"), expected);
}

#[test]
fn undo_and_redo_leave_the_digest_as_it_was() {
    let dir = tempfile::tempdir().expect("temp");
    let ledger = Ledger::new(dir.path(), "ann").expect("a name");
    ledger.append(&[vote("p", Choice::A, 0), vote("q", Choice::Tie, 0)], &[]).expect("written");
    let before = effective(dir.path());
    ledger.append(&[vote("q", Choice::Retracted, 1)], &[]).expect("written");
    let without = effective(dir.path());
    assert_eq!(without.change_from(&before), VoteChange { removed: 1, ..VoteChange::default() });
    ledger.append(&[vote("q", Choice::Tie, 2)], &[]).expect("written");
    assert_eq!(effective(dir.path()).digest(), before.digest());
    ledger.append(&[vote("p", Choice::B, 1), vote("r", Choice::Skip, 0)], &[]).expect("written");
    let change = effective(dir.path()).change_from(&before);
    assert_eq!(change, VoteChange { revised: 1, ..VoteChange::default() });
}

#[test]
fn reasons_are_a_part_of_what_counts_and_votes_without_them_are_as_before() {
    let digest = |reasons: &[&str]| {
        let dir = tempfile::tempdir().expect("temp");
        let reasons = reasons.iter().map(|r| (*r).to_owned()).collect();
        let vote = Vote { reasons, ..vote("p", Choice::A, 0) };
        Ledger::new(dir.path(), "ann").expect("a name").append(&[vote], &[]).expect("written");
        (effective(dir.path()), std::fs::read_to_string(dir.path().join("ann.jsonl")))
    };
    let (plain, line) = digest(&[]);
    assert!(!line.expect("readable").contains("reasons"));
    let ballots = r#"[{"annotator":"ann","choice":"a","shown_left":"a"}]"#;
    let canonical =
        format!("{{\"preflow\":\"votes/1\"}}\n{{\"pair\":\"p\",\"ballots\":{ballots}}}\n");
    assert_eq!(String::from_utf8_lossy(&plain.to_bytes()), canonical);
    let (marked, line) = digest(&["long", "rude"]);
    assert!(line.expect("readable").contains(r#""reasons":["long","rude"]"#));
    assert_eq!(marked.change_from(&plain), VoteChange { revised: 1, ..VoteChange::default() });
    assert_eq!(Effective::parse(&marked.to_bytes()).expect("canonical"), marked);
}

#[test]
fn the_canonical_form_reads_back_and_does_not_depend_on_the_order_of_lines() {
    let dirs = [tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp")];
    let text = PairText::new("say", "b", "a");
    let mut votes = vec![vote(&text.pair, Choice::BMuch, 0), vote(&text.pair, Choice::A, 1)];
    for dir in &dirs {
        let ledger = Ledger::new(dir.path(), "ann").expect("a name");
        ledger.append(&votes, std::slice::from_ref(&text)).expect("written");
        votes.reverse();
    }
    let [one, two] = [effective(dirs[0].path()), effective(dirs[1].path())];
    assert_eq!(one.to_bytes(), two.to_bytes());
    assert_eq!(Effective::parse(&one.to_bytes()).expect("canonical"), one);
    let judged = &one.pairs[&text.pair];
    assert_eq!(judged.text, Some(["say".into(), "a".into(), "b".into()]));
    assert_eq!(judged.ballots[0].choice, Choice::A);
}

#[test]
fn a_torn_last_line_is_reported_and_cut_off_by_the_next_vote() {
    let dir = tempfile::tempdir().expect("temp");
    let ledger = Ledger::new(dir.path(), "ann").expect("a name");
    ledger.append(&[vote("p", Choice::A, 0)], &[]).expect("written");
    let path = dir.path().join("ann.jsonl");
    let whole = std::fs::read(&path).expect("readable");
    let mut torn = whole.clone();
    torn.extend_from_slice(br#"{"pair":"q","choi"#);
    #[expect(clippy::disallowed_methods, reason = "the test tears the file")]
    std::fs::write(&path, &torn).expect("written");
    let folder = Folder::read(dir.path()).expect("readable");
    assert_eq!((folder.problems.len(), folder.problems[0].line), (1, 2));
    assert_eq!(folder.votes["ann"].len(), 1);
    ledger.append(&[vote("r", Choice::B, 0)], &[]).expect("written");
    let folder = Folder::read(dir.path()).expect("readable");
    assert!(folder.problems.is_empty());
    assert_eq!(folder.votes["ann"].iter().map(|v| v.pair.as_str()).collect::<Vec<_>>(), ["p", "r"]);
}

#[test]
fn a_line_without_its_end_is_kept_when_it_is_whole() {
    let dir = tempfile::tempdir().expect("temp");
    let ledger = Ledger::new(dir.path(), "ann").expect("a name");
    ledger.append(&[vote("p", Choice::A, 0)], &[]).expect("written");
    let path = dir.path().join("ann.jsonl");
    let text = std::fs::read_to_string(&path).expect("readable");
    #[expect(clippy::disallowed_methods, reason = "the test edits the file")]
    std::fs::write(&path, text.trim_end()).expect("written");
    ledger.append(&[vote("q", Choice::A, 0)], &[]).expect("written");
    assert_eq!(Folder::read(dir.path()).expect("readable").votes["ann"].len(), 2);
}

#[test]
fn what_is_wrong_in_a_folder_is_named_by_file_and_line() {
    let dir = tempfile::tempdir().expect("temp");
    let ledger = Ledger::new(dir.path(), "ann").expect("a name");
    ledger.append(&[vote("p", Choice::A, 0)], &[]).expect("written");
    let path = dir.path().join("ann.jsonl");
    let line = std::fs::read_to_string(&path).expect("readable");
    for (text, expected) in [
        (format!("{line}hello\n{line}"), "ann.jsonl:2: not a vote"),
        (
            format!("<<<<<<< HEAD\n{line}=======\n{line}>>>>>>> b\n"),
            "ann.jsonl:1: a conflict of git",
        ),
        (line.replace("\"a\"", "\"left\""), "ann.jsonl:1: not a vote"),
    ] {
        #[expect(clippy::disallowed_methods, reason = "the test breaks the file")]
        std::fs::write(&path, text).expect("written");
        let error = Folder::read(dir.path()).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    #[expect(clippy::disallowed_methods, reason = "the test names a file badly")]
    std::fs::write(dir.path().join("Ann B.jsonl"), "").expect("written");
    assert!(matches!(Folder::read(dir.path()), Err(VotesError::BadName { .. })));
    assert!(Folder::read(&dir.path().join("nowhere")).expect("empty").votes.is_empty());
}

#[test]
fn a_submission_that_stands_there_twice_counts_once() {
    let dir = tempfile::tempdir().expect("temp");
    let ledger = Ledger::new(dir.path(), "ann").expect("a name");
    ledger.append(&[vote("p", Choice::A, 0), vote("p", Choice::A, 0)], &[]).expect("written");
    let folder = Folder::read(dir.path()).expect("readable");
    assert_eq!(folder.votes["ann"].len(), 1);
    assert_eq!(Effective::of(&folder).votes(), 1);
}

#[test]
fn names_are_of_any_alphabet_and_have_one_spelling() {
    let long = "ж".repeat(64);
    for name in ["ann", "josé", "анна", "日本", "अनिता", "o_k-1", long.as_str()] {
        assert!(is_annotator(name), "{name}");
    }
    let longer = "ж".repeat(65);
    let bytes = "𠀀".repeat(51);
    for name in [
        "",
        ".",
        "..",
        "-a",
        "_a",
        "Ann",
        "a b",
        "a/b",
        "a\\b",
        "a.b",
        "a\n",
        "a\u{0}",
        "a\u{202e}b",
        "jose\u{301}",
        "\u{301}a",
        "a\u{3164}",
        "a\u{200d}b",
        longer.as_str(),
        bytes.as_str(),
    ] {
        assert!(!is_annotator(name), "{name:?}");
    }
    // Two spellings of one name are one person, whichever file a file system made of it.
    let dir = tempfile::tempdir().expect("temp");
    let ledger = Ledger::new(dir.path(), "josé").expect("a name");
    ledger.append(&[vote("p", Choice::A, 0)], &[]).expect("written");
    let path = |name: &str| dir.path().join(format!("{name}.jsonl"));
    std::fs::copy(path("josé"), path("jose\u{301}")).expect("copied");
    let line = std::fs::read_to_string(path("josé")).expect("readable").replace("p-0", "p-1");
    #[expect(clippy::disallowed_methods, reason = "the test writes a file as another system does")]
    std::fs::write(path("jose\u{301}"), line.replace("\"p\"", "\"q\"")).expect("written");
    let folder = Folder::read(dir.path()).expect("readable");
    assert_eq!(folder.votes.keys().collect::<Vec<_>>(), ["josé"]);
    assert_eq!(folder.latest("josé").keys().map(|k| k.0).collect::<Vec<_>>(), ["p", "q"]);
}

#[test]
fn changed_votes_are_kept_as_they_always_were() {
    let counts = VoteChange { added: 40, revised: 1, removed: 0 };
    let changed = ChangedVotes::new("votes", counts, Some((4, 6)));
    let text =
        r#"{"change":"votes","port":"votes","added":40,"revised":1,"removed":0,"used":[4,6]}"#;
    assert_eq!(serde_json::to_string(&changed).expect("JSON"), text);
    assert_eq!(serde_json::from_str::<ChangedVotes>(text).expect("JSON"), changed);
    let other = r#"{"change":"input","port":"votes","added":1,"revised":1,"removed":0}"#;
    assert!(serde_json::from_str::<ChangedVotes>(other).is_err());
}
