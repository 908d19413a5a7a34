//! Pipeline × catalog to graph: kinds, params, references, port types.
//! Does not look at files; collects every problem it can find.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::thread::ScopedJoinHandle;

use super::stage_decl::{Connection, StageDecl, draft};
use super::{
    Diagnostics, Graph, GraphInput, GraphSource, GraphStage, HubFiles, Producer, SourceOrigin,
    order,
};
use crate::catalog::{Catalog, FILE};
use crate::diagnostic::{self, Diagnostic, Span, did_you_mean, listed, named};
use crate::pipeline::{self, Pipeline, Source, SourcePlace, Stage};

/// What a reference can name, and what is behind it.
struct Names<'a> {
    sources: HashMap<&'a str, usize>,
    stages: HashMap<&'a str, usize>,
    /// All names in a fixed order, so that a suggestion does not depend on hashing.
    sorted: OnceCell<Vec<&'a str>>,
    /// How often a name that does not exist was followed.
    missed: Cell<usize>,
}

/// Names that do not exist are compared with all that do; after so many no more, as each costs a
/// look at the whole file.
const SUGGESTED: usize = 40;

impl<'a> Names<'a> {
    /// The name that was meant, where it can be told.
    fn nearest(&self, typed: &str) -> Option<&'a str> {
        self.missed.set(self.missed.get() + 1);
        if self.missed.get() > SUGGESTED {
            return None;
        }
        let sorted = self.sorted.get_or_init(|| {
            let mut names: Vec<&str> =
                self.sources.keys().chain(self.stages.keys()).copied().collect();
            names.sort_unstable();
            names
        });
        did_you_mean(typed, sorted.iter().copied())
    }
}

/// What does not fit where it is read, by what makes it: one cause, however many read it.
type Misfits = BTreeMap<Producer, Misfit>;

#[derive(Default)]
struct Misfit {
    port_type: String,
    /// Where it is read, and what is wrong there.
    problems: Vec<(String, Diagnostic)>,
}

/// The first place where it does not fit, with the others named.
fn misfit(found: Misfit, catalog: &Catalog) -> Diagnostic {
    let mut all = found.problems.into_iter();
    let (_, mut problem) = all.next().expect("invariant: a misfit is found somewhere");
    let others: Vec<String> = all.map(|(place, _)| format!("`{place}`")).collect();
    let mut helps: Vec<String> = problem.help.take().into_iter().collect();
    if !others.is_empty() {
        helps.push(format!("it does not fit {} either", listed(&others)));
    }
    let known = catalog.port_types().contains(found.port_type.as_str());
    let near = did_you_mean(&found.port_type, catalog.short_types());
    if let Some(near) = near.filter(|_| !known) {
        let shown = named(&found.port_type);
        helps.push(format!("no stage kind takes `{shown}`; did you mean `{near}`?"));
    }
    if helps.is_empty() { problem } else { problem.help(helps.join("; ")) }
}

/// See [`Graph::resolve`].
pub fn resolve(pipeline: &Pipeline, catalog: &Catalog) -> Result<Graph, Diagnostics> {
    let mut problems = Vec::new();
    let names = names(pipeline, &mut problems);
    let mut sources: Vec<GraphSource> =
        pipeline.sources.iter().map(|s| source(s, catalog, &mut problems)).collect();
    let drafts = drafts(&pipeline.stages, catalog, &mut problems);
    let mut edges = Vec::with_capacity(drafts.len());
    let mut misfits = Misfits::new();
    for i in 0..drafts.len() {
        let mut inputs = connect(i, &drafts, &sources, &names, &mut problems, &mut misfits);
        inputs.extend(param_files(&drafts[i], &mut sources));
        edges.push(inputs);
    }
    problems.extend(misfits.into_values().map(|found| misfit(found, catalog)));
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

/// With fewer stages than this a second thread costs more than it saves.
const WORTHWHILE: usize = 64;

/// Each stage by itself; many of them on two threads.
fn drafts<'a>(
    stages: &'a [Stage],
    catalog: &'a Catalog,
    problems: &mut Diagnostics,
) -> Vec<StageDecl<'a>> {
    let all = |stages: &'a [Stage]| {
        let mut problems = Vec::new();
        let drafts: Vec<StageDecl> =
            stages.iter().map(|s| draft(s, catalog, &mut problems)).collect();
        (drafts, problems)
    };
    let middle = if stages.len() < WORTHWHILE { stages.len() } else { stages.len() / 2 };
    let (first, second) = stages.split_at(middle);
    let halves = std::thread::scope(|scope| {
        let second = (!second.is_empty()).then(|| scope.spawn(|| all(second)));
        let join = |thread: ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|fault| std::panic::resume_unwind(fault))
        };
        [Some(all(first)), second.map(join)]
    });
    let mut drafts = Vec::with_capacity(stages.len());
    for (half, found) in halves.into_iter().flatten() {
        drafts.extend(half);
        problems.extend(found);
    }
    drafts
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
    Names { sources, stages, sorted: OnceCell::new(), missed: Cell::new(0) }
}

/// What a repository of a hub holds, where nothing else is said.
const HUB_MODEL: &str = "model/huggingface";

fn source(source: &Source, catalog: &Catalog, problems: &mut Diagnostics) -> GraphSource {
    let is_model = matches!(source.place, SourcePlace::Hub { files: None, .. });
    let port_type = match &source.port_type {
        None if is_model => catalog.port_type(HUB_MODEL).unwrap_or(FILE).to_owned(),
        None => FILE.to_owned(),
        Some(word) => {
            let full = catalog.port_type(&word.text);
            if full.is_none() {
                problems.push(
                    Diagnostic::new(
                        format!("unknown type `{}`", named(&word.text)),
                        Some(word.span.clone()),
                    )
                    .label("no stage kind takes it")
                    .help(pipeline::suggest(
                        &word.text,
                        &catalog.short_types(),
                        "types",
                    )),
                );
            }
            full.unwrap_or_default().to_owned()
        }
    };
    let (path, origin) = place(&source.place);
    GraphSource {
        name: source.name.name.clone(),
        path,
        origin,
        port_type,
        span: source.name.span.clone(),
    }
}

/// The path of a source, or its address where its files are elsewhere.
fn place(place: &SourcePlace) -> (String, SourceOrigin) {
    match place {
        SourcePlace::Path(path) => (beside(&path.span, &path.text), SourceOrigin::Here),
        SourcePlace::Hub { repository, revision, files } => {
            let revision = revision.as_ref().map_or("main", |r| &r.text).to_owned();
            let files = files.as_ref().map(|f| f.text.clone());
            let inside = files.as_ref().map_or(String::new(), |files| format!("/{files}"));
            let address = format!("hub:{}@{revision}{inside}", repository.text);
            let repository = repository.text.clone();
            (address, SourceOrigin::Hub(HubFiles { repository, revision, files }))
        }
        SourcePlace::Url { url, sha256 } => {
            let (url, sha256) = (url.text.clone(), sha256.text.clone());
            (url.clone(), SourceOrigin::Url { url, sha256 })
        }
    }
}

/// A path counts from the file that it is written in.
fn beside(span: &Span, path: &str) -> String {
    let folder = Path::new(&span.source.name).parent().unwrap_or(Path::new(""));
    folder.join(path).to_string_lossy().into_owned()
}

/// Params that name files are sources of their own: `labels.votes`.
fn param_files(draft: &StageDecl, sources: &mut Vec<GraphSource>) -> Vec<GraphInput> {
    let mut inputs = Vec::with_capacity(draft.params.files.len());
    for file in &draft.params.files {
        inputs.push(GraphInput {
            port: file.port.clone(),
            many: false,
            from: vec![Producer::Source(sources.len())],
        });
        sources.push(GraphSource {
            name: format!("{}.{}", draft.stage.name.name, file.port),
            path: beside(&file.span, &file.path),
            origin: SourceOrigin::Here,
            port_type: file.port_type.clone(),
            span: file.span.clone(),
        });
    }
    inputs
}

/// Follows the references of one stage.
fn connect(
    index: usize,
    drafts: &[StageDecl],
    sources: &[GraphSource],
    names: &Names,
    problems: &mut Diagnostics,
    misfits: &mut Misfits,
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
                let problem =
                    wrong_type(draft, connection, reference, span, port_type, producer, drafts);
                let place = format!("{}.{}", draft.stage.name.name, connection.port);
                let found = misfits.entry(producer).or_default();
                port_type.clone_into(&mut found.port_type);
                found.problems.push((place, problem));
                continue;
            }
            from.push(producer);
        }
        inputs.push(GraphInput { port: connection.port.clone(), many: connection.many, from });
    }
    inputs
}

fn producer_sound(producer: Producer, drafts: &[StageDecl]) -> bool {
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
    drafts: &[StageDecl],
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
        let shown = named(reference);
        let problem = Diagnostic::new(format!("unknown reference `{shown}`"), Some(span.clone()));
        return Err(match names.nearest(name) {
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
    let message = format!("stage `{name}` has no output `{}`", named(port));
    Err(Diagnostic::new(message, Some(span.clone()))
        .help(pipeline::suggest(port, &ports, "outputs")))
}

fn wrong_type(
    draft: &StageDecl,
    connection: &Connection,
    reference: &str,
    span: &Span,
    port_type: &str,
    producer: Producer,
    drafts: &[StageDecl],
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

fn assemble(
    drafts: Vec<StageDecl>,
    edges: Vec<Vec<GraphInput>>,
    order: &[usize],
) -> Vec<GraphStage> {
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

fn stage(draft: StageDecl, mut inputs: Vec<GraphInput>, position: &[usize]) -> Option<GraphStage> {
    let (worker, validates) = (draft.kind?.worker.clone(), draft.kind?.validates);
    let kind = &draft.kind?.doc;
    for producer in inputs.iter_mut().flat_map(|i| &mut i.from) {
        if let Producer::Output { stage, .. } = producer {
            *stage = position[*stage];
        }
    }
    Some(GraphStage {
        name: draft.stage.name.name.clone(),
        word: draft.stage.name.name.clone(),
        kind: kind.name.clone(),
        version: kind.version,
        files: draft.params.files.into_iter().map(|f| (f.pointer, f.port)).collect(),
        params: draft.params.values,
        inputs,
        outputs: draft.outputs,
        execution: draft.execution,
        gate: draft.gate,
        kind_threads: kind.threads,
        live: kind.live.clone(),
        worker,
        validates,
        program: kind.program.as_ref().map(|p| p.command.clone()),
        span: draft.stage.name.span.clone(),
    })
}
