//! How stages are run on this machine: what it has, who performs the built-in kinds.
//! Does not know what is run.

use std::path::PathBuf;

use super::{Failure, Project, limits};
use crate::exec::programs::installed;
use crate::run::{HostInfo, Pools, RunOptions};

/// What a run may take of the machine; `None`: all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resources {
    pub threads: Option<u32>,
    /// GiB.
    pub memory: Option<f64>,
    pub gpus: Option<u32>,
}

/// How to run a pipeline, but for which of its stages.
///
/// # Errors
/// No threads, or no memory, are none to run with.
pub fn options(project: &Project, resources: Resources) -> Result<RunOptions, Failure> {
    Ok(RunOptions {
        id: run_id(),
        at: jiff::Timestamp::now().to_string(),
        keep_going: false,
        pools: pools(resources)?,
        open_stages: limits::open_stages(),
        worker: worker_command(),
        cwd: project.dir.clone(),
        command: std::env::args().collect(),
        heads_key: project.key.clone(),
        host: HostInfo::new(project.root.clone()),
    })
}

/// Sorts by time: the day, the second, its 65,536th part; two processes differ in the last digit.
fn run_id() -> String {
    let now = jiff::Timestamp::now();
    let part = u64::from(now.subsec_nanosecond().unsigned_abs()) * 65_536 / 1_000_000_000;
    let process = std::process::id() & 0xf;
    format!("{}-{part:04x}{process:x}", now.strftime("%Y%m%d-%H%M%S"))
}

/// The built-in worker, as a command.
#[must_use]
pub fn worker_command() -> Vec<String> {
    vec![worker_path().to_string_lossy().into_owned()]
}

/// `PREFLOW_WORKER`, or `preflow-worker` beside this program, or on PATH; never one that lies where
/// the user stands.
#[must_use]
pub fn worker_path() -> PathBuf {
    if let Some(path) = std::env::var_os("PREFLOW_WORKER") {
        let path = PathBuf::from(path);
        return std::path::absolute(&path).unwrap_or(path);
    }
    const NAME: &str = "preflow-worker";
    let beside = std::env::current_exe().map(|exe| exe.with_file_name(NAME));
    match beside {
        Ok(beside) if beside.exists() => beside,
        beside => installed(NAME).or(beside.ok()).unwrap_or_else(|| format!("/{NAME}").into()),
    }
}

fn pools(args: Resources) -> Result<Pools, Failure> {
    let threads = match args.threads {
        Some(0) => return Err(Failure::usage("--jobs 0: at least one is needed")),
        Some(n) => n,
        None => std::thread::available_parallelism()
            .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole bytes do")]
    let memory = match args.memory {
        Some(gib) if gib.is_finite() && gib > 0.0 => (gib * f64::from(1 << 30)) as u64,
        Some(_) => return Err(Failure::usage("--memory: a number of GiB above 0 is needed")),
        None => machine_memory(),
    };
    let gpus = args.gpus.unwrap_or_else(machine_gpus);
    Ok(Pools { threads, memory, gpus: (0..gpus).collect() })
}

fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib * 1024)
}

/// Devices that `/dev` shows.
#[must_use]
pub fn machine_gpus() -> u32 {
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let count = devices
        .filter(|d| {
            let name = d.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix("nvidia"));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
        .count();
    u32::try_from(count).unwrap_or(0)
}

/// What drives everything that waits: one thread, so that all state has one owner.
///
/// # Errors
/// The system gives no means for it.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    limits::check()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| {
        Failure::System {
            message: format!("cannot start: {e}"),
            help: "see the limits of this user (`ulimit -a`)".into(),
        }
    })
}
