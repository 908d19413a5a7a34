//! Where things are: the pipeline file, the workspace around it, its store, its sources.

use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::described::described;
use super::failure::Failure;
use super::snapshot::{self, Keeping};
use super::{Global, trust};
use crate::catalog::Catalog;
use crate::diagnostic::{Diagnostic, SourceText};
use crate::files;
use crate::graph::{Graph, Producer};
use crate::pipeline::{self, Pipeline};
use crate::plan::{Judge, Plan, Selection, Verdict};
use crate::report::words;
use crate::store::heads::Heads;
use crate::store::snapshot::Snapshot;
use crate::store::{CachedEntry, SourceDigest, Store, StoreError};
use crate::trust::{VARIABLE, by_environment};
use crate::user::is_own;
use crate::votes::{self, Effective};
use crate::workspace::{self, Worker, Workspace};

/// Larger files are no pipelines.
pub(super) const LARGEST: u64 = 2 << 20;

/// A pipeline that is loaded and checked, with its store.
pub struct Loaded {
    pub graph: Graph,
    pub store: Arc<Store>,
    /// Directory of the pipeline file, absolute.
    pub dir: PathBuf,
    /// Top of the workspace, absolute.
    pub root: PathBuf,
    /// Path of the pipeline within the workspace.
    pub key: String,
    /// The plan as it was kept, of a graph that is the same.
    pub snapshot: Option<Snapshot>,
    /// How the plan is kept; `None`: it is not.
    pub keeping: Option<Keeping>,
}

/// Splits `[FILE] NAMES…`: the first word is the file if it looks like one.
///
/// # Errors
/// No file is named and none, or more than one, is found.
pub fn file_and_names(words: &[String]) -> Result<(PathBuf, Vec<String>), Failure> {
    let is_file = |word: &String| {
        let path = Path::new(word);
        path.extension().is_some_and(|e| e == "yaml" || e == "yml") || path.is_file()
    };
    match words.split_first() {
        Some((first, rest)) if is_file(first) => Ok((first.into(), rest.to_vec())),
        _ => Ok((the_only_pipeline()?, words.to_vec())),
    }
}

fn the_only_pipeline() -> Result<PathBuf, Failure> {
    let mut found: Vec<PathBuf> =
        [".", "pipelines"].iter().flat_map(|dir| pipelines_in(Path::new(dir))).collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::usage("no pipeline file named, and none found here or in `pipelines/`")
            .help("name one: `preflow run pipelines/NAME.yaml`")),
        many => {
            let names: Vec<String> = many.iter().map(|p| p.display().to_string()).collect();
            Err(Failure::usage("no pipeline file named, and there is more than one")
                .help(format!("name one of {}", names.join(", "))))
        }
    }
}

/// YAML files directly in `dir` that begin like a pipeline.
pub fn pipelines_in(dir: &Path) -> Vec<PathBuf> {
    let items = std::fs::read_dir(dir).into_iter().flatten().flatten();
    items
        .map(|item| item.path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .filter(|p| {
            files::read_to_string(p, LARGEST)
                .is_ok_and(|text| text.lines().any(|l| l.starts_with("preflow:")))
        })
        .map(|p| p.strip_prefix(".").map(Path::to_owned).unwrap_or(p))
        .collect()
}

/// The top of the workspace around a directory: the nearest one upwards that holds `preflow.yaml`
/// or a git repository; else the directory itself. Above it, files and directories of others than
/// the user and the owner of the directory (as in a shared `/tmp`) say nothing.
#[must_use]
pub fn workspace_root(dir: &Path) -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let owner = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.uid());
    // Who works in a directory of somebody else is told so where its files are read.
    let of_dir = owner(dir);
    let own = |path: &Path| owner(path).is_some_and(|uid| is_own(uid) || Some(uid) == of_dir);
    for place in dir.ancestors() {
        let here = place == dir;
        if !here && !own(place) {
            break;
        }
        let file = place.join(workspace::FILE);
        if place.join(".git").exists() || file.exists() && (here || own(&file)) {
            return place.to_owned();
        }
    }
    dir.to_owned()
}

/// What the workspace file at `root` says. `None`: there is none.
///
/// # Errors
/// It is wrong, or belongs to somebody else.
pub fn workspace_file(root: &Path) -> Result<Option<Workspace>, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let file = root.join(workspace::FILE);
    let Ok(meta) = std::fs::metadata(&file) else {
        // A link that leads nowhere is told as such.
        if std::fs::symlink_metadata(&file).is_err() {
            return Ok(None);
        }
        return Ok(Some(workspace::read(&pipeline::open(&file.to_string_lossy())?)?));
    };
    if !is_own(meta.uid()) && !by_environment() {
        let text = format!("`{}` belongs to another user (uid {})", file.display(), meta.uid());
        return Err(Failure::usage(text).help(format!(
            "work in a clone of your own; where its owner may say what runs and where results go: \
             {VARIABLE}=1"
        )));
    }
    Ok(Some(workspace::read(&pipeline::open(&file.to_string_lossy())?)?))
}

/// Loads, checks, and opens the store.
///
/// # Errors
/// Whatever is wrong with the file, or the store.
pub fn load(file: &Path, args: &Global) -> Result<Loaded, Failure> {
    Ok(load_at(file, args, place(file, args))?.0)
}

/// The same for who asks for verdicts next: where the plan is kept, it is looked for there first.
/// Never given back: the process ends with it, and taking thousands of stages apart takes longer
/// than leaving them.
///
/// # Errors
/// As [`load`].
pub fn load_to_judge(file: &Path, args: &Global) -> Result<ManuallyDrop<Loaded>, Failure> {
    let place = place(file, args);
    let path = file.to_string_lossy();
    let key = place.as_ref().ok().and_then(|p| snapshot::key(&path, args, &p.root, &p.store));
    if let (Ok(place), Some(key)) = (&place, &key)
        && let Some((graph, snapshot)) = snapshot::load(&path, &place.key, key, &place.store)
    {
        let loaded = Loaded { snapshot: Some(snapshot), ..place.clone().holds(graph) };
        return Ok(ManuallyDrop::new(loaded));
    }
    let (loaded, pipeline, texts) = load_at(file, args, place)?;
    std::mem::forget(pipeline);
    let keeping = key.map(|key| Keeping::new(key, texts));
    Ok(ManuallyDrop::new(Loaded { keeping, ..loaded }))
}

/// Where a pipeline file lies, and the store of the workspace around it.
#[derive(Clone)]
struct Place {
    store: Arc<Store>,
    dir: PathBuf,
    root: PathBuf,
    key: String,
}

fn place(file: &Path, args: &Global) -> Result<Place, Failure> {
    let (dir, root, key) = whereabouts(file)?;
    Ok(Place { store: open_store(args, &root)?, dir, root, key })
}

impl Place {
    fn holds(self, graph: Graph) -> Loaded {
        let Self { store, dir, root, key } = self;
        Loaded { graph, store, dir, root, key, snapshot: None, keeping: None }
    }
}

type Texts = Vec<Arc<SourceText>>;

/// The pipeline resolved, as the file says it, and all texts that it was read from.
fn load_at(
    file: &Path,
    args: &Global,
    place: Result<Place, Failure>,
) -> Result<(Loaded, Pipeline, Texts), Failure> {
    // What is wrong with the file is told before what is wrong with the store.
    let document = pipeline::open(&file.to_string_lossy())?;
    let texts = document.texts.clone();
    let profile = args.profile.as_deref();
    let overrides = pipeline::Overrides { profile, sets: &args.sets, trial: &[] };
    let pipeline = document.into_pipeline(&overrides)?;
    let place = place?;
    let graph = Graph::resolve(&pipeline, &catalog(&place.root, Some(&place.store))?)?;
    Ok((place.holds(graph), pipeline, texts))
}

/// The kinds of the built-in worker and of those that the workspace file names and that the user
/// trusts.
///
/// # Errors
/// The workspace file is wrong, or a worker does not describe itself.
pub fn catalog(root: &Path, store: Option<&Store>) -> Result<Catalog, Failure> {
    let mut catalog = Catalog::builtin();
    let workers = workers(root)?;
    if !trust::is_trusted(root, &workers)? {
        catalog.set_unasked(trust::why_not(&workers));
        return Ok(catalog);
    }
    for Worker { name, command, span } in workers {
        let command = whole_command(root, &command);
        let failed = |message: String| {
            let problem = Diagnostic::new(message, Some(span.clone()));
            let said = format!("`{} describe` must print its catalog", command.join(" "));
            Failure::Diagnostics(vec![problem.help(said)])
        };
        let text = described(&command, root, store)
            .map_err(|e| failed(format!("worker `{name}` does not describe itself: {e}")))?;
        catalog.add_worker(&text, &command).map_err(|e| failed(format!("worker `{name}`: {e}")))?;
    }
    Ok(catalog)
}

/// The workers that the workspace file names.
///
/// # Errors
/// The workspace file is wrong.
pub fn workers(root: &Path) -> Result<Vec<Worker>, Failure> {
    Ok(workspace_file(root)?.map(|file| file.workers).unwrap_or_default())
}

/// The command of a worker with whole paths where it names files of the workspace: it may be
/// started from anywhere.
#[must_use]
pub fn whole_command(root: &Path, command: &[String]) -> Vec<String> {
    let whole = |word: &String| match root.join(word) {
        path if path.is_file() => path.to_string_lossy().into_owned(),
        _ => word.clone(),
    };
    command.iter().map(whole).collect()
}

/// The kinds that a pipeline file may use.
///
/// # Errors
/// As [`catalog`].
pub fn catalog_of(file: &Path, args: &Global) -> Result<Catalog, Failure> {
    let (_, root, _) = whereabouts(file)?;
    catalog(&root, open_store(args, &root).ok().as_deref())
}

/// Directory of a file, top of the workspace around it, and its path within.
///
/// # Errors
/// The current directory is gone.
pub fn whereabouts(file: &Path) -> Result<(PathBuf, PathBuf, String), Failure> {
    let absolute = std::path::absolute(file)
        .map_err(|e| Failure::usage(format!("cannot find `{}`: {e}", file.display())))?;
    let absolute = absolute.canonicalize().unwrap_or(absolute);
    let dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let root = workspace_root(&dir);
    let key = absolute.strip_prefix(&root).unwrap_or(&absolute).display().to_string();
    Ok((dir, root, key))
}

/// Opens the store of the workspace at `root`, or the one that the user named.
///
/// # Errors
/// The place cannot hold one.
pub fn open_store(args: &Global, root: &Path) -> Result<Arc<Store>, Failure> {
    let place = args.cache.clone().unwrap_or_else(|| root.join("cache"));
    let place = std::path::absolute(&place).unwrap_or(place);
    Ok(Arc::new(Store::open(&place)?))
}

impl Loaded {
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

    /// Digests of the sources that the wanted stages read, hashed side by side.
    ///
    /// # Errors
    /// One diagnostic for each source that is missing, empty, or cannot be read.
    pub fn digest_sources(
        &self,
        wanted: &BTreeSet<usize>,
    ) -> Result<Vec<Option<SourceDigest>>, Failure> {
        let mut needed = BTreeSet::new();
        for stage in wanted {
            for producer in self.graph.stages[*stage].inputs.iter().flat_map(|i| &i.from) {
                if let Producer::Source(source) = producer {
                    needed.insert(*source);
                }
            }
        }
        let store = &self.store;
        let sources = &self.graph.sources;
        let top = &pipeline::top_around(&self.dir.join("pipeline"));
        let one = |source: usize| {
            // Workers have another working directory, and the memo knows files by whole paths.
            let path = std::path::absolute(&sources[source].path);
            let path = path.unwrap_or_else(|_| sources[source].path.clone().into());
            // The folder's real path; a link keeps its own name, whose ending says how to read it.
            let path = match (path.parent().map(std::path::Path::canonicalize), path.file_name()) {
                (Some(Ok(folder)), Some(name)) => folder.join(name),
                _ => path,
            };
            if sources[source].is_of_param() && !files::is_inside(top, &path) {
                return (source, Err(self.outside(source, top)));
            }
            if sources[source].port_type == votes::PORT_TYPE {
                return (source, self.votes(source, &path));
            }
            let digest = store.digest_source(&path.to_string_lossy());
            (source, digest.map_err(|e| self.source_problem(source, &e)))
        };
        let results: Vec<(usize, Result<SourceDigest, Diagnostic>)> = if needed.len() < 2 {
            needed.into_iter().map(one).collect()
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    needed.into_iter().map(|s| scope.spawn(move || one(s))).collect();
                let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
                    t.join().expect("invariant: hashing does not panic")
                };
                threads.into_iter().map(join).collect()
            })
        };
        let mut digests: Vec<Option<SourceDigest>> = vec![None; sources.len()];
        let mut problems = Vec::new();
        for (source, result) in results {
            match result {
                Ok(digest) => digests[source] = Some(digest),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(digests) } else { Err(Failure::Diagnostics(problems)) }
    }

    fn outside(&self, source: usize, top: &Path) -> Diagnostic {
        let node = &self.graph.sources[source];
        let top = top.display();
        let message = format!("`{}`: `{}` lies outside of `{top}`", node.name, node.path);
        let help =
            "files that params name belong to the repository; data elsewhere can be a source";
        Diagnostic::new(message, Some(node.span.clone())).help(help)
    }

    /// The votes of a folder that count.
    fn votes(&self, source: usize, path: &Path) -> Result<SourceDigest, Diagnostic> {
        let folder = votes::Folder::read(path).map_err(|error| {
            let node = &self.graph.sources[source];
            let message = format!("votes of `{}`: {error}", node.name);
            Diagnostic::new(message, Some(node.span.clone())).help(error.help())
        })?;
        for problem in &folder.problems {
            super::complain(&format!(
                "warning: {}:{}: {}\n",
                problem.path.display(),
                problem.line,
                problem.what
            ));
        }
        Ok(self.store.digest_content(Effective::of(&folder).to_bytes()))
    }

    fn source_problem(&self, source: usize, error: &StoreError) -> Diagnostic {
        let node = &self.graph.sources[source];
        let help = match error {
            StoreError::SourceMissing(_) | StoreError::SourceNoMatch(_) => {
                "paths are relative to the pipeline file"
            }
            StoreError::SourceEmpty(_) => "a source must hold something",
            StoreError::SourceDangling(..) => "mend the link, or name the file itself",
            StoreError::ChangedWhileRead { .. } => "run again when nobody writes to it",
            _ => "name a file, a directory, or a pattern that matches files",
        };
        Diagnostic::new(format!("source `{}`: {error}", node.name), Some(node.span.clone()))
            .help(help)
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
                super::complain(&format!(
                    "warning: what this pipeline made last is not known: {error}; `preflow \
                     verify --repair` moves the file aside\n"
                ));
            });
            Heads { pipeline: self.key.clone(), ..Heads::default() }
        })
    }

    /// Verdicts on the wanted stages.
    ///
    /// # Errors
    /// See [`Loaded::digest_sources`] and [`Judge::plan`].
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
        let plan = judge.plan(selection)?;
        self.store.save_memo();
        snapshot::keep(self, sources, &plan);
        Ok(plan)
    }
}
