//! The workspace file, `preflow.yaml`: what holds for all pipelines below it. So far the workers
//! that a team adds. Does not know which kinds they offer.

use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Document, Key, Node, NodeValue, expected, is_name, unknown_key};

/// What it may say.
const KEYS: [&str; 2] = ["preflow-workspace", "workers"];

/// Its name.
pub const FILE: &str = "preflow.yaml";

/// What the file says.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    pub workers: Vec<Worker>,
}

/// A program that offers kinds.
#[derive(Debug, Clone)]
pub struct Worker {
    pub name: String,
    /// Program and arguments; `describe` or `run TASK` is added.
    pub command: Vec<String>,
    pub span: Span,
}

/// Reads the file.
///
/// # Errors
/// Every problem that was found.
pub fn read(document: &Document) -> Result<Workspace, Vec<Diagnostic>> {
    let root = &document.tree;
    let at = |span: &Span| Some(span.clone());
    let entries = match &root.value {
        NodeValue::Map(entries) => entries.as_slice(),
        NodeValue::Null => &[],
        _ => return Err(vec![expected("a workspace file", "a map", root)]),
    };
    let mut problems = Vec::new();
    let mut workspace = Workspace::default();
    let mut said = false;
    for (key, node) in entries {
        match (key.name.as_str(), &node.value) {
            ("preflow-workspace", NodeValue::Int(1)) => said = true,
            ("preflow-workspace", _) => {
                said = true;
                let text = "this `preflow` reads workspaces of format 1 only";
                problems.push(Diagnostic::new(text, at(&node.span)));
            }
            ("workers", NodeValue::Map(workers)) => {
                for (name, node) in workers {
                    workspace.workers.extend(worker(name, node, &mut problems));
                }
            }
            ("workers", _) => problems.push(expected("`workers`", "a map of workers", node)),
            _ => problems.push(
                unknown_key(&key.name, "a workspace file", &key.span, &KEYS)
                    .help(format!("it has {}", KEYS.join(", "))),
            ),
        }
    }
    if !said {
        problems.push(
            Diagnostic::new("the file does not say `preflow-workspace: 1`", at(&root.span))
                .help("the first line of a workspace file is `preflow-workspace: 1`"),
        );
    }
    if problems.is_empty() { Ok(workspace) } else { Err(problems) }
}

fn worker(name: &Key, node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Worker> {
    if !is_name(&name.name) {
        let message = format!("`{}` cannot name a worker", name.name.escape_debug());
        problems.push(Diagnostic::new(message, Some(name.span.clone())));
    }
    let what = format!("worker `{}`", name.name.escape_debug());
    let Some(entries) = node.as_map() else {
        problems.push(expected(&what, "a map", node).help("NAME: { command: [PROGRAM, …] }"));
        return None;
    };
    let mut command = None;
    for (key, value) in entries {
        match (key.name.as_str(), &value.value) {
            ("command", NodeValue::List(words)) if !words.is_empty() => {
                let texts: Vec<String> =
                    words.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect();
                if texts.len() < words.len() {
                    problems.push(expected("`command`", "a list of texts", value));
                } else {
                    command = Some(texts);
                }
            }
            ("command", _) => problems
                .push(expected("`command`", "a list", value).help("command: [python3, worker.py]")),
            _ => problems.push(unknown_key(&key.name, &what, &key.span, &["command"])),
        }
    }
    if command.is_none() && problems.is_empty() {
        let problem = Diagnostic::new(format!("{what} has no `command`"), Some(name.span.clone()));
        problems.push(problem.help("NAME: { command: [PROGRAM, …] }"));
    }
    Some(Worker { name: name.name.clone(), command: command?, span: name.span.clone() })
}
