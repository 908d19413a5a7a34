//! `preflow lock`: the lock file beside a pipeline; written by runs, checked in CI, merged by git.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, Global, print};
use crate::exec::git;
use crate::lock::{Lock, LockedStage, path_of};
use crate::plan::{Selection, Verdict, digests};
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
