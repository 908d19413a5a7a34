//! Shows a file in the program that the desktop has for it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::programs;

/// A desktop's own command that fails does so soon; some stay as long as the program is open.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Why a file could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("there is no display here")]
    NoDisplay,
    #[error("`{program}` cannot be started: {source}")]
    Start { program: &'static str, source: std::io::Error },
    #[error("`{program}` failed: {status}")]
    Failed { program: &'static str, status: std::process::ExitStatus },
}

/// Opens the file, if there is a display; does not wait for it to be closed.
///
/// # Errors
/// There is none, or the desktop's command fails.
pub fn open(path: &Path) -> Result<(), OpenError> {
    let apple = cfg!(target_os = "macos");
    let named = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if !apple && !named("DISPLAY") && !named("WAYLAND_DISPLAY") {
        return Err(OpenError::NoDisplay);
    }
    let program = if apple { "open" } else { "xdg-open" };
    #[expect(clippy::disallowed_methods, reason = "this room owns child processes")]
    let mut command = Command::new(programs::program(program));
    command.arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = command.spawn();
    let mut child = started.map_err(|source| OpenError::Start { program, source })?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) if !status.success() => {
                return Err(OpenError::Failed { program, status });
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            _ => break,
        }
    }
    Ok(())
}
