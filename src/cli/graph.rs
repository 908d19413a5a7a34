//! `preflow graph`: the stages and what flows between them.
//! Does not know which of them have run.

use crate::project::{Failure, workers::catalog_of};
use std::path::Path;

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::{Global, load, print, refuse};

use crate::report::drawing::{Drawing, draw};

#[derive(Debug, Args)]
pub struct GraphArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub file: String,
    /// text: to read; dot: Graphviz; mermaid: Markdown
    #[arg(long, value_enum, default_value = "text")]
    pub format: GraphFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    Text,
    Dot,
    Mermaid,
}

impl From<GraphFormat> for Drawing {
    fn from(format: GraphFormat) -> Self {
        match format {
            GraphFormat::Text => Self::Text,
            GraphFormat::Dot => Self::Dot,
            GraphFormat::Mermaid => Self::Mermaid,
        }
    }
}

/// Prints the graph of one pipeline.
///
/// # Errors
/// The workspace file, or a worker it names, is wrong.
pub fn run(args: &GraphArgs, global: &Global) -> Result<Exit, Failure> {
    Ok(match load(&args.file, global, &catalog_of(Path::new(&args.file), &global.choices())?) {
        Ok((_, graph)) => print(&draw(&graph, args.format.into())),
        Err(problems) => refuse(&problems),
    })
}
