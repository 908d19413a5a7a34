//! `preflow pull`: what the others made, so that it need not be made here.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::remote::{Show, interrupted};
use super::{Exit, Global, print};
use crate::identity::Fingerprint;
use crate::lock::path_of;
use crate::plan::Selection;
use crate::project::pull::{Moved, Pull, PullOutcome, PullOutcomes};
use crate::project::{
    Failure, locate, lock,
    remote::needed,
    sweep::{is_sweep, load_any},
};
use crate::remote::{Fetched, Remote, TransferProgress};
use crate::report::OutputStyle;
use crate::text;

#[derive(Debug, Args)]
pub struct PullArgs {
    /// Pipeline or sweep file, then stages [default: all]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    /// Fetch what the pipeline needs now, not what its lock file names
    #[arg(long)]
    pub no_lock: bool,
}

/// Fetches entries. Exit 1 when some are not on the remote; the others were fetched.
///
/// # Errors
/// A file is wrong; there is no remote, it does not answer or refuses; the disk is full.
pub fn pull(args: &PullArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, targets) = locate::file_and_names(&args.words)?;
    let mut project = load_any(&file, false, &global.choices())?;
    let remote = needed(&project.choices, &project.root, &project.workspace)?;
    let locked = path_of(&file).exists() && !args.no_lock && !is_sweep(&file);
    let locked = locked.then(|| lock::read(&file)).transpose()?;
    project.store.prepare_for_writing()?;
    // Nothing may be collected before its entry is there.
    let _lease = project.store.shared_lease()?;
    let show = Show::new(look, global.json, "pull");
    let progress = Arc::new(TransferProgress::default());
    let mut all = PullOutcomes::new();
    loop {
        let selection = Selection::new(&project.graph, &targets, &[], &[])?;
        let tell = |moved: Moved| match moved {
            Moved::Fetched(name, fetched) => {
                let (files, size) =
                    (text::counted(fetched.files, "file"), text::bytes(fetched.bytes));
                show.done(&format!(" ↓ {name}  {files}, {size}"));
            }
            Moved::Failed(name, error) => show.warn(name, error),
        };
        let pull = Pull { project: &project, remote: &remote, progress: &progress, tell: &tell };
        let work = async {
            let done = match &locked {
                Some(locked) => pull.locked(locked, &selection, &targets).await?,
                None => pull.walk(&selection).await?,
            };
            project.store.sync()?;
            Ok(done)
        };
        let Some(done) = show.drive(&progress, work)? else {
            return Ok(interrupted(&format!("pull {}", file.display()), look));
        };
        project.store.save_memo();
        for (name, outcome) in done {
            // What came in an earlier round came.
            all.entry(name).or_insert(outcome);
        }
        if !is_sweep(&file) {
            break;
        }
        // What came may say which trials go on.
        let more = load_any(&file, false, &global.choices())?;
        if more.graph.stages.len() == project.graph.stages.len() {
            break;
        }
        project = more;
    }
    // What never ran here is compared with what was fetched: reasons and estimates follow from it.
    let mut heads = project.heads();
    for (name, (fingerprint, outcome)) in &all {
        if let (Some(fingerprint), PullOutcome::Fetched(_) | PullOutcome::Here) =
            (fingerprint, outcome)
        {
            heads.stages.entry(name.clone()).or_insert(*fingerprint);
            heads.failed.remove(name);
        }
    }
    project.store.save_heads(&heads)?;
    Ok(tell(&file, &remote, &all, global))
}

fn tell(file: &Path, remote: &Remote, done: &PullOutcomes, global: &Global) -> Exit {
    let mut sum = Fetched::default();
    let (mut stages, mut here, mut failed) = (0, 0, 0);
    let mut missing = Vec::new();
    for (name, (_, outcome)) in done {
        match outcome {
            PullOutcome::Fetched(fetched) => {
                stages += 1;
                sum.files += fetched.files;
                sum.bytes += fetched.bytes;
            }
            PullOutcome::Here => here += 1,
            PullOutcome::Missing => missing.push(name.as_str()),
            PullOutcome::Failed(_) => failed += 1,
        }
    }
    let whole = missing.is_empty() && failed == 0;
    let exit = if whole { Exit::Done } else { Exit::StageFailed };
    if global.json {
        let list: Vec<Value> = done.iter().map(as_json).collect();
        let value = json!({ "remote": remote.url(), "stages": list, "files": sum.files,
            "bytes": sum.bytes, "here": here, "missing": missing.len(), "failed": failed });
        print(&format!("{value}\n"));
        return exit;
    }
    let mut text = format!(
        " pulled {}: {}, {}; {here} here already",
        text::counted(stages, "stage"),
        text::counted(sum.files, "file"),
        text::bytes(sum.bytes)
    );
    if failed > 0 {
        text.push_str(&format!("; {} could not be fetched", text::counted(failed, "stage")));
    }
    if !missing.is_empty() {
        let mut names = missing.iter().take(6).copied().collect::<Vec<_>>().join(", ");
        if missing.len() > 6 {
            names.push_str(", …");
        }
        text.push_str(&format!("; not on the remote: {names}"));
    }
    print(&format!("{text}\n"));
    if whole && !global.quiet {
        let run = if is_sweep(file) { "sweep run" } else { "run" };
        print(&format!(" `preflow {run} {}` goes on from here\n", file.display()));
    }
    exit
}

fn as_json(
    (name, (fingerprint, outcome)): (&String, &(Option<Fingerprint>, PullOutcome)),
) -> Value {
    match outcome {
        PullOutcome::Fetched(f) => json!({ "stage": name, "fingerprint": fingerprint,
            "state": "fetched", "files": f.files, "bytes": f.bytes }),
        PullOutcome::Here => json!({ "stage": name, "fingerprint": fingerprint, "state": "here" }),
        PullOutcome::Missing => {
            json!({ "stage": name, "fingerprint": fingerprint, "state": "missing" })
        }
        PullOutcome::Failed(e) => json!({ "stage": name, "fingerprint": fingerprint,
            "state": "failed", "error": e.to_string() }),
    }
}
