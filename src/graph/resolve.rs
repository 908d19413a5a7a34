//! Pipeline × catalog to graph: kinds, params, references, port types.
//! Does not look at files; collects every problem it can find.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{
    Diagnostics, Graph, GraphInput, GraphOutput, GraphSource, GraphStage, Producer, order,
};
use crate::catalog::{Catalog, FILE, Kind, execution};
use crate::diagnostic::{self, Diagnostic, Span, did_you_mean};
use crate::pipeline::{self, Key, Node, NodeValue, Pipeline, Source, Stage, check_name};
use crate::protocol::Execution;

/// What a reference can name, and what is behind it.
pub struct Names<'a> {
    pub sources: HashMap<&'a str, usize>,
    pub stages: HashMap<&'a str, usize>,
}

/// A stage while it is put together, in file order.
pub struct Draft<'a> {
    pub stage: &'a Stage,
    /// `None` when the kind is unknown.
    kind: Option<&'a Kind>,
    connections: Vec<Connection<'a>>,
    params: Map<String, Value>,
    pub outputs: Vec<GraphOutput>,
    execution: Execution,
    /// Its own fields are sound; otherwise what follows from them is not complained about.
    sound: bool,
}

/// One input port and the references written there.
struct Connection<'a> {
    port: String,
    accepts: &'a [String],
    many: bool,
    references: Vec<(&'a str, &'a Span)>,
}

pub fn resolve(pipeline: &Pipeline, catalog: &Catalog) -> Result<Graph, Diagnostics> {
    let mut problems = Vec::new();
    let names = names(pipeline, &mut problems);
    let sources: Vec<GraphSource> =
        pipeline.sources.iter().map(|s| source(s, catalog, &mut problems)).collect();
    let drafts: Vec<Draft> =
        pipeline.stages.iter().map(|s| draft(s, catalog, &mut problems)).collect();
    let mut edges = Vec::with_capacity(drafts.len());
    for i in 0..drafts.len() {
        edges.push(connect(i, &drafts, &sources, &names, &mut problems));
    }
    let upstream: Vec<Vec<usize>> = edges.iter().map(|inputs| upstream(inputs)).collect();
    problems.extend(order::cycles(&drafts, &upstream));
    if !problems.is_empty() {
        diagnostic::sort(&mut problems);
        return Err(problems);
    }
    let order = order::topological(&upstream);
    Ok(Graph {
        name: pipeline.name.clone(),
        path: pipeline.path.clone(),
        sources,
        stages: assemble(drafts, edges, &order),
    })
}

fn upstream(inputs: &[GraphInput]) -> Vec<usize> {
    let from = inputs.iter().flat_map(|i| &i.from);
    from.filter_map(|p| match p {
        Producer::Output { stage, .. } => Some(*stage),
        Producer::Source(_) => None,
    })
    .collect()
}

fn names<'a>(pipeline: &'a Pipeline, problems: &mut Diagnostics) -> Names<'a> {
    let sources: HashMap<&str, usize> =
        pipeline.sources.iter().enumerate().map(|(i, s)| (s.name.name.as_str(), i)).collect();
    let mut stages = HashMap::with_capacity(pipeline.stages.len());
    for (i, stage) in pipeline.stages.iter().enumerate() {
        let name = stage.name.name.as_str();
        if let Some(source) = sources.get(name) {
            let (line, _) = pipeline.sources[*source].name.span.line_column();
            problems.push(
                Diagnostic::new(
                    format!("`{name}` names both a source and a stage"),
                    Some(stage.name.span.clone()),
                )
                .label(format!("the source is on line {line}"))
                .help("rename one: a reference could mean either"),
            );
        }
        stages.insert(name, i);
    }
    Names { sources, stages }
}

fn source(source: &Source, catalog: &Catalog, problems: &mut Diagnostics) -> GraphSource {
    let port_type = match &source.port_type {
        None => FILE.to_owned(),
        Some(word) => {
            let types = catalog.port_types();
            let full = types.get(word.text.as_str()).copied().or_else(|| {
                types
                    .iter()
                    .copied()
                    .find(|t| t.split_once('/').is_some_and(|(_, s)| s == word.text))
            });
            if full.is_none() {
                let short = types.iter().map(|t| t.split_once('/').map_or(*t, |(_, s)| s));
                let short: Vec<&str> = short.collect();
                problems.push(
                    Diagnostic::new(
                        format!("unknown type `{}`", word.text.escape_debug()),
                        Some(word.span.clone()),
                    )
                    .label("no stage kind takes it")
                    .help(pipeline::suggest(&word.text, &short, "types")),
                );
            }
            full.unwrap_or_default().to_owned()
        }
    };
    let folder = Path::new(&source.path.span.source.name).parent().unwrap_or(Path::new(""));
    GraphSource {
        name: source.name.name.clone(),
        path: folder.join(&source.path.text).to_string_lossy().into_owned(),
        port_type,
        span: source.name.span.clone(),
    }
}

fn draft<'a>(stage: &'a Stage, catalog: &'a Catalog, problems: &mut Diagnostics) -> Draft<'a> {
    let before = problems.len();
    let Some(kind) = catalog.kind(&stage.kind.text) else {
        problems.push(unknown_kind(stage, catalog));
        return Draft {
            stage,
            kind: None,
            connections: Vec::new(),
            params: Map::new(),
            outputs: Vec::new(),
            execution: Execution::default(),
            sound: false,
        };
    };
    let owner = format!("stage `{}`", stage.name.name);
    let mut connections = Vec::with_capacity(kind.doc.inputs.len());
    let mut fields: Vec<(&Key, &Node)> = Vec::with_capacity(stage.fields.len());
    let mut open_outputs = None;
    for (key, node) in &stage.fields {
        let open = kind.doc.open_ports.as_ref();
        if kind.doc.inputs.iter().any(|i| i.name == key.name) {
            // taken below, in the order of the kind
        } else if open.is_some_and(|o| o.inputs == key.name) {
            connections.extend(open_inputs(node, problems));
        } else if open.is_some_and(|o| o.outputs == key.name) {
            open_outputs = Some(node);
        } else {
            fields.push((key, node));
        }
    }
    let mut meant = Vec::new();
    let params = kind.params(&fields, &owner, &stage.name.span).unwrap_or_else(|found| {
        problems.extend(found.into_iter().map(|p| suggest_port(p, kind, &mut meant)));
        Map::new()
    });
    for port in &kind.doc.inputs {
        let given = stage.fields.iter().find(|(key, _)| key.name == port.name);
        match given {
            Some((_, node)) => connections.push(Connection {
                port: port.name.clone(),
                accepts: &port.accepts,
                many: port.many,
                references: references(node, &port.name, port.many, problems),
            }),
            None if port.optional || meant.contains(&port.name.as_str()) => {}
            None => problems.push(
                Diagnostic::new(
                    format!("{owner} needs input `{}`", port.name),
                    Some(stage.name.span.clone()),
                )
                .help(format!(
                    "{}: {} ({})",
                    port.name,
                    port.doc,
                    port.accepts.join(" or ")
                )),
            ),
        }
    }
    let outputs = outputs(stage, kind, &params, open_outputs, problems);
    let execution = match &stage.run {
        Some(node) => execution::read(node, &owner).unwrap_or_else(|found| {
            problems.extend(found);
            Execution::default()
        }),
        None => Execution::default(),
    };
    let sound = problems.len() == before;
    Draft { stage, kind: Some(kind), connections, params, outputs, execution, sound }
}

fn unknown_kind(stage: &Stage, catalog: &Catalog) -> Diagnostic {
    let text = &stage.kind.text;
    let problem = Diagnostic::new(
        format!("unknown kind `{}` in stage `{}`", text.escape_debug(), stage.name.name),
        Some(stage.kind.span.clone()),
    )
    .help("`preflow kinds` lists them");
    match did_you_mean(text, catalog.kinds().map(|k| k.doc.name.as_str())) {
        Some(near) => problem.label(format!("did you mean `{near}`?")),
        None => problem,
    }
}

/// Ports and params share one namespace, so a mistyped port looks like an unknown field. Notes in
/// `meant` what is then not missing.
fn suggest_port<'a>(problem: Diagnostic, kind: &'a Kind, meant: &mut Vec<&'a str>) -> Diagnostic {
    let typed = problem
        .message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'))
        .filter(|(_, rest)| rest.starts_with(" in stage "))
        .map(|(name, _)| name.to_owned());
    let Some(typed) = typed else { return problem };
    let open = kind.doc.open_ports.iter().flat_map(|o| [o.inputs.as_str(), o.outputs.as_str()]);
    let ports = kind.doc.inputs.iter().map(|i| i.name.as_str());
    let all = kind.param_names().chain(ports).chain(open).chain(["kind", "run"]);
    let Some(near) = did_you_mean(&typed, all) else { return problem };
    meant.push(near);
    problem.label(format!("did you mean `{near}`?"))
}

const ANY: &[String] = &[];

/// `inputs: {name: reference}` of a kind whose ports the file names. A list connects several.
fn open_inputs<'a>(node: &'a Node, problems: &mut Diagnostics) -> Vec<Connection<'a>> {
    let Some(entries) = node.as_map() else {
        problems.push(
            Diagnostic::new("`inputs` maps port names to references", Some(node.span.clone()))
                .label(format!("found {}", node.describe())),
        );
        return Vec::new();
    };
    let mut connections: Vec<Connection> = entries
        .iter()
        .map(|(key, value)| {
            check_name(&key.name, "port", &key.span, problems);
            let many = matches!(value.value, NodeValue::List(_));
            Connection {
                port: key.name.clone(),
                accepts: ANY,
                many,
                references: references(value, &key.name, many, problems),
            }
        })
        .collect();
    connections.sort_by(|a, b| a.port.cmp(&b.port));
    connections
}

/// The references at one port: a name, or a list of names where the port takes several.
fn references<'a>(
    node: &'a Node,
    port: &str,
    many: bool,
    problems: &mut Diagnostics,
) -> Vec<(&'a str, &'a Span)> {
    let wrong = |node: &Node| {
        let wanted = if many { "a name or a list of names" } else { "one name" };
        Diagnostic::new(format!("input `{port}` takes {wanted}"), Some(node.span.clone()))
            .label(format!("found {}", node.describe()))
            .help("the name of a source, a stage, or `stage.port`")
    };
    match &node.value {
        NodeValue::String(text) => vec![(text.as_str(), &node.span)],
        NodeValue::List(items) if many => {
            if items.is_empty() {
                problems.push(wrong(node).label("the list is empty"));
            }
            let mut found: Vec<(&str, &Span)> = Vec::with_capacity(items.len());
            for item in items {
                match item.as_str() {
                    Some(text) if found.iter().any(|(t, _)| *t == text) => {
                        problems.push(Diagnostic::new(
                            format!("input `{port}` names `{text}` twice"),
                            Some(item.span.clone()),
                        ))
                    }
                    Some(text) => found.push((text, &item.span)),
                    None => problems.push(wrong(item)),
                }
            }
            found
        }
        _ => {
            problems.push(wrong(node));
            Vec::new()
        }
    }
}

fn outputs(
    stage: &Stage,
    kind: &Kind,
    params: &Map<String, Value>,
    open: Option<&Node>,
    problems: &mut Diagnostics,
) -> Vec<GraphOutput> {
    let fixed = kind.doc.outputs.iter().map(|output| GraphOutput {
        name: output.name.clone(),
        port_type: filled(&output.port_type, params),
        extension: output.extension.clone(),
    });
    let mut outputs: Vec<GraphOutput> = fixed.collect();
    let entries = open.map(|node| (node, node.as_map()));
    match entries {
        Some((_, Some(entries))) => {
            for (key, value) in entries {
                check_name(&key.name, "port", &key.span, problems);
                match value.as_str().filter(|t| is_type(t)) {
                    Some(port_type) => outputs.push(GraphOutput {
                        name: key.name.clone(),
                        port_type: port_type.to_owned(),
                        extension: extension(port_type).to_owned(),
                    }),
                    None => problems.push(
                        Diagnostic::new(
                            format!("output `{}` needs a type", key.name),
                            Some(value.span.clone()),
                        )
                        .help("a type such as `dataset/metrics`, `model/policy` or `file`"),
                    ),
                }
            }
        }
        Some((node, None)) => problems.push(
            Diagnostic::new("`outputs` maps port names to types", Some(node.span.clone()))
                .label(format!("found {}", node.describe())),
        ),
        None => {}
    }
    if outputs.is_empty() && entries.is_none_or(|(_, e)| e.is_some_and(<[_]>::is_empty)) {
        problems.push(
            Diagnostic::new(
                format!("stage `{}` has no output", stage.name.name),
                Some(stage.name.span.clone()),
            )
            .help("outputs: { NAME: TYPE }"),
        );
    }
    outputs
}

fn is_type(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() <= 2 && parts.iter().all(|p| !p.is_empty() && p.chars().all(plain))
}

/// File ending of a port whose type the file names: tables are Parquet, folders have none.
fn extension(port_type: &str) -> &'static str {
    if port_type.starts_with("dataset/") { "parquet" } else { "" }
}

/// `dataset/{as}` with the params of the stage.
fn filled(template: &str, params: &Map<String, Value>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(b, r)| r.split_once('}').map(|r| (b, r)))
    {
        out.push_str(before);
        out.push_str(params.get(name).and_then(Value::as_str).unwrap_or_default());
        rest = after;
    }
    out + rest
}

/// Follows the references of one stage.
fn connect(
    index: usize,
    drafts: &[Draft],
    sources: &[GraphSource],
    names: &Names,
    problems: &mut Diagnostics,
) -> Vec<GraphInput> {
    let draft = &drafts[index];
    let mut inputs = Vec::with_capacity(draft.connections.len());
    for connection in &draft.connections {
        let mut from = Vec::with_capacity(connection.references.len());
        for (reference, span) in &connection.references {
            let found = follow(reference, span, drafts, names);
            let producer = match found {
                Ok(Some(producer)) => producer,
                Ok(None) => continue,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            if let Producer::Output { stage, .. } = producer
                && stage == index
            {
                problems.push(Diagnostic::new(
                    format!("stage `{}` reads itself", draft.stage.name.name),
                    Some((*span).clone()),
                ));
                continue;
            }
            let port_type = match producer {
                Producer::Source(i) => &sources[i].port_type,
                Producer::Output { stage, port } => &drafts[stage].outputs[port].port_type,
            };
            let sound = !port_type.is_empty() && producer_sound(producer, drafts);
            if sound && !accepted(connection.accepts, port_type) {
                problems.push(wrong_type(
                    draft, connection, reference, span, port_type, producer, drafts,
                ));
                continue;
            }
            from.push(producer);
        }
        inputs.push(GraphInput { port: connection.port.clone(), many: connection.many, from });
    }
    inputs
}

fn producer_sound(producer: Producer, drafts: &[Draft]) -> bool {
    match producer {
        Producer::Source(_) => true,
        Producer::Output { stage, .. } => drafts[stage].sound,
    }
}

fn accepted(accepts: &[String], port_type: &str) -> bool {
    accepts.is_empty() || accepts.iter().any(|a| a == "*" || a == port_type)
}

/// `Ok(None)`: it exists, but is itself too broken to say what it makes.
fn follow(
    reference: &str,
    span: &Span,
    drafts: &[Draft],
    names: &Names,
) -> Result<Option<Producer>, Diagnostic> {
    let (name, port) = match reference.split_once('.') {
        Some((name, port)) => (name, Some(port)),
        None => (reference, None),
    };
    if let (Some(source), None) = (names.sources.get(name), port) {
        return Ok(Some(Producer::Source(*source)));
    }
    let Some(&stage) = names.stages.get(name) else {
        let shown = reference.escape_debug();
        let problem = Diagnostic::new(format!("unknown reference `{shown}`"), Some(span.clone()));
        let all = names.sources.keys().chain(names.stages.keys()).copied();
        return Err(match did_you_mean(name, sorted(all)) {
            Some(near) if names.sources.contains_key(name) => {
                problem.label(format!("`{near}` is a source: it has no ports"))
            }
            Some(near) => problem.label(format!("did you mean `{near}`?")),
            None => problem.label("no source and no stage has this name"),
        });
    };
    let outputs = &drafts[stage].outputs;
    let Some(port) = port else {
        return Ok((!outputs.is_empty()).then_some(Producer::Output { stage, port: 0 }));
    };
    if let Some(port) = outputs.iter().position(|o| o.name == port) {
        return Ok(Some(Producer::Output { stage, port }));
    }
    if drafts[stage].kind.is_none() || !drafts[stage].sound {
        return Ok(None);
    }
    let ports: Vec<&str> = outputs.iter().map(|o| o.name.as_str()).collect();
    let message = format!("stage `{name}` has no output `{}`", port.escape_debug());
    Err(Diagnostic::new(message, Some(span.clone()))
        .help(pipeline::suggest(port, &ports, "outputs")))
}

/// Names in a fixed order, so that a suggestion does not depend on hashing.
fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
}

fn wrong_type(
    draft: &Draft,
    connection: &Connection,
    reference: &str,
    span: &Span,
    port_type: &str,
    producer: Producer,
    drafts: &[Draft],
) -> Diagnostic {
    let stage = &draft.stage.name.name;
    let problem = Diagnostic::new(
        format!("`{reference}` does not fit input `{}` of stage `{stage}`", connection.port),
        Some(span.clone()),
    )
    .label(format!("is {port_type}, takes {}", connection.accepts.join(" or ")));
    if let Producer::Output { stage, .. } = producer {
        let fits =
            drafts[stage].outputs.iter().find(|o| accepted(connection.accepts, &o.port_type));
        if let Some(output) = fits {
            let name = &drafts[stage].stage.name.name;
            return problem.help(format!("`{name}.{}` fits", output.name));
        }
    }
    let inputs = draft.kind.into_iter().flat_map(|k| &k.doc.inputs);
    let ports: Vec<String> = inputs
        .filter(|i| accepted(&i.accepts, port_type))
        .map(|i| format!("`{}`", i.name))
        .collect();
    if ports.is_empty() {
        problem
    } else {
        problem.help(format!("of this stage, {} takes {port_type}", ports.join(" and ")))
    }
}

fn assemble(drafts: Vec<Draft>, edges: Vec<Vec<GraphInput>>, order: &[usize]) -> Vec<GraphStage> {
    let mut position = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        position[*old] = new;
    }
    let mut stages: Vec<Option<GraphStage>> = drafts
        .into_iter()
        .zip(edges)
        .map(|(draft, inputs)| stage(draft, inputs, &position))
        .collect();
    order.iter().filter_map(|old| stages[*old].take()).collect()
}

fn stage(draft: Draft, mut inputs: Vec<GraphInput>, position: &[usize]) -> Option<GraphStage> {
    let kind = &draft.kind?.doc;
    for producer in inputs.iter_mut().flat_map(|i| &mut i.from) {
        if let Producer::Output { stage, .. } = producer {
            *stage = position[*stage];
        }
    }
    Some(GraphStage {
        name: draft.stage.name.name.clone(),
        kind: kind.name.clone(),
        version: kind.version,
        params: draft.params,
        inputs,
        outputs: draft.outputs,
        execution: draft.execution,
        kind_threads: kind.threads,
        program: kind.program.as_ref().map(|p| p.command.clone()),
        span: draft.stage.name.span.clone(),
    })
}
