//! What differs between two states of a pipeline: runs, commits or files, and what came of it.
//! Does not know how it is shown.

mod rows;
mod side;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::columns::each_batch;
use crate::identity::{Change, Digest, Identity};
use crate::store::CachedEntry;
use crate::votes::{Effective, VoteChange};
use rows::RowChange;
pub use side::{PipelineState, StageFacts};

/// Answers to the same prompt shown a stage.
const SAMPLES: usize = 3;

/// Everything that differs.
#[derive(Debug, Default, Serialize)]
pub struct PipelineDiff {
    pub a: String,
    pub b: String,
    pub only_in_a: Vec<String>,
    pub only_in_b: Vec<String>,
    pub params: Vec<ParamChange>,
    pub votes: Vec<(String, VoteChange)>,
    pub data: Vec<DataChange>,
    pub code: Vec<(String, String, String)>,
    pub environment: Vec<(String, String, String)>,
    pub figures: Vec<FigureChange>,
    pub samples: Vec<SamplePair>,
    /// Stages whose identity could not be compared, because something upstream must run first.
    pub unknown: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct ParamChange {
    pub stage: String,
    #[serde(flatten)]
    pub change: Change,
}

/// A source that a stage reads.
#[derive(Debug, Serialize)]
pub struct DataChange {
    pub stage: String,
    pub port: String,
    /// `None` where the rows of one side are not at hand.
    pub rows: Option<RowChange>,
}

/// A figure of a stage on both sides, with its interval where it has one.
#[derive(Debug, Serialize)]
pub struct FigureChange {
    pub stage: String,
    pub name: String,
    pub a: [Option<f64>; 3],
    pub b: [Option<f64>; 3],
}

/// Two answers to one prompt.
#[derive(Debug, Serialize)]
pub struct SamplePair {
    pub stage: String,
    pub source: String,
    pub prompt: String,
    pub a: String,
    pub b: String,
}

/// Compares two sides stage by stage.
#[must_use]
pub fn compare(a: &PipelineState, b: &PipelineState) -> PipelineDiff {
    let names = |side: &PipelineState| side.stages.keys().cloned().collect::<BTreeSet<String>>();
    let (in_a, in_b) = (names(a), names(b));
    let mut all = PipelineDiff {
        a: a.label.clone(),
        b: b.label.clone(),
        only_in_a: in_a.difference(&in_b).cloned().collect(),
        only_in_b: in_b.difference(&in_a).cloned().collect(),
        ..PipelineDiff::default()
    };
    for name in in_a.intersection(&in_b) {
        let (old, new) = (&a.stages[name], &b.stages[name]);
        let changes = match (&old.identity, &new.identity) {
            (Some(old), Some(new)) => new.changes_from(old),
            _ => {
                all.unknown.push(name.clone());
                param_changes(old, new)
            }
        };
        for change in changes {
            sort_in(&mut all, name, change, (a, old), (b, new));
        }
        if let (Some(old), Some(new)) = (&old.entry, &new.entry) {
            figures(&mut all.figures, name, old, new);
            environment(&mut all.environment, old, new);
            samples(&mut all.samples, name, (a, old), (b, new));
        }
    }
    all.environment.sort();
    all.environment.dedup();
    all
}

/// Params alone, where inputs are not known.
fn param_changes(old: &StageFacts, new: &StageFacts) -> Vec<Change> {
    let bare = |known: &StageFacts| Identity {
        kind: String::new(),
        version: 0,
        params: known.params.clone(),
        inputs: BTreeMap::new(),
        endings: BTreeMap::new(),
        outputs: BTreeMap::new(),
    };
    bare(new).changes_from(&bare(old))
}

fn sort_in(
    all: &mut PipelineDiff,
    stage: &str,
    change: Change,
    (a, old): (&PipelineState, &StageFacts),
    (b, new): (&PipelineState, &StageFacts),
) {
    match change {
        Change::Kind { old, new } => all.code.push((stage.to_owned(), old, new)),
        Change::Input { ref port, old: Some(_), new: Some(_), .. } => {
            let digest = |known: &StageFacts| known.identity.as_ref()?.input(port);
            let (Some(before), Some(now)) = (digest(old), digest(new)) else {
                // The same artifacts, in another order.
                all.data.push(DataChange {
                    stage: stage.to_owned(),
                    port: port.to_string(),
                    rows: None,
                });
                return;
            };
            if let Some(change) = votes(a, &before, b, &now) {
                all.votes.push((stage.to_owned(), change));
            } else if !(a.files.contains_key(&before) || b.files.contains_key(&now))
                && (is_made(a, &before) || is_made(b, &now))
            {
                // What other stages made differs because they do.
            } else {
                let rows = a.files.get(&before).zip(b.files.get(&now));
                let rows = rows.and_then(|(before, now)| rows::compare(before, now));
                let (stage, port) = (stage.to_owned(), port.to_string());
                all.data.push(DataChange { stage, port, rows });
            }
        }
        change => all.params.push(ParamChange { stage: stage.to_owned(), change }),
    }
}

/// Some stage of the side made it.
fn is_made(side: &PipelineState, digest: &Digest) -> bool {
    let entries = side.stages.values().filter_map(|known| known.entry.as_ref());
    entries.flat_map(|e| e.outputs.values()).any(|output| output.digest == *digest)
}

fn votes(
    a: &PipelineState,
    before: &Digest,
    b: &PipelineState,
    now: &Digest,
) -> Option<VoteChange> {
    let before = Effective::parse(&a.content(before)?).ok()?;
    let now = Effective::parse(&b.content(now)?).ok()?;
    Some(now.change_from(&before))
}

fn figures(all: &mut Vec<FigureChange>, stage: &str, old: &CachedEntry, new: &CachedEntry) {
    let (old, new) = (&old.made.summary, &new.made.summary);
    let bound = |name: &str| name.ends_with("_low") || name.ends_with("_high");
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).filter(|n| !bound(n)).collect();
    for name in names {
        let with_interval = |all: &BTreeMap<String, Option<f64>>| {
            ["", "_low", "_high"].map(|end| all.get(&format!("{name}{end}")).copied().flatten())
        };
        let (a, b) = (with_interval(old), with_interval(new));
        if a != b {
            all.push(FigureChange { stage: stage.to_owned(), name: name.clone(), a, b });
        }
    }
}

fn environment(all: &mut Vec<(String, String, String)>, old: &CachedEntry, new: &CachedEntry) {
    let (a, b) = (&old.made, &new.made);
    let threads = [a.threads.to_string(), b.threads.to_string()];
    let pairs = [
        ("preflow", &a.version, &b.version),
        ("commit", &a.commit, &b.commit),
        ("worker", &a.worker, &b.worker),
        ("backend", &a.backend, &b.backend),
        ("device", &a.device, &b.device),
        ("cpu", &a.cpu, &b.cpu),
        ("threads", &threads[0], &threads[1]),
    ];
    // Stages that were reused on both sides were made at one place.
    if old.fingerprint != new.fingerprint {
        let differing = pairs.into_iter().filter(|(_, a, b)| a != b);
        all.extend(differing.map(|(what, a, b)| (what.to_owned(), a.clone(), b.clone())));
    }
}

/// Answers to the same prompts that are not the same.
fn samples(
    all: &mut Vec<SamplePair>,
    stage: &str,
    a: (&PipelineState, &CachedEntry),
    b: (&PipelineState, &CachedEntry),
) {
    type Asked = (String, String);
    let read = |(side, entry): (&PipelineState, &CachedEntry)| -> Vec<(Asked, f64, String)> {
        let mut rows = Vec::new();
        for output in entry.outputs.values() {
            let path = side.store.object_path(&output.digest);
            let _ = each_batch(&path, 5000, |batch| {
                if !batch.has("response") || !batch.has("prompt") || !batch.has("step") {
                    return;
                }
                let (prompts, sources) = (batch.texts("prompt"), batch.texts("source"));
                let steps = batch.numbers("step");
                for (i, response) in batch.texts("response").into_iter().enumerate() {
                    let asked = (sources[i].clone(), prompts[i].clone());
                    rows.push((asked, steps[i].unwrap_or(0.0), response));
                }
            });
        }
        // The last step of each: what it learned in the end.
        rows.sort_by(|x, y| x.0.cmp(&y.0).then(y.1.total_cmp(&x.1)));
        rows.dedup_by(|x, y| x.0 == y.0);
        rows
    };
    if a.1.fingerprint == b.1.fingerprint {
        return;
    }
    let (old, new) = (read(a), read(b));
    let mut found = 0;
    for ((source, prompt), _, response) in &old {
        let other = new.iter().find(|(asked, ..)| asked.0 == *source && asked.1 == *prompt);
        if let Some((.., now)) = other.filter(|(.., now)| now != response) {
            all.push(SamplePair {
                stage: stage.to_owned(),
                source: source.clone(),
                prompt: prompt.clone(),
                a: response.clone(),
                b: now.clone(),
            });
            found += 1;
        }
        if found == SAMPLES {
            return;
        }
    }
}
