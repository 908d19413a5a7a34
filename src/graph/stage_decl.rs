//! One stage by itself: its kind, its params, the references it writes, the outputs it makes.
//! Does not follow references: other stages are not known here.

use serde_json::{Map, Value};

use super::{Condition, Diagnostics, GraphOutput, gate};
use crate::catalog::{Catalog, Kind, Params, execution};
use crate::diagnostic::{Diagnostic, Span, did_you_mean, named};
use crate::pipeline::{Key, Node, NodeValue, Stage, check_name};
use crate::protocol::Execution;

/// A stage while it is put together, in file order.
pub struct StageDecl<'a> {
    pub stage: &'a Stage,
    /// `None` when the kind is unknown.
    pub kind: Option<&'a Kind>,
    pub connections: Vec<Connection<'a>>,
    pub params: Params,
    pub outputs: Vec<GraphOutput>,
    pub execution: Execution,
    pub gate: Vec<Condition>,
    /// Its own fields are sound; otherwise what follows from them is not complained about.
    pub sound: bool,
}

/// One input port and the references written there.
pub struct Connection<'a> {
    pub port: String,
    pub accepts: &'a [String],
    pub many: bool,
    pub references: Vec<(&'a str, &'a Span)>,
}

/// Reads the fields of one stage. What is wrong goes to `problems`; the rest is still there.
pub fn draft<'a>(
    stage: &'a Stage,
    catalog: &'a Catalog,
    problems: &mut Diagnostics,
) -> StageDecl<'a> {
    let before = problems.len();
    let Some(kind) = catalog.kind(&stage.kind.text) else {
        problems.push(unknown_kind(stage, catalog));
        return StageDecl {
            stage,
            kind: None,
            connections: Vec::new(),
            params: Params::default(),
            outputs: Vec::new(),
            execution: Execution::default(),
            gate: Vec::new(),
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
        Params::default()
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
    let outputs = outputs(stage, kind, &params.values, open_outputs, catalog, problems);
    let execution = match &stage.run {
        Some(node) => execution::read(node, &owner).unwrap_or_else(|found| {
            problems.extend(found);
            Execution::default()
        }),
        None => Execution::default(),
    };
    let gate = stage.gate.as_ref().map(|node| gate::read(node, &owner, problems));
    let gate = gate.unwrap_or_default();
    let sound = problems.len() == before;
    StageDecl { stage, kind: Some(kind), connections, params, outputs, execution, gate, sound }
}

fn unknown_kind(stage: &Stage, catalog: &Catalog) -> Diagnostic {
    let text = &stage.kind.text;
    let problem = Diagnostic::new(
        format!("unknown kind `{}` in stage `{}`", named(text), stage.name.name),
        Some(stage.kind.span.clone()),
    )
    .help(catalog.unasked().unwrap_or("`preflow kinds` lists them"));
    problem.near(did_you_mean(text, catalog.kinds().map(|k| k.doc.name.as_str())))
}

/// Ports and params share one namespace, so a mistyped port looks like an unknown field. Notes in
/// `meant` what is then not missing.
fn suggest_port<'a>(problem: Diagnostic, kind: &'a Kind, meant: &mut Vec<&'a str>) -> Diagnostic {
    let typed = problem.naming.as_ref().map(|naming| naming.unknown.clone());
    let Some(typed) = typed else { return problem };
    let open = kind.doc.open_ports.iter().flat_map(|o| [o.inputs.as_str(), o.outputs.as_str()]);
    let ports = kind.doc.inputs.iter().map(|i| i.name.as_str());
    let all = kind.param_names().chain(ports).chain(open).chain(["kind", "run", "gate"]);
    let Some(near) = did_you_mean(&typed, all) else { return problem };
    meant.push(near);
    problem.near(Some(near))
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
    catalog: &Catalog,
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
                    Some(word) => {
                        // A type of one's own is what it is.
                        let port_type = catalog.port_type(word).unwrap_or(word);
                        outputs.push(GraphOutput {
                            name: key.name.clone(),
                            port_type: port_type.to_owned(),
                            extension: extension(port_type).to_owned(),
                        });
                    }
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
