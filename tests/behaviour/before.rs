//! What an earlier version made is read as it is: store, heads, journals, lock file, votes.
//!
//! `before/` was made by the version before plans were kept, by two runs with other
//! votes, params and files between them; what can be made anew (`derived-v1/`, `views/`) and the
//! worker, a script that wrote the labels, are left out. `fails` ends with exit code 7.

use std::path::Path;

use crate::space::Space;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("mkdir");
    for item in std::fs::read_dir(from).expect("a folder") {
        let item = item.expect("an item");
        let to = to.join(item.file_name());
        match item.file_type().expect("type").is_dir() {
            true => copy(&item.path(), &to),
            false => drop(std::fs::copy(item.path(), to).expect("copied")),
        }
    }
}

fn before() -> Space {
    let space = Space::empty();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour/before");
    copy(&fixture, space.dir.path());
    std::fs::rename(space.path("store"), space.path("cache")).expect("renamed");
    space
}

#[test]
fn its_results_are_not_made_again() {
    let space = before();
    let plan = space.preflow(&["plan", "p.yaml"]);
    assert!(plan.out.contains("3 reused"), "{}{}", plan.out, plan.err);
    assert!(plan.out.contains("exit 7"), "{}", plan.out);
    let run = space.preflow(&["run", "p.yaml", "both", "labels"]);
    assert_eq!((run.code, space.take_ran()), (Some(0), String::new()), "{}{}", run.out, run.err);
    let verified = space.preflow(&["verify"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
    // Both runs and both settings of every stage are there.
    let runs = space.preflow(&["runs"]).out;
    assert_eq!(runs.matches("3 done · 1 failed").count(), 2, "{runs}");
    let run = space.preflow(&["run", "p.yaml", "a", "--set", "p=one"]);
    assert_eq!((run.code, space.take_ran()), (Some(0), String::new()), "{}{}", run.out, run.err);
}

#[test]
fn its_reasons_are_told_as_they_were() {
    let space = before();
    for (stage, wanted) in [
        ("labels", "+1 vote"),
        ("both", "input i: more: more/2.txt changed"),
        ("a", "command … echo one >> \"$… → … echo two >> \"$…"),
        ("fails", "exit 7"),
    ] {
        let why = space.preflow(&["why", "p.yaml", stage]);
        assert_eq!(why.code, Some(0), "{}", why.err);
        let text = why.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(wanted), "{stage}: {text}");
    }
    let log = space.preflow(&["logs", "p.yaml", "fails"]);
    assert!(log.out.contains("no"), "{}{}", log.out, log.err);
}

#[test]
fn its_votes_and_its_lock_file_count() {
    let space = before();
    let locked = space.preflow(&["run", "p.yaml", "both", "labels", "--locked"]);
    assert_eq!(locked.code, Some(0), "{}{}", locked.out, locked.err);
    let votes = space.read("votes/ann.jsonl");
    let last = votes.lines().last().expect("a vote").replace("1a1b2c3d", "2a1b2c3d");
    space.write("votes/ann.jsonl", &format!("{votes}{}\n", last.replace("\"v2\"", "\"v3\"")));
    let why = space.preflow(&["why", "p.yaml", "labels"]).out;
    assert!(why.contains("+1 vote"), "{why}");
    let locked = space.preflow(&["run", "p.yaml", "labels", "--locked"]);
    assert_eq!(locked.code, Some(1), "{}{}", locked.out, locked.err);
}
