//! Graphs of many trials as one: equal stages stand once, so that each runs once.
//! Two stages are equal when what decides their result is: kind, params, and what they read.

use std::collections::HashMap;

use super::Trial;
use super::trials::label;
use crate::graph::{Graph, GraphSource, GraphStage, Producer, SourceOrigin};

/// The stages of all trials in one graph.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Stages that several trials share are called by their name, others `STAGE@TRIAL`.
    pub graph: Graph,
    /// Trial → its stages in the merged graph, in the order of the pipeline's graph.
    pub stages: Vec<Vec<usize>>,
}

/// What makes two stages equal. Params are compared by their canonical text.
type Key = (String, u32, String, Vec<(String, bool, Vec<Producer>)>, String);

/// Merges the graphs of trials. `graphs` and `trials` go together.
#[must_use]
pub fn merge(name: &str, path: &str, trials: &[Trial], graphs: Vec<Graph>) -> Merged {
    let count = graphs.len();
    let mut sources: Vec<GraphSource> = Vec::new();
    let mut source_at: HashMap<(String, String, SourceOrigin, String), usize> = HashMap::new();
    let mut stages: Vec<(GraphStage, usize, usize)> = Vec::new();
    let mut stage_at: HashMap<Key, usize> = HashMap::new();
    let mut of_trial: Vec<Vec<usize>> = Vec::with_capacity(count);
    for (trial, graph) in graphs.into_iter().enumerate() {
        let source_map: Vec<usize> = graph
            .sources
            .into_iter()
            .map(|source| {
                let key = (
                    source.name.clone(),
                    source.path.clone(),
                    source.origin.clone(),
                    source.port_type.clone(),
                );
                *source_at.entry(key).or_insert_with(|| {
                    sources.push(source);
                    sources.len() - 1
                })
            })
            .collect();
        let mut map: Vec<usize> = Vec::with_capacity(graph.stages.len());
        for mut stage in graph.stages {
            for producer in stage.inputs.iter_mut().flat_map(|i| &mut i.from) {
                *producer = match *producer {
                    Producer::Source(i) => Producer::Source(source_map[i]),
                    Producer::Output { stage, port } => {
                        Producer::Output { stage: map[stage], port }
                    }
                };
            }
            let at = *stage_at.entry(key(&stage)).or_insert_with(|| {
                stages.push((stage, trial, 0));
                stages.len() - 1
            });
            stages[at].2 += 1;
            map.push(at);
        }
        of_trial.push(map);
    }
    let name_of = |stage: GraphStage, trial: usize, uses: usize| GraphStage {
        name: match uses {
            n if n == count => stage.word.clone(),
            _ => label(&stage.word, &trials[trial]),
        },
        ..stage
    };
    let stages = stages.into_iter().map(|(stage, trial, uses)| name_of(stage, trial, uses));
    let graph =
        Graph { name: name.to_owned(), path: path.to_owned(), sources, stages: stages.collect() };
    Merged { graph, stages: of_trial }
}

fn key(stage: &GraphStage) -> Key {
    let inputs = stage.inputs.iter().map(|i| (i.port.clone(), i.many, i.from.clone())).collect();
    let params = serde_json::to_string(&stage.params).expect("invariant: params are JSON");
    // The word counts where others list it; a gate decides what follows.
    let rest = format!("{} {:?} {:?}", stage.word, stage.outputs, stage.gate);
    (stage.kind.clone(), stage.version, params, inputs, rest)
}
