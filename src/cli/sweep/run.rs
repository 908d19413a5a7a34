//! `preflow sweep run`: every trial up to date, each shared stage once.

use clap::Args;

use super::{SweepArgs, show};
use crate::cli::run::{ResourceArgs, RunRequest, execute, exit_of};
use crate::cli::{Exit, Global};
use crate::plan::Selection;
use crate::project::Failure;
use crate::report::{OutputStyle, line};

#[derive(Debug, Args)]
pub struct SweepRunArgs {
    #[command(flatten)]
    pub sweep: SweepArgs,
    /// Go on behind this stage's gate though it is not met, in every trial
    #[arg(long, value_name = "STAGE")]
    pub accept_gate: Vec<String>,
    /// End with the first trial that fails; without it the others go on
    #[arg(long)]
    pub fail_fast: bool,
    #[command(flatten)]
    pub resources: ResourceArgs,
}

/// Runs all trials and prints what came out.
///
/// # Errors
/// Nothing could be started.
pub fn run(args: &SweepRunArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let session = super::open(&args.sweep, global)?;
    let mut status = session.status(&global.choices(), false)?;
    session.check_metric(&status)?;
    let mut seen = 0;
    let mut exit = Exit::Done;
    // A halving sweep finds out after each round which trials go on.
    while seen < status.trials.len() {
        seen = status.trials.len();
        let graph = &status.project.graph;
        let gates: Vec<String> = graph
            .stages
            .iter()
            .filter(|s| args.accept_gate.contains(&s.word) && !s.gate.is_empty())
            .map(|s| s.name.clone())
            .collect();
        let selection = Selection::new(graph, &[], &[], &[])?.accepting(graph, &gates)?;
        let request =
            RunRequest { selection, keep_going: !args.fail_fast, people: None, locked: None };
        let summary = execute(&status.project, request, &args.resources, global, look)?;
        exit = worse(exit, exit_of(&summary));
        if summary.interrupted || summary.storage {
            return Ok(exit);
        }
        status = session.status(&global.choices(), true)?;
    }
    if !global.json {
        let mut out = std::io::stdout().lock();
        line(&mut out, &show::terminal(&session.sweep, &status, look));
    }
    Ok(exit)
}

/// A failed trial of an early round is not forgotten when the last round is good.
fn worse(one: Exit, other: Exit) -> Exit {
    if one == Exit::Done { other } else { one }
}
