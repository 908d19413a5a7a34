//! `preflow doctor`: is everything there that preflow needs? Each finding with what to do about it.
//! Changes nothing.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::{Exit, Global, print, remote};
use crate::catalog::Catalog;
use crate::exec::describe::describe;
use crate::exec::git;
use crate::project::{Failure, execution, locate, workers};
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style};
use crate::store::{Store, StoreError};
use crate::text;

/// Below this a training run will not get far.
const LITTLE: u64 = 2 << 30;

#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    health: Health,
    text: String,
    /// What to do; empty where nothing need be done.
    remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    Warning,
    Bad,
}

/// Prints what was found. Exit 0 when nothing stands in the way.
///
/// # Errors
/// The place of the store cannot hold one.
pub fn doctor(_: &DoctorArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let root = locate::locate(Path::new("here.yaml"))?.root;
    let store = locate::open_store(&global.choices(), &root)?;
    let mut findings = vec![
        worker(&root),
        workers(&root, &store),
        disk(&store),
        git_of(&root),
        cache(&store, &root),
        health(&store),
        threads(),
    ];
    findings.extend(shared(global, &root));
    let bad = findings.iter().any(|f| f.health == Health::Bad);
    let exit = if bad { Exit::Usage } else { Exit::Done };
    if global.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({ "what": f.what, "state": word(f.health), "found": f.text, "remedy": f.remedy }))
            .collect();
        print(&format!("{}\n", json!({ "findings": list })));
        return Ok(exit);
    }
    let mut table = Table::new(&[2]);
    table.marked();
    for finding in &findings {
        let (mark, style) = match finding.health {
            Health::Good => ("✓", Style::Good),
            Health::Warning => ("!", Style::Warning),
            Health::Bad => ("✗", Style::Bad),
        };
        let (what, text) = (Cell::from(finding.what), Cell::from(finding.text.as_str()));
        table.row([Cell::styled(style, mark), what, text]);
        if !finding.remedy.is_empty() {
            let remedy = Cell::styled(Style::Dim, format!("→ {}", finding.remedy));
            table.row([Cell::default(), Cell::default(), remedy]);
        }
    }
    print(&table.text(look));
    Ok(exit)
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Warning => "warning",
        Health::Bad => "bad",
    }
}

fn finding(what: &'static str, health: Health, text: String, remedy: &str) -> Finding {
    Finding { what, health, text, remedy: remedy.to_owned() }
}

/// The built-in worker: it starts (so its libtorch loads), and speaks of the same kinds.
fn worker(root: &Path) -> Finding {
    let command = execution::worker_command();
    let build =
        "`make demo` or `cargo build --release` builds it; PREFLOW_WORKER names another one";
    match describe(&command, root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            finding("worker", Health::Bad, format!("`{}` is not there", command[0]), build)
        }
        Err(e) => {
            let text = format!("`{}` does not start: {e}", command[0]);
            let remedy = "its libtorch is missing or another one: `./scripts/libtorch.sh`, then \
                          build again, or set LIBTORCH";
            finding("worker", Health::Bad, text, remedy)
        }
        Ok(text) => match Catalog::parse(&text) {
            Ok(catalog) if same(&catalog, &Catalog::builtin()) => {
                let text = format!("{}, {} kinds", command[0], catalog.kinds().count());
                finding("worker", Health::Good, text, "")
            }
            Ok(_) => finding(
                "worker",
                Health::Bad,
                format!("`{}` is of another version than preflow", command[0]),
                "build both from the same sources: `cargo build --release`",
            ),
            Err(e) => finding("worker", Health::Bad, format!("`{}`: {e}", command[0]), build),
        },
    }
}

fn same(a: &Catalog, b: &Catalog) -> bool {
    let docs =
        |c: &Catalog| c.kinds().map(|k| (k.doc.name.clone(), k.doc.version)).collect::<Vec<_>>();
    docs(a) == docs(b)
}

/// Workers that the workspace file names.
fn workers(root: &Path, store: &Store) -> Finding {
    let builtin = Catalog::builtin().kinds().count();
    let named = locate::workspace_file(root);
    match named.and_then(|file| workers::catalog(root, &file.workers, Some(store))) {
        Ok(ref catalog) if let Some(why) = catalog.unasked() => {
            let text = format!("{}, with workers that you have not trusted", root.display());
            finding("workspace", Health::Warning, text, why)
        }
        Ok(catalog) => match catalog.kinds().count() - builtin {
            0 => finding("workspace", Health::Good, format!("{}", root.display()), ""),
            n => {
                let text = format!("{}, {n} kinds of its own workers", root.display());
                finding("workspace", Health::Good, text, "")
            }
        },
        Err(failure) => {
            let text = super::render::failure(&failure, OutputStyle::default());
            let first = text.lines().next().unwrap_or_default().to_owned();
            finding("workspace", Health::Bad, first, "`preflow kinds` shows where")
        }
    }
}

fn disk(store: &Store) -> Finding {
    let root = store.root();
    let there = root.ancestors().find(|p| p.exists()).unwrap_or(root);
    let free = Store::open(there).ok().and_then(|s| s.free_bytes());
    match free {
        None => finding("disk", Health::Warning, "nobody can tell what is free".to_owned(), ""),
        Some(free) if free < LITTLE => finding(
            "disk",
            Health::Warning,
            format!("{} free at {}", text::bytes(free), root.display()),
            "`preflow gc` finds what nobody needs; --cache names another place",
        ),
        Some(free) => {
            let text = format!("{} free at {}", text::bytes(free), root.display());
            finding("disk", Health::Good, text, "")
        }
    }
}

fn git_of(root: &Path) -> Finding {
    let commit = git::commit(root);
    if let Some(trouble) = commit.trouble {
        return finding("git", Health::Warning, trouble.message, &trouble.remedy);
    }
    if commit.id.is_empty() && root.join(".git").is_dir() && !git::is_repository(root) {
        let text = "`.git` is there, but git finds no repository in it";
        let remedy = "`git init` mends what is missing, a fresh clone the rest";
        return finding("git", Health::Warning, text.to_owned(), remedy);
    }
    if commit.id.is_empty() {
        let text = "no commit here: runs are not tied to one, and `diff` knows no commits";
        let remedy = "git init, then commit the pipelines and votes";
        return finding("git", Health::Warning, text.to_owned(), remedy);
    }
    let short = &commit.id[..commit.id.len().min(8)];
    match commit.dirty {
        true => finding("git", Health::Good, format!("{short}, with changes"), ""),
        false => finding("git", Health::Good, short.to_owned(), ""),
    }
}

fn cache(store: &Store, workspace: &Path) -> Finding {
    let root = store.root();
    if git::is_tracked(workspace, root) {
        let text = format!("git keeps files of {}", root.display());
        let remedy = "what is cloned is believed as what you made yourself: `git rm -r --cached`, \
                      and share by a remote";
        return finding("cache", Health::Warning, text, remedy);
    }
    if !root.exists() {
        let text = format!("{} is made by the first run", root.display());
        return finding("cache", Health::Good, text, "");
    }
    match store.prepare_for_writing() {
        Ok(()) => match (store.probe_views(), store.probe_hard_links()) {
            (Ok(()), Ok(())) => {
                finding("cache", Health::Good, format!("{} can be written", root.display()), "")
            }
            (Ok(()), Err(e)) => finding(
                "cache",
                Health::Warning,
                format!("{} knows no hard links ({e})", root.display()),
                "all works, but what stages make is copied once; --cache names another place",
            ),
            (Err(e), _) => finding(
                "cache",
                Health::Warning,
                format!("{} knows no symbolic links ({e})", root.display()),
                "all works, but nothing lies below `views/`; --cache names another place",
            ),
        },
        Err(e @ StoreError::NoLocks { .. }) => {
            let failure = Failure::Store(e);
            let text = super::render::failure(&failure, OutputStyle::default());
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let remedy = failure.remedy().unwrap_or_default();
            finding("cache", Health::Bad, first.to_owned(), &remedy)
        }
        Err(e) => finding(
            "cache",
            Health::Bad,
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
        0 => finding("entries", Health::Good, format!("{sound} sound"), ""),
        n => finding(
            "entries",
            Health::Warning,
            format!("{sound} sound, {n} without what they made"),
            "`preflow verify --repair`; their stages run again when they are needed",
        ),
    }
}

/// The remote, where one is configured: it answers.
fn shared(global: &Global, root: &Path) -> Option<Finding> {
    let named = locate::workspace_file(root);
    let opened =
        named.and_then(|file| crate::project::remote::open(&global.choices(), root, &file));
    let opened = match opened {
        Ok(None) => return None,
        Ok(Some(opened)) => remote::ask(&opened).map(|()| opened),
        Err(failure) => Err(failure),
    };
    Some(match opened {
        Ok(opened) => {
            let mode = if opened.is_writable() { "read-write" } else { "read-only" };
            finding("remote", Health::Good, format!("{} answers, {mode}", opened.url()), "")
        }
        Err(failure) => {
            let text = super::render::failure(&failure, OutputStyle::default());
            let first = text.lines().next().unwrap_or_default();
            let text = first.trim_start_matches("error: ").trim_start_matches("remote ");
            finding("remote", Health::Bad, text.to_owned(), &failure.remedy().unwrap_or_default())
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
    finding("machine", Health::Good, text, "")
}
