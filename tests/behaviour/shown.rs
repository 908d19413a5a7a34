//! What verbs show without changing anything: what was made, what differs, what would run.

use crate::space::{CHAIN, Space};

#[test]
fn what_a_stage_made_is_shown() {
    let space = Space::chain();
    let never = space.preflow(&["show", "p.yaml", "a"]);
    assert_eq!(never.code, Some(1), "{}", never.err);
    assert!(never.err.contains("stage `a` was never made"), "{}", never.err);
    space.ran(&["run", "p.yaml"]);
    let shown = space.preflow(&["show", "a"]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    assert!(shown.out.starts_with(" a  made 2"), "{}", shown.out);
    assert!(shown.out.contains("up to date\n\n a.o  file  9 B\n"), "{}", shown.out);
    let listed = space.preflow(&["show", "a.o", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
    let path = listed["outputs"][0]["path"].as_str().expect("a path").replace("[DIR]", "");
    assert_eq!(space.read(path.trim_start_matches('/')), "text\none\n");
    for (word, said) in [
        ("a.x", "stage `a` has no output `x`"),
        ("src", "`src` is a source, which no stage made"),
        ("aa", "no stage `aa`"),
    ] {
        let refused = space.preflow(&["show", "p.yaml", word]);
        assert_eq!(refused.code, Some(2), "{word}: {}", refused.err);
        assert!(refused.err.contains(said), "{word}: {}", refused.err);
    }
    space.write("p.yaml", &CHAIN.replace("p: one", "p: two"));
    let stale = space.preflow(&["show", "a"]);
    assert!(stale.out.contains("stale: command"), "{}", stale.out);
}

#[test]
fn diff_alone_compares_the_file_with_its_last_run() {
    let space = Space::chain();
    let none = space.preflow(&["diff"]);
    assert_eq!(none.code, Some(2));
    assert!(none.err.contains("no run of p.yaml is known here"), "{}", none.err);
    space.ran(&["run", "p.yaml"]);
    assert!(space.preflow(&["diff"]).out.ends_with("nothing differs\n"));
    // A later run of another pipeline is another thing.
    space.write("q.yaml", &CHAIN.replace("name: chain", "name: other"));
    space.ran(&["run", "q.yaml", "--set", "p=three"]);
    space.write("p.yaml", &CHAIN.replace("p: one", "p: two"));
    for words in [&["diff", "p.yaml"][..], &["diff", "--file", "p.yaml"]] {
        let said = space.preflow(words);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains("echo one") && said.out.contains("echo two"), "{}", said.out);
    }
    let said = space.preflow(&["diff", "--file", "p.yaml", "--format", "markdown"]);
    assert!(said.out.contains("| params |  |\n| --- | --- |\n| a.command | "), "{}", said.out);
    // Which of two files is not guessed.
    assert_eq!(space.preflow(&["diff"]).code, Some(2));
}

#[test]
fn files_that_are_not_named_are_found() {
    let space = Space::chain();
    let one = space.preflow(&["check"]);
    assert_eq!(
        (one.code, one.out.as_str()),
        (Some(0), "ok: 4 stages; `plan` looks at the data too\n")
    );
    assert!(space.preflow(&["graph"]).out.contains("side"));
    assert!(space.preflow(&["config"]).out.contains("name: chain"));
    space.write("pipelines/q.yaml", &CHAIN.replace("kind: command", "kind: comand"));
    let two = space.preflow(&["check"]);
    assert_eq!(two.code, Some(2));
    assert!(two.out.contains("p.yaml: ok: 4 stages"), "{}", two.out);
    assert!(two.err.contains("pipelines/q.yaml:"), "{}", two.err);
    let several = space.preflow(&["config"]);
    assert_eq!(several.code, Some(2));
    assert!(several.err.contains("name one of p.yaml, pipelines/q.yaml"), "{}", several.err);
}

#[test]
fn a_plan_says_by_its_exit_code_whether_something_would_run() {
    let space = Space::chain();
    assert_eq!(space.preflow(&["plan"]).code, Some(0));
    assert_eq!(space.preflow(&["plan", "--exit-code"]).code, Some(5));
    space.ran(&["run", "p.yaml"]);
    assert_eq!(space.preflow(&["plan", "--exit-code"]).code, Some(0));
    space.write("p.yaml", &CHAIN.replace("p: one", "p: two"));
    let said = space.preflow(&["plan", "--exit-code", "--format", "markdown"]);
    assert_eq!(said.code, Some(5), "{}", said.err);
    assert!(said.out.starts_with("**1 run · 2 wait · 1 reused"), "{}", said.out);
    assert!(said.out.contains("| b | wait | a runs |"), "{}", said.out);
    assert!(said.out.contains("<details><summary>1 stage reused</summary>"), "{}", said.out);
    for verb in [&["status"][..], &["runs"]] {
        let said = space.preflow(&[verb, &["--format", "markdown"]].concat());
        assert!(said.code == Some(0) && said.out.contains("| --- |"), "{}{}", said.out, said.err);
    }
}
