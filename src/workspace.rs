//! The workspace file, `preflow.yaml`: what holds for all pipelines below it. The workers that a
//! team adds, and where it shares what was made. Does not know which kinds workers offer, or
//! whether anything answers there.

use crate::diagnostic::{Diagnostic, Span, named};
use crate::pipeline::{Document, Key, Node, NodeValue, expected, is_name, place, unknown_key};

/// What it may say.
const KEYS: [&str; 4] = ["preflow-workspace", "workers", "remote", "track"];

/// What `remote:` may say.
const REMOTE_KEYS: [&str; 5] = ["url", "mode", "endpoint", "region", "required"];

/// Its name.
pub const FILE: &str = "preflow.yaml";

/// What the file says.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    pub workers: Vec<Worker>,
    pub remote: Option<RemoteConfig>,
    /// Who sees a run while it happens.
    pub track: Vec<Tracker>,
}

/// A tracker of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    pub tool: TrackTool,
    /// A server's address, a project's name, a mode, or a folder.
    pub place: String,
}

/// Trackers that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackTool {
    Mlflow,
    Trackio,
    Wandb,
    TensorBoard,
}

impl TrackTool {
    const ALL: [Self; 4] = [Self::Mlflow, Self::Trackio, Self::Wandb, Self::TensorBoard];

    /// As the file writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Mlflow => "mlflow",
            Self::Trackio => "trackio",
            Self::Wandb => "wandb",
            Self::TensorBoard => "tensorboard",
        }
    }
}

/// Where artifacts are shared, as it is written.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    pub url: String,
    /// Where the url stands.
    pub span: Span,
    /// `mode: read-only`.
    pub read_only: bool,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub required: bool,
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
            ("remote", NodeValue::Null) => {}
            ("remote", _) => workspace.remote = remote(node, &mut problems),
            ("track", NodeValue::Map(trackers)) => {
                for (name, node) in trackers {
                    workspace.track.extend(tracker(name, node, &mut problems));
                }
            }
            ("track", NodeValue::Null) => {}
            ("track", _) => problems.push(expected("`track`", "a map", node).help(TRACK_FORM)),
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

const TRACK_FORM: &str =
    "track: { mlflow: https://HOST, trackio: PROJECT, wandb: offline, tensorboard: FOLDER }";

fn tracker(name: &Key, node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Tracker> {
    let words = TrackTool::ALL.map(TrackTool::word);
    let Some(tool) = TrackTool::ALL.into_iter().find(|tool| tool.word() == name.name) else {
        problems.push(unknown_key(&name.name, "`track`", &name.span, &words).help(TRACK_FORM));
        return None;
    };
    let place = node.as_str().filter(|place| !place.is_empty() && !place.starts_with('-'));
    let fits = |place: &&str| match tool {
        TrackTool::Mlflow => place.starts_with("http://") || place.starts_with("https://"),
        TrackTool::Wandb => ["offline", "online"].contains(place),
        TrackTool::Trackio | TrackTool::TensorBoard => true,
    };
    let what = match tool {
        TrackTool::Mlflow => "the address of a server",
        TrackTool::Trackio => "the name of a project",
        TrackTool::Wandb => "`offline` or `online`",
        TrackTool::TensorBoard => "a folder",
    };
    match place.filter(fits) {
        Some(place) => Some(Tracker { tool, place: place.to_owned() }),
        None => {
            let of = format!("`{}`", tool.word());
            problems.push(expected(&of, what, node).help(TRACK_FORM));
            None
        }
    }
}

fn remote(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<RemoteConfig> {
    let form = "remote: { url: s3://BUCKET/PREFIX }";
    let Some(entries) = node.as_map() else {
        problems.push(expected("`remote`", "a map", node).help(form));
        return None;
    };
    let mut url = None;
    let (mut endpoint, mut region) = (None, None);
    let (mut read_only, mut required) = (false, false);
    for (key, value) in entries {
        let text = |what: &str, problems: &mut Vec<Diagnostic>| {
            let text = value.as_str().filter(|text| !text.is_empty());
            if text.is_none() {
                problems.push(expected(what, "a text", value).help(form));
            }
            text.map(str::to_owned)
        };
        match (key.name.as_str(), &value.value) {
            ("url", _) => {
                let said = text("`url`", problems).unwrap_or_default();
                url = Some((said, value.span.clone()));
            }
            ("endpoint", _) => {
                endpoint = text("`endpoint`", problems);
                check_endpoint(endpoint.as_deref(), value, problems);
            }
            ("region", _) => region = text("`region`", problems),
            ("mode", NodeValue::String(mode)) if mode == "read-only" => read_only = true,
            ("mode", NodeValue::String(mode)) if mode == "read-write" => read_only = false,
            ("mode", _) => problems.push(
                expected("`mode`", "`read-write` or `read-only`", value)
                    .help("read-only: take what is there, send nothing"),
            ),
            ("required", NodeValue::Bool(yes)) => required = *yes,
            ("required", _) => problems.push(expected("`required`", "true or false", value)),
            _ => problems.push(
                unknown_key(&key.name, "`remote`", &key.span, &REMOTE_KEYS)
                    .help(format!("it has {}", REMOTE_KEYS.join(", "))),
            ),
        }
    }
    let Some((url, span)) = url else {
        let problem = Diagnostic::new("`remote` has no `url`", Some(node.span.clone()));
        problems.push(problem.help(form));
        return None;
    };
    Some(RemoteConfig { url, span, read_only, endpoint, region, required })
}

/// An address of a service, and nothing else: no path, and above all no password.
fn check_endpoint(endpoint: Option<&str>, node: &Node, problems: &mut Vec<Diagnostic>) {
    let Some(endpoint) = endpoint else { return };
    let rest = ["https://", "http://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme));
    let host = rest.map(|rest| rest.trim_end_matches('/'));
    if host.is_none_or(|host| host.is_empty() || host.contains(['@', '?', '#', ' '])) {
        // Without the line itself: it may hold a password.
        let at = place(&node.span);
        let text = format!("{at}: `endpoint` must be the address of an S3-compatible service");
        problems.push(Diagnostic::new(text, None).help(
            "endpoint: https://HOST:PORT; credentials come from the environment, never from a file",
        ));
    }
}

fn worker(name: &Key, node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Worker> {
    if !is_name(&name.name) {
        let message = format!("`{}` cannot name a worker", named(&name.name));
        problems.push(Diagnostic::new(message, Some(name.span.clone())));
    }
    let what = format!("worker `{}`", named(&name.name));
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
