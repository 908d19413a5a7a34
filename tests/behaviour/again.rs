//! A stage made again beside the store: the same bytes, or where they differ.

use std::collections::BTreeMap;
use std::path::PathBuf;

use insta::assert_snapshot;

use crate::space::{Said, Space};

const PIPELINE: &str = "\
preflow: 1
name: again
sources:
  src: { path: src.txt, as: file }
stages:
  same:
    kind: command
    inputs: { i: src }
    outputs: { o: file, p: file }
    command: 'cat \"$IN_i\" > \"$OUT_o\"; echo p > \"$OUT_p\"; echo same >> ran.txt'
  clock:
    kind: command
    inputs: { i: same }
    outputs: { first: file, second: file }
    command: 'cat \"$IN_i\" > \"$OUT_first\"; echo run $(cat count.txt) > \"$OUT_second\"; echo clock >> ran.txt'
  folder:
    kind: command
    inputs: { i: clock }
    outputs: { o: dir }
    command: 'mkdir \"$OUT_o\"; cp count.txt \"$OUT_o/b\"; cp \"$IN_i\" \"$OUT_o/a\"'
  moody:
    kind: command
    inputs: { i: src }
    outputs: { o: file }
    command: 'test -e bad.txt && { echo no luck >&2; exit 9; }; cp \"$IN_i\" \"$OUT_o\"'
";

fn space() -> Space {
    let space = Space::empty();
    space.write("p.yaml", PIPELINE);
    space.write("src.txt", "text\n");
    space.write("count.txt", "1\n");
    space.preflow(&["run", "p.yaml", "-q"]);
    space.take_ran();
    space
}

/// Times taken out.
fn plain(said: &Said) -> String {
    let lines = said.out.lines().map(|l| l.split("; made again in ").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Every file of the store with its bytes, but for what can be worked out again and the lock, which
/// say nothing new.
fn store(space: &Space) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = space.files("cache").into_iter();
    files
        .filter(|path| !path.iter().any(|part| part == "derived-v1" || part == "lease.lock"))
        .map(|path| match std::fs::read_link(&path) {
            Ok(target) => (path, target.into_os_string().into_encoded_bytes()),
            Err(_) => (path.clone(), std::fs::read(path).expect("readable")),
        })
        .collect()
}

fn assert_unchanged(space: &Space, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let now = store(space);
    let other = |path: &&PathBuf| before.get(*path) != now.get(*path);
    let other: Vec<&PathBuf> = before.keys().chain(now.keys()).filter(other).collect();
    assert!(other.is_empty(), "the store is not as it was: {other:?}");
}

#[test]
fn the_same_bytes_are_a_success_and_nothing_is_kept() {
    let space = space();
    let before = store(&space);
    let said = space.preflow(&["verify", "p.yaml", "--rerun", "same"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_snapshot!(plain(&said), @" reproduced: 2 outputs, the same bytes");
    assert_eq!(space.take_ran(), "same", "it really ran");
    assert_unchanged(&space, &before);
    assert!(space.preflow(&["run", "p.yaml"]).out.starts_with(" nothing to do"));
}

#[test]
fn the_first_difference_is_named_and_the_store_keeps_what_it_had() {
    let space = space();
    let before = store(&space);
    space.write("count.txt", "2\n");
    let said = space.preflow(&["verify", "p.yaml", "--rerun", "clock"]);
    assert_eq!(said.code, Some(1));
    assert_snapshot!(plain(&said), @r"
     ✓ first   the same bytes
     ✗ second  other bytes from byte 4 of 6
     not reproduced: 1 of 2 outputs
    ");
    assert_eq!(space.take_ran(), "clock");
    assert_unchanged(&space, &before);
    let said = space.preflow(&["verify", "p.yaml", "--rerun", "folder", "--json"]);
    assert_eq!(said.code, Some(1));
    let value: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(value["reproduced"], false);
    assert_eq!(
        value["outputs"][0]["first"],
        serde_json::json!({"differs": "inside", "file": "b",
            "first": {"differs": "bytes", "offset": 0, "before": 2, "now": 2}})
    );
    assert_unchanged(&space, &before);
}

#[test]
fn what_cannot_be_compared_is_an_error_with_a_remedy() {
    let space = space();
    let said = space.preflow(&["verify", "p.yaml", "--rerun", "sane"]);
    assert_snapshot!(said.error(), @r"
    exit 2
    error: no stage `sane` in this pipeline
      = help: did you mean `same`?
    ");
    space.write("src.txt", "other\n");
    let said = space.preflow(&["verify", "p.yaml", "--rerun", "same"]);
    assert_snapshot!(said.error(), @r"
    exit 2
    error: stage `same` is not up to date (input i changed): there is nothing to compare with
      = help: `preflow run p.yaml same` makes it
    ");
    let said = space.preflow(&["verify", "p.yaml", "--rerun", "clock"]);
    assert_snapshot!(said.error(), @r"
    exit 2
    error: stage `clock` is not up to date (a stage before it must run first): there is nothing to compare with
      = help: `preflow run p.yaml clock` makes it
    ");
    assert_eq!(space.take_ran(), "");
    assert_eq!(space.preflow(&["verify", "p.yaml"]).code, Some(2), "a file alone says nothing");
}

#[test]
fn a_stage_that_fails_this_time_says_why() {
    let space = space();
    space.write("bad.txt", "");
    let before = store(&space);
    let said = space.preflow(&["verify", "p.yaml", "--rerun", "moody"]);
    assert_snapshot!(said.error(), @r"
    exit 1
    error: stage `moody`: crashed: exit 9
      | no luck
      = note: it could not be made again; the store is unchanged
    ");
    assert_unchanged(&space, &before);
}

#[test]
fn damaged_inputs_and_originals_are_not_compared_with() {
    let space = space();
    let object = space.path("cache/views/again/same/o").canonicalize().expect("a view");
    let mut mode = std::fs::metadata(&object).expect("there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
    std::fs::set_permissions(&object, mode).expect("own file");
    std::fs::write(&object, "tixt\n").expect("writable");
    for (stage, why) in [("same", "damaged"), ("clock", "must run first")] {
        let said = space.preflow(&["verify", "p.yaml", "--rerun", stage]);
        assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
        assert!(said.err.contains(why), "{}", said.err);
    }
    assert_eq!(space.take_ran(), "");
}

#[test]
fn an_interrupt_ends_it_and_leaves_nothing_behind() {
    let space = space();
    space.write(
        "p.yaml",
        &PIPELINE.replace(
            "test -e bad.txt",
            "echo $$ > pid.txt; test -e slow.txt && sleep 60; test -e bad.txt",
        ),
    );
    space.preflow(&["run", "p.yaml", "-q", "moody"]);
    std::fs::remove_file(space.path("pid.txt")).expect("it ran");
    space.write("slow.txt", "");
    let before = store(&space);
    let mut child =
        space.command(&["verify", "p.yaml", "--rerun", "moody"]).spawn().expect("starts");
    while std::fs::read_to_string(space.path("pid.txt")).unwrap_or_default().trim().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT)
        .expect("there");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert_unchanged(&space, &before);
}
