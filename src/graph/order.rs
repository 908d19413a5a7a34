//! Order of stages, and the cycles that leave none.
//! Knows indices and names only.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::stage_decl::StageDecl;
use crate::diagnostic::Diagnostic;

/// Upstream before downstream; among equals, file order. All indices when there is no cycle.
pub fn topological(upstream: &[Vec<usize>]) -> Vec<usize> {
    let mut waiting: Vec<usize> = upstream.iter().map(Vec::len).collect();
    let mut downstream = vec![Vec::new(); upstream.len()];
    for (stage, from) in upstream.iter().enumerate() {
        for &producer in from {
            downstream[producer].push(stage);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..upstream.len()).filter(|&i| waiting[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(upstream.len());
    while let Some(Reverse(stage)) = ready.pop() {
        order.push(stage);
        for &next in &downstream[stage] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    order
}

/// One problem for every knot of stages that wait for each other.
pub fn cycles(drafts: &[StageDecl], upstream: &[Vec<usize>]) -> Vec<Diagnostic> {
    let edges = upstream.iter().enumerate();
    let edges = edges.flat_map(|(to, from)| from.iter().map(move |&f| (f as u32, to as u32)));
    let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(drafts.len(), drafts.len());
    for _ in drafts {
        graph.add_node(());
    }
    graph.extend_with_edges(edges);
    kosaraju_scc(&graph)
        .into_iter()
        .filter(|knot| knot.len() > 1)
        .map(|knot| {
            let knot: HashSet<usize> = knot.into_iter().map(NodeIndex::index).collect();
            problem(drafts, &walk(&knot, upstream))
        })
        .collect()
}

/// A round trip inside a knot, in the direction of the data, from its first stage in the file.
fn walk(knot: &HashSet<usize>, upstream: &[Vec<usize>]) -> Vec<usize> {
    let start = *knot.iter().min().expect("invariant: a knot has stages");
    let mut path = vec![start];
    let mut seen = HashSet::from([start]);
    let mut current = start;
    loop {
        let inside = upstream[current].iter().filter(|u| knot.contains(u));
        let next = *inside.min().expect("invariant: every stage of a knot reads another one");
        if seen.insert(next) {
            path.push(next);
            current = next;
            continue;
        }
        let first = path.iter().position(|&s| s == next).expect("invariant: it was seen");
        let mut cycle = path.split_off(first);
        cycle.reverse();
        let least = cycle.iter().min().and_then(|m| cycle.iter().position(|s| s == m));
        cycle.rotate_left(least.unwrap_or(0));
        return cycle;
    }
}

fn problem(drafts: &[StageDecl], cycle: &[usize]) -> Diagnostic {
    const SHOWN: usize = 40;
    let name = |&i: &usize| drafts[i].stage.name.name.as_str();
    let mut names: Vec<&str> = cycle.iter().map(name).collect();
    let cut = format!("… {} more …", names.len().saturating_sub(SHOWN));
    if names.len() > SHOWN {
        names.splice(SHOWN - 1..names.len() - 1, [cut.as_str()]);
    }
    names.push(name(&cycle[0]));
    let first = drafts[cycle[0]].stage;
    Diagnostic::new(
        format!("stages wait for each other: {}", names.join(" → ")),
        Some(first.name.span.clone()),
    )
    .label("the cycle")
}
