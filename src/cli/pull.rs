//! `preflow pull`: what the others made, so that it need not be made here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::failure::Failure;
use super::remote::{Show, interrupted, load, needed};
use super::workspace::{self, Loaded};
use super::{Exit, Global, lock, print, sweep};
use crate::identity::{Digest, Fingerprint};
use crate::lock::{Lock, path_of};
use crate::plan::{Judge, Outputs, Selection, Verdict, outputs_of};
use crate::remote::{Expected, Fetched, Progress, Remote, RemoteError};
use crate::report::Look;
use crate::store::Entry;
use crate::text;

/// Entries at one time; the remote bounds its requests itself.
const ENTRIES: usize = 8;

#[derive(Debug, Args)]
pub struct PullArgs {
    /// Pipeline or sweep file, then stages [default: all]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    /// Fetch what the pipeline needs now, not what its lock file names
    #[arg(long)]
    pub no_lock: bool,
}

/// What became of a stage.
#[derive(Debug)]
enum Outcome {
    Fetched(Fetched),
    /// The store holds it.
    Here,
    /// The remote does not hold it, or holds nothing that it could follow from.
    Missing,
    Failed(RemoteError),
}

/// Stages by name.
type Outcomes = BTreeMap<String, (Option<Fingerprint>, Outcome)>;

/// An entry, and what was moved where the store did not hold it; or nothing.
type Brought = Option<(Entry, Option<Fetched>)>;

/// One wanted entry.
#[derive(Clone)]
struct Wanted {
    stage: usize,
    name: String,
    fingerprint: Fingerprint,
    outputs: Option<BTreeMap<String, Digest>>,
}

/// A transfer under way.
struct Pull<'a> {
    loaded: &'a Loaded,
    remote: &'a Remote,
    progress: &'a Arc<Progress>,
    show: &'a Show,
}

/// Fetches entries. Exit 1 when some are not on the remote; the others were fetched.
///
/// # Errors
/// A file is wrong; there is no remote, it does not answer or refuses; the disk is full.
pub fn pull(args: &PullArgs, global: &Global, look: Look) -> Result<Exit, Failure> {
    let (file, targets) = workspace::file_and_names(&args.words)?;
    let mut loaded = load(&file, false, global)?;
    let remote = needed(global, &loaded.root)?;
    let locked = path_of(&file).exists() && !args.no_lock && !sweep::is_sweep(&file);
    let locked = locked.then(|| lock::read(&file)).transpose()?;
    loaded.store.prepare_for_writing()?;
    // Nothing may be collected before its entry is there.
    let _lease = loaded.store.shared_lease()?;
    let show = Show::new(look, global.json, "pull");
    let progress = Arc::new(Progress::default());
    let mut all = Outcomes::new();
    loop {
        let selection = Selection::new(&loaded.graph, &targets, &[], &[])?;
        let pull = Pull { loaded: &loaded, remote: &remote, progress: &progress, show: &show };
        let work = async {
            let done = match &locked {
                Some(locked) => pull.locked(locked, &selection, &targets).await?,
                None => pull.walk(&selection).await?,
            };
            loaded.store.sync()?;
            Ok(done)
        };
        let Some(done) = show.drive(&progress, work)? else {
            return Ok(interrupted(&format!("pull {}", file.display()), look));
        };
        loaded.store.save_derived();
        for (name, outcome) in done {
            // What came in an earlier round came.
            all.entry(name).or_insert(outcome);
        }
        if !sweep::is_sweep(&file) {
            break;
        }
        // What came may say which trials go on.
        let more = load(&file, false, global)?;
        if more.graph.stages.len() == loaded.graph.stages.len() {
            break;
        }
        loaded = more;
    }
    // What never ran here is compared with what was fetched: reasons and estimates follow from it.
    let mut heads = loaded.heads();
    for (name, (fingerprint, outcome)) in &all {
        if let (Some(fingerprint), Outcome::Fetched(_) | Outcome::Here) = (fingerprint, outcome) {
            heads.stages.entry(name.clone()).or_insert(*fingerprint);
            heads.failed.remove(name);
        }
    }
    loaded.store.save_heads(&heads)?;
    Ok(tell(&file, &remote, &all, global))
}

impl Pull<'_> {
    /// What a lock file names, all at once.
    async fn locked(
        &self,
        lock: &Lock,
        selection: &Selection,
        targets: &[String],
    ) -> Result<Outcomes, Failure> {
        let mut outcomes = Outcomes::new();
        let mut todo = Vec::new();
        for stage in &selection.wanted {
            let name = self.loaded.graph.stages[*stage].name.clone();
            match lock.stages.get(&name) {
                None if targets.contains(&name) => {
                    outcomes.insert(name, (None, Outcome::Missing));
                }
                None => {}
                Some(locked) => {
                    let outputs = Some(locked.outputs.clone());
                    let fingerprint = locked.fingerprint;
                    todo.push(Wanted { stage: *stage, name, fingerprint, outputs });
                }
            }
        }
        let mut todo = todo.into_iter();
        let mut coming = FuturesUnordered::new();
        loop {
            while coming.len() < ENTRIES
                && let Some(wanted) = todo.next()
            {
                coming.push(self.bring(wanted));
            }
            let Some((wanted, result)) = coming.next().await else { return Ok(outcomes) };
            let (outcome, _) = self.settle(&wanted, result)?;
            outcomes.insert(wanted.name, (Some(wanted.fingerprint), outcome));
        }
    }

    /// What the pipeline needs: judged stage by stage, since what a stage made says what the next
    /// one is.
    async fn walk(&self, selection: &Selection) -> Result<Outcomes, Failure> {
        let graph = &self.loaded.graph;
        let sources = self.loaded.digest_sources(&selection.wanted)?;
        let heads = self.loaded.heads();
        let store = &self.loaded.store;
        let judge = Judge { graph, store, sources: &sources, heads: &heads };
        let mut known: Vec<Option<Outputs>> = vec![None; graph.stages.len()];
        let mut open: BTreeSet<usize> = selection.wanted.clone();
        let mut todo = Vec::new();
        let mut outcomes = Outcomes::new();
        let mut coming = FuturesUnordered::new();
        loop {
            // In graph order, one pass finds all that follows from what is known.
            for stage in open.clone() {
                if graph.upstream(stage).iter().any(|up| known[*up].is_none()) {
                    continue;
                }
                open.remove(&stage);
                let name = graph.stages[stage].name.clone();
                match judge.judge(stage, &known, false)? {
                    Verdict::Hit(entry) => {
                        known[stage] = Some(outputs_of(&entry));
                        outcomes.insert(name, (Some(entry.fingerprint), Outcome::Here));
                    }
                    Verdict::Miss(identity, _) => {
                        let fingerprint = identity.fingerprint();
                        todo.push(Wanted { stage, name, fingerprint, outputs: None });
                    }
                    Verdict::Wait(_) | Verdict::Barred(_) => {}
                }
            }
            while coming.len() < ENTRIES
                && let Some(wanted) = todo.pop()
            {
                coming.push(self.bring(wanted));
            }
            let Some((wanted, result)) = coming.next().await else { break };
            let (outcome, entry) = self.settle(&wanted, result)?;
            known[wanted.stage] = entry.as_ref().map(outputs_of);
            outcomes.insert(wanted.name, (Some(wanted.fingerprint), outcome));
        }
        let behind = open.into_iter().map(|stage| graph.stages[stage].name.clone());
        outcomes.extend(behind.map(|name| (name, (None, Outcome::Missing))));
        Ok(outcomes)
    }

    async fn bring(&self, wanted: Wanted) -> (Wanted, Result<Brought, RemoteError>) {
        let store = &self.loaded.store;
        let (looked, fingerprint) = (Arc::clone(store), wanted.fingerprint);
        // Aside: it may have to read what is there.
        let there = tokio::task::spawn_blocking(move || {
            let entry = looked.entry(&fingerprint).ok()??;
            matches!(looked.health(&entry), Ok(None)).then_some(entry)
        });
        let other = |entry: &Entry| {
            wanted.outputs.as_ref().is_some_and(|outputs| *outputs != outputs_of(entry))
        };
        if let Some(entry) = there.await.expect("invariant: looking does not panic")
            && !other(&entry)
        {
            return (wanted, Ok(Some((entry, None))));
        }
        let fingerprint = wanted.fingerprint;
        let outputs = self.loaded.graph.stages[wanted.stage].outputs.iter();
        let expected = Expected::new(outputs.map(|o| o.name.as_str()), wanted.outputs.as_ref());
        let fetched = self.remote.fetch(store, &fingerprint, &expected, self.progress);
        let fetched = fetched.await.map(|found| found.map(|(entry, moved)| (entry, Some(moved))));
        (wanted, fetched)
    }

    fn settle(
        &self,
        wanted: &Wanted,
        result: Result<Brought, RemoteError>,
    ) -> Result<(Outcome, Option<Entry>), Failure> {
        match result {
            Ok(None) => Ok((Outcome::Missing, None)),
            Ok(Some((entry, None))) => Ok((Outcome::Here, Some(entry))),
            Ok(Some((entry, Some(fetched)))) => {
                let (files, size) =
                    (text::counted(fetched.files, "file"), text::bytes(fetched.bytes));
                self.show.done(&format!(" ↓ {}  {files}, {size}", wanted.name));
                Ok((Outcome::Fetched(fetched), Some(entry)))
            }
            Err(error) if error.is_lasting() => Err(error.into()),
            Err(error) => {
                self.show.warn(&wanted.name, &error);
                Ok((Outcome::Failed(error), None))
            }
        }
    }
}

fn tell(file: &Path, remote: &Remote, done: &Outcomes, global: &Global) -> Exit {
    let mut sum = Fetched::default();
    let (mut stages, mut here, mut failed) = (0, 0, 0);
    let mut missing = Vec::new();
    for (name, (_, outcome)) in done {
        match outcome {
            Outcome::Fetched(fetched) => {
                stages += 1;
                sum.files += fetched.files;
                sum.bytes += fetched.bytes;
            }
            Outcome::Here => here += 1,
            Outcome::Missing => missing.push(name.as_str()),
            Outcome::Failed(_) => failed += 1,
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
        let run = if sweep::is_sweep(file) { "sweep run" } else { "run" };
        print(&format!(" `preflow {run} {}` goes on from here\n", file.display()));
    }
    exit
}

fn as_json((name, (fingerprint, outcome)): (&String, &(Option<Fingerprint>, Outcome))) -> Value {
    match outcome {
        Outcome::Fetched(f) => json!({ "stage": name, "fingerprint": fingerprint,
            "state": "fetched", "files": f.files, "bytes": f.bytes }),
        Outcome::Here => json!({ "stage": name, "fingerprint": fingerprint, "state": "here" }),
        Outcome::Missing => {
            json!({ "stage": name, "fingerprint": fingerprint, "state": "missing" })
        }
        Outcome::Failed(e) => json!({ "stage": name, "fingerprint": fingerprint,
            "state": "failed", "error": e.to_string() }),
    }
}
