//! `preflow label ask`.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::{Exit, Global};
use crate::report::Look;

#[derive(Debug, Args)]
pub struct AskArgs {
    /// Pipeline file and the stage that collects labels
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
}

/// Label in the terminal.
///
/// # Errors
/// The stage is unknown, or has nothing to label yet.
pub fn ask(args: &AskArgs, global: &Global, _look: Look) -> Result<Exit, Failure> {
    let (_loaded, assignment) = super::open(&args.words, global)?;
    Err(Failure::usage(format!("`{}` cannot be labelled yet", assignment.stage)))
}
