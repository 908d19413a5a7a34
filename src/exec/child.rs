//! What child processes have in common: what they see of the environment, how they are ended, how
//! their end reads. Knows nothing of what they do.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::Stop;
use super::programs::found;
use crate::files;

/// Environment variables that every task sees.
const PASSED: [&str; 13] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "PREFLOW_LOG",
    "PREFLOW_LOG_FORMAT",
];

/// A program, with an empty environment.
#[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
pub fn new_command(program: &Path) -> Command {
    let mut command = Command::new(found(program));
    command.arg0(program).env_clear();
    command
}

/// Lets a child see the usual variables and those that are `named`.
pub fn pass_environment(command: &mut Command, named: &[String]) {
    for name in named.iter().map(String::as_str).chain(PASSED) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // Threads that spin for ever while they wait cost up to ten times as soon as a core is shared;
    // ones that sleep at once a third of the time of many short products.
    for (name, usual) in [("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "5000")] {
        command.env(name, std::env::var_os(name).unwrap_or_else(|| usual.into()));
    }
}

/// TERM, the grace, KILL; the grace ends early when the user asks again.
pub async fn end(child: &mut Child, group: Pid, stop: &mut watch::Receiver<Stop>, grace: Duration) {
    let _ = kill_process_group(group, Signal::TERM);
    // A stopped process acts on TERM only once it goes on.
    let _ = kill_process_group(group, Signal::CONT);
    tokio::select! {
        _ = child.wait() => return,
        () = tokio::time::sleep(grace) => {}
        _ = stop.wait_for(|s| *s == Stop::Now) => {}
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait().await;
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (_, Some(signal)) => {
            let name = Signal::from_named_raw(signal).map(|s| format!("{s:?}"));
            let name = name.unwrap_or_default().replace("Signal::", "").replace('"', "");
            format!("killed by signal {signal} {name}").trim_end().to_owned()
        }
        _ => "ended".to_owned(),
    }
}

/// What often helps against such an end.
pub fn hint(status: ExitStatus) -> Option<String> {
    match status.signal() {
        Some(9) => Some(
            "often this is the system running out of memory: lower the batch size or the model"
                .into(),
        ),
        Some(25) => Some("a file grew beyond what this user may write (`ulimit -f`)".into()),
        Some(11 | 6) => Some("a fault in native code; the log may say more".into()),
        _ if status.code() == Some(127) => Some("127: a command was not found".into()),
        _ => None,
    }
}

/// The last lines of a log, at most 20 and 4 KiB.
pub fn tail(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let Ok(mut file) = files::open_own(path) else { return String::new() };
    let length = file.metadata().map_or(0, |m| m.len());
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(4096)));
    let mut bytes = Vec::new();
    let _ = file.take(4096).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
