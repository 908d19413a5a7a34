//! The log of a program of ours, for whoever looks for a fault in it: which events are heard, in
//! which form. Nothing is heard unless somebody asks. Does not know where the lines go.

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

/// What is heard: `debug`, or `info,store=debug,worker=trace`.
pub const VARIABLE: &str = "PREFLOW_LOG";
/// `json`: one object a line.
pub const FORMAT: &str = "PREFLOW_LOG_FORMAT";

/// The part of a filter that means the worker.
const WORKER: &str = "worker";
/// Rooms of the orchestrator, which a filter may name.
const ROOMS: [&str; 39] = [
    "agreement",
    "catalog",
    "cli",
    "columns",
    "compare",
    "conversation",
    "diagnostic",
    "exec",
    "files",
    "foreign",
    "git_host",
    "graph",
    "html",
    "http",
    "hub",
    "identity",
    "label",
    "lock",
    "logging",
    "openai",
    "pipeline",
    "plan",
    "project",
    "protocol",
    "remote",
    "rendering",
    "report",
    "run",
    "schedule",
    "store",
    "sweep",
    "tensorboard",
    "text",
    "trust",
    "ui",
    "user",
    "votes",
    "web",
    "workspace",
];

/// Which of our two programs logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggingProgram {
    Orchestrator,
    Worker,
}

/// A filter that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    #[error("{VARIABLE}: `{0}` is no level")]
    Level(String),
    #[error("{VARIABLE}: preflow has no part `{0}`")]
    Room(String),
    #[error("{FORMAT}: `{0}` is no form")]
    Format(String),
}

impl FilterError {
    /// What can be written instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Level(_) => "error, warn, info, debug, trace or off, as in `store=debug`".into(),
            Self::Room(_) => format!("one of {WORKER}, {}", ROOMS.join(", ")),
            Self::Format(_) => "`json`, or nothing for lines of text".into(),
        }
    }
}

/// Hears what the environment asks for, and more where `verbose` (how often `-v` was given) does:
/// 1 is info, 2 debug, 3 trace. Lines go to `writer`.
///
/// # Errors
/// The environment asks for what is not understood.
pub fn start<W>(program: LoggingProgram, verbose: u8, writer: W) -> Result<(), FilterError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (asked, form) = (variable(VARIABLE), variable(FORMAT));
    if !["", "json"].contains(&form.as_str()) {
        return Err(FilterError::Format(form));
    }
    let Some(filter) = filter(program, verbose, &asked)? else { return Ok(()) };
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    // Set already: then that one stays.
    let _ = match form.as_str() {
        "json" => {
            let lines = lines.json().flatten_event(true).with_filter(filter);
            tracing::subscriber::set_global_default(registry().with(lines))
        }
        _ => tracing::subscriber::set_global_default(registry().with(lines.with_filter(filter))),
    };
    Ok(())
}

/// What is no text either is refused as a word that is not known, not passed over.
fn variable(name: &str) -> String {
    std::env::var_os(name).unwrap_or_default().to_string_lossy().into_owned()
}

/// `None`: nothing is heard.
fn filter(
    program: LoggingProgram,
    verbose: u8,
    asked: &str,
) -> Result<Option<Targets>, FilterError> {
    let whole = match program {
        LoggingProgram::Orchestrator => "preflow",
        LoggingProgram::Worker => "preflow_stages",
    };
    let mut filter = Targets::new();
    let usual = match verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    filter = filter.with_target(whole, usual);
    let mut heard = usual != LevelFilter::OFF;
    for part in asked.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (target, word) = match part.split_once('=') {
            None => (Some(whole.to_owned()), part),
            Some((room, word)) => (target(program, room.trim())?, word.trim()),
        };
        let level = level(word)?;
        if let Some(target) = target {
            heard |= level != LevelFilter::OFF;
            filter = filter.with_target(target, level);
        }
    }
    Ok(heard.then_some(filter))
}

/// What a room's events are called; `None`: they are the other program's.
fn target(program: LoggingProgram, room: &str) -> Result<Option<String>, FilterError> {
    match (room, program) {
        (WORKER, LoggingProgram::Worker) => Ok(Some("preflow_stages".to_owned())),
        (WORKER, LoggingProgram::Orchestrator) => Ok(None),
        (room, program) if ROOMS.contains(&room) => {
            Ok((program == LoggingProgram::Orchestrator).then(|| format!("preflow::{room}")))
        }
        (room, _) => Err(FilterError::Room(room.to_owned())),
    }
}

fn level(word: &str) -> Result<LevelFilter, FilterError> {
    match word {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(Level::ERROR.into()),
        "warn" => Ok(Level::WARN.into()),
        "info" => Ok(Level::INFO.into()),
        "debug" => Ok(Level::DEBUG.into()),
        "trace" => Ok(Level::TRACE.into()),
        other => Err(FilterError::Level(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(program: LoggingProgram, verbose: u8, asked: &str, target: &str) -> Option<Level> {
        let filter = filter(program, verbose, asked).expect("understood")?;
        let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        levels.into_iter().find(|level| filter.would_enable(target, level))
    }

    #[test]
    fn rooms_and_levels_are_told_apart() {
        use LoggingProgram::{Orchestrator, Worker};
        for (program, verbose, asked, target, wanted) in [
            (Orchestrator, 0, "", "preflow::store", None),
            (Orchestrator, 1, "", "preflow::store::publish", Some(Level::INFO)),
            (Orchestrator, 2, "", "preflow::run", Some(Level::DEBUG)),
            (Orchestrator, 3, "", "preflow::run", Some(Level::TRACE)),
            (Orchestrator, 2, "", "hyper::proto", None),
            (Orchestrator, 0, "store=debug", "preflow::store::slot", Some(Level::DEBUG)),
            (Orchestrator, 0, "store=debug", "preflow::run", None),
            (Orchestrator, 1, "store=off", "preflow::store", None),
            (Orchestrator, 0, "warn, run=trace", "preflow::store", Some(Level::WARN)),
            (Orchestrator, 0, "worker=debug", "preflow::run", None),
            (Worker, 0, "worker=debug", "preflow_stages::kinds", Some(Level::DEBUG)),
            (Worker, 0, "store=debug", "preflow_stages::kinds", None),
            (Worker, 0, "info", "preflow_stages::kinds", Some(Level::INFO)),
        ] {
            let what = format!("{program:?} -v×{verbose} {asked} {target}");
            assert_eq!(hears(program, verbose, asked, target), wanted, "{what}");
        }
        let wrong = |asked: &str| filter(Orchestrator, 0, asked).expect_err("not understood");
        assert_eq!(wrong("stor=debug"), FilterError::Room("stor".into()));
        assert_eq!(wrong("store=loud"), FilterError::Level("loud".into()));
        assert_eq!(wrong("store"), FilterError::Level("store".into()));
    }

    #[test]
    fn every_room_can_be_named() {
        let lib = include_str!("lib.rs").lines().filter_map(|l| l.strip_prefix("pub mod "));
        let mut rooms: Vec<&str> = lib.map(|l| l.trim_end_matches(';')).collect();
        rooms.sort_unstable();
        assert_eq!(rooms, ROOMS);
    }
}
