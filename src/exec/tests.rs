//! Processes that misbehave in every way a worker can.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::process::Processes;
use super::resident::Resident;
use super::{Executor as _, Outcome, Program, Stop, Task};
use crate::protocol::questions::{Ask, Told};
use crate::protocol::{Event, Execution, PROTOCOL, TaskSpec};

const HELLO: &str = r#"echo '{"event":"hello","protocol":1,"catalog":"","worker":"w","backend":"b","device":"cpu"}'"#;
const DONE: &str = r#"echo '{"event":"done","summary":{"loss":0.5}}'"#;

struct Ran {
    outcome: Outcome,
    events: Vec<Event>,
    took: Duration,
    dir: tempfile::TempDir,
}

/// Asks to stop after that time, or never. Call it in a runtime.
fn stopping(after: Option<Duration>) -> watch::Receiver<Stop> {
    let (stop, stopped) = watch::channel(Stop::Go);
    tokio::spawn(async move {
        if let Some(after) = after {
            tokio::time::sleep(after).await;
            stop.send(Stop::Gently).expect("someone listens");
        }
        // The sender must outlive the task: a closed channel is no stop.
        std::future::pending::<()>().await;
        drop(stop);
    });
    stopped
}

/// Runs a shell script as worker (or as program), and says how it ended.
fn perform(
    script: &str,
    worker: bool,
    timeout: Option<Duration>,
    stop_after: Option<Duration>,
) -> Ran {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("worker");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write");
    // Not started by itself: while another test forks, its file may still be open for writing.
    let words = vec!["sh".to_owned(), path.to_string_lossy().into_owned()];
    let program = if worker { Program::Worker(words) } else { Program::Direct(words) };
    let task = Task {
        lists: Vec::new(),
        stage: 0,
        spec: TaskSpec {
            protocol: PROTOCOL,
            stage: "s".into(),
            kind: "k".into(),
            version: 1,
            params: serde_json::Map::new(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::from([("out".into(), out(dir.path()).display().to_string())]),
            scratch: String::new(),
            answers: None,
            execution: Execution::default(),
        },
        program,
        cwd: dir.path().to_owned(),
        logs: dir.path().to_owned(),
        timeout,
        gpus: vec![],
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let started = Instant::now();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let outcome = runtime.block_on(async {
        let stopped = stopping(stop_after);
        Processes::new(vec![], Duration::from_millis(300)).start(task, sender, stopped).await
    });
    let mut events = Vec::new();
    while let Ok((_, event)) = receiver.try_recv() {
        events.push(event);
    }
    Ran { outcome, events, took: started.elapsed(), dir }
}

fn out(dir: &Path) -> PathBuf {
    dir.join("made")
}

fn worker(lines: &[&str]) -> Ran {
    perform(&lines.join("\n"), true, None, None)
}

fn crash(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Crashed { how, .. } => how,
        other => panic!("not a crash: {other:?}"),
    }
}

#[test]
fn a_worker_that_keeps_to_the_protocol_is_done() {
    let progress = r#"echo '{"event":"progress","done":1,"total":2,"unit":"steps"}'"#;
    let later = r#"echo '{"event":"from_the_future","x":1}'"#;
    let ran = worker(&[HELLO, progress, later, DONE]);
    let Outcome::Done { summary, worker, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(summary["loss"], Some(0.5));
    assert_eq!(worker, "w");
    assert_eq!(ran.events.len(), 1);
}

#[test]
fn exit_0_without_a_word_is_a_crash() {
    assert_eq!(crash(&worker(&["exit 0"]).outcome), "exit 0; it said no hello");
    assert_eq!(
        crash(&worker(&[HELLO, "exit 0"]).outcome),
        "exit 0; it ended without a final event"
    );
}

#[test]
fn a_signal_is_named_and_the_log_is_shown() {
    let ran = worker(&[HELLO, "echo last words >&2", "kill -SEGV $$"]);
    let Outcome::Crashed { how, tail, .. } = &ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(how.starts_with("killed by signal 11"), "{how}");
    assert_eq!(tail, "last words");
}

#[test]
fn garbage_is_counted_and_does_not_hide_the_end() {
    let ran = worker(&[HELLO, "echo garbage; echo '{\"half\": '; printf '\\377\\000\\n'", DONE]);
    assert!(matches!(ran.outcome, Outcome::Done { .. }), "{:?}", ran.outcome);
    let ran = worker(&["echo garbage; echo more", "exit 3"]);
    assert_eq!(
        crash(&ran.outcome),
        "exit 3; it said no hello, and printed 2 lines that are no events"
    );
}

#[test]
fn a_half_line_at_the_end_counts_and_a_huge_line_does_not_hurt() {
    let half = DONE.replace("echo ", "printf %s ");
    let ran = worker(&[HELLO, &half]);
    assert!(matches!(ran.outcome, Outcome::Done { .. }), "{:?}", ran.outcome);
    let huge = "head -c 10000000 /dev/zero | tr '\\0' x; echo";
    let ran = worker(&[HELLO, huge, DONE]);
    assert!(matches!(ran.outcome, Outcome::Done { .. }), "{:?}", ran.outcome);
}

#[test]
fn a_worker_of_another_protocol_is_refused() {
    assert_eq!(PROTOCOL, 1, "the script below says 1");
    let other = HELLO.replace("\"protocol\":1", "\"protocol\":9");
    let ran = worker(&[&other, DONE]);
    let Outcome::Failed { message, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(message, "the worker speaks protocol 9, this preflow 1");
}

#[test]
fn done_followed_by_a_crash_is_a_crash() {
    let ran = worker(&[HELLO, DONE, "exit 9"]);
    assert_eq!(crash(&ran.outcome), "exit 9 after it said it was done");
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_hold_the_task() {
    let ran = worker(&[HELLO, "sleep 60 &", "echo $! > child", DONE]);
    assert!(matches!(ran.outcome, Outcome::Done { .. }), "{:?}", ran.outcome);
    assert!(ran.took < Duration::from_secs(20), "{:?}", ran.took);
    let child = std::fs::read_to_string(ran.dir.path().join("child")).expect("pid");
    // The kernel delivers the signal when it comes to it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(child.trim()) {
        assert!(Instant::now() < deadline, "grandchildren end with their task");
        std::thread::yield_now();
    }
}

/// A zombie that nobody has collected yet is not alive.
fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|l| l.starts_with("State:") && !l.contains('Z') && !l.contains('X'))
}

#[test]
fn a_hang_ends_at_the_timeout_even_if_it_ignores_term() {
    let limit = Some(Duration::from_millis(200));
    let ran =
        perform(&format!("{HELLO}\ntrap '' TERM\nwhile :; do sleep 1; done"), true, limit, None);
    assert!(matches!(ran.outcome, Outcome::TimedOut { .. }), "{:?}", ran.outcome);
    assert!(ran.took < Duration::from_secs(20), "{:?}", ran.took);
}

#[test]
fn a_stop_reaches_the_worker_as_term() {
    let script = format!("{HELLO}\ntrap 'touch made; exit 143' TERM\nwhile :; do sleep 0.05; done");
    let ran = perform(&script, true, None, Some(Duration::from_millis(300)));
    assert!(matches!(ran.outcome, Outcome::Cancelled), "{:?}", ran.outcome);
    assert!(out(ran.dir.path()).exists(), "it had its grace");
}

#[test]
fn a_program_reports_figures_by_writing_them_down() {
    let script = r#"echo made > "$OUT_out"; echo '{"accuracy": 0.5, "lost": null}' > "$FIGURES""#;
    let ran = perform(script, false, None, None);
    let Outcome::Done { summary, .. } = &ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(summary["accuracy"], Some(0.5));
    assert_eq!(summary["lost"], None);
    let ran = perform("echo 'accuracy: 1' > \"$FIGURES\"", false, None, None);
    let Outcome::Failed { message, help, .. } = &ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(message.contains("figures") && help.as_ref().is_some_and(|h| h.contains("FIGURES")));
}

#[test]
fn a_program_finds_its_ports_in_the_environment_and_little_else() {
    let ran = perform("echo made > \"$OUT_out\"; env > env.txt", false, None, None);
    assert!(matches!(ran.outcome, Outcome::Done { .. }), "{:?}", ran.outcome);
    assert!(out(ran.dir.path()).exists());
    let env = std::fs::read_to_string(ran.dir.path().join("env.txt")).expect("env");
    assert!(!env.contains("CARGO"), "{env}");
    let ran = perform("echo why >&2; nonsense-command", false, None, None);
    let Outcome::Crashed { how, tail, help } = &ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(how, "exit 127");
    assert!(tail.starts_with("why\n"), "{tail}");
    assert_eq!(help.as_deref(), Some("127: a command was not found"));
}

/// Lives once with a shell script as worker that stays; what it says, and how it ended.
fn reside(script: &str, stop_after: Option<Duration>) -> (Vec<Told>, Outcome, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("worker");
    std::fs::write(&path, format!("{script}\n")).expect("write");
    let words = vec!["sh".to_owned(), path.to_string_lossy().into_owned()];
    let open =
        Ask::Open { protocol: PROTOCOL, model: "folder".into(), execution: Execution::default() };
    let resident = Resident::new(vec![], words, open, dir.path().to_owned());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let (ask, mut asked) = mpsc::unbounded_channel();
    ask.send(Ask::Forget { question: 3 }).expect("someone listens");
    let mut told = Vec::new();
    let outcome = runtime.block_on(async {
        let mut stopped = stopping(stop_after);
        resident.live(&mut asked, &mut |one| told.push(one), &mut stopped).await
    });
    drop(ask);
    (told, outcome, dir)
}

#[test]
fn a_worker_that_stays_hears_what_is_asked_and_is_heard() {
    let ready = r#"echo '{"told":"ready","context":7}'"#;
    let (told, outcome, dir) = reside(
        &format!("read one; read two; echo \"$one $two\" > heard; {ready}; echo odd; exit 3"),
        None,
    );
    assert_eq!(told, [Told::Ready { context: 7 }], "what is not understood is passed over");
    let heard = std::fs::read_to_string(dir.path().join("heard")).expect("heard");
    let (one, two) = (r#"{"ask":"open","protocol":1,"model":"folder""#, r#"{"ask":"forget","#);
    assert!(heard.starts_with(one) && heard.contains(two), "{heard}");
    assert_eq!(crash(&outcome), "exit 3");

    let failed = r#"echo '{"told":"failed","message":"no","chain":["why"],"help":null}'; exit 1"#;
    let (_, outcome, _dir) = reside(failed, None);
    let said = Outcome::Failed { message: "no".into(), chain: vec!["why".into()], help: None };
    assert_eq!(outcome, said);
    let (_, outcome, _dir) = reside("echo last words >&2; kill -KILL $$", None);
    let Outcome::Crashed { how, tail, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!((how.as_str(), tail.as_str()), ("killed by signal 9 KILL", "last words"));
}

#[test]
fn a_worker_that_stays_ends_when_it_is_asked_to_also_one_that_will_not() {
    let begun = Instant::now();
    let soon = Some(Duration::from_millis(200));
    let (_, outcome, _dir) = reside("exec sleep 600", soon);
    assert_eq!(outcome, Outcome::Cancelled);
    let (_, outcome, _dir) = reside("trap '' TERM; while :; do sleep 0.1; done", soon);
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
