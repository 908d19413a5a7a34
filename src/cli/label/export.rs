//! `preflow label export`: the labels of a stage for other tools.
//! Knows no form.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::import::failure;
use crate::cli::{Exit, Global, complain, print};
use crate::files;
use crate::label::exchange::{self, Shape};
use crate::plan::Selection;
use crate::project::{self, Failure, Project, locate};
use crate::report::{OutputStyle, Style, note_output};
use crate::store::{StoreError, write_atomic};

/// Port type of labels.
const LABELS: &str = "dataset/labels";

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Pipeline file and the stage that collects labels
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// What to write
    #[arg(long, value_name = "FORM", default_value = "trl")]
    pub format: ExportFormat,
    /// Where to [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// JSON lines with `prompt`, `chosen`, `rejected`
    Trl,
    /// The same as lists of messages
    TrlConversational,
    /// All columns
    Csv,
    /// All columns
    Parquet,
    /// All columns
    Jsonl,
}

/// Writes the labels that a stage made last.
///
/// # Errors
/// The stage makes no labels, or was never made; the file cannot be written.
pub fn export(args: &ExportArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("labels are exported one stage at a time")
            .help("preflow label export FILE STAGE"));
    };
    let project = project::load(&file, &global.choices())?;
    let _lease = project.store.shared_lease();
    let path = labels(&project, name)?;
    let shape = match args.format {
        ExportFormat::Parquet => None,
        ExportFormat::Trl => Some(Shape::Trl),
        ExportFormat::TrlConversational => Some(Shape::TrlConversational),
        ExportFormat::Csv => Some(Shape::Csv),
        ExportFormat::Jsonl => Some(Shape::JsonLines),
    };
    let bytes = match shape {
        None => {
            let bytes = files::read_own(&path, u64::MAX).map_err(|e| files::named(&path, &e));
            bytes.map_err(StoreError::from)?
        }
        Some(shape) => {
            let labels = exchange::export(&path, shape).map_err(failure)?;
            if labels.left_out > 0 {
                let text = "ties were left out: this form holds none (`jsonl` and `csv` do)";
                let mark = look.paint(Style::Warning, "warning:");
                complain(&format!("{mark} {} {text}\n", labels.left_out));
            }
            labels.text.into_bytes()
        }
    };
    match &args.out {
        Some(out) => {
            let out = std::path::absolute(out).unwrap_or_else(|_| out.clone());
            write_atomic(&out, &bytes).map_err(StoreError::from)?;
        }
        None if args.format == ExportFormat::Parquet => {
            return Err(Failure::usage("Parquet is not for the terminal").help("--out FILE"));
        }
        // For programs as it is; for a terminal nothing in it may drive it.
        None if std::io::stdout().is_terminal() => drop(print(&String::from_utf8_lossy(&bytes))),
        None => note_output(std::io::stdout().write_all(&bytes)),
    }
    Ok(Exit::Done)
}

/// Where the labels of a stage lie.
fn labels(project: &Project, name: &str) -> Result<PathBuf, Failure> {
    let selection = Selection::new(&project.graph, &[name.to_owned()], &[], &[])?;
    let stage = project.graph.find(name).expect("invariant: the selection found it");
    let node = &project.graph.stages[stage];
    let Some(port) = node.outputs.iter().find(|o| o.port_type == LABELS) else {
        return Err(Failure::usage(format!("stage `{name}` makes no labels"))
            .help("name a stage of kind `collect_labels`"));
    };
    let plan = project.plan(&selection)?;
    let Some((entry, stale)) = project.newest(&plan, stage) else {
        return Err(Failure::usage(format!("there are no labels yet: `{name}` was never made"))
            .help(format!("preflow run {} {name}", project.graph.path)));
    };
    if let Some(why) = stale {
        complain(&format!(
            "warning: these labels are the last that `{name}` made; the next run makes others ({why})\n"
        ));
    }
    Ok(project.store.object_path(&entry.outputs[&port.name].digest))
}
