//! `preflow config`: prints the pipeline as it will run, every value with its origin.

use std::path::Path;

use clap::Args;

use super::exit::Exit;
use super::{Global, load, print, refuse};
use crate::project::resolved::{as_json, as_yaml};
use crate::project::workers::catalog_of;
use crate::project::{Failure, locate};

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Pipeline file [default: the only one here]
    #[arg(value_name = "FILE")]
    pub file: Option<String>,
}

/// Prints one resolved pipeline.
///
/// # Errors
/// The workspace file, or a worker it names, is wrong.
pub fn run(args: &ConfigArgs, global: &Global) -> Result<Exit, Failure> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => locate::the_only_pipeline()?.display().to_string(),
    };
    Ok(match load(&file, global, &catalog_of(Path::new(&file), &global.choices())?) {
        Ok((pipeline, graph)) if global.json => print(&as_json(&pipeline, &graph)),
        Ok((pipeline, graph)) => print(&as_yaml(&pipeline, &graph)),
        Err(problems) => refuse(&problems),
    })
}
