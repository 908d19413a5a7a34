//! `preflow schema`: prints the JSON Schema of pipeline files, for editors.

use std::path::Path;

use clap::Args;

use super::exit::Exit;
use super::{Global, print};
use crate::catalog::Catalog;
use crate::catalog::editor::schema;
use crate::project::Failure;
use crate::project::workers::catalog_of;

#[derive(Debug, Args)]
pub struct SchemaArgs {}

/// Prints the schema.
///
/// # Errors
/// The workspace file, or a worker it names, is wrong.
pub fn run(_: &SchemaArgs, global: &Global) -> Result<Exit, Failure> {
    Ok(print(&text(&catalog_of(Path::new("here.yaml"), &global.choices())?)))
}

/// The schema of files that use these kinds, as text.
pub fn text(catalog: &Catalog) -> String {
    let schema = schema(catalog);
    serde_json::to_string_pretty(&schema).expect("invariant: a JSON value prints") + "\n"
}
