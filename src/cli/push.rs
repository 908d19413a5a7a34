//! `preflow push`: what is made here, for the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::remote::{Show, interrupted};
use super::{Exit, Global, print};
use crate::identity::Fingerprint;
use crate::project::push::{of_pipeline, with_others};
use crate::project::{Failure, locate, remote::needed, sweep::load_any};
use crate::remote::{Remote, RemoteError, Sent, TransferProgress};
use crate::report::OutputStyle;
use crate::store::Store;
use crate::text;

/// Entries at one time; the remote bounds its requests itself.
const ENTRIES: usize = 8;

#[derive(Debug, Args)]
pub struct PushArgs {
    /// Pipeline or sweep file, then stages [default: all]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    /// Upload every entry of the store
    #[arg(long)]
    pub all: bool,
    /// Upload again and overwrite what is there
    #[arg(long)]
    pub force: bool,
}

/// Sends entries. Exit 1 when some could not be sent and the others were.
///
/// # Errors
/// A file is wrong; there is no remote, it is read-only, does not answer or refuses.
pub fn push(args: &PushArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (remote, store, items) = if args.all && args.words.is_empty() {
        let root = locate::locate(Path::new("here.yaml"))?.root;
        let store = locate::open_store(&global.choices(), &root)?;
        (needed(&global.choices(), &root, &locate::workspace_file(&root)?)?, store, BTreeMap::new())
    } else {
        let (file, targets) = locate::file_and_names(&args.words)?;
        let project = load_any(&file, true, &global.choices())?;
        let remote = needed(&project.choices, &project.root, &project.workspace)?;
        let items = of_pipeline(&file, &project, &targets)?;
        (remote, project.store, items)
    };
    if !remote.is_writable() {
        return Err(RemoteError::ReadOnly { url: remote.url().to_owned() }.into());
    }
    let items = with_others(&store, items, args.all)?;
    // Nothing may be collected while it is sent.
    let _lease = store.shared_lease();
    let show = Show::new(look, global.json, "push");
    let progress = Arc::new(TransferProgress::default());
    let work = send_all(&remote, &store, &items, args.force, &progress, &show);
    let Some(done) = show.drive(&progress, work)? else { return Ok(interrupted("push", look)) };
    Ok(tell(&remote, &done, global))
}

/// An entry and what became of it.
type Done = (String, Fingerprint, Result<Sent, RemoteError>);

async fn send_all(
    remote: &Remote,
    store: &Arc<Store>,
    items: &BTreeMap<Fingerprint, String>,
    force: bool,
    progress: &Arc<TransferProgress>,
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
