//! `preflow graph`: the stages and what flows between them.
//! Does not know which of them have run.

use crate::project::{Failure, locate, workers::catalog_of};
use std::path::Path;

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::{Global, load, print, refuse};

use crate::report::drawing::{Drawing, draw};

#[derive(Debug, Args)]
pub struct GraphArgs {
    /// Pipeline file [default: the only one here]
    #[arg(value_name = "FILE")]
    pub file: Option<String>,
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
    let file = match &args.file {
        Some(file) => file.clone(),
        None => locate::the_only_pipeline()?.display().to_string(),
    };
    Ok(match load(&file, global, &catalog_of(Path::new(&file), &global.choices())?) {
        Ok((_, graph)) => print(&draw(&graph, args.format.into())),
        Err(problems) => refuse(&problems),
    })
}
