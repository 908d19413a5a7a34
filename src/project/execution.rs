//! How stages are run on this machine: what it has, who performs the built-in kinds.
//! Does not know what is run.

use std::path::{Path, PathBuf};

use super::{Failure, Project, limits};
use crate::exec::programs::installed;
use crate::files;
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
/// No threads, or no memory, are none to run with; the worker's torch is another one.
pub fn options(project: &Project, resources: Resources) -> Result<RunOptions, Failure> {
    if let Some(trouble) = torch_trouble(&worker_path()) {
        return Err(Failure::usage(trouble).help("`preflow doctor` looks at the installation"));
    }
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

const WORKER: &str = "preflow-worker";

/// The version of torch that the worker's wheel is built against, whose libraries it loads.
const TORCH: &str = "2.11";

/// `PREFLOW_WORKER`; or `preflow-worker` beside this program, in the Python environment that this
/// program lies in, or on PATH; never one that lies where the user stands.
#[must_use]
pub fn worker_path() -> PathBuf {
    if let Some(path) = std::env::var_os("PREFLOW_WORKER") {
        let path = PathBuf::from(path);
        return std::path::absolute(&path).unwrap_or(path);
    }
    let exe = std::env::current_exe().ok();
    let beside = exe.as_ref().map(|exe| exe.with_file_name(WORKER));
    let there = beside.clone().filter(|path| path.exists());
    there
        .or_else(|| in_environment(&exe?))
        .or_else(|| installed(WORKER))
        .or(beside)
        .unwrap_or_else(|| format!("/{WORKER}").into())
}

/// The worker as its wheel lays it into the Python environment of a program in `bin`.
fn in_environment(program: &Path) -> Option<PathBuf> {
    let lib = program.parent()?.parent()?.join("lib");
    let items = std::fs::read_dir(lib).ok()?.flatten();
    let mut pythons: Vec<PathBuf> = items
        .filter(|item| item.file_name().to_string_lossy().starts_with("python3"))
        .map(|item| item.path())
        .collect();
    pythons.sort();
    let folders = pythons.iter().rev().flat_map(|python| {
        ["site-packages", "dist-packages"].map(|packages| python.join(packages))
    });
    folders.map(|folder| folder.join("preflow_worker/bin").join(WORKER)).find(|path| path.exists())
}

/// What is wrong with the torch that an installed worker loads; `None`: nothing, or it is not
/// installed by its wheel.
#[must_use]
pub fn torch_trouble(worker: &Path) -> Option<String> {
    let packages = worker.parent()?.parent().filter(|p| p.ends_with("preflow_worker"))?.parent()?;
    let remedy = format!("install it: `pip install torch=={TORCH}.0`");
    let Ok(text) = files::read_to_string(&packages.join("torch/version.py"), 1 << 16) else {
        return Some(format!("torch is not installed in {}; {remedy}", packages.display()));
    };
    let line = text.lines().find_map(|line| line.trim().strip_prefix("__version__ = "));
    let version = line.unwrap_or_default().trim_matches(['\'', '"']);
    let fits = version.strip_prefix(TORCH).is_some_and(|rest| rest.starts_with('.'));
    (!fits).then(|| {
        format!(
            "torch {version} in {} is not {TORCH}, which preflow-worker loads; {remedy}",
            packages.display()
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test owns its folder")]
    fn the_worker_of_a_python_environment_is_found_and_so_is_a_wrong_torch() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("bin/preflow");
        assert_eq!(in_environment(&program), None);
        let packages = folder.path().join("lib/python3.12/site-packages");
        let worker = packages.join("preflow_worker/bin/preflow-worker");
        for path in [&worker, &packages.join("torch/version.py")] {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        }
        std::fs::write(&worker, "").expect("written");
        assert_eq!(in_environment(&program), Some(worker.clone()));

        let trouble = torch_trouble(&worker).expect("no torch");
        assert!(trouble.contains("torch is not installed") && trouble.contains("torch==2.11.0"));
        for (said, is_right) in [
            ("__version__ = '2.11.0+cpu'\n", true),
            ("from x import y\n__version__ = \"2.11.1\"\n", true),
            ("__version__ = '2.1.0'\n", false),
            ("__version__ = '2.110.0'\n", false),
            ("", false),
        ] {
            std::fs::write(packages.join("torch/version.py"), said).expect("written");
            assert_eq!(torch_trouble(&worker).is_none(), is_right, "{said}");
        }
        // A worker that was built here brings its own libtorch.
        assert_eq!(torch_trouble(Path::new("/opt/target/release/preflow-worker")), None);
    }

    #[test]
    fn the_version_of_torch_is_that_of_the_libraries_that_are_fetched() {
        let script = include_str!("../../scripts/libtorch.sh");
        assert!(script.contains(&format!("\nwant={TORCH}.")), "scripts/libtorch.sh");
    }
}
