//! What one made, another need not make: round trips over a folder and over S3.

use std::process::Stdio;

use crate::team::{Member, SECRET, Said, files_below, on_s3};

/// Pushes as one, pulls as another: the same files, and nothing runs again.
fn round_trip(one: &Member, big: u64) {
    let (pushed, code) = one.json(&["push", "p.yaml"]);
    assert_eq!(code, Some(0), "{pushed}");
    // `small` is in the tree twice more: it travels once. Empty files do not travel at all.
    assert_eq!(pushed["files"], 3, "{pushed}");
    assert!(pushed["bytes"].as_u64() > Some(big), "{pushed}");
    let (again, _) = one.json(&["push", "p.yaml"]);
    assert_eq!((again["files"].as_u64(), again["bytes"].as_u64()), (Some(0), Some(0)), "{again}");
    assert_eq!(again["already"], 3, "{again}");

    let two = one.colleague();
    let (pulled, code) = two.json(&["pull", "p.yaml"]);
    assert_eq!(code, Some(0), "{pulled}");
    assert_eq!(pulled["bytes"], pushed["bytes"], "{pulled}");
    assert_eq!(pulled["stages"].as_array().map(Vec::len), Some(4));
    assert_eq!(two.ran(), "", "nothing runs");
    two.is_sound();
    for stage in ["small", "empty", "big"] {
        let bytes = |m: &Member| std::fs::read(m.object(stage)).expect("an object");
        assert!(bytes(one) == bytes(&two), "{stage}");
    }
    let inside = |m: &Member| -> Vec<(String, Vec<u8>)> {
        let top = m.object("tree");
        let files = files_below(&top);
        let name = |p: &std::path::Path| {
            p.strip_prefix(&top).expect("as it was made").display().to_string()
        };
        files.iter().map(|p| (name(p), std::fs::read(p).expect("a file"))).collect()
    };
    assert_eq!(inside(one).len(), 4);
    assert_eq!(inside(one), inside(&two));
    let traced = two.does(&["trace", &two.object("big").display().to_string()]);
    assert!(traced.contains("command: \": "), "{traced}");
    let (again, _) = two.json(&["pull", "p.yaml"]);
    assert_eq!((again["here"].as_u64(), again["files"].as_u64()), (Some(4), Some(0)), "{again}");
}

#[test]
fn over_a_folder() {
    let place = tempfile::tempdir().expect("temp dir");
    let folder = place.path().join("team/cache");
    std::fs::create_dir(place.path().join("team")).expect("mkdir");
    let one = Member::at(&folder.display().to_string(), None, 9_000_000);
    assert_eq!(one.ran(), "big empty small tree");
    round_trip(&one, 9_000_000);
    let names: Vec<String> = std::fs::read_dir(&folder)
        .expect("made")
        .map(|i| i.expect("an item").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.contains(&"files-v1".to_owned()) && names.len() == 2, "{names:?}");
}

#[test]
fn over_s3_in_parts() {
    round_trip(&on_s3(40 << 20), 40 << 20);
}

#[test]
fn people_who_push_at_once_do_not_disturb_each_other() {
    let one = on_s3(9_000_000);
    let two = one.colleague();
    two.ran();
    let start = |m: &Member| {
        let mut command = m.command(&["push", "p.yaml"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    };
    for child in [start(&one), start(&two)] {
        Said::of(&child.wait_with_output().expect("ends")).is(0, "pushed 4 stages");
    }
    let three = one.colleague();
    three.does(&["pull", "p.yaml"]);
    assert_eq!(three.ran(), "");
    three.is_sound();
}

#[test]
fn two_pulls_into_one_store_move_each_byte_once() {
    let one = on_s3(24 << 20);
    one.does(&["push", "p.yaml"]);
    let two = one.colleague();
    let start = || {
        let mut command = two.command(&["pull", "p.yaml", "--json"]);
        command.stdout(Stdio::piped()).spawn().expect("starts")
    };
    let moved: u64 = [start(), start()]
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().expect("ends");
            assert!(output.status.success());
            let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            value["bytes"].as_u64().expect("bytes")
        })
        .sum();
    assert!((24 << 20..25 << 20).contains(&moved), "{moved}");
    assert_eq!(two.ran(), "");
    two.is_sound();
}

#[test]
fn without_a_lock_file_the_pipeline_says_what_is_needed() {
    let one = on_s3(100_000);
    one.does(&["push", "p.yaml"]);
    let two = one.colleague();
    std::fs::remove_file(two.path("p.lock")).expect("removed");
    two.does(&["pull", "p.yaml"]);
    assert_eq!(two.ran(), "");
    // Other params than anybody ran: nothing of it is there, and that is said.
    let said = two.preflow(&["pull", "p.yaml", "--no-lock", "--set", "p=two"]);
    said.is(1, "not on the remote: big, empty, small, tree");
    // One stage alone, with what it is made from.
    let three = one.colleague();
    let (pulled, _) = three.json(&["pull", "p.yaml", "tree", "--no-lock"]);
    let names: Vec<&str> = pulled["stages"]
        .as_array()
        .expect("as it was made")
        .iter()
        .map(|s| s["stage"].as_str().expect("as it was made"))
        .collect();
    assert_eq!(names, ["small", "tree"]);
    assert_eq!(three.ran(), "big empty");
}

#[test]
fn a_lock_file_is_fetched_as_it_stands_though_the_pipeline_went_on() {
    let one = on_s3(100_000);
    one.does(&["push", "p.yaml"]);
    let two = one.colleague();
    let text = std::fs::read_to_string(two.path("p.yaml")).expect("as it was made");
    two.write("p.yaml", &text.replace("p: one", "p: two"));
    let (pulled, code) = two.json(&["pull", "p.yaml"]);
    assert_eq!((code, pulled["files"].as_u64()), (Some(0), Some(3)), "{pulled}");
    two.write("p.yaml", &text);
    assert_eq!(two.ran(), "");
}

#[test]
fn all_and_what_waits_are_sent_and_gc_keeps_what_waits() {
    let one = on_s3(100_000);
    let queue = one.path("cache/uploads-v1");
    std::fs::create_dir_all(&queue).expect("mkdir");
    let lock = std::fs::read_to_string(one.path("p.lock")).expect("as it was made");
    let fingerprints: Vec<&str> =
        lock.lines().filter_map(|l| l.strip_prefix("fingerprint = ")).collect();
    for fingerprint in &fingerprints {
        std::fs::write(queue.join(fingerprint), "").expect("queued");
    }
    std::fs::write(queue.join("0".repeat(64)), "").expect("queued, and gone since");
    // The pipeline is another one now, and nothing but the queue needs these entries.
    let text = std::fs::read_to_string(one.path("p.yaml")).expect("as it was made");
    one.write("p.yaml", &text.replace("p: one", "p: two"));
    one.ran();
    std::fs::remove_file(one.path("p.lock")).expect("removed");
    std::fs::remove_dir_all(one.path("cache/heads-v1")).expect("removed");
    std::fs::remove_dir_all(one.path("cache/runs")).expect("removed");
    let gone = one.does(&["gc", "--days", "0", "--grace", "0", "--yes"]);
    assert_eq!(gone, " nothing to collect; 8 entries kept\n");
    let (pushed, code) = one.json(&["push", "p.yaml"]);
    assert_eq!((code, pushed["stages"].as_array().map(Vec::len)), (Some(0), Some(8)), "{pushed}");
    assert_eq!(
        std::fs::read_dir(&queue).expect("as it was made").count(),
        0,
        "nothing waits any more"
    );
    let (pushed, _) = one.json(&["push", "--all"]);
    assert_eq!(pushed["stages"].as_array().map(Vec::len), Some(8), "{pushed}");
    let gone = one.does(&["gc", "--days", "0", "--grace", "0", "--yes"]);
    assert!(gone.contains("removed 4 entries"), "{gone}");
}

#[test]
fn what_is_said_to_people() {
    let one = on_s3(100_000);
    let said = one.does(&["push", "p.yaml"]);
    assert!(said.contains(" ↑ big  1 file, 97.7 KiB\n"), "{said}");
    let last = " pushed 4 stages: 3 files, 101.5 KiB sent, 0 already there\n";
    assert!(said.ends_with(last), "{said}");
    let two = one.colleague();
    let said = two.does(&["pull", "p.yaml"]);
    assert!(said.contains(" ↓ big  1 file, 97.7 KiB\n"), "{said}");
    assert!(said.contains(" pulled 4 stages: 3 files, 101.5 KiB; 0 here already\n"), "{said}");
    let quiet = two.does(&["pull", "p.yaml", "-q"]);
    assert_eq!(quiet.lines().count(), 1, "{quiet}");
    let doctor = two.preflow(&["doctor"]);
    assert!(doctor.out.contains("some/prefix answers, read-write"), "{}", doctor.out);
}

const SWEPT: &str = r#"
preflow: 1
name: p
params: { a: 1, updates: 1 }
sources: { src: { path: src.txt, as: file } }
stages:
  base:
    kind: command
    inputs: { i: src }
    outputs: { o: file }
    command: 'echo base >> ran.txt; cp $IN_i $OUT_o'
  end:
    kind: command
    inputs: { i: base }
    outputs: { o: file }
    command: 'echo end >> ran.txt; echo {\"score\": $((${a} * 10 + ${updates}))} | tee $OUT_o > $FIGURES'
"#;

#[test]
fn a_sweep_is_shared_whole_though_its_rounds_follow_from_what_came() {
    let one = Member::at("shared", None, 1);
    let place = tempfile::tempdir().expect("temp dir");
    let remote = place.path().display().to_string();
    one.write("p.yaml", SWEPT);
    one.write(
        "s.yaml",
        "preflow-sweep: 1\npipeline: p.yaml\nmatrix: { a: [1, 2, 3, 4] }\n\
         metric: { name: end/score, goal: maximize }\nhalving: { updates: [1, 2], keep: 0.5 }\n",
    );
    one.does(&["sweep", "run", "s.yaml", "--remote", "none"]);
    let (pushed, code) = one.json(&["push", "s.yaml", "--remote", &remote]);
    assert_eq!((code, pushed["stages"].as_array().map(Vec::len)), (Some(0), Some(7)), "{pushed}");
    let two = Member::at("shared", None, 1);
    for name in ["p.yaml", "s.yaml", "src.txt"] {
        std::fs::copy(one.path(name), two.path(name)).expect("copied");
    }
    let (pulled, code) = two.json(&["pull", "s.yaml", "--remote", &remote]);
    assert_eq!((code, pulled["stages"].as_array().map(Vec::len)), (Some(0), Some(7)), "{pulled}");
    two.does(&["sweep", "run", "s.yaml", "--remote", "none"]);
    assert!(!two.path("ran.txt").exists(), "nothing runs");
}

/// What is asked of a remote can be logged, without what lets us in.
#[test]
fn a_log_of_requests_holds_no_secret() {
    let one = on_s3(10);
    let output = one.command(&["push", "p.yaml"]).env("PREFLOW_LOG", "remote=debug").output();
    let said = Said::of(&output.expect("starts"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    for verb in ["GET", "PUT"] {
        assert!(said.err.contains(&format!("remote{{verb=\"{verb}\" key=")), "{}", said.err);
    }
    assert!(said.err.contains("answered bytes="), "{}", said.err);
    for secret in [SECRET, "AKIDTEST", "Signature", "Credential"] {
        assert!(!said.err.contains(secret), "{}", said.err);
    }
}
