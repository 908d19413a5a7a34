//! The remote of a workspace: which one it is.
//! Decides nothing about what is sent or fetched.

use std::path::Path;

use super::{Choices, Failure, execution};
use crate::diagnostic::Diagnostic;
use crate::pipeline;
use crate::remote::{Config, Location, Mode, Remote};
use crate::text::clean;
use crate::workspace::{self, Workspace};

/// The remote that the user named, or that the workspace at `root` does. `None`: neither does.
/// Nobody is asked yet.
///
/// # Errors
/// What names it is wrong, or the environment holds no credentials for it.
pub fn open(
    choices: &Choices,
    root: &Path,
    workspace: &Workspace,
) -> Result<Option<Remote>, Failure> {
    Ok(config(choices, root, workspace)?.map(Remote::open).transpose()?)
}

/// The same, but for opening it.
///
/// # Errors
/// What names it is wrong.
pub fn config(
    choices: &Choices,
    root: &Path,
    workspace: &Workspace,
) -> Result<Option<Config>, Failure> {
    let written = written(root, workspace)?;
    let mut config = match choices.remote.as_deref() {
        Some("none") => return Ok(None),
        Some(url) if !url.is_empty() => {
            let here = std::path::absolute(".").unwrap_or_default();
            let location = Location::parse(url, &here)
                .map_err(|e| Failure::usage(format!("--remote: {}", e.reason)).help(e.help))?;
            // The file's endpoint belongs to the file's place.
            let same = written.filter(|written| written.location == location);
            same.unwrap_or_else(|| Config::at(location))
        }
        _ => match written {
            Some(config) => config,
            None => return Ok(None),
        },
    };
    if let Some(word) = choices.remote_mode.as_deref().filter(|word| !word.is_empty()) {
        config.mode = Mode::parse(word).ok_or_else(|| {
            Failure::usage(format!("PREFLOW_REMOTE_MODE: `{}` is no mode", clean(word)))
                .help(format!("one of {}", Mode::WORDS.join(", ")))
        })?;
    }
    Ok(Some(config))
}

/// What the workspace file says.
fn written(root: &Path, workspace: &Workspace) -> Result<Option<Config>, Failure> {
    let Some(remote) = &workspace.remote else { return Ok(None) };
    let location = Location::parse(&remote.url, root).map_err(|e| {
        // Without the line itself: it may hold a password.
        let at = pipeline::place(&remote.span);
        let problem = Diagnostic::new(format!("{at}: `url`: {}", e.reason), None);
        Failure::Diagnostics(vec![problem.help(e.help)])
    })?;
    let mode = if remote.read_only { Mode::ReadOnly } else { Mode::ReadWrite };
    let workspace::RemoteConfig { endpoint, region, required, .. } = remote.clone();
    Ok(Some(Config { location, mode, endpoint, region, required }))
}

/// The remote, for a verb that is about nothing else.
///
/// # Errors
/// As [`open`], and where there is none.
pub fn needed(choices: &Choices, root: &Path, workspace: &Workspace) -> Result<Remote, Failure> {
    open(choices, root, workspace)?.ok_or_else(|| {
        Failure::usage("no remote is configured").help(
            "`remote: { url: s3://BUCKET/PREFIX }` in preflow.yaml, PREFLOW_REMOTE, or --remote",
        )
    })
}

/// Waits for an answer of the remote.
///
/// # Errors
/// It does not answer, or refuses.
pub fn ask(remote: &Remote) -> Result<(), Failure> {
    let runtime = execution::runtime()?;
    Ok(runtime.block_on(remote.ask())?)
}
