//! What git knows of a folder: the commit it stands at, and its files at another one.
//! Changes nothing but a repository's own configuration, when asked.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

/// Where a working tree stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {
    /// 40 hexadecimal digits; empty where there is no git, or no commit.
    pub id: String,
    /// Tracked files differ from it.
    pub dirty: bool,
}

/// The commit that a folder stands at; empty outside git.
#[must_use]
pub fn commit(folder: &Path) -> Commit {
    let said = |arguments: &[&str]| {
        let output = git(folder, arguments).ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(id) = said(&["rev-parse", "--verify", "--quiet", "HEAD"]) else {
        return Commit::default();
    };
    let changes = said(&["status", "--porcelain", "--untracked-files=no"]);
    Commit { id, dirty: changes.is_none_or(|c| !c.is_empty()) }
}

/// The commit that a word names: a branch, a tag, `HEAD~1`; `None` where it names none.
#[must_use]
pub fn resolve(folder: &Path, word: &str) -> Option<String> {
    // A word that begins with a dash would be an option.
    if word.starts_with('-') {
        return None;
    }
    let wanted = format!("{word}^{{commit}}");
    let output = git(folder, &["rev-parse", "--verify", "--quiet", &wanted]).ok()?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !id.is_empty()).then_some(id)
}

/// Writes the files of a commit below `into`.
///
/// # Errors
/// There is no git, or no such commit, or the disk is full.
pub fn export(folder: &Path, commit: &str, into: &Path) -> io::Result<()> {
    let mut archive = command(folder, &["archive", "--format=tar", commit])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let tar = archive.stdout.take().expect("invariant: it is piped");
    let unpacked = tar_command(into).stdin(tar).output()?;
    let mut said = String::new();
    if let Some(mut stderr) = archive.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    let status = archive.wait()?;
    if status.success() && unpacked.status.success() {
        return Ok(());
    }
    let more = String::from_utf8_lossy(&unpacked.stderr);
    Err(io::Error::other(format!("git archive: {}", format!("{said}{more}").trim())))
}

/// Sets a value in the configuration of the repository alone.
///
/// # Errors
/// The folder is in no repository.
pub fn configure(folder: &Path, name: &str, value: &str) -> io::Result<()> {
    let output = git(folder, &["config", "--local", name, value])?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn git(folder: &Path, arguments: &[&str]) -> io::Result<Output> {
    command(folder, arguments).output()
}

#[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(arguments).stdin(Stdio::null());
    // Hooks of git set these for their own repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    command
}

#[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
fn tar_command(into: &Path) -> Command {
    let mut command = Command::new("tar");
    command.arg("-x").arg("-f").arg("-").arg("-C").arg(into);
    command
}
