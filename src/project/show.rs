//! What a stage made, as data: its outputs, their files or columns, their first rows.
//! Goes by the content of files; does not know what the columns mean.

use std::path::PathBuf;

use super::{Failure, Project};
use crate::columns::{Head, head, is_parquet};
use crate::graph::GraphOutput;
use crate::plan::Selection;

/// What a stage made, or made last.
#[derive(Debug)]
pub struct MadeStage {
    pub stage: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why it is not what the pipeline would make now; `None`: it is.
    pub stale: Option<String>,
    pub outputs: Vec<MadeOutput>,
}

/// One output of a stage.
#[derive(Debug)]
pub struct MadeOutput {
    pub port: String,
    pub port_type: String,
    pub bytes: u64,
    /// Where it lies in the store.
    pub path: PathBuf,
    pub content: OutputContent,
}

/// What an output holds.
#[derive(Debug)]
pub enum OutputContent {
    Table(Head),
    /// Name and size of each file of a folder.
    Folder(Vec<(String, u64)>),
    /// A file that is no table.
    File,
}

/// Reads what a stage made, at most `rows` rows of each table; `word` is its name, or `stage.port`
/// for one output. `None`: it was never made, or its outputs are gone.
///
/// # Errors
/// There is no such stage or output; what stops a plan; a table cannot be read.
pub fn made(project: &Project, word: &str, rows: usize) -> Result<Option<MadeStage>, Failure> {
    let (stage, wanted) = named(project, word)?;
    let name = project.graph.stages[stage].name.as_str();
    let selection = Selection::new(&project.graph, &[name.to_owned()], &[], &[])?;
    let plan = project.plan(&selection)?;
    let Some((entry, stale)) = project.newest(&plan, stage) else { return Ok(None) };
    let mut outputs = Vec::new();
    for output in wanted {
        let Some(made) = entry.outputs.get(&output.name) else { continue };
        let path = project.store.object_path(&made.digest);
        let content = match &made.tree {
            Some(files) => OutputContent::Folder(
                files.iter().map(|file| (file.path.clone(), file.size)).collect(),
            ),
            None if is_parquet(&path) => {
                let unreadable = |e: crate::columns::ReadError| {
                    Failure::usage(format!("`{}` of `{name}`: {e}", output.name)).help(e.help())
                };
                OutputContent::Table(head(&path, rows).map_err(unreadable)?)
            }
            None => OutputContent::File,
        };
        outputs.push(MadeOutput {
            port: output.name.clone(),
            port_type: output.port_type.clone(),
            bytes: made.bytes,
            path,
            content,
        });
    }
    Ok(Some(MadeStage { stage: name.to_owned(), at: entry.made.at, stale, outputs }))
}

/// The stage that a word names, and its outputs: all, or that of `stage.port`.
///
/// # Errors
/// There is no such stage or output.
pub fn named<'a>(
    project: &'a Project,
    word: &str,
) -> Result<(usize, Vec<&'a GraphOutput>), Failure> {
    let (name, port) = match word.split_once('.') {
        Some((stage, port)) => (stage, Some(port)),
        None => (word, None),
    };
    if let Some(source) = project.graph.sources.iter().find(|source| source.name == name) {
        let help = format!("its files are at {}; stages that read it can be shown", source.path);
        return Err(Failure::usage(format!("`{name}` is a source, which no stage made")).help(help));
    }
    Selection::new(&project.graph, &[name.to_owned()], &[], &[])?;
    let stage = project.graph.find(name).expect("invariant: the selection found it");
    let node = &project.graph.stages[stage];
    let wanted = node.outputs.iter().filter(|output| port.is_none_or(|port| port == output.name));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        let ports: Vec<&str> = node.outputs.iter().map(|output| output.name.as_str()).collect();
        let text = format!("stage `{name}` has no output `{}`", port.unwrap_or_default());
        return Err(Failure::usage(text).help(format!("its outputs: {}", ports.join(", "))));
    }
    Ok((stage, wanted))
}
