//! How long a stage will take: by what it took last, or what the stages most like it took.
//! Says nothing where the store knows of none; knows nothing of what params mean.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::graph::{Graph, GraphStage};
use crate::store::heads::Heads;
use crate::store::{Entry, Store};

/// Entries that are read in search of stages that are alike, and those kept of one kind.
const READ: usize = 2000;
const KEPT: usize = 32;

/// A time to expect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub seconds: f64,
    /// It is what this very stage took last; else what others like it took.
    pub own: bool,
}

/// Answers for the stages of one graph; reads entries only when asked for what never ran.
pub struct Estimator<'a> {
    graph: &'a Graph,
    store: &'a Store,
    heads: &'a Heads,
    /// Kind and version → stages of any pipeline here that were made last.
    others: OnceCell<HashMap<(String, u32), Vec<Other>>>,
}

/// A stage that was made.
#[derive(Debug)]
struct Other {
    name: String,
    params: Map<String, Value>,
    seconds: f64,
}

impl<'a> Estimator<'a> {
    /// `heads`: what each stage of the graph's pipeline used last.
    #[must_use]
    pub fn new(graph: &'a Graph, store: &'a Store, heads: &'a Heads) -> Self {
        Self { graph, store, heads, others: OnceCell::new() }
    }

    /// What making this stage will take.
    #[must_use]
    pub fn of(&self, stage: usize) -> Option<Estimate> {
        let node = &self.graph.stages[stage];
        let last = self.heads.stages.get(&node.name);
        let last = last.and_then(|fingerprint| self.store.cached_entry(fingerprint).ok().flatten());
        match last {
            Some(entry) => Some(Estimate { seconds: entry.made.seconds, own: true }),
            None => self.alike(node).map(|seconds| Estimate { seconds, own: false }),
        }
    }

    /// The mean over the stages of its kind whose params differ least, those of its name first.
    fn alike(&self, node: &GraphStage) -> Option<f64> {
        let all = self.others.get_or_init(|| self.others());
        let params = node.portable_params();
        let of_kind = all.get(&(node.kind.clone(), node.version))?.iter();
        let near = of_kind.filter_map(|other| {
            let (differ, leaves) = distance(&params, &other.params);
            // Two commands may have their kind in common, and nothing else.
            let named = other.name == node.word;
            (named || differ * 2 <= leaves).then_some(((differ, !named), other.seconds))
        });
        let near: Vec<((usize, bool), f64)> = near.collect();
        let least = near.iter().map(|(key, _)| *key).min()?;
        let times: Vec<f64> = near.iter().filter(|(k, _)| *k == least).map(|(_, s)| *s).collect();
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        Some(times.iter().sum::<f64>() / times.len() as f64)
    }

    fn others(&self) -> HashMap<(String, u32), Vec<Other>> {
        let mut all: HashMap<(String, u32), Vec<Other>> = HashMap::new();
        let pipelines = self.store.all_heads().unwrap_or_default();
        let stages = pipelines.iter().flat_map(|heads| &heads.stages);
        for (name, fingerprint) in stages.take(READ) {
            let Ok(Some(Entry { identity, made, .. })) = self.store.entry(fingerprint) else {
                continue;
            };
            let of_kind = all.entry((identity.kind, identity.version)).or_default();
            if of_kind.len() < KEPT {
                // Stages of a sweep are named after their trial.
                let name = name.split('@').next().unwrap_or(name).to_owned();
                of_kind.push(Other { name, params: identity.params, seconds: made.seconds });
            }
        }
        all
    }
}

/// How many values differ, and how many there are in either.
fn distance(a: &Map<String, Value>, b: &Map<String, Value>) -> (usize, usize) {
    let (mut differ, mut leaves) = (0, 0);
    for (key, value) in a {
        match (value, b.get(key)) {
            (Value::Object(a), Some(Value::Object(b))) => {
                let (inner, of) = distance(a, b);
                differ += inner;
                leaves += of;
            }
            (value, other) => {
                differ += usize::from(other != Some(value));
                leaves += 1;
            }
        }
    }
    let further = b.keys().filter(|key| !a.contains_key(*key)).count();
    (differ + further, leaves + further)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_distance_counts_values_at_any_depth() {
        let map = |value: Value| value.as_object().expect("an object").clone();
        let a = map(json!({"x": 1, "t": {"lr": 0.1, "steps": 5}, "s": [1, 2]}));
        let b = map(json!({"x": 1, "t": {"lr": 0.2, "steps": 5}, "s": [1, 3], "y": null}));
        assert_eq!(distance(&a, &a), (0, 4));
        assert_eq!(distance(&a, &b), (3, 5));
        assert_eq!(distance(&b, &a), (3, 5));
    }
}
