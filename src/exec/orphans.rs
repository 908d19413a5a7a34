//! Processes that a task left behind in sessions of their own: ended with it, where the system lets
//! this process inherit them (Linux). Does not know why a task ended.

use rustix::process::Pid;

/// Variable by which a process is known to belong to an orchestrator, whatever it became: one may
/// be killed between the start of a child and telling of it.
pub const MARK: &str = "PREFLOW_RUN";

/// From now on descendants whose parent ends become children of this process.
#[cfg(target_os = "linux")]
pub fn inherit() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Ends what is left of a task: `mark` stands in the environment of its processes, `group` is the
/// process group that it began with and that has been ended. `known` children are no orphans.
#[cfg(target_os = "linux")]
pub async fn end(mark: &str, group: Pid, known: impl Fn(Pid) -> bool) {
    /// Enough for chains of processes that start each other while they are ended.
    const ROUNDS: usize = 200;
    for _ in 0..ROUNDS {
        let mut left = false;
        for child in linux::children().into_iter().filter(|child| !known(*child)) {
            left |= linux::end_one(child, mark, group);
        }
        if !left {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[cfg(not(target_os = "linux"))]
pub fn inherit() {}

#[cfg(not(target_os = "linux"))]
pub async fn end(_: &str, _: Pid, _: impl Fn(Pid) -> bool) {}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

    /// Children that this process inherited, and those that its first thread started.
    pub fn children() -> Vec<Pid> {
        let path = format!("/proc/self/task/{}/children", getpid().as_raw_nonzero());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|n| Pid::from_raw(n.parse().ok()?)).collect()
    }

    /// True: it belonged to the task and may not be gone yet.
    pub fn end_one(child: Pid, mark: &str, group: Pid) -> bool {
        let Some(stat) = Stat::of(child) else { return false };
        // Nobody else waits for what was inherited. The group's first process has been waited for.
        if stat.is_over {
            let own = Stat::of(getpid()).map(|own| own.session);
            if stat.group == group.as_raw_nonzero().get() || Some(stat.session) != own {
                let _ = waitpid(Some(child), WaitOptions::NOHANG);
            }
            return false;
        }
        if !has_mark(child, mark) {
            return false;
        }
        let _ = kill_process(child, Signal::KILL);
        true
    }

    fn has_mark(process: Pid, mark: &str) -> bool {
        let path = format!("/proc/{}/environ", process.as_raw_nonzero());
        let wanted = format!("{}={mark}", super::MARK);
        std::fs::read(path)
            .is_ok_and(|all| all.split(|byte| *byte == 0).any(|v| v == wanted.as_bytes()))
    }

    /// What the system says of a process. Read here and not asked of `getsid`, whose binding takes
    /// 0 for impossible: in a container it is the number of a session that began outside.
    #[derive(Debug, PartialEq)]
    struct Stat {
        /// It has ended, and its parent has not been told.
        is_over: bool,
        group: i32,
        session: i32,
    }

    impl Stat {
        fn of(process: Pid) -> Option<Self> {
            let path = format!("/proc/{}/stat", process.as_raw_nonzero());
            Self::read(&std::fs::read_to_string(path).ok()?)
        }

        /// Reads a line of `/proc/*/stat`.
        fn read(text: &str) -> Option<Self> {
            // The name before them may hold anything, parentheses too.
            let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
            let state = fields.next()?;
            let mut number = |skip| fields.nth(skip).and_then(|n| n.parse().ok());
            Some(Self { is_over: state == "Z", group: number(1)?, session: number(0)? })
        }
    }

    #[test]
    fn a_session_that_began_outside_the_container_has_the_number_0() {
        let stat = Stat::read("17 (a) Z (b) Z 1 17 0 0 -1 4194560 0 0");
        assert_eq!(stat, Some(Stat { is_over: true, group: 17, session: 0 }));
    }
}
