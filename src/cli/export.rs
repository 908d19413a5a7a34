//! `preflow export STAGE -o FOLDER`: an output as a folder that others open, with a card that says
//! where it comes from. Does not know what the card says.

use std::path::{Path, PathBuf};

use clap::Args;
use fs_err as fs;
use serde_json::json;

use super::{Exit, Global, print};
use crate::files;
use crate::project::card::{Publication, publication};
use crate::project::{self, Failure, locate};
use crate::store::{Store, write_atomic};
use crate::text;

#[derive(Debug, Args)]
pub struct ExportStageArgs {
    /// Pipeline file, then a stage, or stage.port for one of its outputs
    #[arg(value_name = "[FILE] STAGE[.PORT]", required = true)]
    pub words: Vec<String>,
    /// Folder to write, which is not there yet or holds nothing
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
}

/// Writes the folder.
///
/// # Errors
/// There is no such output, or it is not up to date; the folder holds something or cannot be
/// written.
pub fn export(args: &ExportStageArgs, global: &Global) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("`export` takes one stage")
            .help("preflow export FILE STAGE, or STAGE.PORT for one of its outputs"));
    };
    let project = project::load(&file, &global.choices())?;
    // Keeps the collector away while the files are read.
    let _lease = project.store.shared_lease();
    let found = publication(&project, name)?;
    refuse_full(&args.output)?;
    let files =
        write(&project.store, &found, &args.output).map_err(|e| Failure::Store(e.into()))?;
    let size = text::bytes(found.output.bytes);
    if global.json {
        let said = json!({ "folder": args.output, "files": files, "bytes": found.output.bytes });
        return Ok(print(&format!("{said}\n")));
    }
    let files = text::counted(files as u64, "file");
    Ok(print(&format!(" {}  {files}, {size}, README.md\n", args.output.display())))
}

/// What is there already is somebody's.
fn refuse_full(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    match fs::read_dir(folder).map(|mut items| items.next().is_none()) {
        Ok(true) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(Failure::usage(format!("`{shown}` holds something already"))
            .help("name a folder that is not there yet; nothing is written over")),
        Err(e) => Err(Failure::usage(e.to_string()).help("name a folder that is not there yet")),
    }
}

/// Copies the output and writes the card, which goes before a README of the output. Returns how
/// many files the output has.
fn write(store: &Store, found: &Publication, to: &Path) -> std::io::Result<usize> {
    let from = store.object_path(&found.output.digest);
    let all: Vec<(PathBuf, PathBuf)> = match (&found.output.tree, found.file) {
        (Some(files), _) => files.iter().map(|f| (from.join(&f.path), to.join(&f.path))).collect(),
        (None, file) => vec![(from, to.join(file.unwrap_or("data")))],
    };
    for (from, to) in &all {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        // Not linked: what is exported may be changed, the store may not.
        let (mut from, mut to) = (files::open_own(from)?, fs::File::create(to)?);
        std::io::copy(&mut from, &mut to)?;
    }
    write_atomic(&to.join("README.md"), found.card.as_bytes())?;
    Ok(all.len())
}
