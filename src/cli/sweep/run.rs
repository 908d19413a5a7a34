//! `preflow sweep run`: every trial up to date, each shared stage once.

use clap::Args;

use super::{Which, show};
use crate::cli::failure::Failure;
use crate::cli::run::{Means, Order, execute, exit_of};
use crate::cli::{Exit, Global};
use crate::plan::Selection;
use crate::report::{Look, line};

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub which: Which,
    /// Go on behind this stage's gate though it is not met, in every trial
    #[arg(long, value_name = "STAGE")]
    pub accept_gate: Vec<String>,
    /// End with the first trial that fails; without it the others go on
    #[arg(long)]
    pub fail_fast: bool,
    #[command(flatten)]
    pub means: Means,
}

/// Runs all trials and prints what came out.
///
/// # Errors
/// Nothing could be started.
pub fn run(args: &RunArgs, global: &Global, look: Look) -> Result<Exit, Failure> {
    let opened = super::open(&args.which, global)?;
    let mut survey = opened.survey(global, false)?;
    opened.check_metric(&survey, look)?;
    let mut seen = 0;
    let mut exit = Exit::Done;
    // A halving sweep finds out after each round which trials go on.
    while seen < survey.trials.len() {
        seen = survey.trials.len();
        let graph = &survey.loaded.graph;
        let gates: Vec<String> = graph
            .stages
            .iter()
            .filter(|s| args.accept_gate.contains(&s.word) && !s.gate.is_empty())
            .map(|s| s.name.clone())
            .collect();
        let selection = Selection::new(graph, &[], &[], &[])?.accepting(graph, &gates)?;
        let order = Order { selection, keep_going: !args.fail_fast, people: None, locked: None };
        let summary = execute(&survey.loaded, order, &args.means, global, look)?;
        exit = worse(exit, exit_of(&summary));
        if summary.interrupted || summary.storage {
            return Ok(exit);
        }
        survey = opened.survey(global, true)?;
    }
    if !global.json {
        let mut out = std::io::stdout().lock();
        line(&mut out, &show::terminal(&opened.sweep, &survey, look));
    }
    Ok(exit)
}

/// A failed trial of an early round is not forgotten when the last round is good.
fn worse(one: Exit, other: Exit) -> Exit {
    if one == Exit::Done { other } else { one }
}
