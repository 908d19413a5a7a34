//! The workers that a workspace names: whether the user lets them start, and the kinds they offer.
//! Does not know what a pipeline says.

use std::path::Path;

use super::described::described;
use super::locate::{locate, open_store, workspace_file};
use super::{Choices, Failure};
use crate::catalog::Catalog;
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::text::clean;
use crate::trust::{Commands, Trust, TrustRecord, VARIABLE, by_environment};
use crate::workspace::Worker;

/// The kinds of the built-in worker and of those that the workspace file names and that the user
/// trusts. `store`: where what workers said is kept.
///
/// # Errors
/// The record of trust is damaged, or a worker does not describe itself.
pub fn catalog(root: &Path, workers: &[Worker], store: Option<&Store>) -> Result<Catalog, Failure> {
    let mut catalog = Catalog::builtin();
    if !is_trusted(root, workers)? {
        catalog.set_unasked(why_not(workers));
        return Ok(catalog);
    }
    for Worker { name, command, span } in workers {
        let command = whole_command(root, command);
        let failed = |message: String| {
            let problem = Diagnostic::new(message, Some(span.clone()));
            let said = format!("`{} describe` must print its catalog", command.join(" "));
            Failure::Diagnostics(vec![problem.help(said)])
        };
        let text = described(&command, root, store)
            .map_err(|e| failed(format!("worker `{name}` does not describe itself: {e}")))?;
        catalog.add_worker(&text, &command).map_err(|e| failed(format!("worker `{name}`: {e}")))?;
    }
    Ok(catalog)
}

/// The command of a worker with whole paths where it names files of the workspace: it may be
/// started from anywhere.
#[must_use]
pub fn whole_command(root: &Path, command: &[String]) -> Vec<String> {
    let whole = |word: &String| match root.join(word) {
        path if path.is_file() => path.to_string_lossy().into_owned(),
        _ => word.clone(),
    };
    command.iter().map(whole).collect()
}

/// The kinds that a pipeline file may use.
///
/// # Errors
/// As [`catalog`], and when the workspace file is wrong.
pub fn catalog_of(file: &Path, choices: &Choices) -> Result<Catalog, Failure> {
    let root = locate(file)?.root;
    let workers = workspace_file(&root)?.workers;
    catalog(&root, &workers, open_store(choices, &root).ok().as_deref())
}

/// Whether the user lets this workspace start these workers.
///
/// # Errors
/// The record is damaged, or others may write to it.
pub fn is_trusted(root: &Path, workers: &[Worker]) -> Result<bool, Failure> {
    if workers.is_empty() || by_environment() {
        return Ok(true);
    }
    match TrustRecord::of_user() {
        Some(record) => Ok(read_trust(&record)?.has(root, &commands(workers))),
        None => Ok(false),
    }
}

/// What to say where a worker was not asked because nobody agreed to start it.
#[must_use]
pub fn why_not(workers: &[Worker]) -> String {
    let all: Vec<String> = workers.iter().map(|w| format!("`{}`", shown(&w.command))).collect();
    format!(
        "this workspace names workers that you have not trusted: {}; look at `preflow.yaml`, then \
         run `preflow trust` (in CI: {VARIABLE}=1)",
        all.join(", ")
    )
}

/// A command in one line, cut where it is long.
#[must_use]
pub fn shown(command: &[String]) -> String {
    let text = clean(&command.join(" "));
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What trust is about: the commands by the names of their workers.
#[must_use]
pub fn commands(workers: &[Worker]) -> Commands {
    workers.iter().map(|w| (w.name.clone(), w.command.clone())).collect()
}

/// What the user has trusted so far.
///
/// # Errors
/// The record is damaged, or others may write to it.
pub fn read_trust(record: &TrustRecord) -> Result<Trust, Failure> {
    record.read().map_err(|error| {
        Failure::usage(format!("what you have trusted cannot be read: {error}"))
            .help("remove the file, and run `preflow trust` in each workspace again")
    })
}
