//! `preflow diff [A] [B]`: what differs between two runs, commits or files, and what came of it.

pub mod print;

use clap::Args;

use super::format::FormatArgs;
use super::{Exit, Global};
use crate::project::diff::{PipelineState, compare};
use crate::project::{Failure, locate};
use crate::report::OutputStyle;

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A run (its id, the start of one, `last`), a commit (`HEAD~1`, a branch), or a pipeline file
    /// [default: the last run of the pipeline]
    #[arg(value_name = "A")]
    pub a: Option<String>,
    /// The same [default: the pipeline file as it stands]
    #[arg(value_name = "B")]
    pub b: Option<String>,
    /// Pipeline file [default: the only one here]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Prints what differs.
///
/// # Errors
/// A side is not what it says, or cannot be read.
pub fn diff(args: &DiffArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    // A file alone is what the last run of it is compared with.
    let (a, b) = match (&args.a, &args.b) {
        (Some(file), None) if args.file.is_none() && is_yaml(file) => (None, Some(file)),
        (a, b) => (a.as_ref(), b.as_ref()),
    };
    let file = match &args.file {
        Some(file) => file.clone(),
        None => match [a, b].into_iter().flatten().find(|word| is_yaml(word)) {
            Some(word) => word.into(),
            None => locate::file_and_names(&[])?.0,
        },
    };
    let choices = global.choices();
    let a = match a {
        Some(word) => PipelineState::named(word, &file, &choices)?,
        None => PipelineState::last_run(&file, &choices)?,
    };
    let b = match b {
        Some(word) => PipelineState::named(word, &file, &choices)?,
        None => PipelineState::named(&file.to_string_lossy(), &file, &choices)?,
    };
    let difference = compare(&a, &b);
    if global.json {
        let text = serde_json::to_string(&difference).expect("invariant: it is plain data");
        return Ok(super::print(&(text + "\n")));
    }
    Ok(super::print(&print::text(&difference, args.format.style(look))))
}

fn is_yaml(word: &str) -> bool {
    word.ends_with(".yaml") || word.ends_with(".yml")
}
