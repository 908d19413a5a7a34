//! The card of an output that leaves the store: what it was made from, by which stages, from whose
//! preferences, with which figures. Annotators are counted, not named: it may be published.
//! Does not know where it is written.

use std::collections::BTreeSet;

use super::origin::{by_annotator, votes};
use super::{Failure, Project, lock, report, show};
use crate::columns::{head, is_parquet};
use crate::graph::GraphOutput;
use crate::html;
use crate::lock::LockedSource;
use crate::plan::{Plan, Selection, Verdict};
use crate::store::{CachedEntry, EntryOutput, SourceDigest};
use crate::text::{counted, markdown};

/// What every card is tagged with.
const TAG: &str = "preflow";
/// Port types of folders that `from_pretrained` opens.
const MODEL: &str = "model/huggingface";
/// Column of labels that names who voted.
const VOTERS: &str = "voters";
/// What port types of datasets begin with.
const DATASET: &str = "dataset/";

/// An output that others can open, and its card.
#[derive(Debug)]
pub struct Publication {
    pub output: EntryOutput,
    /// `None`: a folder, whose files keep their names.
    pub file: Option<&'static str>,
    /// README.md.
    pub card: String,
}

/// Reads what is known of an output: `word` is `stage` or `stage.port`.
///
/// # Errors
/// There is no such output, it is not up to date, or nothing else opens outputs of its type.
pub fn publication(project: &Project, word: &str) -> Result<Publication, Failure> {
    let (stage, outputs) = show::named(project, word)?;
    let name = project.graph.stages[stage].name.as_str();
    let fits = |o: &&GraphOutput| o.port_type == MODEL || o.port_type.starts_with(DATASET);
    let fitting = outputs.iter().copied().find(fits);
    let port = fitting.or(outputs.first().copied()).expect("invariant: it names an output");
    if !fits(&port) {
        let text = format!("`{name}.{}` is of type {}", port.name, port.port_type);
        return Err(Failure::usage(text).help(format!(
            "datasets can be exported, and models that a stage wrote for others: `out: {{ kind: \
             export, model: {name} }}`"
        )));
    }
    let all = Selection::new(&project.graph, &[], &[], &[])?;
    let sources = project.digest_sources(&all.wanted)?;
    let plan = project.judge(&all, &sources)?;
    let Some(Some(Verdict::Hit(entry))) = plan.verdicts.get(stage) else {
        return Err(Failure::usage(format!("stage `{name}` is not up to date"))
            .help(format!("`preflow run {} {name}` makes it", project.graph.path)));
    };
    let output = entry.outputs[&port.name].clone();
    if output.tree.is_none() && !is_parquet(&project.store.object_path(&output.digest)) {
        return Err(Failure::usage(format!("`{name}.{}` is no Parquet file", port.name)).help(
            "a stage that makes a dataset writes Parquet; the views have the file as it is",
        ));
    }
    if let Ok(head) = head(&project.store.object_path(&output.digest), 0)
        && head.columns.iter().any(|(name, _)| name == VOTERS)
    {
        (project.choices.warn)(&format!(
            "column `{VOTERS}` of `{name}.{}` names annotators: look at it before it is published",
            port.name
        ));
    }
    let file = output.tree.is_none().then_some("data/train-00000-of-00001.parquet");
    let is_model = port.port_type == MODEL;
    let card = Card { project, sources: &sources, plan: &plan, stage, entry, is_model };
    Ok(Publication { output, file, card: card.text() })
}

struct Card<'a> {
    project: &'a Project,
    sources: &'a [Option<SourceDigest>],
    plan: &'a Plan,
    stage: usize,
    entry: &'a CachedEntry,
    is_model: bool,
}

impl Card<'_> {
    fn text(&self) -> String {
        let graph = &self.project.graph;
        let sources = self.sources();
        let mut out = self.head(&sources);
        let title = format!("{}: {}", graph.name, graph.stages[self.stage].name);
        out.push_str(&format!("\n# {}\n", markdown::escaped(&title)));
        let at = self.entry.made.at.get(..10).unwrap_or_default();
        let version = &self.entry.made.version;
        out.push_str(&format!("\nMade on {at} by preflow {version}, which wrote this card.\n"));
        if !sources.is_empty() {
            let heads = ["source", "where", "content"].map(str::to_owned).to_vec();
            let rows = sources.iter().map(|(source, pin)| self.source_row(*source, pin.as_ref()));
            let rows: Vec<_> = std::iter::once(heads).chain(rows).collect();
            out.push_str(&format!("\n## Made from\n\n{}", markdown::table(&rows, &[])));
        }
        out.push_str(&format!("\n## Stages\n\n{}", markdown::table(&self.stage_rows(), &[])));
        for (title, said) in [("Votes", self.votes()), ("Notes", self.notes())] {
            if !said.is_empty() {
                out.push_str(&format!("\n## {title}\n\n"));
                out.extend(said.iter().map(|text| format!("- {}\n", markdown::escaped(text))));
            }
        }
        let (data, _) = report::gather(self.project, self.plan, graph.path.as_ref());
        if !data.evaluation.is_empty() {
            // Its title is the pipeline's name, which stands above.
            let figures = html::brief(&data);
            let figures = figures.split_once('\n').map_or("", |(_, rest)| rest);
            out.push_str(&format!("\n## Figures\n{figures}"));
        }
        out.push_str(&format!("\n## Make it again\n\n{}", self.again()));
        out
    }

    /// What services read: YAML, in which JSON's strings are strings too.
    fn head(&self, sources: &[(usize, Option<LockedSource>)]) -> String {
        let mut out = "---\n".to_owned();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let of_hub = sources.iter().filter_map(|(_, pin)| Some(pin.as_ref()?.hub.as_str()));
        let (data, models): (Vec<_>, Vec<_>) = of_hub.partition(|hub| hub.starts_with("datasets/"));
        if self.is_model {
            out.push_str("library_name: transformers\n");
            if let [base] = models.as_slice() {
                out.push_str(&format!("base_model: {}\n", quoted(base)));
            }
            let names: BTreeSet<&str> =
                data.iter().filter_map(|hub| hub.strip_prefix("datasets/")).collect();
            if !names.is_empty() {
                out.push_str("datasets:\n");
                out.extend(names.iter().map(|name| format!("- {}\n", quoted(name))));
            }
        } else {
            out.push_str(
                "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: \
                 data/train-*\n",
            );
        }
        out + &format!("tags:\n- {TAG}\n---\n")
    }

    /// The stage and all that it was made by, in the order of the pipeline.
    fn stages(&self) -> Vec<usize> {
        let (mut found, mut todo) = (BTreeSet::new(), vec![self.stage]);
        while let Some(stage) = todo.pop() {
            if found.insert(stage) {
                todo.extend(self.project.graph.upstream(stage));
            }
        }
        found.into_iter().collect()
    }

    /// Sources of these stages, with the commit of those of hubs.
    fn sources(&self) -> Vec<(usize, Option<LockedSource>)> {
        let graph = &self.project.graph;
        let used = graph.sources_read(&self.stages());
        let pins = self.project.pinned();
        used.into_iter().map(|s| (s, pins.get(&graph.sources[s].name).cloned())).collect()
    }

    fn source_row(&self, source: usize, pin: Option<&LockedSource>) -> Vec<String> {
        let node = &self.project.graph.sources[source];
        let place = match pin {
            Some(pin) => format!("{} at {}", node.path, pin.commit),
            None => node.shown_path(),
        };
        let content = self.sources[source].as_ref().map(|source| source.digest.to_string());
        vec![node.name.clone(), place, content.unwrap_or_default()]
    }

    fn whole(&self, stage: usize) -> Option<crate::store::Entry> {
        let Some(Some(Verdict::Hit(entry))) = self.plan.verdicts.get(stage) else { return None };
        self.project.store.entry(&entry.fingerprint).ok().flatten()
    }

    fn stage_rows(&self) -> Vec<Vec<String>> {
        let graph = &self.project.graph;
        let heads = ["stage", "kind", "reads", "fingerprint"].map(str::to_owned).to_vec();
        let one = |stage: usize| {
            let node = &graph.stages[stage];
            let from = node.inputs.iter().flat_map(|input| &input.from);
            let names: BTreeSet<&str> = from.map(|from| graph.producer_name(*from)).collect();
            let reads = names.into_iter().collect::<Vec<_>>().join(", ");
            let print = match &self.plan.verdicts[stage] {
                Some(Verdict::Hit(entry)) => entry.fingerprint.short(),
                _ => String::new(),
            };
            vec![node.name.clone(), format!("{}@{}", node.kind, node.version), reads, print]
        };
        std::iter::once(heads).chain(self.stages().into_iter().map(one)).collect()
    }

    /// How many people compared how much.
    fn votes(&self) -> Vec<String> {
        let mut said = Vec::new();
        for stage in self.stages() {
            let Some(entry) = self.whole(stage) else { continue };
            for (_, votes) in votes(&self.project.store, &entry) {
                said.push(format!(
                    "{}: {} of {} on {}",
                    self.project.graph.stages[stage].name,
                    counted(votes.votes(), "vote"),
                    counted(by_annotator(&votes).len(), "annotator"),
                    counted(votes.pairs.len(), "pair")
                ));
            }
        }
        said
    }

    /// What a person should know of the stages.
    fn notes(&self) -> Vec<String> {
        let mut said = Vec::new();
        for stage in self.stages() {
            let Some(Some(Verdict::Hit(entry))) = self.plan.verdicts.get(stage) else { continue };
            let name = &self.project.graph.stages[stage].name;
            said.extend(entry.made.notes.iter().map(|note| format!("{name}: {note}")));
            let open = &entry.made.accepted;
            said.extend(
                open.iter().map(|gate| format!("{name}: made behind an open gate, {gate}")),
            );
        }
        said
    }

    /// What to type, as a block.
    fn again(&self) -> String {
        let graph = &self.project.graph;
        let file = &self.project.key;
        let run = report::command("run", file, &self.project.choices);
        let commit = self.entry.made.commit.as_str();
        let (commit, dirty) = match commit.strip_suffix('+') {
            Some(commit) => (commit, true),
            None => (commit, false),
        };
        let checkout =
            if commit.is_empty() { String::new() } else { format!("git checkout {commit}\n") };
        let mut out = format!("```sh\n{checkout}{run} {}\n```\n", graph.stages[self.stage].name);
        if dirty {
            out.push_str("\nFiles that git keeps differed from that commit when it was made.\n");
        }
        if lock::text_of(&crate::lock::path_of(graph.path.as_ref())).is_ok_and(|t| t.is_empty()) {
            out.push_str("\nThere is no lock file beside the pipeline.\n");
        }
        out
    }
}
