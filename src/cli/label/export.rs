//! `preflow label export`: the labels of a stage for other tools.
//! Knows no form.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::import::failure;
use crate::cli::{Exit, Global, complain, print};
use crate::files;
use crate::graph::GraphStage;
use crate::label::exchange::{self, Shape};
use crate::plan::Selection;
use crate::project::{self, Failure, Project, labelling, locate};
use crate::report::{OutputStyle, Style, note_output};
use crate::store::{StoreError, write_atomic};
use crate::votes::Folder;

/// Port type of labels.
const LABELS: &str = "dataset/labels";

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Pipeline file, and the stage that collects labels [default: the only one]
    #[arg(value_name = "[FILE] [STAGE]")]
    pub words: Vec<String>,
    /// What to write
    #[arg(long, value_name = "FORM", default_value = "trl")]
    pub format: ExportFormat,
    /// Where to [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the votes so far instead, a row each: also before there are enough (csv, jsonl)
    #[arg(long)]
    pub votes: bool,
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

impl ExportFormat {
    /// `None`: as they are kept.
    fn shape(self) -> Option<Shape> {
        match self {
            Self::Parquet => None,
            Self::Trl => Some(Shape::Trl),
            Self::TrlConversational => Some(Shape::TrlConversational),
            Self::Csv => Some(Shape::Csv),
            Self::Jsonl => Some(Shape::JsonLines),
        }
    }
}

/// Writes the labels that a stage made last, or the votes on it.
///
/// # Errors
/// The stage makes no labels, or was never made; the file cannot be written.
pub fn export(args: &ExportArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let project = project::load(&file, &global.choices())?;
    let _lease = project.store.shared_lease();
    let bytes = match args.votes {
        true => {
            let name = super::one(&names, labelling::stages_that_ask(&project), "asks people")?;
            all_votes(&project, &name, args.format)?.into_bytes()
        }
        false => {
            let makes = |node: &&GraphStage| node.outputs.iter().any(|o| o.port_type == LABELS);
            let able = project.graph.stages.iter().filter(makes);
            let able = able.map(|node| node.name.clone()).collect();
            let name = super::one(&names, able, "makes labels")?;
            all_labels(&project, &name, args.format, look)?
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

/// The labels of a stage in a form.
fn all_labels(
    project: &Project,
    name: &str,
    format: ExportFormat,
    look: OutputStyle,
) -> Result<Vec<u8>, Failure> {
    let path = labels(project, name)?;
    let Some(shape) = format.shape() else {
        let bytes = files::read_own(&path, u64::MAX).map_err(|e| files::named(&path, &e));
        return Ok(bytes.map_err(StoreError::from)?);
    };
    let labels = exchange::export(&path, shape).map_err(failure)?;
    if labels.left_out > 0 {
        let text = "ties were left out: this form holds none (`jsonl` and `csv` do)";
        let mark = look.paint(Style::Warning, "warning:");
        complain(&format!("{mark} {} {text}\n", labels.left_out));
    }
    Ok(labels.text.into_bytes())
}

/// The votes on a stage's pairs, whether or not they are enough.
fn all_votes(project: &Project, name: &str, format: ExportFormat) -> Result<String, Failure> {
    let shape = match format.shape() {
        Some(shape @ (Shape::Csv | Shape::JsonLines)) => shape,
        _ => {
            return Err(Failure::usage("votes are written as CSV or JSON lines")
                .help("--votes --format csv, or jsonl"));
        }
    };
    let folder = Folder::read(&labelling::votes_folder(project, name)?)
        .map_err(|error| Failure::usage(error.to_string()).help(error.help()))?;
    Ok(exchange::votes(&folder, shape))
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
            .help(format!(
                "preflow run {} {name}; `--votes --format csv` writes the votes so far",
                project.graph.path
            )));
    };
    if let Some(why) = stale {
        complain(&format!(
            "warning: these labels are the last that `{name}` made; the next run makes others ({why})\n"
        ));
    }
    Ok(project.store.object_path(&entry.outputs[&port.name].digest))
}
