//! Is everything there that preflow needs? Each finding with what to do about it.
//! Changes nothing.

use std::path::Path;

use super::{Choices, Failure, execution, locate, remote, workers};
use crate::catalog::Catalog;
use crate::exec::describe::describe;
use crate::exec::git;
use crate::report::OutputStyle;
use crate::store::{Store, StoreError};
use crate::text;

/// Below this a training run will not get far.
const LITTLE: u64 = 2 << 30;

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Finding {
    pub what: &'static str,
    pub state: FindingState,
    pub text: String,
    /// What to do; empty where nothing need be done.
    pub remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingState {
    Good,
    Warning,
    Bad,
}

/// Looks at everything.
///
/// # Errors
/// The place of the store cannot hold one.
pub fn findings(choices: &Choices) -> Result<Vec<Finding>, Failure> {
    let root = locate::locate(Path::new("here.yaml"))?.root;
    let store = locate::open_store(choices, &root)?;
    let mut findings = vec![
        worker(&root),
        workers_of(&root, &store),
        disk(&store),
        git_of(&root),
        cache(&store, &root),
        health(&store),
        threads(),
    ];
    findings.extend(shared(choices, &root));
    Ok(findings)
}

fn finding(what: &'static str, state: FindingState, text: String, remedy: &str) -> Finding {
    Finding { what, state, text, remedy: remedy.to_owned() }
}

/// The built-in worker: it starts (so its libtorch loads), and speaks of the same kinds.
fn worker(root: &Path) -> Finding {
    let command = execution::worker_command();
    if let Some(trouble) = execution::torch_trouble(Path::new(&command[0])) {
        let (text, remedy) = trouble.split_once("; ").unwrap_or((&trouble, ""));
        return finding("worker", FindingState::Bad, text.to_owned(), remedy);
    }
    let build = "`pip install preflow-worker`, or `cargo build --release` in the sources; PREFLOW_WORKER names another one";
    match describe(&command, root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            finding("worker", FindingState::Bad, format!("`{}` is not there", command[0]), build)
        }
        Err(e) => {
            let text = format!("`{}` does not start: {e}", command[0]);
            let remedy = "its libtorch is missing or another one: `./scripts/libtorch.sh`, then \
                          build again, or set LIBTORCH";
            finding("worker", FindingState::Bad, text, remedy)
        }
        Ok(text) => match Catalog::parse(&text) {
            Ok(catalog) if same(&catalog, &Catalog::builtin()) => {
                let text = format!("{}, {} kinds", command[0], catalog.kinds().count());
                finding("worker", FindingState::Good, text, "")
            }
            Ok(_) => finding(
                "worker",
                FindingState::Bad,
                format!("`{}` is of another version than preflow", command[0]),
                "build both from the same sources: `cargo build --release`",
            ),
            Err(e) => finding("worker", FindingState::Bad, format!("`{}`: {e}", command[0]), build),
        },
    }
}

fn same(a: &Catalog, b: &Catalog) -> bool {
    let docs =
        |c: &Catalog| c.kinds().map(|k| (k.doc.name.clone(), k.doc.version)).collect::<Vec<_>>();
    docs(a) == docs(b)
}

/// Workers that the workspace file names.
fn workers_of(root: &Path, store: &Store) -> Finding {
    let builtin = Catalog::builtin().kinds().count();
    let named = locate::workspace_file(root);
    match named.and_then(|file| workers::catalog(root, &file.workers, Some(store))) {
        Ok(ref catalog) if let Some(why) = catalog.unasked() => {
            let text = format!("{}, with workers that you have not trusted", root.display());
            finding("workspace", FindingState::Warning, text, why)
        }
        Ok(catalog) => match catalog.kinds().count() - builtin {
            0 => finding("workspace", FindingState::Good, format!("{}", root.display()), ""),
            n => {
                let text = format!("{}, {n} kinds of its own workers", root.display());
                finding("workspace", FindingState::Good, text, "")
            }
        },
        Err(failure) => {
            let text = failure.text(OutputStyle::default());
            let first = text.lines().next().unwrap_or_default().to_owned();
            finding("workspace", FindingState::Bad, first, "`preflow kinds` shows where")
        }
    }
}

fn disk(store: &Store) -> Finding {
    let root = store.root();
    let there = root.ancestors().find(|p| p.exists()).unwrap_or(root);
    let free = Store::open(there).ok().and_then(|s| s.free_bytes());
    match free {
        None => {
            finding("disk", FindingState::Warning, "nobody can tell what is free".to_owned(), "")
        }
        Some(free) if free < LITTLE => finding(
            "disk",
            FindingState::Warning,
            format!("{} free at {}", text::bytes(free), root.display()),
            "`preflow gc` finds what nobody needs; --cache names another place",
        ),
        Some(free) => {
            let text = format!("{} free at {}", text::bytes(free), root.display());
            finding("disk", FindingState::Good, text, "")
        }
    }
}

fn git_of(root: &Path) -> Finding {
    let commit = git::commit(root);
    if let Some(trouble) = commit.trouble {
        return finding("git", FindingState::Warning, trouble.message, &trouble.remedy);
    }
    if commit.id.is_empty() && root.join(".git").is_dir() && !git::is_repository(root) {
        let text = "`.git` is there, but git finds no repository in it";
        let remedy = "`git init` mends what is missing, a fresh clone the rest";
        return finding("git", FindingState::Warning, text.to_owned(), remedy);
    }
    if commit.id.is_empty() {
        let text = "no commit here: runs are not tied to one, and `diff` knows no commits";
        let remedy = "git init, then commit the pipelines and votes";
        return finding("git", FindingState::Warning, text.to_owned(), remedy);
    }
    let short = &commit.id[..commit.id.len().min(8)];
    match commit.dirty {
        true => finding("git", FindingState::Good, format!("{short}, with changes"), ""),
        false => finding("git", FindingState::Good, short.to_owned(), ""),
    }
}

fn cache(store: &Store, workspace: &Path) -> Finding {
    let root = store.root();
    if git::is_tracked(workspace, root) {
        let text = format!("git keeps files of {}", root.display());
        let remedy = "what is cloned is believed as what you made yourself: `git rm -r --cached`, \
                      and share by a remote";
        return finding("cache", FindingState::Warning, text, remedy);
    }
    if !root.exists() {
        let text = format!("{} is made by the first run", root.display());
        return finding("cache", FindingState::Good, text, "");
    }
    match store.prepare_for_writing() {
        Ok(()) => match (store.probe_views(), store.probe_hard_links()) {
            (Ok(()), Ok(())) => finding(
                "cache",
                FindingState::Good,
                format!("{} can be written", root.display()),
                "",
            ),
            (Ok(()), Err(e)) => finding(
                "cache",
                FindingState::Warning,
                format!("{} knows no hard links ({e})", root.display()),
                "all works, but what stages make is copied once; --cache names another place",
            ),
            (Err(e), _) => finding(
                "cache",
                FindingState::Warning,
                format!("{} knows no symbolic links ({e})", root.display()),
                "all works, but nothing lies below `views/`; --cache names another place",
            ),
        },
        Err(e @ StoreError::NoLocks { .. }) => {
            let failure = Failure::Store(e);
            let text = failure.text(OutputStyle::default());
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let remedy = failure.remedy().unwrap_or_default();
            finding("cache", FindingState::Bad, first.to_owned(), &remedy)
        }
        Err(e) => finding(
            "cache",
            FindingState::Bad,
            e.to_string(),
            "make it writable, or choose another place with --cache",
        ),
    }
}

/// Entries that read and whose objects are there.
fn health(store: &Store) -> Finding {
    let (mut sound, mut unsound) = (0, 0);
    for fingerprint in store.fingerprints().unwrap_or_default() {
        match store.entry(&fingerprint) {
            Ok(Some(entry)) if matches!(store.health(&entry), Ok(None)) => sound += 1,
            _ => unsound += 1,
        }
    }
    match unsound {
        0 => finding("entries", FindingState::Good, format!("{sound} sound"), ""),
        n => finding(
            "entries",
            FindingState::Warning,
            format!("{sound} sound, {n} without what they made"),
            "`preflow verify --repair`; their stages run again when they are needed",
        ),
    }
}

/// The remote, where one is configured: it answers.
fn shared(choices: &Choices, root: &Path) -> Option<Finding> {
    let named = locate::workspace_file(root);
    let opened = named.and_then(|file| remote::open(choices, root, &file));
    let opened = match opened {
        Ok(None) => return None,
        Ok(Some(opened)) => remote::ask(&opened).map(|()| opened),
        Err(failure) => Err(failure),
    };
    Some(match opened {
        Ok(opened) => {
            let mode = if opened.is_writable() { "read-write" } else { "read-only" };
            finding("remote", FindingState::Good, format!("{} answers, {mode}", opened.url()), "")
        }
        Err(failure) => {
            let text = failure.text(OutputStyle::default());
            let first = text.lines().next().unwrap_or_default();
            let text = first.trim_start_matches("error: ").trim_start_matches("remote ");
            finding(
                "remote",
                FindingState::Bad,
                text.to_owned(),
                &failure.remedy().unwrap_or_default(),
            )
        }
    })
}

fn threads() -> Finding {
    let n = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let gpus = execution::machine_gpus();
    let text = match gpus {
        0 => format!("{n} threads, no gpu"),
        gpus => format!("{n} threads, {gpus} gpus"),
    };
    finding("machine", FindingState::Good, text, "")
}
