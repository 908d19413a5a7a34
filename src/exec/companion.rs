//! A program beside a run that is told what happens, a line a thing. It holds nothing up: what it
//! does not take in time is left out. Does not know what the lines say.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that wait for a program which is slow.
const WAITING: usize = 10_000;
/// Characters of what a program says that are kept: its end tells most.
const SAID: usize = 2000;

/// A program that is running.
#[derive(Debug)]
pub struct Companion {
    child: Child,
    lines: Option<SyncSender<String>>,
    said: Option<JoinHandle<String>>,
    left_out: u64,
}

impl Companion {
    /// Starts a program. A Ctrl-C at the terminal does not reach it: it hears of the end by the
    /// end of its input.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, args: &[&str], folder: &Path) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (mut input, mut errors) = (child.stdin.take(), child.stderr.take());
        let (lines, waiting) = sync_channel::<String>(WAITING);
        std::thread::spawn(move || {
            let Some(input) = &mut input else { return };
            for line in waiting {
                if input.write_all(format!("{line}\n").as_bytes()).is_err() {
                    return;
                }
            }
        });
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(errors) = &mut errors {
                let _ = errors.read_to_end(&mut said);
            }
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            let start = said.char_indices().rev().nth(SAID).map_or(0, |(at, _)| at);
            said[start..].to_owned()
        });
        Ok(Self { child, lines: Some(lines), said: Some(said), left_out: 0 })
    }

    /// Tells it a line. False: it has ended, and takes none any more.
    pub fn tell(&mut self, line: String) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return false;
        }
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_))) => {
                self.left_out += 1;
                true
            }
            Some(Err(TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// Ends its input and waits for it, but not for ever.
    ///
    /// # Errors
    /// What it said when it failed, or that it had to be ended.
    pub fn end(mut self, patience: Duration) -> Result<(), String> {
        self.lines = None;
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if begun.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => break None,
            }
        };
        let Some(status) = status else {
            let _ = self.child.kill();
            let _ = self.child.wait();
            return Err(format!("it took longer than {} s to end", patience.as_secs()));
        };
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        match (status.success(), self.left_out) {
            (true, 0) => Ok(()),
            (true, n) => Err(format!("it was too slow: {n} lines were left out")),
            (false, _) if said.is_empty() => Err(format!("it ended: {status}")),
            (false, _) => Err(said.lines().last().unwrap_or_default().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Companion {
        Companion::start(Path::new("/bin/sh"), &["-c", script], Path::new("/")).expect("starts")
    }

    #[test]
    fn it_hears_every_line_and_ends_with_its_input() {
        let folder = tempfile::tempdir().expect("a folder");
        let heard = folder.path().join("heard");
        let mut program = shell(&format!("cat > {}", heard.display()));
        for i in 0..1000 {
            assert!(program.tell(format!("line {i}")));
        }
        assert_eq!(program.end(Duration::from_secs(20)), Ok(()));
        let heard = std::fs::read_to_string(heard).expect("read");
        assert_eq!(heard.lines().count(), 1000);
        assert_eq!(heard.lines().last(), Some("line 999"));
    }

    #[test]
    fn one_that_fails_hangs_or_is_slow_stops_nothing() {
        let mut gone = shell("echo away >&2; echo no such server >&2; exit 3");
        let begun = Instant::now();
        while gone.tell("x".to_owned()) {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(gone.end(Duration::from_secs(20)), Err("no such server".to_owned()));

        let mut hangs = shell("exec sleep 600");
        let begun = Instant::now();
        for _ in 0..3 * WAITING {
            assert!(hangs.tell("a line that nobody reads".repeat(10)));
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        let ended = hangs.end(Duration::from_millis(200));
        assert_eq!(ended, Err("it took longer than 0 s to end".to_owned()));
    }
}
