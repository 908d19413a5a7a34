//! `preflow config`: prints the pipeline as it will run, every value with its origin.

use std::path::Path;

use clap::Args;

use super::exit::Exit;
use super::{Global, load, print, refuse};
use crate::project::Failure;
use crate::project::resolved::{as_json, as_yaml};
use crate::project::workers::catalog_of;

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub file: String,
}

/// Prints one resolved pipeline.
///
/// # Errors
/// The workspace file, or a worker it names, is wrong.
pub fn run(args: &ConfigArgs, global: &Global) -> Result<Exit, Failure> {
    Ok(match load(&args.file, global, &catalog_of(Path::new(&args.file), &global.choices())?) {
        Ok((pipeline, graph)) if global.json => print(&as_json(&pipeline, &graph)),
        Ok((pipeline, graph)) => print(&as_yaml(&pipeline, &graph)),
        Err(problems) => refuse(&problems),
    })
}
