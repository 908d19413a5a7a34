//! What was run, what differs and where a file comes from: runs, diff, why --against, trace.

use std::process::Command;

use crate::space::{CHAIN, Space};

/// A chain whose first stage reports a figure, in git.
fn space() -> Space {
    let space = Space::chain();
    std::fs::remove_dir(space.path(".git")).expect("only a mark");
    let figures = "echo a >> ran.txt; echo {\\\"acc\\\": 0.$(wc -l < $IN_i), \\\"acc_low\\\": 0.1} > $FIGURES'";
    space.write("p.yaml", &CHAIN.replace("echo a >> ran.txt'", figures));
    space.write(".gitignore", "cache\nran.txt\n");
    git(&space, &["init", "-q", "-b", "main"]);
    commit(&space, "one");
    space
}

fn git(space: &Space, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(arguments);
    let output = command.current_dir(space.path("")).output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn commit(space: &Space, message: &str) {
    git(space, &["add", "-A"]);
    git(space, &["commit", "-q", "-m", message]);
}

/// Without what differs from time to time: hashes and run ids.
fn steady(text: &str) -> String {
    let word = |w: &str| {
        let core = w.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_hash = core.len() >= 8 && core.chars().all(|c| c.is_ascii_hexdigit());
        if is_hash { w.replace(core, "HASH") } else { w.to_owned() }
    };
    let line = |l: &str| l.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn diff_tells_params_rows_and_figures_between_commits_and_runs() {
    let space = space();
    space.ran(&["run", "p.yaml"]);
    space.write("src.txt", "text\nmore\n");
    space.write("p.yaml", &space.read("p.yaml").replace("p: one", "p: two"));
    commit(&space, "two");
    space.ran(&["run", "p.yaml"]);
    let said = space.preflow(&["diff", "HEAD~1", "HEAD"]);
    insta::assert_snapshot!(steady(&said.out), @r#"
     A  HEAD~1 (HASH)
     B  HEAD (HASH)

     params
       a.command  … echo one >> "$… → … echo two >> "$…

     data
       a.i     1 → 2 rows: +1 -0
       side.i  1 → 2 rows: +1 -0

     environment
       commit  HASH → HASH

     figures
       a  acc  0.100 → 0.200   +0.100
    "#);
    // The second run is the newest; the file as it stands is what it made.
    let said = space.preflow(&["diff", "last"]);
    assert!(said.out.contains("nothing differs"), "{}{}", said.out, said.err);
    let said = space.preflow(&["diff", "HEAD~1", "last", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["figures"][0]["b"], serde_json::json!([0.2, 0.1, null]));
    let said = space.preflow(&["diff", "HEAD~9"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("`HEAD~9` is no file, no run and no commit"), "{}", said.err);
}

/// A port that takes many: which of them differs, and that their order does.
#[test]
fn diff_tells_which_of_many_inputs_differs() {
    let space = Space::chain();
    let pipeline = "preflow: 1\nname: p\nsources:\n  x: { path: x.txt, as: file }\n  y: { path: y.txt, \
                    as: file }\nstages:\n  a:\n    kind: command\n    inputs: { i: [x, y] }\n    \
                    outputs: { o: file }\n    command: 'cat $IN_i > $OUT_o'\n";
    space.write("x.txt", "one\n");
    space.write("y.txt", "two\n");
    space.write("p.yaml", pipeline);
    space.ran(&["run", "p.yaml"]);
    space.write("y.txt", "two\nthree\n");
    let said = space.preflow(&["diff", "last", "p.yaml"]);
    assert!(said.out.contains("data\n   a.i: y  "), "{}{}", said.out, said.err);
    assert!(!said.out.contains("a.i: x"), "{}", said.out);
    space.write("y.txt", "two\n");
    space.write("p.yaml", &pipeline.replace("[x, y]", "[y, x]"));
    let said = space.preflow(&["diff", "last", "p.yaml"]);
    assert!(said.out.contains("data\n   a.i  "), "{}{}", said.out, said.err);
}

#[test]
fn why_against_goes_back_to_the_root_of_the_difference() {
    let space = space();
    space.ran(&["run", "p.yaml"]);
    space.ran(&["run", "p.yaml", "--set", "p=two"]);
    space.write("p.yaml", &space.read("p.yaml").replace("p: one", "p: two"));
    let said = space.preflow(&["why", "p.yaml", "c", "--against", "HEAD"]);
    insta::assert_snapshot!(steady(&said.out), @r#"
     c  input i changed (HASH → HASH)
        ← b  input i changed (HASH → HASH)
           ← a  command … echo one >> "$… → … echo two >> "$…
    "#);
}

#[test]
fn runs_are_listed_and_chosen_by_state_and_stage() {
    let space = space();
    space.ran(&["run", "p.yaml"]);
    space.ran(&["run", "p.yaml"]);
    let failing = space.preflow(&["run", "p.yaml", "--set", "q=$(exit 1", "--progress", "none"]);
    assert_eq!(failing.code, Some(1), "{}", failing.err);
    let lines = |args: &[&str]| space.preflow(args).out.lines().count();
    assert_eq!(lines(&["runs"]), 4);
    assert_eq!(lines(&["runs", "-n", "1"]), 2);
    assert_eq!(lines(&["runs", "chain", "--state", "failed"]), 2);
    assert_eq!(lines(&["runs", "--stage", "side"]), 2, "it ran in the first run only");
    assert_eq!(space.preflow(&["runs", "other"]).out, " no such run in [DIR]/cache\n");
    let json = space.preflow(&["runs", "--json"]).out;
    let newest: serde_json::Value =
        serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!((newest["state"].as_str(), newest["exit"].as_u64()), (Some("failed"), Some(1)));
    assert_eq!(space.preflow(&["runs", "--since", "yesterday"]).code, Some(2));
    assert_eq!(lines(&["runs", "--since", "2020-01-01"]), 4);
}

#[test]
fn a_copy_of_an_artifact_is_traced_back_to_its_commit_and_source() {
    let space = space();
    space.ran(&["run", "p.yaml"]);
    std::fs::copy(space.path("cache/views/chain/c/o"), space.path("copy")).expect("copied");
    let said = space.preflow(&["trace", "copy", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let steps = json["steps"].as_array().expect("steps");
    let stages: Vec<&str> = steps.iter().filter_map(|s| s["stage"].as_str()).collect();
    // `c` only passes on what `b` made, and `side` what was there.
    assert_eq!(stages, ["b", "a"]);
    assert_eq!(steps[0]["made"]["commit"].as_str().map(str::len), Some(40));
    assert_eq!(steps[0]["pipeline"], "p.yaml");
    let source = steps[1]["sources"]["i"].as_str().expect("a digest");
    assert!(source.starts_with("sha256:"));
    space.write("copy", "changed\n");
    let said = space.preflow(&["trace", "copy"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("nothing in the store"), "{}", said.err);
}
