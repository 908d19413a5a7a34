//! One side of a comparison: a run, a commit, or a pipeline file as it stands.
//! Finds what each stage's identity is or was, and what it made.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::exec::git;
use crate::identity::{Digest, Identity};
use crate::plan::{Plan, Selection, Verdict};
use crate::project::{self, Choices, Failure, Project, history, locate};
use crate::run::RunEvent;
use crate::run::journal;
use crate::store::{CachedEntry, SourceDigest, Store};

/// A state of a pipeline.
pub struct PipelineState {
    /// How a person would name it.
    pub label: String,
    /// By the name of the stage.
    pub stages: BTreeMap<String, StageFacts>,
    pub store: Arc<Store>,
    /// Files of sources, by their digest; a run does not know them.
    pub files: HashMap<Digest, PathBuf>,
    /// What sources amounted to that is not their bytes, by its digest.
    pub contents: HashMap<Digest, Arc<[u8]>>,
    /// Holds the files of a commit while they are looked at.
    _checkout: Option<tempfile::TempDir>,
}

/// What is known of a stage.
#[derive(Default)]
pub struct StageFacts {
    /// `None`: something upstream must run first.
    pub identity: Option<Identity>,
    /// Params as the file gives them, where the identity is not known.
    pub params: serde_json::Map<String, serde_json::Value>,
    pub entry: Option<CachedEntry>,
}

impl PipelineState {
    /// What a word names: a pipeline file, a run (its id, the start of one, or `last`), a commit.
    ///
    /// # Errors
    /// It names nothing, or a pipeline that is wrong.
    pub fn named(word: &str, file: &Path, choices: &Choices) -> Result<Self, Failure> {
        if Path::new(word).is_file() {
            return Self::of_file(Path::new(word), word.to_owned(), choices, None);
        }
        let root = locate::locate(file)?.root;
        let store = locate::open_store(choices, &root)?;
        if let Some(id) = run_named(&store, word)? {
            return Self::of_run(&id, store);
        }
        let Some(commit) = git::resolve(&root, word) else {
            if let Some(trouble) = git::commit(&root).trouble {
                return Err(Failure::usage(trouble.message).help(trouble.remedy));
            }
            return Err(Failure::usage(format!("`{word}` is no file, no run and no commit"))
                .help("`preflow runs` lists runs; `last` is the newest"));
        };
        Self::of_commit(word, &commit, file, &root, &store, choices)
    }

    /// The newest run of a pipeline file.
    ///
    /// # Errors
    /// It never ran here.
    pub fn last_run(file: &Path, choices: &Choices) -> Result<Self, Failure> {
        let at = locate::locate(file)?;
        let store = locate::open_store(choices, &at.root)?;
        let mut runs = journal::runs(&store).into_iter();
        let of_this = |id: &String| history::read(&store, id).is_some_and(|run| run.key == at.key);
        let Some(id) = runs.find(of_this) else {
            let text = format!("no run of {} is known here", file.display());
            return Err(Failure::usage(text)
                .help("name what to compare with: a run, a commit (`HEAD~1`) or a file"));
        };
        Self::of_run(&id, store)
    }

    /// A file as it stands, with its sources as they are.
    fn of_file(
        file: &Path,
        label: String,
        choices: &Choices,
        checkout: Option<tempfile::TempDir>,
    ) -> Result<Self, Failure> {
        let project = project::load(file, choices)?;
        let selection = Selection::new(&project.graph, &[], &[], &[])?;
        let sources = project.digest_sources(&selection.wanted)?;
        let plan = project.judge(&selection, &sources)?;
        Ok(Self::of_plan(label, &project, &sources, &plan, checkout))
    }

    fn of_plan(
        label: String,
        project: &Project,
        sources: &[Option<SourceDigest>],
        plan: &Plan,
        checkout: Option<tempfile::TempDir>,
    ) -> Self {
        let (mut files, mut contents) = (HashMap::new(), HashMap::new());
        for source in sources.iter().flatten() {
            match &source.content {
                Some(content) => drop(contents.insert(source.digest, Arc::clone(content))),
                None => drop(source.paths.first().map(|p| files.insert(source.digest, p.clone()))),
            }
        }
        let stages = project.graph.stages.iter().zip(&plan.verdicts).map(|(node, verdict)| {
            let params = node.portable_params();
            let known = match verdict {
                Some(Verdict::Hit(entry)) => {
                    let whole = project.store.entry(&entry.fingerprint).ok().flatten();
                    let identity = whole.map(|whole| whole.identity);
                    StageFacts { identity, params, entry: Some(*entry.clone()) }
                }
                Some(Verdict::Miss(identity, _)) => {
                    StageFacts { identity: Some(identity.clone()), params, entry: None }
                }
                _ => StageFacts { params, ..StageFacts::default() },
            };
            (node.name.clone(), known)
        });
        let stages = stages.collect();
        Self {
            label,
            stages,
            store: Arc::clone(&project.store),
            files,
            contents,
            _checkout: checkout,
        }
    }

    /// The files of a commit, looked at beside the working tree, with the store of the workspace.
    fn of_commit(
        word: &str,
        commit: &str,
        file: &Path,
        root: &Path,
        store: &Store,
        choices: &Choices,
    ) -> Result<Self, Failure> {
        let checkout = tempfile::tempdir().map_err(crate::store::StoreError::from)?;
        git::export(root, commit, checkout.path())
            .map_err(|e| Failure::usage(format!("cannot read commit `{word}`: {e}")))?;
        let key = locate::locate(file)?.key;
        let there = checkout.path().join(&key);
        if !there.is_file() {
            return Err(Failure::usage(format!("commit `{word}` has no `{key}`"))
                .help("name the pipeline as the third word, or compare with a run"));
        }
        let choices = Choices { cache: Some(store.root().to_owned()), ..choices.clone() };
        let label = format!("{word} ({})", &commit[..commit.len().min(8)]);
        Self::of_file(&there, label, &choices, Some(checkout))
    }

    /// What a run made or reused.
    fn of_run(id: &str, store: Arc<Store>) -> Result<Self, Failure> {
        let lines = journal::read(&store.run_path(id).join("events.jsonl"))
            .map_err(|e| Failure::usage(format!("run {id}: {e}")))?;
        let mut stages = BTreeMap::new();
        for line in lines {
            let (stage, fingerprint) = match line.event {
                RunEvent::StageReused { stage, fingerprint }
                | RunEvent::StageFetched { stage, fingerprint, .. }
                | RunEvent::StageDone { stage, fingerprint, .. } => (stage, fingerprint),
                _ => continue,
            };
            // An entry that was collected leaves its stage unknown.
            if let Ok(Some(entry)) = store.entry(&fingerprint) {
                let identity = Some(entry.identity.clone());
                let params = entry.identity.params.clone();
                stages.insert(stage, StageFacts { identity, params, entry: Some(entry.into()) });
            }
        }
        let (files, contents) = (HashMap::new(), HashMap::new());
        Ok(Self { label: format!("run {id}"), stages, store, files, contents, _checkout: None })
    }

    /// The bytes of something that this side knows by its digest.
    #[must_use]
    pub fn content(&self, digest: &Digest) -> Option<Vec<u8>> {
        match self.contents.get(digest) {
            Some(content) => Some(content.to_vec()),
            None => self.store.object_bytes(digest).ok(),
        }
    }
}

/// Id of the run that a word names.
fn run_named(store: &Store, word: &str) -> Result<Option<String>, Failure> {
    let all = journal::runs(store);
    if word == "last" {
        return Ok(all.into_iter().find(|id| history::read(store, id).is_some()));
    }
    let mut fitting = all.into_iter().filter(|id| word.len() >= 8 && id.starts_with(word));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(Some(one)),
        (Some(one), Some(_)) if one == word => Ok(Some(one)),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("more than one run begins with `{word}`"))
                .help("`preflow runs` lists them"))
        }
        (None, _) => Ok(None),
    }
}
