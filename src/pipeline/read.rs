//! The tree of a file to a [`Pipeline`]: top-level keys, names, shapes.
//! Does not know kinds: what a stage says beyond `kind`, `run` and `gate` is kept as it stands.

use std::path::Path;

use super::node::{Key, Node, NodeValue};
use super::params::{Overrides, PipelineParams, is_word};
use super::shape::{check_name, expected, unknown_key};
use super::source::source;
use super::{Pipeline, Spanned, Stage};
use crate::diagnostic::{Diagnostic, Span, named};

/// The only version of the format so far. It fixes every default.
const FORMAT: i128 = 1;
const TOP_LEVEL: [&str; 6] = ["preflow", "name", "params", "profiles", "sources", "stages"];

/// Reads the root of a file. Whatever is wrong goes to `problems`.
pub fn pipeline(
    path: &str,
    root: Node,
    overrides: &Overrides,
    problems: &mut Vec<Diagnostic>,
) -> Option<Pipeline> {
    let (entries, start) = match root {
        Node { value: NodeValue::Map(entries), span, .. } => (entries, span),
        Node { value: NodeValue::Null, span, .. } => (Vec::new(), span),
        other => {
            problems.push(
                Diagnostic::new("a pipeline file is a map", Some(other.span.clone()))
                    .label(format!("found {}", other.describe())),
            );
            return None;
        }
    };
    if let Some((key, _)) = entries.iter().find(|(k, _)| k.name == "preflow-sweep") {
        problems.push(
            Diagnostic::new("this is a sweep, not a pipeline", at(&key.span))
                .help("`preflow sweep plan FILE` reads it"),
        );
        return None;
    }
    let mut top = Top::sort(entries, problems);
    if !version(top.version.as_ref(), &start, problems) {
        return None;
    }
    let name = pipeline_name(path, top.name.as_ref(), problems);
    let declared = section(top.params.take(), "params", problems);
    for (key, _) in declared.iter().filter(|(k, _)| !is_word(&k.name)) {
        problems.push(
            Diagnostic::new(format!("`{}` cannot name a param", named(&key.name)), at(&key.span))
                .help("letters, digits, `_` and `-`, a letter first"),
        );
    }
    let profiles = section(top.profiles.take(), "profiles", problems);
    let mut params = PipelineParams::resolve(&declared, &profiles, overrides, problems);
    let sources = section(top.sources.take(), "sources", problems)
        .into_iter()
        .filter_map(|(key, value)| source(key, value, &mut params, problems))
        .collect();
    let had_stages = top.stages.is_some() || problems.iter().any(means_stages);
    let stages: Vec<Stage> = section(top.stages.take(), "stages", problems)
        .into_iter()
        .filter_map(|(key, value)| stage(key, value, &mut params, problems))
        .collect();
    if !had_stages {
        let problem = Diagnostic::new("the file has no `stages`", at(&start));
        problems.push(problem.help("stages: { NAME: { kind: KIND, … } }"));
    }
    Some(Pipeline { name, path: path.to_owned(), params: params.all, sources, stages })
}

/// A key that is close to `stages`, which is then not missing.
fn means_stages(problem: &Diagnostic) -> bool {
    problem.naming.as_ref().is_some_and(|naming| naming.near.as_deref() == Some("stages"))
}

#[derive(Default)]
struct Top {
    version: Option<Node>,
    name: Option<Node>,
    params: Option<Node>,
    profiles: Option<Node>,
    sources: Option<Node>,
    stages: Option<Node>,
}

impl Top {
    fn sort(entries: Vec<(Key, Node)>, problems: &mut Vec<Diagnostic>) -> Self {
        let mut top = Self::default();
        for (key, value) in entries {
            match key.name.as_str() {
                "preflow" => top.version = Some(value),
                "name" => top.name = Some(value),
                "params" => top.params = Some(value),
                "profiles" => top.profiles = Some(value),
                "sources" => top.sources = Some(value),
                "stages" => top.stages = Some(value),
                other => problems.push(
                    unknown_key(other, "pipeline file", &key.span, &TOP_LEVEL)
                        .help(format!("a pipeline file has {}", TOP_LEVEL.join(", "))),
                ),
            }
        }
        top
    }
}

fn version(given: Option<&Node>, start: &Span, problems: &mut Vec<Diagnostic>) -> bool {
    match given {
        None => {
            problems.push(
                Diagnostic::new("the file does not say `preflow: 1`", at(start))
                    .help("the first line of a pipeline file is `preflow: 1`"),
            );
            true
        }
        Some(Node { value: NodeValue::Int(FORMAT), .. }) => true,
        Some(other) => {
            problems.push(
                Diagnostic::new("this `preflow` reads format 1 only", at(&other.span))
                    .label("another format")
                    .help("write `preflow: 1`, or use the version of preflow the file is for"),
            );
            false
        }
    }
}

fn pipeline_name(path: &str, given: Option<&Node>, problems: &mut Vec<Diagnostic>) -> String {
    if let Some(node) = given {
        return match node.as_str() {
            Some(name) => {
                check_name(name, "pipeline", &node.span, problems);
                name.to_owned()
            }
            None => {
                problems.push(expected("name", "text", node));
                String::new()
            }
        };
    }
    let stem = Path::new(path).file_stem().map(|s| s.to_string_lossy().into_owned());
    let stem = stem.unwrap_or_default().to_lowercase();
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = stem.chars().map(clean).take(64).collect();
    let name = name.trim_start_matches(['-', '_']);
    if name.is_empty() { "pipeline".to_owned() } else { name.to_owned() }
}

/// The entries of a top-level section; nothing where the file says nothing.
fn section(node: Option<Node>, name: &str, problems: &mut Vec<Diagnostic>) -> Vec<(Key, Node)> {
    match node {
        Some(Node { value: NodeValue::Map(entries), .. }) => entries,
        None | Some(Node { value: NodeValue::Null, .. }) => Vec::new(),
        Some(other) => {
            problems.push(expected(name, "a map", &other));
            Vec::new()
        }
    }
}

fn stage(
    name: Key,
    mut node: Node,
    params: &mut PipelineParams,
    problems: &mut Vec<Diagnostic>,
) -> Option<Stage> {
    check_name(&name.name, "stage", &name.span, problems);
    params.expand(&mut node, problems);
    let NodeValue::Map(entries) = node.value else {
        problems.push(
            expected(&format!("stage `{}`", named(&name.name)), "a map", &node)
                .help("NAME: { kind: KIND, … }"),
        );
        return None;
    };
    let before = problems.len();
    let (mut kind, mut run, mut gate) = (None, None, None);
    let mut fields = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match key.name.as_str() {
            "kind" => match value.value {
                NodeValue::String(text) => kind = Some(Spanned { text, span: value.span }),
                _ => problems.push(expected("kind", "text", &value)),
            },
            "run" => run = Some(value),
            "gate" => gate = Some(value),
            _ => fields.push((key, value)),
        }
    }
    let Some(kind) = kind else {
        if problems.len() > before {
            return None;
        }
        problems.push(
            Diagnostic::new(format!("stage `{}` has no `kind`", named(&name.name)), at(&name.span))
                .help("`preflow kinds` lists them"),
        );
        return None;
    };
    Some(Stage { name, kind, fields, run, gate })
}

fn at(span: &Span) -> Option<Span> {
    Some(span.clone())
}
