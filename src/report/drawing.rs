//! A graph as text, for Graphviz, or as a Mermaid diagram.
//! Does not know which stages have run.

use crate::graph::{Graph, GraphInput, Producer};

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    Text,
    Dot,
    Mermaid,
}

/// The graph as text.
#[must_use]
pub fn draw(graph: &Graph, format: Drawing) -> String {
    match format {
        Drawing::Text => text(graph),
        Drawing::Dot => dot(graph),
        Drawing::Mermaid => mermaid(graph),
    }
}

fn text(graph: &Graph) -> String {
    let mut out = String::new();
    let width = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0);
    let names = graph.stages.iter().map(|s| s.name.chars().count());
    let names = width(&mut names.chain(graph.sources.iter().map(|s| s.name.chars().count())));
    let kinds = width(&mut graph.stages.iter().map(|s| s.kind.chars().count()));
    for source in &graph.sources {
        let (name, path) = (&source.name, source.shown_path());
        out.push_str(&format!("{name:names$}  {:kinds$}  {path} ({})\n", "·", source.port_type));
    }
    for stage in &graph.stages {
        let inputs = stage.inputs.iter().map(|input| {
            let from: Vec<String> = input.from.iter().map(|p| reference(graph, *p)).collect();
            if from.len() == 1 && from[0] == input.port {
                input.port.clone()
            } else {
                format!("{} ← {}", input.port, from.join(" + "))
            }
        });
        let inputs = inputs.collect::<Vec<_>>().join(", ");
        let line = format!("{:names$}  {:kinds$}  {inputs}", stage.name, stage.kind);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// As it is written in the file: the bare name for the primary output.
fn reference(graph: &Graph, producer: Producer) -> String {
    let name = graph.producer_name(producer);
    match producer {
        Producer::Output { stage, port } if port > 0 => {
            format!("{name}.{}", graph.stages[stage].outputs[port].name)
        }
        _ => name.to_owned(),
    }
}

fn edges(graph: &Graph) -> Vec<(String, String, &GraphInput)> {
    let mut edges = Vec::new();
    for (to, stage) in graph.stages.iter().enumerate() {
        for input in &stage.inputs {
            for from in &input.from {
                let from = match from {
                    Producer::Source(i) => format!("source{i}"),
                    Producer::Output { stage, .. } => format!("stage{stage}"),
                };
                edges.push((from, format!("stage{to}"), input));
            }
        }
    }
    edges
}

fn dot(graph: &Graph) -> String {
    let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n", graph.name);
    for (i, source) in graph.sources.iter().enumerate() {
        out.push_str(&format!("  source{i} [label=\"{}\", shape=note];\n", source.name));
    }
    for (i, stage) in graph.stages.iter().enumerate() {
        out.push_str(&format!("  stage{i} [label=\"{}\\n{}\"];\n", stage.name, stage.kind));
    }
    for (from, to, input) in edges(graph) {
        out.push_str(&format!("  {from} -> {to} [label=\"{}\"];\n", input.port));
    }
    out + "}\n"
}

fn mermaid(graph: &Graph) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for (i, source) in graph.sources.iter().enumerate() {
        out.push_str(&format!("  source{i}[/\"{}\"/]\n", source.name));
    }
    for (i, stage) in graph.stages.iter().enumerate() {
        out.push_str(&format!(
            "  stage{i}[\"{}<br/><small>{}</small>\"]\n",
            stage.name, stage.kind
        ));
    }
    for (from, to, input) in edges(graph) {
        out.push_str(&format!("  {from} -->|{}| {to}\n", input.port));
    }
    out
}
