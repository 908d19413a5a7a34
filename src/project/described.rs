//! What a team's own workers say of themselves. Kept only while every file that a worker says it is
//! made of is as it was; a worker that names no files is asked each time.
//! Does not understand the answer beyond that list.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exec::describe::describe;
use crate::exec::programs::found;
use crate::identity::Digest;
use crate::protocol::CatalogDoc;
use crate::store::digest::now;
use crate::store::{Store, derived};

/// Goes into the key under which answers are kept.
const FORMAT: &str = "worker/1";

/// More files than any worker is made of.
const MOST_FILES: usize = 100_000;

/// Variables that shells change by themselves. Any other may decide what a worker loads.
const IDLE: [&str; 6] = ["_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES"];

/// An answer, and the files that it came from.
#[derive(Serialize, Deserialize)]
struct Kept {
    text: String,
    /// Path → digest.
    files: BTreeMap<PathBuf, Digest>,
}

/// What the worker prints as its `describe`.
///
/// # Errors
/// It cannot be asked.
pub fn described(command: &[String], root: &Path, store: Option<&Store>) -> io::Result<String> {
    let Some(store) = store else { return describe(command, root) };
    let (begun, before) = (now(), key(command, root, store));
    let name = name(command, root);
    if let Some(kept) = before.and_then(|key| kept(&name, &key, store)) {
        return Ok(kept.text);
    }
    let text = describe(command, root)?;
    if let Some(key) = before.filter(|before| key(command, root, store) == Some(*before)) {
        keep(&name, &key, root, store, &text, begun);
    }
    Ok(text)
}

/// Changes with every file that the worker says it is made of. `None`: it does not say, or was not
/// asked since one of them changed.
#[must_use]
pub fn state(command: &[String], root: &Path, store: &Store) -> Option<Digest> {
    let key = key(command, root, store)?;
    let files = kept(&name(command, root), &key, store)?.files;
    Some(Digest::of(format!("{key} {files:?}").as_bytes()))
}

fn kept(name: &str, key: &Digest, store: &Store) -> Option<Kept> {
    let bytes = store.derived(name, key)?;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    let same = |(path, then): (&PathBuf, &Digest)| {
        store.digest_file(path).is_ok_and(|(digest, _)| digest == *then)
    };
    kept.files.iter().all(same).then_some(kept)
}

/// Keeps an answer that names the files it came from, unless one of them may have changed since the
/// worker was started: nobody could tell whether it had read the old or the new one.
fn keep(name: &str, key: &Digest, root: &Path, store: &Store, text: &str, begun: i128) {
    let Ok(CatalogDoc { files: Some(named), .. }) = serde_json::from_str(text) else { return };
    if named.len() > MOST_FILES {
        return;
    }
    let mut files = BTreeMap::new();
    for path in named {
        let path = root.join(path);
        match store.digest_file(&path) {
            Ok((digest, signature)) if !signature.is_racy(begun) => files.insert(path, digest),
            _ => return,
        };
    }
    let kept = Kept { text: text.to_owned(), files };
    if let Ok(bytes) = serde_json::to_vec(&kept) {
        store.keep_derived(name, key, &bytes);
    }
}

fn name(command: &[String], root: &Path) -> String {
    derived::name("worker", format!("{command:?} {root:?}").as_bytes())
}

/// What decides what is started: the words, the files among them, the program itself, and the
/// environment.
fn key(command: &[String], root: &Path, store: &Store) -> Option<Digest> {
    let program = found(Path::new(command.first()?));
    let files = std::iter::once(program).chain(command[1..].iter().map(PathBuf::from));
    let digests: Vec<_> = files
        .map(|path| root.join(path))
        .filter(|path| path.is_file())
        .map(|path| store.digest_file(&path).ok().map(|(digest, _)| (path, digest)))
        .collect();
    // What cannot be read is no reason to believe that it is the same.
    let digests = digests.into_iter().collect::<Option<Vec<_>>>()?;
    let environment: BTreeMap<_, _> =
        std::env::vars_os().filter(|(name, _)| !IDLE.iter().any(|idle| name == idle)).collect();
    derived::key(FORMAT, format!("{command:?} {root:?} {digests:?} {environment:?}").as_bytes())
}
