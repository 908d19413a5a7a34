//! `preflow logs STAGE`: what a stage's last attempt said.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, Global, complain, print};
use crate::exec::log;
use crate::files;
use crate::project::{self, Failure, locate};
use crate::report::note_output;
use crate::run::RunEvent;
use crate::run::journal;
use crate::store::StoreError;
use crate::text::{self, clean};

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Pipeline file and the stage
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// Of this run [default: the newest in which it ran]
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// The worker's events instead of its log
    #[arg(long)]
    pub events: bool,
}

/// Prints the log as it is.
///
/// # Errors
/// The stage is unknown, or never ran.
pub fn logs(args: &LogsArgs, pipeline: &Global) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("`logs` shows one stage").help("preflow logs FILE STAGE"));
    };
    let project = project::load(&file, &pipeline.choices())?;
    crate::plan::Selection::new(&project.graph, std::slice::from_ref(name), &[], &[])?;
    let runs = match &args.run {
        Some(run) => vec![run.clone()],
        None => journal::runs(&project.store),
    };
    for run in runs {
        let dir = project.store.run_path(&run);
        if !dir.join(name).is_dir() || !is_of(&dir, &project.graph.path, &project.graph.name) {
            continue;
        }
        let attempt = last_attempt(&dir.join(name));
        let path = match args.events {
            true => attempt.join("events.jsonl"),
            false => log::path(&attempt),
        };
        let bytes = match files::read_own(&path, u64::MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(StoreError::from(files::named(&path, &e)).into()),
        };
        // For programs as it is; for a terminal nothing in it may drive it.
        match std::io::stdout().is_terminal() {
            true => drop(print(&String::from_utf8_lossy(&bytes))),
            false => note_output(std::io::stdout().lock().write_all(&bytes)),
        }
        if bytes.is_empty() {
            let what = if args.events { "sent no events" } else { "wrote nothing to its log" };
            let ended = ended(&dir, name);
            complain(&format!("note: `{name}` {what} in run {run}{ended}\n"));
        }
        return Ok(Exit::Done);
    }
    Err(Failure::usage(format!("no log of `{name}`: no run that is still kept has run it"))
        .help("`preflow why` tells when it was made"))
}

/// Where the newest attempt of a stage in one run left its log.
fn last_attempt(dir: &Path) -> PathBuf {
    let further = (2..).map(|n| dir.join(format!("attempt-{n}"))).take_while(|d| d.is_dir());
    further.last().unwrap_or_else(|| dir.to_owned())
}

/// How the stage came to its end in that run, as far as its journal tells.
fn ended(dir: &Path, name: &str) -> String {
    let lines = journal::read(&dir.join("events.jsonl")).unwrap_or_default();
    let end = lines.into_iter().rev().find_map(|line| match line.event {
        RunEvent::StageDone { stage, seconds, .. } if stage == name => {
            Some(format!("; it was done in {}", text::seconds(seconds)))
        }
        RunEvent::StageFailed { stage, outcome, .. } if stage == name => {
            Some(format!("; it failed: {}", clean(&outcome.headline())))
        }
        _ => None,
    });
    end.unwrap_or_else(|| "; it did not come to an end".to_owned())
}

fn is_of(dir: &Path, path: &str, name: &str) -> bool {
    let first = journal::ends(&dir.join("events.jsonl")).ok().and_then(|(first, _)| first);
    first.is_some_and(|line| {
        matches!(line.event, RunEvent::RunStarted { pipeline, name: n, .. }
            if pipeline == path || n == name)
    })
}
