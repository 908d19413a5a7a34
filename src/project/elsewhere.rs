//! Sources whose files are elsewhere: which commit and content they are, and their files brought
//! into the store. A commit is found once: the lock file keeps it, and until there is one the
//! store. Does not know which stages read them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Failure, Project, lock};
use crate::diagnostic::Diagnostic;
use crate::graph::{HubFiles, SourceOrigin, WILDCARDS};
use crate::hub::{Hub, HubError, HubSettings, Listing, WantedFile, is_commit, model_files};
use crate::identity::Digest;
use crate::lock::{LockedSource, path_of};
use crate::store::digest::{TreeFile, tree_digest};
use crate::store::part::TransferProgress;
use crate::store::{SourceDigest, SourceFiles, StoreError, derived};

/// Goes into the key under which lists of repositories are kept.
const FORMAT: &str = "hub/1";

/// By the name of the source.
pub type Pins = Mutex<BTreeMap<String, LockedSource>>;

/// What a source elsewhere is.
struct Content {
    digest: Digest,
    /// `None`: the lock file says the digest, and nobody was asked which files make it up.
    files: Option<Files>,
}

/// The files of a source elsewhere.
struct Files {
    /// Repository and commit; `None`: a file of the web.
    repository: Option<(String, String)>,
    /// Of a file of the web nobody says the size: 0.
    tree: Vec<TreeFile>,
}

/// A source that was brought.
#[derive(Debug)]
pub struct BroughtSource {
    pub name: String,
    pub files: usize,
    pub bytes: u64,
}

/// What moved when commits were asked for anew.
#[derive(Debug, PartialEq, Eq)]
pub struct MovedSource {
    pub name: String,
    pub hub: String,
    pub revision: String,
    /// `None`: it was not known before.
    pub before: Option<String>,
    pub now: String,
}

impl Project {
    /// What a source elsewhere holds, without its large files.
    ///
    /// # Errors
    /// It is not there, may not be read, or nobody answers.
    pub(super) fn digest_elsewhere(&self, source: usize) -> Result<SourceDigest, Diagnostic> {
        let content = self.content(source).map_err(|e| self.hub_problem(source, &e))?;
        Ok(self.placed(source, &content).unwrap_or_else(|| {
            let files = content.files.iter().flat_map(|files| &files.tree);
            SourceDigest {
                digest: content.digest,
                paths: Vec::new(),
                bytes: files.map(|file| file.size).sum(),
                files: SourceFiles::default(),
                content: None,
            }
        }))
    }

    /// Sources that these stages read and whose files are not here.
    #[must_use]
    pub fn to_fetch(&self, stages: &[usize], sources: &[Option<SourceDigest>]) -> Vec<usize> {
        let read = self.graph.sources_read(stages).into_iter();
        read.filter(|source| sources[*source].as_ref().is_some_and(|s| s.paths.is_empty()))
            .collect()
    }

    /// Where a source lies; `None`: its files are elsewhere and were never brought.
    #[must_use]
    pub fn source_path(&self, source: usize) -> Option<PathBuf> {
        let node = &self.graph.sources[source];
        if node.is_here() {
            return Some(PathBuf::from(&node.path));
        }
        self.digest_elsewhere(source).ok()?.paths.into_iter().next()
    }

    /// Brings the files of a source elsewhere; what came of an earlier try is gone on with.
    ///
    /// # Errors
    /// It is not there, may not be read, is not what it should be, nobody answers, or the disk is
    /// full.
    pub async fn fetch(
        &self,
        source: usize,
        progress: &TransferProgress,
    ) -> Result<(SourceDigest, BroughtSource), Failure> {
        let failed = |e: HubError| Failure::Diagnostics(vec![self.hub_problem(source, &e)]);
        self.bring(source, progress).await.map_err(failed)
    }

    async fn bring(
        &self,
        source: usize,
        progress: &TransferProgress,
    ) -> Result<(SourceDigest, BroughtSource), HubError> {
        let node = &self.graph.sources[source];
        let hub = Hub::new(HubSettings::of_environment()?)?;
        self.store.prepare_for_writing()?;
        let content = self.resolve(source, true).await?;
        let files = content.files.as_ref().expect("invariant: they were asked for");
        let tree = &files.tree;
        let wanted = tree.iter().map(|file| self.wanted(&hub, node, files, file));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let needed = tree.iter().map(|file| file.size).sum();
        progress.expect(needed);
        let come = |file: &WantedFile| {
            std::fs::metadata(self.store.part_path(&file.digest)).map_or(0, |meta| meta.len())
        };
        let left = needed.saturating_sub(wanted.iter().map(come).sum());
        if let Some(free) = self.store.free_bytes().filter(|free| *free < left) {
            let path = self.store.root().to_owned();
            return Err(HubError::Space { path, needed: left, free });
        }
        let folder = self.store.arrival_folder()?;
        for (file, wanted) in tree.iter().zip(&wanted) {
            let to = folder.path().join(&file.path);
            fs_err::create_dir_all(to.parent().unwrap_or(folder.path()))
                .map_err(StoreError::from)?;
            hub.bring(&self.store, wanted, &to, progress).await?;
        }
        self.store.keep_fetched(&folder.keep(), tree)?;
        tree.iter().for_each(|file| self.store.forget_part(&file.digest));
        self.store.save_memo();
        let Some(digest) = self.placed(source, &content) else {
            let reason = format!("they are not what {} stands for", content.digest);
            return Err(HubError::OtherBytes { what: node.path.clone(), reason });
        };
        let brought =
            BroughtSource { name: node.name.clone(), files: tree.len(), bytes: digest.bytes };
        Ok((digest, brought))
    }

    /// One file, as it is asked for.
    fn wanted(
        &self,
        hub: &Hub,
        node: &crate::graph::GraphSource,
        files: &Files,
        file: &TreeFile,
    ) -> Result<WantedFile, HubError> {
        let (what, url) = match (&files.repository, &node.origin) {
            (Some((repository, commit)), _) => (
                format!("`{}` of `{repository}`", file.path),
                hub.address(repository, commit, &file.path),
            ),
            (None, SourceOrigin::Url { url, .. }) => (format!("`{url}`"), url.parse().ok()),
            (None, _) => (file.path.clone(), None),
        };
        let url = url.ok_or_else(|| HubError::Endpoint(what.clone()))?;
        Ok(WantedFile {
            what,
            url,
            repository: files.repository.clone(),
            size: files.repository.is_some().then_some(file.size),
            digest: file.digest,
        })
    }

    /// The source as it lies in the store. `None`: it does not, or is not what it should be.
    fn placed(&self, source: usize, content: &Content) -> Option<SourceDigest> {
        let tree = &content.files.as_ref()?.tree;
        let folder = self.store.fetched_path(tree);
        if !folder.is_dir() {
            return None;
        }
        let pattern = pattern_of(&self.graph.sources[source].origin);
        let found = match (pattern, tree.as_slice()) {
            (Some(pattern), _) if pattern.contains(WILDCARDS) => {
                let path = |file: &TreeFile| folder.join(&file.path);
                let names = tree.iter().map(|f| (path(f), below(pattern, &f.path).to_owned()));
                self.store.digest_many(tree.iter().map(path).collect(), names.collect())
            }
            (Some(_), [file]) => {
                self.store.digest_source(&folder.join(&file.path).to_string_lossy())
            }
            _ => self.store.digest_source(&folder.to_string_lossy()),
        };
        let found = found.ok().filter(|found| found.digest == content.digest)?;
        self.store.touch_fetched(&folder);
        Some(found)
    }

    /// What a source elsewhere is, in a runtime of its own: whoever asks may be in one.
    fn content(&self, source: usize) -> Result<Content, HubError> {
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(StoreError::from)?;
            runtime.block_on(self.resolve(source, false))
        };
        std::thread::scope(|scope| {
            let asked = scope.spawn(ask).join();
            asked.unwrap_or_else(|fault| std::panic::resume_unwind(fault))
        })
    }

    /// What a source elsewhere is. Of a hub: the commit of the lock file, else the one that was
    /// found when this store first asked, else what the revision is now. With `files` they are
    /// known too.
    async fn resolve(&self, source: usize, files: bool) -> Result<Content, HubError> {
        let node = &self.graph.sources[source];
        let asked = match &node.origin {
            SourceOrigin::Hub(asked) => asked,
            SourceOrigin::Url { url, sha256 } => return web_file(url, sha256),
            SourceOrigin::Here => unreachable!("invariant: only sources elsewhere are asked for"),
        };
        let locked = self.locked(source, asked)?;
        let settings = HubSettings::of_environment()?;
        let known = match &locked {
            Some(locked) => Some(locked.commit.clone()),
            None if is_commit(&asked.revision) => Some(asked.revision.clone()),
            None => self.kept_commit(&settings, asked),
        };
        let kept = known.as_ref().and_then(|commit| self.kept_listing(&settings, asked, commit));
        let listing = match (kept, &locked) {
            (Some(listing), _) => listing,
            (None, Some(locked)) if !files => {
                self.pin(node.name.clone(), locked.clone());
                return Ok(Content { digest: locked.digest, files: None });
            }
            (None, _) => {
                let revision = known.as_deref().unwrap_or(&asked.revision);
                self.ask(settings, asked, revision).await?
            }
        };
        let content = hub_files(asked, &listing)?;
        if let Some(locked) = locked.filter(|locked| locked.digest != content.digest) {
            let reason = format!("the lock file says {}, not {}", locked.digest, content.digest);
            return Err(HubError::OtherBytes { what: node.path.clone(), reason });
        }
        self.pin(node.name.clone(), pin_of(asked, &listing.commit, content.digest));
        Ok(content)
    }

    /// Asks the hub, and keeps what it says.
    async fn ask(
        &self,
        settings: HubSettings,
        asked: &HubFiles,
        revision: &str,
    ) -> Result<Listing, HubError> {
        let _ = self.store.prepare_for_writing();
        let hub = Hub::new(settings.clone())?;
        let takes = |path: &str| takes(asked, path);
        let store: &Arc<_> = &self.store;
        let listing = hub.listing(store, &asked.repository, revision, &takes).await?;
        if let Ok(bytes) = serde_json::to_vec(&listing) {
            self.keep(&place_of(&settings, asked, &listing.commit), &bytes);
        }
        // A commit is its own answer, and its place holds the list.
        if revision == asked.revision && !is_commit(revision) {
            self.keep(&place_of(&settings, asked, revision), listing.commit.as_bytes());
        }
        Ok(listing)
    }

    /// Which commits the sources of hubs are now, whatever the lock file and the store say; both
    /// say it from now on.
    ///
    /// # Errors
    /// One is not there, may not be read, or nobody answers.
    pub fn move_sources(&self, names: &[String]) -> Result<Vec<MovedSource>, Failure> {
        let runtime = super::execution::runtime()?;
        let mut all = Vec::new();
        for (source, node) in self.graph.sources.iter().enumerate() {
            let SourceOrigin::Hub(asked) = &node.origin else { continue };
            if !names.is_empty() && !names.contains(&node.name) {
                continue;
            }
            let work = async {
                let before = self.locked(source, asked)?.map(|locked| locked.commit);
                let settings = HubSettings::of_environment()?;
                let listing = self.ask(settings, asked, &asked.revision).await?;
                let content = hub_files(asked, &listing)?;
                Ok((before, listing.commit, content.digest))
            };
            let (before, now, digest) = runtime
                .block_on(work)
                .map_err(|e: HubError| Failure::Diagnostics(vec![self.hub_problem(source, &e)]))?;
            self.pin(node.name.clone(), pin_of(asked, &now, digest));
            all.push(MovedSource {
                name: node.name.clone(),
                hub: asked.repository.clone(),
                revision: asked.revision.clone(),
                before,
                now,
            });
        }
        Ok(all)
    }

    /// What is known of the sources of hubs, for the lock file.
    #[must_use]
    pub fn pinned(&self) -> BTreeMap<String, LockedSource> {
        self.pins.lock().expect("invariant: nobody panics with it").clone()
    }

    fn pin(&self, name: String, pin: LockedSource) {
        self.pins.lock().expect("invariant: nobody panics with it").insert(name, pin);
    }

    /// What the lock file says of a source, where it is still asked for in the same words.
    ///
    /// # Errors
    /// It cannot be read: another commit than the one it names must not be taken for it.
    fn locked(&self, source: usize, asked: &HubFiles) -> Result<Option<LockedSource>, HubError> {
        let path = path_of(Path::new(&self.graph.path));
        let mut lock = lock::parse(&path).map_err(|e| HubError::Lock(e.to_string()))?;
        let locked = lock.sources.remove(&self.graph.sources[source].name);
        let HubFiles { repository, revision, files } = asked;
        Ok(locked.filter(|locked| {
            locked.hub == *repository && locked.revision == *revision && locked.files == *files
        }))
    }

    fn kept_commit(&self, settings: &HubSettings, asked: &HubFiles) -> Option<String> {
        let bytes = self.kept(&place_of(settings, asked, &asked.revision))?;
        String::from_utf8(bytes).ok().filter(|commit| is_commit(commit))
    }

    fn kept_listing(
        &self,
        settings: &HubSettings,
        asked: &HubFiles,
        commit: &str,
    ) -> Option<Listing> {
        let listing = serde_json::from_slice(&self.kept(&place_of(settings, asked, commit))?);
        listing.ok().filter(|listing: &Listing| listing.commit == commit)
    }

    fn kept(&self, place: &str) -> Option<Vec<u8>> {
        let key = derived::key(FORMAT, place.as_bytes())?;
        self.store.derived(&derived::name("hub", place.as_bytes()), &key)
    }

    fn keep(&self, place: &str, bytes: &[u8]) {
        if let Some(key) = derived::key(FORMAT, place.as_bytes()) {
            self.store.keep_derived(&derived::name("hub", place.as_bytes()), &key, bytes);
        }
    }

    fn hub_problem(&self, source: usize, error: &HubError) -> Diagnostic {
        let node = &self.graph.sources[source];
        let message = format!("source `{}`: {error}", node.name);
        Diagnostic::new(message, Some(node.span.clone())).help(error.help())
    }
}

/// What is asked of which hub: lists differ with the files whose hashes were wanted.
fn place_of(settings: &HubSettings, asked: &HubFiles, revision: &str) -> String {
    let HubFiles { repository, files, .. } = asked;
    format!("{} {repository} {revision} {files:?}", settings.endpoint)
}

fn pin_of(asked: &HubFiles, commit: &str, digest: Digest) -> LockedSource {
    LockedSource {
        hub: asked.repository.clone(),
        revision: asked.revision.clone(),
        files: asked.files.clone(),
        commit: commit.to_owned(),
        digest,
    }
}

/// Which files are asked for; `None`: a whole model.
fn pattern_of(origin: &SourceOrigin) -> Option<&str> {
    match origin {
        SourceOrigin::Hub(asked) => asked.files.as_deref(),
        SourceOrigin::Url { url, .. } => Some(file_name(url)),
        SourceOrigin::Here => None,
    }
}

/// Whether a file of the repository belongs to what is asked for.
fn takes(asked: &HubFiles, path: &str) -> bool {
    let Some(files) = &asked.files else { return model_files(path) };
    if !files.contains(WILDCARDS) {
        return files == path;
    }
    let options =
        glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    glob::Pattern::new(files).is_ok_and(|pattern| pattern.matches_with(path, options))
}

/// Name of a file below the part of its pattern that has no wildcards: as of files here.
fn below<'a>(pattern: &str, path: &'a str) -> &'a str {
    let fixed = pattern.split('/').take_while(|part| !part.contains(WILDCARDS)).count();
    path.splitn(fixed + 1, '/').last().unwrap_or(path)
}

/// The files of a repository that are asked for, and the digest that the same files have here.
fn hub_files(asked: &HubFiles, listing: &Listing) -> Result<Content, HubError> {
    let mut tree = Vec::new();
    for file in listing.files.iter().filter(|file| takes(asked, &file.path)) {
        let odd = || HubError::Odd {
            host: asked.repository.clone(),
            reason: format!("nothing says what `{}` hashes to", file.path),
        };
        let digest = file.digest.ok_or_else(odd)?;
        tree.push(TreeFile { path: file.path.clone(), digest, size: file.size });
    }
    let repository = &asked.repository;
    if tree.is_empty() {
        let what = match &asked.files {
            Some(files) => format!("`{files}` in `{repository}`{}", examples(listing)),
            None => format!(
                "model in `{repository}`: no config.json, no model.safetensors{}",
                examples(listing)
            ),
        };
        return Err(HubError::NotThere { host: "the hub".into(), what });
    }
    if tree.iter().all(|file| file.size == 0) {
        let files = asked.files.as_deref().unwrap_or("the model");
        return Err(HubError::Empty { what: format!("`{files}` in `{repository}`") });
    }
    let digest = match asked.files.as_deref() {
        None => tree_digest(&tree),
        Some(pattern) if pattern.contains(WILDCARDS) => {
            let named = |file: &TreeFile| TreeFile {
                path: below(pattern, &file.path).to_owned(),
                ..file.clone()
            };
            tree_digest(&tree.iter().map(named).collect::<Vec<_>>())
        }
        Some(_) => tree[0].digest,
    };
    let repository = Some((repository.clone(), listing.commit.clone()));
    Ok(Content { digest, files: Some(Files { repository, tree }) })
}

/// Some files that are there instead.
fn examples(listing: &Listing) -> String {
    let is_data = |path: &&str| !path.starts_with('.') && *path != "README.md";
    let all: Vec<&str> = listing.files.iter().map(|f| f.path.as_str()).filter(is_data).collect();
    match all.as_slice() {
        [] => "; it holds nothing".to_owned(),
        [some @ .., _] if some.len() >= 6 => format!("; it holds {}, …", all[..6].join(", ")),
        all => format!("; it holds {}", all.join(", ")),
    }
}

fn web_file(url: &str, sha256: &str) -> Result<Content, HubError> {
    let digest = format!("sha256:{sha256}").parse::<Digest>();
    let digest = digest.map_err(|_| HubError::Endpoint(url.to_owned()))?;
    if digest == Digest::of(b"") {
        return Err(HubError::Empty { what: format!("`{url}`, by its hash,") });
    }
    let file = TreeFile { path: file_name(url).to_owned(), digest, size: 0 };
    Ok(Content { digest, files: Some(Files { repository: None, tree: vec![file] }) })
}

/// The last part of an address.
fn file_name(url: &str) -> &str {
    let path = url.split('?').next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or(path)
}
