//! What git knows of a folder: the commit it stands at, and its files at another one.
//! Changes nothing but a repository's own configuration, when asked. Programs that the repository
//! names (hooks, monitors, filters, transports) are never started.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::programs::program;

/// Where a working tree stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// 40 hexadecimal digits; empty where there is no git, or no commit.
    pub id: String,
    /// Tracked files differ from it.
    pub dirty: bool,
    /// There is a repository, and git does not tell of it.
    pub trouble: Option<GitFailure>,
}

/// Why git does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitFailure {
    pub message: String,
    pub remedy: String,
}

/// The commit that a folder stands at; empty outside git.
#[must_use]
pub fn commit(folder: &Path) -> Commit {
    let id = match git(folder, &["rev-parse", "--verify", "--quiet", "HEAD"]) {
        Ok(output) if output.status.success() => said(&output.stdout),
        Ok(output) => {
            let trouble = refusal(folder, &said(&output.stderr));
            return Commit { trouble, ..Commit::default() };
        }
        Err(e) => {
            let trouble = repository(folder).then(|| not_started(&e));
            return Commit { trouble, ..Commit::default() };
        }
    };
    // Of a submodule only its commit counts: git would read its configuration too.
    let words = ["status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"];
    let changes = without_filters(folder).and_then(|mut git| git.args(words).output());
    let changes = changes.ok().filter(|o| o.status.success()).map(|o| said(&o.stdout));
    Commit { id, dirty: changes.is_none_or(|c| !c.is_empty()), trouble: None }
}

/// A git that starts no program to convert files, as far as the repository itself names one; those
/// of the user's own configuration are the user's.
fn without_filters(folder: &Path) -> io::Result<Command> {
    // Answers in a row, each ended by NUL: scope, then the key with its value behind a line feed.
    let listed = git(folder, &["config", "--list", "--show-scope", "-z"])?;
    if !listed.status.success() {
        return Err(io::Error::other("git does not tell its configuration"));
    }
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let fields: Vec<&str> = text.split('\0').collect();
    let mut git = base(folder);
    let mut neutral = BTreeSet::new();
    for pair in fields.chunks_exact(2) {
        let key = pair[1].split('\n').next().unwrap_or_default();
        let Some((driver, what)) = key.strip_prefix("filter.").and_then(|k| k.rsplit_once('.'))
        else {
            continue;
        };
        let starts = ["clean", "smudge", "process"].contains(&what);
        if starts && !["system", "global"].contains(&pair[0]) {
            neutral.insert(driver.to_owned());
        }
    }
    // By variables: names may hold anything. Those of the user stay.
    let count = std::env::var("GIT_CONFIG_COUNT").ok().and_then(|n| n.parse().ok());
    let mut count: usize = count.unwrap_or(0);
    for driver in neutral {
        for (what, value) in [("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")]
        {
            git.env(format!("GIT_CONFIG_KEY_{count}"), format!("filter.{driver}.{what}"));
            git.env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
    }
    git.env("GIT_CONFIG_COUNT", count.to_string());
    Ok(git)
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// A mark of a repository in the folder or above it.
fn repository(folder: &Path) -> bool {
    folder.ancestors().any(|dir| dir.join(".git").exists())
}

fn not_started(error: &io::Error) -> GitFailure {
    let missing = error.kind() == io::ErrorKind::NotFound;
    GitFailure {
        message: match missing {
            true => "git is not installed, though this is a repository".to_owned(),
            false => format!("git cannot be started: {error}"),
        },
        remedy: "install git, and see that it is on PATH".to_owned(),
    }
}

/// What git says when it refuses a repository; `None`: there is no repository, or no commit yet.
fn refusal(folder: &Path, stderr: &str) -> Option<GitFailure> {
    let first = stderr.lines().find(|line| line.starts_with("fatal: "))?;
    let message = first.trim_start_matches("fatal: ").to_owned();
    if message.starts_with("not a git repository") {
        return None;
    }
    let cure = stderr.lines().map(str::trim).find(|l| l.starts_with("git config "));
    let remedy = cure.map_or_else(
        || format!("`git -C {} status` says more", folder.display()),
        |cure| format!("if you trust it: {cure}"),
    );
    Some(GitFailure { message, remedy })
}

/// Git takes the folder for part of a repository.
#[must_use]
pub fn is_repository(folder: &Path) -> bool {
    git(folder, &["rev-parse", "--git-dir"]).is_ok_and(|output| output.status.success())
}

/// Whether git keeps a file at or below `place`, which lies in `folder`: what is cloned brings it.
#[must_use]
pub fn is_tracked(folder: &Path, place: &Path) -> bool {
    let place = place.to_string_lossy();
    let words = ["--literal-pathspecs", "ls-files", "-z", "--", &place];
    git(folder, &words).is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
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

/// The text of a file at a commit; `path` counts from `folder`. `None`: there is none, or no text.
#[must_use]
pub fn file_at(folder: &Path, commit: &str, path: &Path) -> Option<String> {
    let name = format!("{commit}:./{}", path.display());
    let output = git(folder, &["show", "--no-textconv", &name]).ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
}

/// Writes the files of a commit below `into`.
///
/// # Errors
/// There is no git, or no such commit, or the disk is full.
pub fn export(folder: &Path, commit: &str, into: &Path) -> io::Result<()> {
    let mut archive = without_filters(folder)?
        .args(["archive", "--format=tar", commit])
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
    base(folder).args(arguments).output()
}

#[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
fn base(folder: &Path) -> Command {
    let mut command = Command::new(program("git"));
    command.arg("-C").arg(folder).stdin(Stdio::null());
    for setting in ["core.fsmonitor=false", "core.hooksPath=/dev/null", "diff.external="] {
        command.arg("-c").arg(setting);
    }
    // What it says is read.
    command.env("LC_ALL", "C");
    // Looking writes nothing, asks nobody and fetches nothing.
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
    // Names of transports that are allowed, whatever a configuration says.
    command
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env_remove("GIT_EXTERNAL_DIFF");
    // Hooks of git set these for their own repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    command
}

#[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
fn tar_command(into: &Path) -> Command {
    let mut command = Command::new(program("tar"));
    command.arg("-x").arg("-f").arg("-").arg("-C").arg(into);
    command
}
