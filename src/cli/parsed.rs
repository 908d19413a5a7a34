//! Pipeline files that were read before: while the text and this program are the same, the tree is
//! taken from the store. Decides nothing about what a pipeline means.

use std::path::Path;

use crate::diagnostic::Diagnostic;
use crate::identity::Digest;
use crate::pipeline::{self, Document};
use crate::store::{Store, derived};

/// Reads a pipeline file.
///
/// # Errors
/// As [`pipeline::open`].
pub fn open(path: &str, store: Option<&Store>) -> Result<Document, Vec<Diagnostic>> {
    let text = pipeline::read_text(path)?;
    let place = store.and_then(|store| {
        Some((store, name(path), derived::key(pipeline::TREE_FORMAT, text.as_bytes())?))
    });
    let Some((store, name, key)) = place else { return pipeline::document(path, &text) };
    let bytes = store.derived(&name, &key);
    if let Some(document) = bytes.and_then(|b| Document::from_bytes(path, &text, &b)) {
        return Ok(document);
    }
    let document = pipeline::document(path, &text)?;
    if let Some(bytes) = document.to_bytes() {
        store.keep_derived(&name, &key, &bytes);
    }
    Ok(document)
}

/// One file a pipeline, whatever its text.
fn name(path: &str) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| Path::new(path).to_owned());
    format!("tree-{}", Digest::of(whole.as_os_str().as_encoded_bytes()).short())
}
