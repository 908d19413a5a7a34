//! `preflow push`: what is made here, for the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::failure::Failure;
use super::remote::{Show, interrupted, load, needed};
use super::workspace::{self, Loaded};
use super::{Exit, Global, lock, print};
use crate::identity::Fingerprint;
use crate::lock::path_of;
use crate::plan::{Selection, Verdict};
use crate::remote::{Progress, Remote, RemoteError, Sent};
use crate::report::Look;
use crate::store::Store;
use crate::text;

/// Entries at one time; the remote bounds its requests itself.
const ENTRIES: usize = 8;

#[derive(Debug, Args)]
pub struct PushArgs {
    /// Pipeline or sweep file, then stages [default: all]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    /// Send every entry of the store, whatever needs it
    #[arg(long)]
    pub all: bool,
    /// Send also what is there already, over what lies there
    #[arg(long)]
    pub force: bool,
}

/// Sends entries. Exit 1 when some could not be sent and the others were.
///
/// # Errors
/// A file is wrong; there is no remote, it is read-only, does not answer or refuses.
pub fn push(args: &PushArgs, global: &Global, look: Look) -> Result<Exit, Failure> {
    let (remote, store, items) = if args.all && args.words.is_empty() {
        let (_, root, _) = workspace::whereabouts(Path::new("here.yaml"))?;
        let store = workspace::open_store(global, &root)?;
        (needed(global, &root)?, store, BTreeMap::new())
    } else {
        let (file, targets) = workspace::file_and_names(&args.words)?;
        let loaded = load(&file, true, global)?;
        let remote = needed(global, &loaded.root)?;
        let items = of_pipeline(&file, &loaded, &targets)?;
        (remote, loaded.store, items)
    };
    if !remote.is_writable() {
        return Err(RemoteError::ReadOnly { url: remote.url().to_owned() }.into());
    }
    let items = with_others(&store, items, args.all)?;
    // Nothing may be collected while it is sent.
    let _lease = store.shared_lease();
    let show = Show::new(look, global.json, "push");
    let progress = Arc::new(Progress::default());
    let work = send_all(&remote, &store, &items, args.force, &progress, &show);
    let Some(done) = show.drive(&progress, work)? else { return Ok(interrupted("push", look)) };
    Ok(tell(&remote, &done, global))
}

/// What a pipeline has up to date, and what its lock file names, where it is here.
fn of_pipeline(
    file: &Path,
    loaded: &Loaded,
    targets: &[String],
) -> Result<BTreeMap<Fingerprint, String>, Failure> {
    let selection = Selection::new(&loaded.graph, targets, &[], &[])?;
    let mut items = BTreeMap::new();
    if path_of(file).exists() {
        for (name, locked) in lock::read(file)?.stages {
            let wanted = loaded.graph.find(&name).is_some_and(|s| selection.wanted.contains(&s));
            if wanted && matches!(loaded.store.entry(&locked.fingerprint), Ok(Some(_))) {
                items.insert(locked.fingerprint, name);
            }
        }
    }
    let plan = loaded.plan(&selection)?;
    for (node, verdict) in loaded.graph.stages.iter().zip(&plan.verdicts) {
        if let Some(Verdict::Hit(entry)) = verdict {
            items.insert(entry.fingerprint, node.name.clone());
        }
    }
    Ok(items)
}

/// Also what waits to be sent, or all there is.
fn with_others(
    store: &Store,
    mut items: BTreeMap<Fingerprint, String>,
    all: bool,
) -> Result<BTreeMap<Fingerprint, String>, Failure> {
    let mut more: BTreeSet<Fingerprint> = BTreeSet::new();
    for queued in store.queued_uploads()? {
        match store.entry(&queued) {
            Ok(None) => store.unqueue_upload(&queued)?,
            _ => drop(more.insert(queued)),
        }
    }
    if all {
        more.extend(store.fingerprints()?);
    }
    for fingerprint in more {
        let kind = match store.entry(&fingerprint) {
            Ok(Some(entry)) => entry.identity.kind,
            _ => "entry".to_owned(),
        };
        items.entry(fingerprint).or_insert_with(|| format!("{kind} {}", fingerprint.short()));
    }
    Ok(items)
}

/// An entry and what became of it.
type Done = (String, Fingerprint, Result<Sent, RemoteError>);

async fn send_all(
    remote: &Remote,
    store: &Arc<Store>,
    items: &BTreeMap<Fingerprint, String>,
    force: bool,
    progress: &Arc<Progress>,
    show: &Show,
) -> Result<Vec<Done>, Failure> {
    let mut sending = stream::iter(items)
        .map(|(fingerprint, name)| async move {
            (name, fingerprint, remote.send_as(store, fingerprint, force, progress).await)
        })
        .buffer_unordered(ENTRIES);
    let mut done = Vec::new();
    while let Some((name, fingerprint, result)) = sending.next().await {
        match &result {
            Ok(sent) if sent.files > 0 => {
                let (files, size) = (text::counted(sent.files, "file"), text::bytes(sent.bytes));
                show.done(&format!(" ↑ {name}  {files}, {size}"));
            }
            Ok(_) => {}
            Err(error) if error.is_lasting() => {
                return Err(result.expect_err("invariant: just seen").into());
            }
            Err(error) => show.warn(name, error),
        }
        done.push((name.clone(), *fingerprint, result));
    }
    Ok(done)
}

fn tell(remote: &Remote, done: &[Done], global: &Global) -> Exit {
    let mut sum = Sent::default();
    let (mut stages, mut failed) = (0, 0);
    for (_, _, result) in done {
        match result {
            Ok(sent) => {
                stages += 1;
                sum.files += sent.files;
                sum.bytes += sent.bytes;
                sum.already += sent.already;
            }
            Err(_) => failed += 1,
        }
    }
    let exit = if failed > 0 { Exit::StageFailed } else { Exit::Done };
    if global.json {
        let list = done.iter().map(|(name, fp, result)| match result {
            Ok(sent) => json!({ "stage": name, "fingerprint": fp, "state": "sent",
                "files": sent.files, "bytes": sent.bytes, "already": sent.already }),
            Err(e) => json!({ "stage": name, "fingerprint": fp, "state": "failed",
                "error": e.to_string() }),
        });
        let value = json!({ "remote": remote.url(), "stages": list.collect::<Vec<Value>>(),
            "files": sum.files, "bytes": sum.bytes, "already": sum.already, "failed": failed });
        print(&format!("{value}\n"));
        return exit;
    }
    let mut text = format!(
        " pushed {}: {}, {} sent, {} already there",
        text::counted(stages, "stage"),
        text::counted(sum.files, "file"),
        text::bytes(sum.bytes),
        sum.already
    );
    if failed > 0 {
        text.push_str(&format!("; {} could not be sent", text::counted(failed, "stage")));
    }
    print(&format!("{text}\n"));
    exit
}
