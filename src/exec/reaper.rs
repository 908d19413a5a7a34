//! The reaper: a small process that outlives its orchestrator by a moment and ends what it left.
//! Knows only process groups.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Tells the reaper process which groups live. It is started with the first one.
pub struct Reaper {
    command: Vec<PathBuf>,
    child: RefCell<Option<Child>>,
}

impl Reaper {
    #[must_use]
    pub fn new(command: Vec<PathBuf>) -> Self {
        Self { command, child: RefCell::new(None) }
    }

    /// A group was started.
    pub fn born(&self, group: Pid) {
        let mut child = self.child.borrow_mut();
        if child.is_none() {
            *child = self.start();
        }
        drop(child);
        self.say('+', group);
    }

    /// A group has ended.
    pub fn gone(&self, group: Pid) {
        self.say('-', group);
    }

    fn say(&self, sign: char, group: Pid) {
        if let Some(stdin) = self.child.borrow_mut().as_mut().and_then(|c| c.stdin.as_mut()) {
            // Without it tasks still run; only a kill -9 of this process could leave some behind.
            let _ = stdin.write_all(format!("{sign}{}\n", group.as_raw_nonzero()).as_bytes());
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
    fn start(&self) -> Option<Child> {
        let (program, arguments) = self.command.split_first()?;
        std::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .ok()
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.borrow_mut().take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Body of the reaper process: reads `+group` and `-group` lines until its parent is gone, then
/// ends the groups that are left: TERM, two seconds, KILL.
pub fn main() {
    let mut groups: BTreeSet<i32> = BTreeSet::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Some((sign, number)) = line.split_at_checked(1) else { continue };
        let Ok(number) = number.parse() else { continue };
        match sign {
            "+" => groups.insert(number),
            _ => groups.remove(&number),
        };
    }
    let alive = |groups: &BTreeSet<i32>| -> Vec<Pid> {
        let pids = groups.iter().filter_map(|g| Pid::from_raw(*g));
        pids.filter(|g| test_kill_process_group(*g).is_ok()).collect()
    };
    for group in alive(&groups) {
        let _ = kill_process_group(group, Signal::TERM);
        let _ = kill_process_group(group, Signal::CONT);
    }
    for _ in 0..20 {
        if alive(&groups).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for group in alive(&groups) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}
