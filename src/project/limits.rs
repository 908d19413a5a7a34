//! What the system lets this process do: how many files may be open, and how large they may grow.
//! Does not know what they are for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Failure;

/// More open files than a run ever needs; programs that stages start get the same.
const PLENTY: u64 = 8192;

/// Files that a run holds open for itself.
const OWN: u64 = 32;

/// Files that a stage holds open while it runs and until it is published.
const PER_STAGE: u64 = 8;

/// Text of the panics of the standard library and of tokio when there can be no further thread.
const NO_THREAD: [&str; 2] = ["failed to spawn thread", "OS can't spawn worker thread"];

/// A thread could not be started.
static NO_THREADS: AtomicBool = AtomicBool::new(false);

/// Raises the number of open files as far as the user may, and makes a file that grows too large an
/// error like any other: by itself the signal for it ends the process without a word.
pub fn prepare() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(PLENTY, |most| most.min(PLENTY));
    if limit.current.is_some_and(|now| now < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
    // A handler, not `ignore`: programs that are started begin with the usual again.
    let heard = Arc::new(AtomicBool::new(false));
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, heard);
}

fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many stages may be open at once.
#[must_use]
pub fn open_stages() -> usize {
    usize::try_from(open_files().saturating_sub(OWN) / PER_STAGE).unwrap_or(usize::MAX)
}

/// Refuses to begin what would fail somewhere in the middle.
///
/// # Errors
/// Too few files may be open.
pub fn check() -> Result<(), Failure> {
    let (have, need) = (open_files(), OWN + PER_STAGE);
    if have >= need {
        return Ok(());
    }
    Err(Failure::System {
        message: format!("this process may open {have} files only, a run needs {need}"),
        help: "raise the limit (`ulimit -n 1024`), then run again".into(),
    })
}

/// Whether a panic with this text is the system's refusal of another thread; remembered.
pub fn is_refused_thread(text: &str) -> bool {
    let refused = NO_THREAD.iter().any(|start| text.starts_with(start));
    NO_THREADS.fetch_or(refused, Ordering::Relaxed);
    refused
}

/// Whether the system has refused a thread.
#[must_use]
pub fn refused_a_thread() -> bool {
    NO_THREADS.load(Ordering::Relaxed)
}
