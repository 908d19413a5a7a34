//! `preflow label stats`.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::{Exit, Global};
use crate::report::Look;

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Pipeline file and the stage that collects labels
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
}

/// Show how much annotators agree, and how each does.
///
/// # Errors
/// The stage is unknown, or has nothing to label yet.
pub fn stats(args: &StatsArgs, global: &Global, _look: Look) -> Result<Exit, Failure> {
    let (_loaded, assignment) = super::open(&args.words, global)?;
    Err(Failure::usage(format!("`{}` cannot be labelled yet", assignment.stage)))
}
