//! `preflow logs STAGE`: what a stage's last attempt said.

use std::io::Write as _;

use clap::Args;

use super::failure::Failure;
use super::workspace;
use super::{Exit, Global};
use crate::run::RunEvent;
use crate::run::journal;

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
    let (file, names) = workspace::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("`logs` shows one stage").help("preflow logs FILE STAGE"));
    };
    let loaded = workspace::load(&file, pipeline)?;
    crate::plan::Selection::new(&loaded.graph, std::slice::from_ref(name), &[], &[])?;
    let wanted = if args.events { "events.jsonl" } else { "log.txt" };
    let runs = match &args.run {
        Some(run) => vec![run.clone()],
        None => journal::runs(&loaded.store),
    };
    for run in runs {
        let dir = loaded.store.run_path(&run);
        let path = dir.join(name).join(wanted);
        if path.exists() && is_of(&dir, &loaded.graph.path, &loaded.graph.name) {
            let bytes = fs_err::read(&path).map_err(crate::store::StoreError::from)?;
            // A reader that went away is no failure.
            let _ = std::io::stdout().lock().write_all(&bytes);
            return Ok(Exit::Done);
        }
    }
    Err(Failure::usage(format!("no log of `{name}`: no run that is still kept has run it"))
        .help("`preflow why` tells when it was made"))
}

fn is_of(dir: &std::path::Path, path: &str, name: &str) -> bool {
    let first = journal::read(&dir.join("events.jsonl")).ok().and_then(|l| l.into_iter().next());
    first.is_some_and(|line| {
        matches!(line.event, RunEvent::RunStarted { pipeline, name: n, .. }
            if pipeline == path || n == name)
    })
}
