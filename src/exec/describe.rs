//! Asks a worker which kinds it offers, and what is wrong with stages before they run.
//! Does not understand the answers.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Loading a framework takes a while; more than this is a mistake.
const PATIENCE: Duration = Duration::from_secs(60);
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
    let reader = |stream: Option<Box<dyn io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.map(|s| s.take(LONGEST).read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let said = reader(stdout.map(|s| Box::new(s) as _));
    let complaint = reader(stderr.map(|s| Box::new(s) as _));
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
    let said = said.join().unwrap_or_default();
    if status.success() {
        return Ok(said);
    }
    let complaint = complaint.join().unwrap_or_default();
    let last = complaint.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
    Err(io::Error::other(format!("{status}: {last}")))
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
