//! A project: a pipeline file with all that belongs to it, read once. What verbs have in common:
//! sources, verdicts, workers, remotes, labels, trials.
//! Knows no command line, no terminal and no exit code.

pub mod card;
pub mod conversation;
mod described;
pub mod diff;
pub mod doctor;
pub mod elsewhere;
pub mod execution;
pub mod explain;
mod failure;
pub mod history;
pub mod labelling;
pub mod limits;
pub mod locate;
pub mod lock;
pub mod metrics;
pub mod origin;
pub mod pull;
pub mod push;
pub mod remote;
pub mod report;
pub mod rerun;
pub mod resolved;
pub mod review;
pub mod roots;
pub mod rows;
pub mod show;
pub mod snapshot;
mod sources;
pub mod sweep;
pub mod sweep_report;
pub mod track;
pub mod unfinished;
pub mod validate;
pub mod workers;

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::SourceText;
use crate::graph::Graph;
use crate::pipeline::{self, Pipeline};
use crate::plan::{Judge, Plan, Selection, Verdict};
use crate::remote::Config;
use crate::report::words;
use crate::schedule;
use crate::store::heads::Heads;
use crate::store::snapshot::Snapshot;
use crate::store::{CachedEntry, SourceDigest, Store};
use crate::workspace::Workspace;
pub use failure::Failure;
use locate::{PipelineLocation, locate, open_store, workspace_file};
use snapshot::Keeping;
use workers::catalog;

/// What the user chose besides the file.
#[derive(Debug, Clone)]
pub struct Choices {
    /// Params with other values: `name=value`, the value in YAML.
    pub sets: Vec<String>,
    /// Name of a profile of the pipeline file.
    pub profile: Option<String>,
    /// The store; `None`: that of the workspace.
    pub cache: Option<PathBuf>,
    /// The remote; `None`: that of the workspace.
    pub remote: Option<String>,
    /// What may be done there.
    pub remote_mode: Option<String>,
    /// Is called with what the user should know and what stops nothing: one sentence.
    pub warn: fn(&str),
}

/// A pipeline that is loaded and checked, with its store and its workspace.
pub struct Project {
    pub graph: Graph,
    pub store: Arc<Store>,
    /// Directory of the pipeline file, absolute.
    pub dir: PathBuf,
    /// Top of the workspace, absolute.
    pub root: PathBuf,
    /// Path of the pipeline within the workspace.
    pub key: String,
    /// What the workspace file says.
    pub workspace: Workspace,
    pub choices: Choices,
    /// The plan as it was kept, of a graph that is the same.
    snapshot: Option<Snapshot>,
    /// How the plan is kept; `None`: it is not.
    keeping: Option<Keeping>,
    /// Which commits the sources of hubs are, as far as somebody wanted to know.
    pins: elsewhere::Pins,
}

/// Loads, checks, and opens the store.
///
/// # Errors
/// Whatever is wrong with the file, or the store.
pub fn load(file: &Path, choices: &Choices) -> Result<Project, Failure> {
    Ok(load_at(file, choices, Place::of(file, choices))?.0)
}

/// The same for who asks for verdicts next: where the plan is kept, it is looked for there first.
/// Never given back: the process ends with it, and taking thousands of stages apart takes longer
/// than leaving them.
///
/// # Errors
/// As [`load`].
pub fn load_to_judge(file: &Path, choices: &Choices) -> Result<ManuallyDrop<Project>, Failure> {
    let place = Place::of(file, choices);
    let path = file.to_string_lossy();
    let key = place.as_ref().ok().and_then(|place| snapshot::key(&path, choices, place));
    if let (Ok(place), Some(key)) = (&place, &key)
        && let Some((graph, snapshot)) = snapshot::load(&path, &place.at.key, key, &place.store)
    {
        let project = place.clone().project(graph, choices);
        return Ok(ManuallyDrop::new(Project { snapshot: Some(snapshot), ..project }));
    }
    let (project, pipeline, texts) = load_at(file, choices, place)?;
    std::mem::forget(pipeline);
    let keeping = key.map(|key| Keeping::new(key, texts));
    Ok(ManuallyDrop::new(Project { keeping, ..project }))
}

/// All of a project but its pipeline.
#[derive(Debug, Clone)]
pub struct Place {
    pub at: PipelineLocation,
    pub store: Arc<Store>,
    pub workspace: Workspace,
}

impl Place {
    /// Where a pipeline file, or one that does not exist, belongs to.
    ///
    /// # Errors
    /// The workspace file is wrong, or no store can be where it would be.
    pub fn of(file: &Path, choices: &Choices) -> Result<Self, Failure> {
        let at = locate(file)?;
        let store = open_store(choices, &at.root)?;
        let workspace = workspace_file(&at.root)?;
        Ok(Self { at, store, workspace })
    }

    /// The project of a pipeline that lies here.
    #[must_use]
    pub fn project(self, graph: Graph, choices: &Choices) -> Project {
        let Self { at: PipelineLocation { dir, root, key }, store, workspace } = self;
        let choices = choices.clone();
        let pins = elsewhere::Pins::default();
        let (snapshot, keeping) = (None, None);
        Project { graph, store, dir, root, key, workspace, choices, snapshot, keeping, pins }
    }
}

type Texts = Vec<Arc<SourceText>>;

/// The pipeline resolved, as the file says it, and all texts that it was read from.
fn load_at(
    file: &Path,
    choices: &Choices,
    place: Result<Place, Failure>,
) -> Result<(Project, Pipeline, Texts), Failure> {
    // What is wrong with the file is told before what is wrong with the store.
    let document = pipeline::open(&file.to_string_lossy())?;
    let texts = document.texts.clone();
    let profile = choices.profile.as_deref();
    let overrides = pipeline::Overrides { profile, sets: &choices.sets, trial: &[] };
    let pipeline = document.into_pipeline(&overrides)?;
    let place = place?;
    let Place { at, store, workspace } = &place;
    let catalog = catalog(&at.root, &workspace.workers, Some(store))?;
    let graph = Graph::resolve(&pipeline, &catalog)?;
    Ok((place.project(graph, choices), pipeline, texts))
}

impl Project {
    /// The selection, going on behind the gates of the named stages.
    ///
    /// # Errors
    /// A name that is not a stage, or a stage without a gate.
    pub fn accepting(&self, selection: Selection, names: &[String]) -> Result<Selection, Failure> {
        let selection = selection.accepting(&self.graph, names)?;
        let open = selection.accepted.iter().map(|stage| &self.graph.stages[*stage]);
        match open.into_iter().find(|stage| stage.gate.is_empty()) {
            Some(stage) => Err(Failure::usage(format!("stage `{}` has no gate", stage.name))
                .help("--accept-gate names the stage that `gate:` stands at")),
            None => Ok(selection),
        }
    }

    /// The remote that its results are shared on, if there is one. Nobody is asked yet.
    ///
    /// # Errors
    /// What names it is wrong.
    pub fn remote(&self) -> Result<Option<Config>, Failure> {
        remote::config(&self.choices, &self.root, &self.workspace)
    }

    /// What a stage made: what is up to date, or else the last, with why it is stale. Only entries
    /// whose outputs are there.
    #[must_use]
    pub fn newest(&self, plan: &Plan, stage: usize) -> Option<(CachedEntry, Option<String>)> {
        let why = match plan.verdicts.get(stage)?.as_ref()? {
            Verdict::Hit(entry) => return Some((*entry.clone(), None)),
            Verdict::Miss(_, reason) => words::reason(reason),
            _ => "something upstream may change".to_owned(),
        };
        let last = self.heads().stages.get(&self.graph.stages[stage].name).copied()?;
        let entry = self.store.cached_entry(&last).ok()??;
        let is_sound = matches!(self.store.health_of(&entry.outputs), Ok(None));
        is_sound.then_some((entry, Some(why)))
    }

    /// What the pipeline used last; none where that cannot be read, which is told once.
    #[must_use]
    pub fn heads(&self) -> Heads {
        static TOLD: std::sync::Once = std::sync::Once::new();
        self.store.heads(&self.key).unwrap_or_else(|error| {
            TOLD.call_once(|| {
                (self.choices.warn)(&format!(
                    "what this pipeline made last is not known: {error}; `preflow verify --repair` \
                     moves the file aside"
                ));
            });
            Heads { pipeline: self.key.clone(), ..Heads::default() }
        })
    }

    /// Verdicts on the wanted stages.
    ///
    /// # Errors
    /// See [`Project::digest_sources`] and [`Judge::plan`].
    pub fn plan(&self, selection: &Selection) -> Result<Plan, Failure> {
        self.judge(selection, &self.digest_sources(&selection.wanted)?)
    }

    /// The same, given the sources.
    ///
    /// # Errors
    /// See [`Judge::plan`].
    pub fn judge(
        &self,
        selection: &Selection,
        sources: &[Option<SourceDigest>],
    ) -> Result<Plan, Failure> {
        if let Some(plan) = snapshot::plan(self, selection, sources) {
            return Ok(plan);
        }
        let heads = self.heads();
        let judge = Judge { graph: &self.graph, store: &self.store, sources, heads: &heads };
        let plan = schedule::plan(&judge, selection)?;
        self.store.save_memo();
        snapshot::keep(self, sources, &plan);
        Ok(plan)
    }
}
