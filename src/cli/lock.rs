//! `preflow lock`: the lock file beside a pipeline; written by runs, checked in CI, merged by git.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, Global, print};
use crate::exec::git;
use crate::graph::SourceOrigin;
use crate::lock::{Lock, LockedStage, path_of};
use crate::plan::{Selection, Verdict, digests};
use crate::project::elsewhere::MovedSource;
use crate::project::lock::LockCheck;
use crate::project::{self, Failure, Project, locate, lock};
use crate::store::{StoreError, write_atomic};

#[derive(Debug, Args)]
pub struct LockArgs {
    /// Pipeline file [default: the only one here]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Fail unless the lock file is what the pipeline, its sources and its votes say
    #[arg(long, conflicts_with_all = ["install", "merge"])]
    pub check: bool,
    /// Ask hubs what the branches and tags of sources are now, and write it down; with names: of
    /// these sources
    #[arg(long, value_name = "SOURCE", num_args = 0.., conflicts_with_all = ["check", "install", "merge"])]
    pub update: Option<Vec<String>>,
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
pub fn lock(args: &LockArgs, global: &Global) -> Result<Exit, Failure> {
    if let [base, ours, theirs] = args.merge.as_slice() {
        let merged = Lock::merge(&lock::parse(base)?, &lock::parse(ours)?, &lock::parse(theirs)?);
        write_atomic(ours, merged.to_text().as_bytes()).map_err(StoreError::from)?;
        return Ok(Exit::Done);
    }
    let words: Vec<String> = args.file.iter().map(|f| f.display().to_string()).collect();
    let (file, _) = locate::file_and_names(&words)?;
    if args.install {
        return install(&file);
    }
    let project = project::load(&file, &global.choices())?;
    if args.check {
        return check(&file, &project);
    }
    if let Some(names) = &args.update {
        return update(names, &file, &project);
    }
    let plan = project.plan(&Selection::new(&project.graph, &[], &[], &[])?)?;
    let mut made = Lock::default();
    for (node, verdict) in project.graph.stages.iter().zip(&plan.verdicts) {
        if let Some(Verdict::Hit(entry)) = verdict {
            let kind = format!("{}@{}", node.kind, node.version);
            let (fingerprint, outputs) = (entry.fingerprint, digests(&entry.outputs));
            made.stages.insert(node.name.clone(), LockedStage { kind, fingerprint, outputs });
        }
    }
    lock::keep(&file, &project, &made);
    let (all, known) = (project.graph.stages.len(), made.stages.len());
    Ok(print(&format!(" {}: {known} of {all} stages\n", path_of(&file).display())))
}

/// Writes which commits the sources of hubs are now.
fn update(names: &[String], file: &Path, project: &Project) -> Result<Exit, Failure> {
    let of_hubs = project.graph.sources.iter().filter(|s| matches!(s.origin, SourceOrigin::Hub(_)));
    let known: Vec<&str> = of_hubs.map(|source| source.name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let help = match known.as_slice() {
            [] => "no source of the pipeline has `hub:`".to_owned(),
            known => format!("sources with `hub:` are {}", known.join(", ")),
        };
        return Err(Failure::usage(format!("`{name}` is no source of a hub")).help(help));
    }
    let moved = project.move_sources(names)?;
    let mut text = String::new();
    for MovedSource { name, hub, revision, before, now } in &moved {
        let short = |commit: &str| commit.get(..10).unwrap_or(commit).to_owned();
        let now = short(now);
        text += &match before.as_deref().map(short) {
            Some(before) if before == now => format!(" {name}: {hub} {revision} is still {now}\n"),
            Some(before) => format!(" {name}: {hub} {revision} was {before}, is {now}\n"),
            None => format!(" {name}: {hub} {revision} is {now}\n"),
        };
    }
    if moved.is_empty() {
        text = format!(" {}: no source has `hub:`\n", file.display());
    }
    lock::keep(file, project, &Lock::default());
    Ok(print(&text))
}

/// Fails where the lock and the pipeline differ.
fn check(file: &Path, project: &Project) -> Result<Exit, Failure> {
    let LockCheck { stages, problems, .. } = lock::check(file, project)?;
    let path = path_of(file);
    if problems.is_empty() {
        return Ok(print(&format!(" {}: {} stages match\n", path.display(), stages)));
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
    let locate::PipelineLocation { root, key, .. } = locate::locate(file)?;
    let failed =
        |e: std::io::Error| Failure::usage(format!("git: {e}")).help("is this a repository?");
    git::configure(&root, "merge.preflow-lock.name", "lock files of preflow").map_err(failed)?;
    let driver = "preflow lock --merge %O %A %B";
    git::configure(&root, "merge.preflow-lock.driver", driver).map_err(failed)?;
    let path = root.join(".gitattributes");
    let old = lock::text_of(&path)?;
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
