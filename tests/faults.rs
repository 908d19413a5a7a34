//! Every state-changing system call of a run, replaced by death, a full disk or a failing one.
//! After each: the store holds no lie, and a plain second run ends as if nothing had happened.
//!
//! Needs `strace`. Of each call's occurrences a sample is taken, the first ones and then evenly;
//! `PREFLOW_FAULTS=all cargo test --test faults` takes every one.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Names under which the calls appear; absent ones are skipped because they do not happen.
const CALLS: [&str; 19] = [
    "openat",
    "write",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "symlink",
    "symlinkat",
    "chmod",
    "fchmodat",
];

/// Calls of one thread that are tried when not all of them are.
const SAMPLE: usize = 9;

/// A file and a tree, one after the other: both ways of publishing. Faults hit the programs too,
/// so each of their steps counts.
const PIPELINE: &str = "\
preflow: 1
name: faults
sources:
  src: { path: src.txt, as: file }
stages:
  one:
    kind: command
    inputs: { i: src }
    outputs: { o: file }
    command: 'read -r x < \"$IN_i\" && echo \"one $x\" > \"$OUT_o\"'
  tree:
    kind: command
    inputs: { i: one }
    outputs: { o: file }
    command: 'mkdir \"$OUT_o\" && read -r x < \"$IN_i\" && echo \"$x tree\" > \"$OUT_o/leaf\"'
";

fn space() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir(dir.path().join(".git")).expect("mark of a workspace");
    std::fs::write(dir.path().join("p.yaml"), PIPELINE).expect("write");
    std::fs::write(dir.path().join("src.txt"), "text\n").expect("write");
    // The user's secret is made once, not in every store.
    assert!(preflow(&["check", "p.yaml"], dir.path()).status.success());
    dir
}

fn output(command: &mut Command, dir: &Path) -> Output {
    command.current_dir(dir).env_remove("PREFLOW_CACHE").stdin(Stdio::null());
    command.env("XDG_STATE_HOME", dir.join(".state"));
    command.output().unwrap_or_else(|e| {
        panic!("{:?} cannot be started: {e} (strace is needed)", command.get_program())
    })
}

fn preflow(args: &[&str], dir: &Path) -> Output {
    output(Command::new(env!("CARGO_BIN_EXE_preflow")).args(args), dir)
}

/// Runs the pipeline under strace, which writes to `trace`. `None`: it had to be ended.
fn strace(options: &[&str], trace: &Path, dir: &Path) -> Option<Output> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("strace");
    // -y: what lies behind each file descriptor.
    command.args(["-f", "-qq", "-y", "-o"]).arg(trace).args(options);
    command.args([env!("CARGO_BIN_EXE_preflow"), "run", "-q", "p.yaml"]);
    command.current_dir(dir).env_remove("PREFLOW_CACHE").stdin(Stdio::null());
    command.env("XDG_STATE_HOME", dir.join(".state"));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child =
        command.spawn().unwrap_or_else(|e| panic!("strace cannot be started: {e}; install it"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while child.try_wait().expect("a child").is_none() {
        if std::time::Instant::now() > deadline {
            let group = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Some(child.wait_with_output().expect("ended"))
}

/// How often the busiest thread makes each call.
fn counts() -> BTreeMap<&'static str, usize> {
    let dir = space();
    let trace = dir.path().join("trace.txt");
    let wanted = format!("trace={}", CALLS.join(","));
    let ran = strace(&["-e", &wanted], &trace, dir.path()).expect("it ends by itself");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = std::fs::read_to_string(trace).expect("a trace");
    let mut threads: BTreeMap<(&str, &'static str), usize> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let name = rest.trim_start().split('(').next().unwrap_or_default();
        if let Some(call) = CALLS.iter().find(|c| **c == name) {
            *threads.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), n) in threads {
        let entry: &mut usize = most.entry(call).or_default();
        *entry = n.max(*entry);
    }
    assert!(
        most.contains_key("syncfs") && most.len() > 5,
        "the trace shows the publishing: {most:?}"
    );
    most
}

/// Which occurrences of `n` to replace, from 1.
fn chosen(n: usize) -> Vec<usize> {
    if n <= SAMPLE || std::env::var("PREFLOW_FAULTS").is_ok_and(|v| v == "all") {
        return (1..=n).collect();
    }
    let mut some: Vec<usize> = (0..SAMPLE).map(|i| 1 + i * (n - 1) / (SAMPLE - 1)).collect();
    some.dedup();
    some
}

fn sweep(fault: &str) {
    let (mut tried, mut problems) = (0, Vec::new());
    for (call, n) in counts() {
        for k in chosen(n) {
            match inject(call, fault, k) {
                Ok(hit) => tried += usize::from(hit),
                Err(problem) => problems.push(format!("{call} {k} of {n}, {fault}: {problem}")),
            }
        }
    }
    assert!(tried > 30, "only {tried} faults were tried");
    assert!(problems.is_empty(), "{} of {tried}:\n{}", problems.len(), problems.join("\n"));
}

/// False: the fault hit no file of the workspace (a pipe between threads is no disk).
fn inject(call: &str, fault: &str, k: usize) -> Result<bool, String> {
    let dir = space();
    let expression = format!("inject={call}:{fault}:when={k}");
    let trace = dir.path().join("trace.txt");
    let only = format!("trace={call}");
    let ran = strace(&["-e", &only, "-e", &expression], &trace, dir.path());
    let killed = fault.starts_with("signal");
    let place = dir.path().join("cache").display().to_string();
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    let hits = || text.lines().filter(|line| line.contains("INJECTED"));
    if !killed && !hits().any(|line| line.contains(&place)) {
        return Ok(false);
    }
    let Some(ran) = ran else {
        // Every thread has its own count: the same run may also lose a wake-up between threads,
        // which no disk can do.
        let lost = hits().any(|line| line.contains("eventfd") || line.contains("pipe:"));
        return if lost { Ok(false) } else { Err("it hangs".into()) };
    };
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    match ran.status.code() {
        Some(0..=4) => {}
        _ if killed => {}
        other => return Err(format!("exit {other:?}: {said}")),
    }
    if said.contains("fault in preflow") || said.contains("panicked") {
        return Err(said);
    }
    let audit = preflow(&["verify"], dir.path());
    if !audit.status.success() {
        return Err(format!("the store lies: {}", String::from_utf8_lossy(&audit.stdout)));
    }
    let again = preflow(&["run", "p.yaml"], dir.path());
    if !again.status.success() {
        let text = [again.stdout, again.stderr].concat();
        return Err(format!("no recovery: {}", String::from_utf8_lossy(&text)));
    }
    let leaf = dir.path().join("cache/views/faults/tree/o/leaf");
    match std::fs::read_to_string(leaf) {
        Ok(text) if text == "one text tree\n" => {}
        other => return Err(format!("other bytes at the end: {other:?}")),
    }
    let audit = preflow(&["verify"], dir.path());
    if audit.status.success() { Ok(true) } else { Err("the recovered store lies".into()) }
}

#[test]
fn killed_at_every_call() {
    sweep("signal=KILL");
}

#[test]
fn the_disk_is_full_at_every_call() {
    sweep("error=ENOSPC");
}

#[test]
fn the_disk_fails_at_every_call() {
    sweep("error=EIO");
}

/// The pipeline on a file system that knows no such call.
fn without(calls: &str, error: &str) -> (Option<i32>, String, tempfile::TempDir) {
    let dir = space();
    let expression = format!("inject={calls}:error={error}");
    let trace = dir.path().join("trace.txt");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace).args(["-e", &format!("trace={calls}")]);
    command.args(["-e", &expression, env!("CARGO_BIN_EXE_preflow"), "run", "p.yaml"]);
    let ran = output(&mut command, dir.path());
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8_lossy(&said).into_owned(), dir)
}

#[test]
fn a_file_system_without_hard_links_is_enough() {
    let reference = space();
    assert!(preflow(&["run", "p.yaml"], reference.path()).status.success());
    let objects = |dir: &Path| {
        let mut names = Vec::new();
        let shards = std::fs::read_dir(dir.join("cache/objects-v1")).expect("objects");
        for shard in shards.flatten() {
            names.extend(
                std::fs::read_dir(shard.path()).expect("a shard").flatten().map(|i| i.file_name()),
            );
        }
        names.sort();
        names
    };
    for error in ["EPERM", "EOPNOTSUPP", "EXDEV", "EMLINK", "ENOSYS"] {
        let (code, said, dir) = without("link,linkat", error);
        assert_eq!(code, Some(0), "{error}: {said}");
        assert_eq!(objects(dir.path()), objects(reference.path()), "{error}");
        assert!(preflow(&["verify"], dir.path()).status.success());
        let again = preflow(&["run", "p.yaml"], dir.path());
        let again = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(again.contains("nothing to do: 2 reused"), "{again}");
    }
}

#[test]
fn a_file_system_without_symbolic_links_is_enough() {
    let (code, said, dir) = without("symlink,symlinkat", "EPERM");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("below `views/` could not be made"), "{said}");
    assert!(preflow(&["verify"], dir.path()).status.success());
    let again = preflow(&["run", "p.yaml"], dir.path());
    let again = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(again.contains("nothing to do: 2 reused"), "{again}");
}

#[test]
fn a_file_system_without_locks_is_refused_before_a_stage_runs() {
    let (code, said, _dir) = without("flock", "ENOLCK");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("cannot be locked") && said.contains("--cache"), "{said}");
    assert!(!said.contains("starts"), "{said}");
}
