//! Pipeline files that were read before: with the same program, of a text that is the same the tree
//! is taken from the store, and the whole graph where nothing else has a say in it; of one that is
//! much the same only what differs is parsed.
//! Decides nothing about what a pipeline means.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Global;
use super::workspace::LARGEST;
use crate::diagnostic::Diagnostic;
use crate::files;
use crate::graph::{self, Graph};
use crate::identity::Digest;
use crate::pipeline::{self, Document};
use crate::store::{Store, derived};
use crate::user::is_own;
use crate::workspace;

/// The text of a pipeline file, and where to look for what it came to.
pub struct Text<'a> {
    path: &'a str,
    text: String,
    store: Option<Arc<Store>>,
    /// The tree was there: the file was read before as it is now.
    again: bool,
}

impl<'a> Text<'a> {
    /// Reads a pipeline file.
    ///
    /// # Errors
    /// As [`pipeline::read_text`].
    pub fn read(path: &'a str, store: Option<Arc<Store>>) -> Result<Self, Vec<Diagnostic>> {
        Ok(Self { path, text: pipeline::read_text(path)?, store, again: false })
    }

    /// Its tree.
    ///
    /// # Errors
    /// As [`pipeline::document`].
    pub fn document(&mut self) -> Result<Document, Vec<Diagnostic>> {
        let key = derived::key(pipeline::TREE_FORMAT, &[]);
        let (Some(store), Some(key)) = (&self.store, key) else {
            return pipeline::document(self.path, &self.text);
        };
        let name = name("tree", self.path);
        let bytes = store.derived(&name, &key);
        let known = bytes.and_then(|bytes| Document::from_bytes(self.path, &self.text, &bytes));
        let document = match known {
            Some((document, true)) => {
                self.again = true;
                return Ok(document);
            }
            Some((document, false)) => document,
            None => pipeline::document(self.path, &self.text)?,
        };
        if let Some(bytes) = document.to_bytes() {
            store.keep_derived(&name, &key, &bytes);
        }
        Ok(document)
    }

    /// The graph that it came to. `meaning`: see [`meaning`].
    #[must_use]
    pub fn graph(&self, meaning: &str) -> Option<Graph> {
        let key = self.graph_key(meaning)?;
        let bytes = self.store.as_ref()?.derived(&name("graph", self.path), &key)?;
        Graph::from_bytes(self.path, &self.text, &bytes)
    }

    /// Keeps the graph that it came to, when it is not read for the first time: most texts that
    /// are run once are changed next. Trees are kept only of files that include no others, so the
    /// text is all that the graph came from.
    pub fn keep_graph(&self, meaning: &str, graph: &Graph) {
        if !self.again {
            return;
        }
        if let (Some(store), Some(key)) = (&self.store, self.graph_key(meaning))
            && let Some(bytes) = graph.to_bytes()
        {
            store.keep_derived(&name("graph", self.path), &key, &bytes);
        }
    }

    fn graph_key(&self, meaning: &str) -> Option<Digest> {
        let from = format!("{:?} {meaning} {}", self.path, self.text);
        derived::key(graph::FORMAT, from.as_bytes())
    }
}

/// What has a say in the graph besides the pipeline file and this program. `None`: more than can be
/// told by looking: params of the command line, or workers, whose own files count.
#[must_use]
pub fn meaning(args: &Global, root: &Path) -> Option<String> {
    let file = root.join(workspace::FILE);
    // What cannot be told without parsing counts as naming workers.
    let names_workers = |text: &str| text.contains("workers") || text.contains(['!', '\\']);
    // Of another owner: refused by who reads it.
    if std::fs::metadata(&file).is_ok_and(|meta| !is_own(meta.uid())) {
        return None;
    }
    let around = match files::read_to_string(&file, LARGEST) {
        Ok(text) if names_workers(&text) => return None,
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(_) => return None,
    };
    args.sets.is_empty().then(|| format!("{:?} {around:?}", args.profile))
}

/// One file a pipeline, whatever its text.
fn name(what: &str, path: &str) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| Path::new(path).to_owned());
    derived::name(what, whole.as_os_str().as_encoded_bytes())
}
