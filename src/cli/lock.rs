//! `preflow lock`: the lock file beside a pipeline; written by runs, checked in CI, merged by git.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use super::workspace::{self, Loaded};
use super::{Exit, Global, complain, print};
use crate::exec::git;
use crate::files;
use crate::lock::{Lock, LockedStage, path_of};
use crate::plan::{Judge, Outputs, Selection, Verdict, outputs_of};
use crate::report::{Look, Style};
use crate::store::{StoreError, write_atomic};

#[derive(Debug, Args)]
pub struct LockArgs {
    /// Pipeline file [default: the only one here]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Fail unless the lock file is what the pipeline, its sources and its votes say
    #[arg(long, conflicts_with_all = ["install", "merge"])]
    pub check: bool,
    /// Let git merge lock files stage by stage in this repository
    #[arg(long, conflicts_with = "merge")]
    pub install: bool,
    /// As a merge driver: the common ancestor, ours (rewritten), theirs
    #[arg(long, num_args = 3, value_names = ["BASE", "OURS", "THEIRS"])]
    pub merge: Vec<PathBuf>,
}

/// Writes the lock of what is made now, or does what the options say.
///
/// # Errors
/// A file is wrong, or the lock does not match.
pub fn lock(args: &LockArgs, global: &Global, look: Look) -> Result<Exit, Failure> {
    if let [base, ours, theirs] = args.merge.as_slice() {
        let merged = Lock::merge(&parse(base)?, &parse(ours)?, &parse(theirs)?);
        write_atomic(ours, merged.to_text().as_bytes()).map_err(StoreError::from)?;
        return Ok(Exit::Done);
    }
    let words: Vec<String> = args.file.iter().map(|f| f.display().to_string()).collect();
    let (file, _) = workspace::file_and_names(&words)?;
    if args.install {
        return install(&file);
    }
    let loaded = workspace::load(&file, global)?;
    if args.check {
        return check(&file, &loaded);
    }
    let plan = loaded.plan(&Selection::new(&loaded.graph, &[], &[], &[])?)?;
    let mut made = Lock::default();
    for (node, verdict) in loaded.graph.stages.iter().zip(&plan.verdicts) {
        if let Some(Verdict::Hit(entry)) = verdict {
            let kind = format!("{}@{}", node.kind, node.version);
            let (fingerprint, outputs) = (entry.fingerprint, outputs_of(entry));
            made.stages.insert(node.name.clone(), LockedStage { kind, fingerprint, outputs });
        }
    }
    keep(&file, &loaded, &made, global, look);
    let (all, known) = (loaded.graph.stages.len(), made.stages.len());
    Ok(print(&format!(" {}: {known} of {all} stages\n", path_of(&file).display())))
}

/// The lock of a pipeline file.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn read(file: &Path) -> Result<Lock, Failure> {
    let path = path_of(file);
    if !path.exists() {
        return Err(Failure::usage(format!("there is no lock file `{}`", path.display()))
            .help(format!("`preflow run {}` writes it", file.display())));
    }
    parse(&path)
}

/// Room for a hundred thousand stages.
const LARGEST: u64 = 64 << 20;

/// The text of a file, empty where there is none.
fn text_of(path: &Path) -> Result<String, Failure> {
    match files::read_to_string(path, LARGEST) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Failure::usage(format!("cannot read `{}`: {e}", path.display()))
            .help("take it from another commit, or remove it and run again")),
    }
}

fn parse(path: &Path) -> Result<Lock, Failure> {
    let text = text_of(path)?;
    Lock::parse(path, &text).map_err(|e| {
        Failure::usage(e.to_string())
            .help("take it from another commit, or run again to rewrite it")
    })
}

/// Writes what a run made beside its pipeline file. Stages that were not asked for stay as they
/// were. A run with other params than the file's is not what the file says, and leaves it alone.
pub fn keep(file: &Path, loaded: &Loaded, made: &Lock, global: &Global, look: Look) {
    if !global.sets.is_empty() || global.profile.is_some() || made.stages.is_empty() {
        return;
    }
    let path = path_of(file);
    let old = match text_of(&path) {
        Ok(text) => text,
        Err(failure) => return complain(&super::render::failure(&failure, look)),
    };
    // Of stages that are all known, what the file says of them says nothing more.
    let text = if made.stages.len() == loaded.graph.stages.len() {
        made.to_text()
    } else {
        let mut lock = Lock::parse(&path, &old).unwrap_or_default();
        lock.stages.extend(made.stages.clone());
        let names: HashSet<&str> = loaded.graph.stages.iter().map(|s| s.name.as_str()).collect();
        lock.stages.retain(|name, _| names.contains(name.as_str()));
        lock.to_text()
    };
    if text == old {
        return;
    }
    if let Err(error) = write_atomic(&path, text.as_bytes()) {
        let mark = look.paint(Style::Warning, "warning:");
        complain(&format!("{mark} the lock file was not written: {}: {error}\n", path.display()));
    }
}

/// Compares a lock with what the pipeline says, stage by stage, given the outputs it names itself:
/// nothing need be made, or even be at hand.
fn check(file: &Path, loaded: &Loaded) -> Result<Exit, Failure> {
    let lock = read(file)?;
    let selection = Selection::new(&loaded.graph, &[], &[], &[])?;
    let sources = loaded.digest_sources(&selection.wanted)?;
    let heads = loaded.heads();
    let judge =
        Judge { graph: &loaded.graph, store: &loaded.store, sources: &sources, heads: &heads };
    let mut known: Vec<Option<Outputs>> = vec![None; loaded.graph.stages.len()];
    let mut problems = Vec::new();
    for (i, node) in loaded.graph.stages.iter().enumerate() {
        let Some(locked) = lock.stages.get(&node.name) else {
            problems.push(format!("stage `{}` is not in it", node.name));
            continue;
        };
        known[i] = Some(locked.outputs.clone());
        let missing = node.outputs.iter().find(|o| !locked.outputs.contains_key(&o.name));
        if let Some(port) = missing {
            problems.push(format!("output `{}` of stage `{}` is not in it", port.name, node.name));
            known[i] = None;
            continue;
        }
        if loaded.graph.upstream(i).iter().any(|up| known[*up].is_none()) {
            continue;
        }
        if judge.identity(i, &known).fingerprint() != locked.fingerprint {
            problems.push(format!("stage `{}` is another one now", node.name));
        }
    }
    let gone = lock.stages.keys().filter(|name| loaded.graph.find(name).is_none());
    problems.extend(gone.map(|name| format!("stage `{name}` is not in the pipeline any more")));
    let path = path_of(file);
    if problems.is_empty() {
        return Ok(print(&format!(" {}: {} stages match\n", path.display(), lock.stages.len())));
    }
    let file = file.display();
    Err(Failure::usage(format!(
        "{} does not match {file}: {}",
        path.display(),
        problems.join("; ")
    ))
    .help(format!("preflow run {file}, then commit the lock file")))
}

/// Names the merge driver in the repository's own configuration and in `.gitattributes`.
fn install(file: &Path) -> Result<Exit, Failure> {
    let (_, root, key) = workspace::whereabouts(file)?;
    let failed =
        |e: std::io::Error| Failure::usage(format!("git: {e}")).help("is this a repository?");
    git::configure(&root, "merge.preflow-lock.name", "lock files of preflow").map_err(failed)?;
    let driver = "preflow lock --merge %O %A %B";
    git::configure(&root, "merge.preflow-lock.driver", driver).map_err(failed)?;
    let path = root.join(".gitattributes");
    let old = text_of(&path)?;
    // Its own name: other tools call their lock files so too.
    let line = format!("/{} merge=preflow-lock", path_of(Path::new(&key)).display());
    if !old.lines().any(|l| l.trim() == line) {
        let end = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
        let text = format!("{old}{end}{line}\n");
        write_atomic(&path, text.as_bytes()).map_err(StoreError::from)?;
    }
    Ok(print(&format!(
        " {} merges stage by stage here; commit .gitattributes, and let others run this too\n",
        path_of(file).display()
    )))
}
