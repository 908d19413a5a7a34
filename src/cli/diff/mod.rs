//! `preflow diff A B`: what differs between two runs, commits or files, and what came of it.

mod print;

use clap::Args;

use super::{Exit, Global};
use crate::project::diff::{PipelineState, compare};
use crate::project::{Failure, locate};
use crate::report::OutputStyle;

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A run (its id, the start of one, `last`), a commit (`HEAD~1`, a branch), or a pipeline file
    #[arg(value_name = "A")]
    pub a: String,
    /// The same [default: the pipeline file as it stands]
    #[arg(value_name = "B")]
    pub b: Option<String>,
    /// Pipeline file [default: the only one here]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<std::path::PathBuf>,
}

/// Prints what differs.
///
/// # Errors
/// A side is not what it says, or cannot be read.
pub fn diff(args: &DiffArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, _) = match &args.file {
        Some(file) => (file.clone(), Vec::<String>::new()),
        None => match [Some(&args.a), args.b.as_ref()].into_iter().flatten().find(|w| is_yaml(w)) {
            Some(word) => (word.into(), Vec::new()),
            None => locate::file_and_names(&[])?,
        },
    };
    let choices = global.choices();
    let a = PipelineState::named(&args.a, &file, &choices)?;
    let b = match &args.b {
        Some(word) => PipelineState::named(word, &file, &choices)?,
        None => PipelineState::named(&file.to_string_lossy(), &file, &choices)?,
    };
    let difference = compare(&a, &b);
    if global.json {
        let text = serde_json::to_string(&difference).expect("invariant: it is plain data");
        return Ok(super::print(&(text + "\n")));
    }
    Ok(super::print(&print::text(&difference, look)))
}

fn is_yaml(word: &str) -> bool {
    word.ends_with(".yaml") || word.ends_with(".yml")
}
