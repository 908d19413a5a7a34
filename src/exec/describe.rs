//! Asks a worker which kinds it offers, and what is wrong with stages before they run.
//! Does not understand the answers.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Loading a framework takes a while; more than this is a mistake.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a child wrote before its end is read within this.
const GRACE: Duration = Duration::from_secs(1);
/// A catalog of a thousand kinds is smaller.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What `COMMAND describe` prints.
///
/// # Errors
/// It cannot be started, fails, or takes too long; the end of what it said is in the error.
pub fn describe(command: &[String], cwd: &Path) -> io::Result<String> {
    ask(command, "describe", "", cwd)
}

/// What `COMMAND validate` prints when it reads `question`.
///
/// # Errors
/// As [`describe`].
pub fn validate(command: &[String], question: &str, cwd: &Path) -> io::Result<String> {
    ask(command, "validate", question, cwd)
}

fn ask(command: &[String], word: &str, question: &str, cwd: &Path) -> io::Result<String> {
    let mut child = spawn(command, word, cwd)?;
    // Beside reading: a worker may answer before it has read everything.
    let (stdin, question) = (child.stdin.take(), question.to_owned());
    std::thread::spawn(move || stdin.map(|mut s| s.write_all(question.as_bytes())));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = Heard::of(stdout);
    let complaint = Heard::of(stderr);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("no answer in {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = said.text();
    if status.success() {
        return Ok(said);
    }
    let complaint = complaint.text();
    let last = complaint.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
    Err(io::Error::other(format!("{status}: {last}")))
}

/// What a child writes, while it writes.
struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Cut when there is no more.
    end: Receiver<()>,
}

impl Heard {
    fn of(stream: Option<impl io::Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (open, end) = std::sync::mpsc::channel();
        let into = bytes.clone();
        std::thread::spawn(move || {
            let _open: Sender<()> = open;
            let mut stream = stream.map(|s| s.take(LONGEST));
            let mut buffer = [0; 1 << 16];
            while let Some(Ok(n)) = stream.as_mut().map(|s| s.read(&mut buffer)) {
                if n == 0 {
                    break;
                }
                into.lock().expect("invariant: nobody panics with it").extend(&buffer[..n]);
            }
        });
        Self { bytes, end }
    }

    /// What the child said, which has ended: a process that it left behind may hold the stream open
    /// for ever.
    fn text(&self) -> String {
        let _ = self.end.recv_timeout(GRACE);
        let bytes = self.bytes.lock().expect("invariant: nobody panics with it");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
fn spawn(command: &[String], word: &str, cwd: &Path) -> io::Result<std::process::Child> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::other("an empty command"))?;
    Command::new(program)
        .args(arguments)
        .arg(word)
        .current_dir(cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_a_worker_leaves_behind_holds_nobody_up() {
        let script = "sleep 1000 & echo $!; exit 0";
        let command = ["sh", "-c", script].map(str::to_owned);
        let said = describe(&command, Path::new("/")).expect("an answer");
        let left: i32 = said.trim().parse().expect("the number of a process");
        let left = rustix::process::Pid::from_raw(left).expect("a process");
        rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("still there");
    }
}
