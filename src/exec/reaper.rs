//! The reaper: a small process that outlives its orchestrator by a moment and ends what it left.
//! Knows only process groups.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::orphans::{self, MARK};

/// Tells the reaper process which groups live. It is started before the first one.
pub struct Reaper {
    command: Vec<PathBuf>,
    mark: String,
    child: RefCell<Option<Child>>,
    /// Processes that were announced so far.
    expected: Cell<u64>,
    /// Groups that live, by the number of their first process.
    live: RefCell<HashSet<Pid>>,
}

impl Reaper {
    #[must_use]
    pub fn new(command: Vec<PathBuf>) -> Self {
        let mark = format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond());
        Self {
            command,
            mark,
            child: RefCell::default(),
            expected: Cell::default(),
            live: RefCell::default(),
        }
    }

    /// A process is about to be started. What it must find in [`MARK`], and no other one does.
    pub fn expect(&self) -> String {
        let mut child = self.child.borrow_mut();
        if child.is_none() {
            *child = self.start();
            orphans::inherit();
        }
        self.expected.set(self.expected.get() + 1);
        format!("{}.{}", self.mark, self.expected.get())
    }

    /// A group was started.
    pub fn born(&self, group: Pid) {
        self.live.borrow_mut().insert(group);
        self.say('+', group);
    }

    /// A group has ended.
    pub fn gone(&self, group: Pid) {
        self.live.borrow_mut().remove(&group);
        self.say('-', group);
    }

    /// Whether it is the first process of a group that lives, or the reaper itself.
    pub fn knows(&self, process: Pid) -> bool {
        let child = self.child.borrow();
        self.live.borrow().contains(&process)
            || child.as_ref().is_some_and(|child| Pid::from_child(child) == process)
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
            .arg(&self.mark)
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
            if let Some(mut stdin) = child.stdin.take() {
                let _ = stdin.write_all(b".\n");
            }
            let _ = child.wait();
        }
    }
}

/// Body of the reaper process: reads `+group` and `-group` lines until its parent says `.`, or is
/// gone; then it ends the groups that are left, and those of processes with this mark: TERM, two
/// seconds, KILL.
pub fn main(mark: &str) {
    let mut groups: BTreeSet<i32> = BTreeSet::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Some((sign, number)) = line.split_at_checked(1) else { continue };
        if sign == "." {
            return;
        }
        let Ok(number) = number.parse() else { continue };
        match sign {
            "+" => groups.insert(number),
            _ => groups.remove(&number),
        };
    }
    groups.extend(marked(mark));
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

/// Groups of the processes that were started with this mark, where `/proc` tells.
fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}.");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let groups = processes.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let environment = std::fs::read(process.path().join("environ")).ok()?;
        let is_ours = environment.split(|b| *b == 0).any(|v| v.starts_with(wanted.as_bytes()));
        is_ours.then(|| rustix::process::getpgid(Some(pid)).ok()).flatten()
    });
    groups.map(|group| group.as_raw_nonzero().get()).collect()
}
