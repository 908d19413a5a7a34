//! The worker: performs one task, answers questions, or describes what it can do.
//! Knows nothing of kinds; it owns the standard streams and the exit code.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use preflow::logging::{self, LoggingProgram};
use preflow_stages::context::Events;
use preflow_stages::{catalog, worker};

/// How OpenMP threads wait for work. A value that is set already wins.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";

const USAGE: &str = "usage: preflow-worker run TASK.json | preflow-worker answer | \
                     preflow-worker describe | preflow-worker validate";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["describe"] => {
            print!("{}", catalog::catalog_json());
            ExitCode::SUCCESS
        }
        ["validate"] => match worker::validate(std::io::stdin().lock()) {
            Ok(answer) => {
                println!("{answer}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("preflow-worker: {error:#}");
                ExitCode::FAILURE
            }
        },
        ["run", _] | ["answer"] if std::env::var_os(WAIT_POLICY).is_none() => wait_briefly(),
        words @ (["run", _] | ["answer"]) => match logged().and_then(|()| take_stdout()) {
            Ok(events) => {
                worker::keep_freed_memory();
                let code = match words {
                    ["run", task] => {
                        worker::watch_lifeline();
                        worker::run(Path::new(task), &events)
                    }
                    _ => worker::answer(&events),
                };
                // Not through the destructors of libtorch, which may hang after an error.
                std::process::exit(code)
            }
            Err(error) => {
                eprintln!("preflow-worker: {error:#}");
                ExitCode::from(70)
            }
        },
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Logs what the environment asks for on standard error, which is the log file of the attempt.
fn logged() -> Result<()> {
    logging::start(LoggingProgram::Worker, 0, std::io::stderr)
        .map_err(|error| anyhow!("{error}: {}", error.help()))
}

/// Starts this program again with threads that spin for some microseconds and then sleep. Spinning
/// for ever costs a core, and ten times the time as soon as another program wants that core; not
/// spinning at all costs a third of the time of a small model's step, whose products are short.
/// The library reads the variables when it is loaded, so setting them here would be too late.
fn wait_briefly() -> ExitCode {
    let mut program = match std::env::current_exe() {
        Ok(path) => std::process::Command::new(path),
        Err(error) => {
            eprintln!("preflow-worker: cannot find itself: {error}");
            return ExitCode::from(70);
        }
    };
    program.args(std::env::args_os().skip(1)).env(WAIT_POLICY, "PASSIVE");
    if std::env::var_os(SPIN_COUNT).is_none() {
        program.env(SPIN_COUNT, "5000");
    }
    let error = program.exec();
    eprintln!("preflow-worker: cannot start itself: {error}");
    ExitCode::from(70)
}

/// Takes the real standard output for events and points descriptor 1 at standard error, so that
/// nothing a library prints can get between two events.
fn take_stdout() -> Result<Events> {
    let saved = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
        .context("cannot keep standard output")?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())
        .context("cannot redirect standard output")?;
    Ok(Events::new(std::fs::File::from(saved)))
}
