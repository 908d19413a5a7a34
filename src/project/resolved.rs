//! A pipeline as it will run: every default filled in, every value with its origin.
//! Does not know which stages have run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::graph::{Condition, Graph, GraphStage, Producer};
use crate::pipeline::{Key, Node, NodeValue, Pipeline, Stage, place};

/// A line of YAML and what is said behind it.
struct Line {
    text: String,
    origin: String,
}

/// YAML that means the same as the file, with origins as comments.
#[must_use]
pub fn as_yaml(pipeline: &Pipeline, graph: &Graph) -> String {
    let mut lines = vec![line(0, "preflow", "1", ""), line(0, "name", &pipeline.name, "")];
    if !pipeline.params.is_empty() {
        lines.push(line(0, "params", "", ""));
    }
    for param in &pipeline.params {
        let value = flow(&plain(&param.value));
        lines.push(line(1, &param.name.name, &value, &param.origin.to_string()));
    }
    if !pipeline.sources.is_empty() {
        lines.push(line(0, "sources", "", ""));
    }
    for (source, resolved) in pipeline.sources.iter().zip(&graph.sources) {
        lines.push(line(1, &source.name.name, "", ""));
        for (key, text) in source.place.fields() {
            let value = flow(&Value::String(text.text.clone()));
            lines.push(line(2, key, &value, &place(&text.span)));
        }
        let span = source.port_type.as_ref().map_or("default".to_owned(), |t| place(&t.span));
        lines.push(line(2, "as", &resolved.port_type, &span));
    }
    let end = if graph.stages.is_empty() { "{}" } else { "" };
    lines.push(line(0, "stages", end, ""));
    for stage in &pipeline.stages {
        if let Some(index) = graph.find(&stage.name.name) {
            stage_lines(stage, &graph.stages[index], &mut lines);
        }
    }
    aligned(&lines)
}

fn line(depth: usize, key: &str, value: &str, origin: &str) -> Line {
    let gap = if value.is_empty() { "" } else { " " };
    Line { text: format!("{}{key}:{gap}{value}", "  ".repeat(depth)), origin: origin.to_owned() }
}

fn stage_lines(stage: &Stage, resolved: &GraphStage, lines: &mut Vec<Line>) {
    lines.push(line(1, &stage.name.name, "", &place(&stage.name.span)));
    let version = format!("version {}", resolved.version);
    lines.push(line(2, "kind", &resolved.kind, &version));
    for (key, node) in &stage.fields {
        if !resolved.params.contains_key(&key.name) {
            lines.push(line(2, &key.name, &flow(&plain(node)), &origin(node)));
        }
    }
    let fields: Vec<(&Key, &Node)> = stage.fields.iter().map(|(k, n)| (k, n)).collect();
    param_lines(&resolved.params, &fields, 2, lines);
    if !resolved.gate.is_empty() {
        let at =
            stage.gate.as_ref().map(|g| format!("{}, not part of the identity", place(&g.span)));
        lines.push(line(2, "gate", "", &at.unwrap_or_default()));
        for (figure, conditions) in conditions(&resolved.gate) {
            lines.push(line(3, &scalar(figure), &flow(&conditions), ""));
        }
    }
    if let Some(run) = &stage.run {
        let run_fields: Vec<(&Key, &Node)> =
            run.as_map().unwrap_or_default().iter().map(|(k, n)| (k, n)).collect();
        let given = serde_json::to_value(&resolved.execution).unwrap_or_default();
        let given: Map<String, Value> = given
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| run_fields.iter().any(|(key, _)| key.name == **name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !given.is_empty() {
            lines.push(line(2, "run", "", "not part of the identity"));
            param_lines(&given, &run_fields, 3, lines);
        }
    }
}

/// Conditions by figure, as a pipeline file writes them.
fn conditions(gate: &[Condition]) -> BTreeMap<&str, Value> {
    let mut all: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for condition in gate {
        all.entry(&condition.figure).or_default().push(Value::String(condition.test()));
    }
    all.into_iter().map(|(figure, texts)| (figure, Value::Array(texts))).collect()
}

fn param_lines(
    params: &Map<String, Value>,
    fields: &[(&Key, &Node)],
    depth: usize,
    lines: &mut Vec<Line>,
) {
    for (name, value) in params {
        let node = fields.iter().find(|(key, _)| key.name == *name).map(|(_, node)| *node);
        let said = node.map_or("default".to_owned(), origin);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                lines.push(line(
                    depth,
                    name,
                    "",
                    node.map_or("", |n| if n.via.is_some() { &said } else { "" }),
                ));
                let inner_fields: Vec<(&Key, &Node)> = node
                    .and_then(Node::as_map)
                    .unwrap_or_default()
                    .iter()
                    .map(|(k, n)| (k, n))
                    .collect();
                param_lines(inner, &inner_fields, depth + 1, lines);
            }
            _ => lines.push(line(depth, name, &flow(value), &said)),
        }
    }
}

/// `file:line`, or the param and who set it.
fn origin(node: &Node) -> String {
    match &node.via {
        Some(via) => format!("${}: {}", via.param, via.origin),
        None => place(&node.span),
    }
}

/// JSON is YAML; words that need no quotes go without. A `$` is doubled, so that it stays one.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(&text.replace('$', "$$")),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let entries = map.iter().map(|(k, v)| format!("{}: {}", scalar(k), flow(v)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn scalar(text: &str) -> String {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if word { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

fn plain(node: &Node) -> Value {
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(b) => Value::Bool(*b),
        NodeValue::Int(i) => i64::try_from(*i).map_or_else(|_| Value::from(*i as f64), Value::from),
        NodeValue::Float(f) => Value::from(*f),
        NodeValue::String(s) => Value::String(s.clone()),
        NodeValue::List(items) => Value::Array(items.iter().map(plain).collect()),
        NodeValue::Map(entries) => {
            Value::Object(entries.iter().map(|(k, n)| (k.name.clone(), plain(n))).collect())
        }
    }
}

fn aligned(lines: &[Line]) -> String {
    const WIDEST: usize = 44;
    let widths = lines.iter().filter(|l| !l.origin.is_empty()).map(|l| l.text.chars().count());
    let width = widths.filter(|w| *w <= WIDEST).max().unwrap_or(0);
    let mut out = String::new();
    for line in lines {
        if line.origin.is_empty() {
            out.push_str(&line.text);
        } else {
            let origin = line.origin.replace(['\n', '\r'], " ");
            let _ = write!(out, "{:width$}  # {origin}", line.text);
        }
        out.push('\n');
    }
    out
}

/// The same for programs.
#[must_use]
pub fn as_json(pipeline: &Pipeline, graph: &Graph) -> String {
    let params: Vec<Value> = pipeline
        .params
        .iter()
        .map(|p| json!({ "name": p.name.name, "value": plain(&p.value), "origin": p.origin.to_string() }))
        .collect();
    let sources: Vec<Value> = graph
        .sources
        .iter()
        .map(|s| json!({ "name": s.name, "path": s.path, "type": s.port_type }))
        .collect();
    let stages: Vec<Value> = graph.stages.iter().map(|s| stage_json(s, graph)).collect();
    let all = json!({ "name": graph.name, "path": graph.path, "params": params,
                      "sources": sources, "stages": stages });
    format!("{all:#}\n")
}

fn stage_json(stage: &GraphStage, graph: &Graph) -> Value {
    let reference = |producer: &Producer| {
        let port = match producer {
            Producer::Source(_) => None,
            Producer::Output { stage, port } => Some(&graph.stages[*stage].outputs[*port].name),
        };
        json!({ "name": graph.producer_name(*producer), "port": port,
                "type": graph.producer_type(*producer) })
    };
    let inputs: Vec<Value> = stage
        .inputs
        .iter()
        .map(
            |i| json!({ "port": i.port, "from": i.from.iter().map(reference).collect::<Vec<_>>() }),
        )
        .collect();
    let outputs: Vec<Value> =
        stage.outputs.iter().map(|o| json!({ "port": o.name, "type": o.port_type })).collect();
    json!({ "name": stage.name, "kind": stage.kind, "version": stage.version,
            "params": stage.params, "inputs": inputs, "outputs": outputs, "run": stage.execution, "gate": conditions(&stage.gate) })
}
