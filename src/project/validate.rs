//! What can be known of stages before they run: workers are asked for what cannot work, params and
//! the first rows of inputs that exist.
//! Does not know what any problem means.

use std::collections::BTreeMap;
use std::path::Path;

use super::described::state;
use super::execution::worker_command;
use super::{Failure, Project};
use crate::diagnostic::{Diagnostic, Span};
use crate::exec::describe::validate;
use crate::exec::programs::found;
use crate::graph::{Graph, GraphStage, Producer};
use crate::identity::Digest;
use crate::pipeline::{self, Node, NodeValue, Pipeline};
use crate::plan::{Plan, Verdict};
use crate::protocol::{ConnectionSpec, PROTOCOL, ProblemDoc, StageSpec, ValidateDoc, ValidateSpec};
use crate::store::{SourceDigest, Store, derived};
use crate::votes::Effective;

/// Goes into the key under which answers are kept.
const FORMAT: &str = "ahead/3";

/// What workers are asked about, and where their answers are kept.
struct Question<'a> {
    cwd: &'a Path,
    /// The store, and the name of the pipeline in it; `None`: answers are not kept.
    kept: Option<(&'a Store, &'a str)>,
    /// One answer is kept for each of these and each pipeline.
    what: &'static str,
    /// Digests of the sources, where inputs are looked at.
    sources: Option<Vec<Option<Digest>>>,
    /// See [`super::Choices::warn`].
    warn: fn(&str),
}

/// A figure that a stage may report, as its worker names it: `*` at the end stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// Says so when no stage can report the figure `wanted`, named alone or as `STAGE/FIGURE`. `None`
/// also where that cannot be told: of programs and workers that do not say nothing is known.
#[must_use]
pub fn unknown_figure(project: &Project, wanted: &str) -> Option<String> {
    let graph = &project.graph;
    if !any(graph) {
        return None;
    }
    let question = Question {
        cwd: &project.root,
        kept: Some((&project.store, &project.key)),
        what: "figures",
        sources: None,
        warn: project.choices.warn,
    };
    let asked = ask(graph, &question, &|_| true, &|_| Vec::new());
    let mut names: Vec<String> = Vec::new();
    for (i, stage) in graph.stages.iter().enumerate() {
        let named = wanted.strip_prefix(stage.word.as_str()).and_then(|w| w.strip_prefix('/'));
        let patterns = asked.figures.get(&i)?;
        let known = |name: &str| patterns.iter().any(|pattern| matches(pattern, name));
        if known(wanted) || named.is_some_and(known) {
            return None;
        }
        names.extend(patterns.iter().map(|p| p.trim_end_matches('*').to_owned()));
    }
    let near = crate::diagnostic::did_you_mean(wanted, names.iter().map(String::as_str));
    let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Some(format!("no stage of the pipeline reports `{wanted}`{near}"))
}

/// Whether some stage can be asked about.
fn any(graph: &Graph) -> bool {
    graph.stages.iter().any(|s| s.validates && s.program.is_none())
}

/// Problems with the params of all stages.
#[must_use]
pub fn params(pipeline: &Pipeline, graph: &Graph, cwd: &Path, warn: fn(&str)) -> Vec<Diagnostic> {
    if !any(graph) {
        return Vec::new();
    }
    let question = Question { cwd, kept: None, what: "params", sources: None, warn };
    // Of folders the place is told: how large a model is decides what fits it.
    let folder = |producer| match producer {
        Producer::Source(source) => {
            let path = Path::new(&graph.sources[source].path);
            path.is_dir().then(|| graph.sources[source].path.clone()).into_iter().collect()
        }
        Producer::Output { .. } => Vec::new(),
    };
    let found = ask(graph, &question, &|_| true, &folder);
    let found = without_warnings(graph, found.problems, warn);
    found.iter().map(|f| diagnostic(Some(pipeline), &graph.stages[f.stage], f)).collect()
}

/// Tells of what may work but seldom does; returns the rest.
fn without_warnings(graph: &Graph, found: Vec<ProblemDoc>, warn: fn(&str)) -> Vec<ProblemDoc> {
    let (warnings, problems): (Vec<_>, Vec<_>) = found.into_iter().partition(|f| f.warning);
    for found in warnings {
        let help = found.help.map_or(String::new(), |help| format!(": {help}"));
        warn(&format!("stage `{}`: {}{help}", graph.stages[found.stage].name, found.message));
    }
    problems
}

/// Refuses what would run and cannot: stages whose params or inputs do not fit.
///
/// # Errors
/// Names every problem that was found.
pub fn refuse(
    project: &Project,
    plan: &Plan,
    sources: &[Option<SourceDigest>],
) -> Result<(), Failure> {
    let graph = &project.graph;
    let runs = |stage: usize| !matches!(plan.verdicts[stage], None | Some(Verdict::Hit(_)));
    if !any(graph) || !(0..graph.stages.len()).any(runs) {
        return Ok(());
    }
    let paths = |producer: Producer| match producer {
        Producer::Source(source) => {
            // Votes: that there are some is all that their path says.
            let no_vote = |c: &[u8]| Effective::parse(c).is_ok_and(|votes| votes.pairs.is_empty());
            let any = |s: &&SourceDigest| s.content.as_ref().is_none_or(|c| !no_vote(c));
            let source = sources[source].as_ref().filter(any);
            source.map(|s| s.paths.clone()).unwrap_or_default()
        }
        Producer::Output { stage, port } => match &plan.verdicts[stage] {
            Some(Verdict::Hit(entry)) => {
                let output = entry.outputs.get(&graph.stages[stage].outputs[port].name);
                output.map(|o| project.store.object_path(&o.digest)).into_iter().collect()
            }
            _ => Vec::new(),
        },
    };
    let text = |producer| {
        paths(producer).iter().map(|p| p.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let question = Question {
        cwd: &project.root,
        kept: Some((&project.store, &project.key)),
        what: "ahead",
        sources: Some(sources.iter().map(|s| s.as_ref().map(|s| s.digest)).collect()),
        warn: project.choices.warn,
    };
    let found = ask(graph, &question, &runs, &text).problems;
    let found = without_warnings(graph, found, project.choices.warn);
    if found.is_empty() {
        return Ok(());
    }
    // Its places were not kept.
    let choices = &project.choices;
    let pipeline = pipeline::load(&graph.path, choices.profile.as_deref(), &choices.sets).ok();
    let problem = |f: &ProblemDoc| diagnostic(pipeline.as_ref(), &graph.stages[f.stage], f);
    let mut problems: Vec<Diagnostic> = found.iter().map(problem).collect();
    crate::diagnostic::sort(&mut problems);
    problems.dedup();
    Err(Failure::Diagnostics(problems))
}

/// Asks each worker once about its stages, and puts together what all say. A worker that does not
/// answer is told of; its stages will say themselves what is wrong.
fn ask(
    graph: &Graph,
    question: &Question,
    wanted: &dyn Fn(usize) -> bool,
    paths: &dyn Fn(Producer) -> Vec<String>,
) -> ValidateDoc {
    let mut workers: BTreeMap<Option<&Vec<String>>, Vec<usize>> = BTreeMap::new();
    for (i, stage) in graph.stages.iter().enumerate() {
        if stage.validates && stage.program.is_none() && wanted(i) {
            workers.entry(stage.worker.as_ref()).or_default().push(i);
        }
    }
    let mut answers = ValidateDoc::default();
    for (worker, stages) in workers {
        let spec = |(i, stage)| of_stage(graph, stage, stages.contains(&i), paths);
        let all = graph.stages.iter().enumerate().map(spec).collect();
        let inputs = question.sources.is_some();
        let spec = ValidateSpec { protocol: PROTOCOL, inputs, stages: all };
        let spec = serde_json::to_string(&spec).expect("invariant: plain data");
        let command = worker.cloned().unwrap_or_else(worker_command);
        let answer = answer(&command, worker.is_some(), &spec, question).and_then(|doc| {
            // It would stand at a stage that has nothing to do with it.
            match doc.problems.iter().find(|p| !stages.contains(&p.stage)) {
                Some(p) => Err(std::io::Error::other(format!(
                    "its answer is about stage {}, which it was not asked about",
                    p.stage
                ))),
                None => Ok(doc),
            }
        });
        match answer {
            Ok(doc) => {
                answers.figures.extend(doc.figures);
                answers.problems.extend(doc.problems);
            }
            Err(e) => (question.warn)(&format!(
                "`{}` could not be asked what is wrong before anything runs: {e}",
                command.join(" ")
            )),
        }
    }
    answers
}

fn of_stage(
    graph: &Graph,
    stage: &GraphStage,
    wanted: bool,
    paths: &dyn Fn(Producer) -> Vec<String>,
) -> StageSpec {
    let connection = |producer: &Producer| ConnectionSpec {
        name: graph.producer_name(*producer).to_owned(),
        port_type: graph.producer_type(*producer).to_owned(),
        stage: match producer {
            Producer::Source(_) => None,
            Producer::Output { stage, .. } => Some(*stage),
        },
        paths: paths(*producer),
    };
    let inputs = stage.inputs.iter();
    StageSpec {
        stage: stage.name.clone(),
        kind: stage.kind.clone(),
        version: stage.version,
        params: stage.portable_params(),
        inputs: inputs.map(|i| (i.port.clone(), i.from.iter().map(connection).collect())).collect(),
        wanted,
    }
}

/// The answer of a worker, from the store where it was asked the same about the same sources and
/// is what it was. A worker of a team (`foreign`) must say which files it is made of.
fn answer(
    command: &[String],
    foreign: bool,
    spec: &str,
    question: &Question,
) -> std::io::Result<ValidateDoc> {
    let Question { cwd, kept, what, sources, .. } = question;
    let made_of = kept.and_then(|(store, _)| match foreign {
        true => state(command, cwd, store),
        false => {
            let program = found(Path::new(command.first()?));
            store.digest_file(&program).ok().map(|(digest, _)| digest)
        }
    });
    let from = made_of.map(|made_of| format!("{command:?} {made_of} {sources:?} {spec}"));
    let key = from.and_then(|from| derived::key(FORMAT, from.as_bytes()));
    let name =
        kept.map(|(_, pipeline)| derived::name(what, format!("{command:?} {pipeline}").as_bytes()));
    let known = || kept.as_ref()?.0.derived(name.as_ref()?, key.as_ref()?);
    if let Some(doc) = known().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(doc);
    }
    let text = validate(command, spec, cwd)?;
    let doc = serde_json::from_str(&text)
        .map_err(|e| std::io::Error::other(format!("its answer is not readable: {e}")))?;
    if let (Some((store, _)), Some(name), Some(key)) = (kept, &name, &key) {
        store.keep_derived(name, key, text.as_bytes());
    }
    Ok(doc)
}

fn diagnostic(pipeline: Option<&Pipeline>, stage: &GraphStage, found: &ProblemDoc) -> Diagnostic {
    let place = pipeline.and_then(|p| place(p, stage, &found.field));
    let span = place.unwrap_or_else(|| stage.span.clone());
    let message = format!("stage `{}`: {}", stage.name, found.message);
    let problem = Diagnostic::new(message, Some(span));
    match &found.help {
        Some(help) => problem.help(help.clone()),
        None => problem,
    }
}

/// Where the file says `train.lr` of a stage, or as much of it as it says.
fn place(pipeline: &Pipeline, stage: &GraphStage, field: &str) -> Option<Span> {
    let stage = pipeline.stages.iter().find(|s| s.name.name == stage.word)?;
    let mut parts = field.split('.');
    let first = parts.next()?;
    let mut node = stage.fields.iter().find(|(key, _)| key.name == first).map(|(_, n)| n)?;
    for part in parts {
        match inner(node, part) {
            Some(next) => node = next,
            None => break,
        }
    }
    Some(node.span.clone())
}

fn inner<'a>(node: &'a Node, part: &str) -> Option<&'a Node> {
    match &node.value {
        NodeValue::Map(entries) => entries.iter().find(|(k, _)| k.name == part).map(|(_, n)| n),
        NodeValue::List(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    }
}
