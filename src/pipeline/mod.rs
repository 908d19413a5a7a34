//! What a pipeline file says, params filled in, references not yet followed.
//! Does not know kinds, hashes, or which files exist.

mod layout;
mod limits;
mod node;
mod params;
mod parse_error;
mod read;
mod shape;
mod source;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

pub use node::{Key, Node, NodeValue, Origin, Via, place};
pub use params::{Overrides, Param, suggest};
pub use shape::{check_name, expected, is_name, unknown_key};
pub use source::{Source, SourcePlace};
use yaml::Parsed;
pub use yaml::{Files, without_mark};

use crate::diagnostic::{Diagnostic, SourceText};
use crate::files;

/// One pipeline file.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub name: String,
    /// As given; paths of sources are relative to the file they are written in.
    pub path: String,
    pub params: Vec<Param>,
    pub sources: Vec<Source>,
    pub stages: Vec<Stage>,
}

/// One named node. Everything in it is identity except `run` and `gate`.
#[derive(Debug, Clone)]
pub struct Stage {
    pub name: Key,
    pub kind: Spanned,
    /// Ports and params, as they stand.
    pub fields: Vec<(Key, Node)>,
    pub run: Option<Node>,
    /// What its figures must be before anything that depends on it runs.
    pub gate: Option<Node>,
}

/// A text with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned {
    pub text: String,
    pub span: crate::diagnostic::Span,
}

/// Reads a pipeline file. Params: the file's, overridden by `profile`, overridden by `sets`
/// (`name=value`, the value in YAML).
pub fn load(
    path: &str,
    profile: Option<&str>,
    sets: &[String],
) -> Result<Pipeline, Vec<Diagnostic>> {
    open(path)?.into_pipeline(&Overrides { profile, sets, trial: &[] })
}

/// A YAML file, read once for all trials of a sweep.
#[derive(Debug, Clone)]
pub struct Document {
    pub path: String,
    /// Its tree, whatever it is for.
    pub tree: Node,
    /// Its text, then those that it includes.
    pub texts: Vec<Arc<SourceText>>,
}

/// Reads a YAML file.
///
/// # Errors
/// It is no regular file, is too large, cannot be read, or is no YAML.
pub fn open(path: &str) -> Result<Document, Vec<Diagnostic>> {
    document(path, &read_text(path)?)
}

/// The text of a YAML file.
///
/// # Errors
/// It is no regular file, is too large, or cannot be read.
fn read_text(path: &str) -> Result<String, Vec<Diagnostic>> {
    read_beside(path, path)
        .map_err(|error| vec![Diagnostic::new(format!("cannot read {path}: {error}"), None)])
}

/// The text of a YAML file that belongs to `by`: that file itself, or one that it includes.
///
/// # Errors
/// As [`read_text`]; also when it lies outside of what `by` belongs to.
pub fn read_beside(path: &str, by: &str) -> std::io::Result<String> {
    read_inside(&top_around(Path::new(by)), Path::new(path))
}

/// Reads a YAML file that another one names.
///
/// # Errors
/// As [`open`]; also when it lies outside of what `by` belongs to.
pub fn open_named(path: &str, by: &str) -> Result<Document, Vec<Diagnostic>> {
    let problem = |error| Diagnostic::new(format!("cannot read {path}: {error}"), None);
    let text = read_beside(path, by);
    document(path, &text.map_err(|error| vec![problem(error)])?)
}

/// The folder that all files which belong together lie in, seen from one of them: the top of its
/// git repository; without one the nearest folder with a workspace file, else its own.
#[must_use]
pub fn top_around(file: &Path) -> PathBuf {
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let folder = whole.parent().unwrap_or(Path::new("/"));
    let marked = |mark: &str| folder.ancestors().find(|dir| dir.join(mark).exists());
    marked(".git").or_else(|| marked("preflow.yaml")).unwrap_or(folder).to_owned()
}

/// Reads the text of the YAML file at `path`, and the files that it includes.
///
/// # Errors
/// It is no YAML.
pub fn document(path: &str, text: &str) -> Result<Document, Vec<Diagnostic>> {
    let top = top_around(Path::new(path));
    let files = move |path: &Path| read_inside(&top, path);
    let Parsed { root, texts } = yaml::parse(path, text, Some(Rc::new(files)))?;
    Ok(Document { path: path.to_owned(), tree: root, texts })
}

impl Document {
    /// The pipeline, with these params.
    ///
    /// # Errors
    /// Every problem that was found.
    pub fn into_pipeline(self, overrides: &Overrides) -> Result<Pipeline, Vec<Diagnostic>> {
        finish(&self.path, self.tree, overrides)
    }
}

/// The pipeline of a document, with these params.
///
/// # Errors
/// Every problem that was found.
pub fn read(document: &Document, overrides: &Overrides) -> Result<Pipeline, Vec<Diagnostic>> {
    finish(&document.path, document.tree.clone(), overrides)
}

/// Reads the text of a pipeline; `files` serves what it includes.
pub fn parse(
    path: &str,
    text: &str,
    profile: Option<&str>,
    sets: &[String],
    files: Files,
) -> Result<Pipeline, Vec<Diagnostic>> {
    let root = yaml::parse(path, text, Some(files))?.root;
    finish(path, root, &Overrides { profile, sets, trial: &[] })
}

fn finish(path: &str, root: Node, overrides: &Overrides) -> Result<Pipeline, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let pipeline = read::pipeline(path, root, overrides, &mut problems);
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => {
            crate::diagnostic::sort(&mut problems);
            Err(problems)
        }
    }
}

/// A file below `top`, no larger than a pipeline may be: lines of it may end up in messages.
fn read_inside(top: &Path, path: &Path) -> std::io::Result<String> {
    files::refuse_special(&std::fs::metadata(path)?)?;
    if !files::is_inside(top, path) {
        let text = format!("it lies outside of `{}`; move it there", top.display());
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
    }
    files::read_to_string(path, limits::MAX_BYTES)
}
