//! Ctrl-C, TERM and kill -9: nothing is lost, nothing is left running.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::space::{CHAIN, Space};

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("pid")).expect("pid");
    rustix::process::kill_process(pid, signal).expect("alive");
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|l| l.starts_with("State:") && !l.contains('Z') && !l.contains('X'))
}

fn started(space: &Space) -> bool {
    std::fs::read_to_string(space.path("pid.txt")).is_ok_and(|pid| pid.ends_with('\n'))
}

/// A chain whose `b` says its process number and then hangs.
fn hanging() -> Space {
    let space = Space::chain();
    let hang = ": ${q}; test -e go || { echo $$$$ > pid.txt; sleep 600; };";
    space.write("p.yaml", &CHAIN.replace(": ${q};", hang));
    space
}

#[test]
fn ctrl_c_leaves_a_resumable_run() {
    let space = hanging();
    let child = space.command(&["run", "p.yaml"]).stdout(Stdio::piped()).spawn().expect("starts");
    wait_for("b starts", || started(&space));
    let started = Instant::now();
    signal(child.id(), rustix::process::Signal::INT);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(7), "grace and two seconds");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("interrupted; `preflow run p.yaml` goes on from here"), "{out}");
    let pid = space.read("pid.txt");
    wait_for("b is gone", || !is_alive(pid.trim()));
    space.take_ran();
    space.write("go", "");
    let ran = space.ran(&["run", "p.yaml"]);
    assert!(ran.contains("b c") && !ran.contains('a'), "{ran}");
}

#[test]
fn what_a_stage_made_has_its_name_while_others_run() {
    let space = hanging();
    // Made now, and then found in the store.
    for time in ["made", "reused"] {
        let _ = std::fs::remove_dir_all(space.path("cache/views"));
        let _ = std::fs::remove_file(space.path("pid.txt"));
        let child =
            space.command(&["run", "p.yaml"]).stdout(Stdio::null()).spawn().expect("starts");
        wait_for("b starts", || started(&space));
        let view = space.path("cache/views/chain/a/o");
        wait_for(&format!("the name of what a {time}"), || view.is_file());
        assert_eq!(std::fs::read_to_string(view).expect("read"), "text\none\n");
        assert!(!space.path("cache/views/chain/b").exists(), "b is not done");
        signal(child.id(), rustix::process::Signal::INT);
        assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(130));
    }
}

#[test]
fn kill_9_leaves_no_process_and_no_lie() {
    let space = hanging();
    let mut child =
        space.command(&["run", "p.yaml"]).stdout(Stdio::null()).spawn().expect("starts");
    wait_for("b starts", || started(&space));
    let pid = space.read("pid.txt");
    assert!(is_alive(pid.trim()));
    child.kill().expect("kill -9");
    child.wait().expect("ends");
    let deadline = Instant::now() + Duration::from_secs(5);
    wait_for("b is gone", || !is_alive(pid.trim()));
    assert!(Instant::now() < deadline, "workers are gone within five seconds");
    assert_eq!(space.preflow(&["verify"]).code, Some(0));
    space.write("go", "");
    assert_eq!(space.preflow(&["run", "p.yaml"]).code, Some(0));
    let reference = Space::chain();
    let hang = space.read("p.yaml");
    reference.write("p.yaml", &hang);
    reference.write("go", "");
    reference.ran(&["run", "p.yaml"]);
    for stage in ["a", "b", "c", "side"] {
        let name = |s: &Space| s.object(stage).file_name().map(ToOwned::to_owned);
        assert_eq!(name(&space), name(&reference), "{stage}: same bytes as without a kill");
    }
}

#[test]
fn killed_at_many_moments_the_end_is_the_same() {
    let reference = Space::chain();
    reference.ran(&["run", "p.yaml"]);
    let space = Space::chain();
    for delay in [1, 3, 5, 8, 10, 13, 16, 20, 25, 30, 40] {
        let mut child =
            space.command(&["run", "-q", "p.yaml"]).stdout(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(delay));
        // It may be done already.
        let _ = child.kill();
        child.wait().expect("ends");
        let said = space.preflow(&["verify"]);
        assert_eq!(said.code, Some(0), "after {delay} ms: {}{}", said.out, said.err);
    }
    space.ran(&["run", "p.yaml"]);
    for stage in ["a", "b", "c", "side"] {
        let name = |s: &Space| s.object(stage).file_name().map(ToOwned::to_owned);
        assert_eq!(name(&space), name(&reference), "{stage}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let space = Space::chain();
    let mut child =
        space.command(&["run", "p.yaml"]).stdout(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    assert_eq!(space.take_ran(), "a b c side");
}
