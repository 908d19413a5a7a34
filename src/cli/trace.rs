//! `preflow trace FILE`: from an artifact, or a copy of one, back to what made it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Exit, Global, print, workspace};
use crate::files;
use crate::identity::{Digest, InputIdentity};
use crate::report::{Look, Style, words};
use crate::store::{Entry, Store, StoreError};
use crate::text::{self, clean};
use crate::votes::Effective;

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A file or a folder: an object, a view, or a copy of one anywhere
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// One artifact on the way back.
struct Step {
    depth: usize,
    entry: Entry,
    /// Which output of the entry it is, and the file in it where it is a folder.
    output: String,
    /// Inputs that no stage made: data that was there, by port.
    sources: Vec<(String, Digest)>,
}

/// Prints where a file comes from.
///
/// # Errors
/// The file cannot be read, or nothing in the store made it.
pub fn trace(args: &TraceArgs, global: &Global, look: Look) -> Result<Exit, Failure> {
    let here = std::path::absolute(".").unwrap_or_default();
    let store = workspace::open_store(global, &workspace::workspace_root(&here))?;
    let source = store.digest_source(&args.file.to_string_lossy())?;
    let entries = all_entries(&store)?;
    let Some((entry, output)) = find(&entries, &source.digest) else {
        return Err(Failure::usage(format!(
            "nothing in the store at {} made `{}`",
            store.root().display(),
            args.file.display()
        ))
        .help(format!("its content is {}; was it changed after it was made?", source.digest)));
    };
    let steps = back(&entries, entry, &output);
    if global.json {
        let list: Vec<Value> = steps.iter().map(|step| as_json(&store, step)).collect();
        return Ok(print(&format!("{}\n", json!({ "digest": source.digest, "steps": list }))));
    }
    let mut out = format!(" {}\n", source.digest);
    for step in &steps {
        out.push_str(&text(&store, step, look));
    }
    Ok(print(&out))
}

fn all_entries(store: &Store) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for fingerprint in store.fingerprints()? {
        // One that cannot be read is `verify`'s business.
        if let Ok(Some(entry)) = store.entry(&fingerprint) {
            entries.push(entry);
        }
    }
    // Of several that made the same bytes, the newest is the likeliest to be known.
    entries.sort_by(|a, b| b.made.at.cmp(&a.made.at));
    Ok(entries)
}

/// The entry that made these bytes, as an output or as a file of one. A stage that passed on what
/// it read did not make it.
fn find<'a>(entries: &'a [Entry], digest: &Digest) -> Option<(&'a Entry, String)> {
    let makers = || entries.iter().filter(|e| e.identity.input_digests().all(|d| d != *digest));
    let whole = makers().find_map(|entry| {
        let (port, _) = entry.outputs.iter().find(|(_, o)| o.digest == *digest)?;
        Some((entry, port.clone()))
    });
    whole.or_else(|| {
        makers().find_map(|entry| {
            let files = entry.outputs.iter().flat_map(|(port, output)| {
                output.tree.iter().flatten().map(move |file| (port, file))
            });
            let (port, file) = files.into_iter().find(|(_, file)| file.digest == *digest)?;
            Some((entry, format!("{port}/{}", file.path)))
        })
    })
}

/// All that it was made from, depth first, each entry once. A list instead of recursion.
fn back(entries: &[Entry], entry: &Entry, output: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo = vec![(0, entry, output.to_owned())];
    while let Some((depth, entry, output)) = todo.pop() {
        if !seen.insert(entry.fingerprint) {
            continue;
        }
        let mut inputs: Vec<Digest> = entry.identity.input_digests().collect();
        inputs.reverse();
        for digest in inputs {
            if let Some((made, port)) = find(entries, &digest) {
                todo.push((depth + 1, made, port));
            }
        }
        let sources = sources(entry, |digest| find(entries, digest).is_some());
        steps.push(Step { depth, entry: entry.clone(), output, sources });
    }
    steps
}

/// What the votes that a stage read amounted to.
fn votes(store: &Store, entry: &Entry) -> Vec<(String, Effective)> {
    let inputs = entry.identity.inputs.iter().filter_map(|(port, input)| {
        let InputIdentity::One(digest) = input else { return None };
        let bytes = files::read_own(&store.object_path(digest), u64::MAX).ok()?;
        Some((port.clone(), Effective::parse(&bytes).ok()?))
    });
    inputs.collect()
}

fn by_annotator(votes: &Effective) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for ballot in votes.pairs.values().flat_map(|p| &p.ballots).filter(|b| !b.repeat) {
        *counts.entry(ballot.annotator.clone()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// Inputs that no stage made: data that was there.
fn sources(entry: &Entry, made: impl Fn(&Digest) -> bool) -> Vec<(String, Digest)> {
    let mut found = Vec::new();
    for (port, input) in &entry.identity.inputs {
        let digests = match input {
            InputIdentity::One(digest) => vec![(port.clone(), *digest)],
            InputIdentity::Many(all) => all.clone(),
        };
        found.extend(digests.into_iter().filter(|(_, digest)| !made(digest)));
    }
    found
}

fn text(store: &Store, step: &Step, look: Look) -> String {
    let made = &step.entry.made;
    let indent = "   ".repeat(step.depth);
    let arrow = if step.depth > 0 { "← " } else { "" };
    let stage = run_stage(store, step).unwrap_or_else(|| step.entry.identity.kind.clone());
    let at = made.at.get(..16).unwrap_or("").replace('T', " ");
    let mut out = format!(
        " {indent}{arrow}{}  {} of {}@{}, {at} in {}, run {}\n",
        look.paint(Style::Strong, &clean(&stage)),
        step.output,
        step.entry.identity.kind,
        step.entry.identity.version,
        text::seconds(made.seconds),
        made.run
    );
    let mut more = |what: &str, text: String| {
        if !text.is_empty() {
            out.push_str(&format!(
                " {indent}   {} {}\n",
                look.paint(Style::Dim, what),
                clean(&text)
            ));
        }
    };
    more("pipeline", run_pipeline(store, step).unwrap_or_default());
    more("commit", made.commit.clone());
    more(
        "on",
        [&made.worker, &made.backend, &made.device, &made.cpu]
            .map(String::as_str)
            .join(" ")
            .trim()
            .to_owned(),
    );
    let params = step.entry.identity.params.iter();
    let params: Vec<String> =
        params.map(|(name, v)| format!("{name}: {}", words::value(Some(v)))).collect();
    more("params", params.join(", "));
    let votes = votes(store, &step.entry);
    for (port, votes) in &votes {
        let counts: Vec<String> =
            by_annotator(votes).into_iter().map(|(who, n)| format!("{who} {n}")).collect();
        more(port, format!("{} votes: {}", votes.votes(), counts.join(", ")));
    }
    let votes: Vec<&str> = votes.iter().map(|(port, _)| port.as_str()).collect();
    for (port, digest) in step.sources.iter().filter(|(port, _)| !votes.contains(&port.as_str())) {
        more(port, digest.to_string());
    }
    out
}

/// Name that the run gave the stage.
fn run_stage(store: &Store, step: &Step) -> Option<String> {
    let lines =
        crate::run::journal::read(&store.run_path(&step.entry.made.run).join("events.jsonl"));
    lines.ok()?.into_iter().find_map(|line| match line.event {
        crate::run::RunEvent::StageDone { stage, fingerprint, .. }
            if fingerprint == step.entry.fingerprint =>
        {
            Some(stage)
        }
        _ => None,
    })
}

fn run_pipeline(store: &Store, step: &Step) -> Option<String> {
    Some(super::runs::read(store, &step.entry.made.run)?.pipeline)
}

fn as_json(store: &Store, step: &Step) -> Value {
    let entry = &step.entry;
    let votes: serde_json::Map<String, Value> = votes(store, entry)
        .into_iter()
        .map(|(port, votes)| {
            let by: serde_json::Map<String, Value> =
                by_annotator(&votes).into_iter().map(|(who, n)| (who, json!(n))).collect();
            (port, json!({ "votes": votes.votes(), "annotators": by }))
        })
        .collect();
    let sources: serde_json::Map<String, Value> =
        step.sources.iter().map(|(port, digest)| (port.clone(), json!(digest))).collect();
    json!({
        "depth": step.depth,
        "stage": run_stage(store, step),
        "pipeline": run_pipeline(store, step),
        "output": step.output,
        "fingerprint": entry.fingerprint,
        "identity": entry.identity,
        "made": entry.made,
        "votes": votes,
        "sources": sources,
    })
}
