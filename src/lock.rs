//! The lock file: which commit each source of a hub is, what each stage of a pipeline is and what
//! it made, one field a line, so that git shows and merges it block by block. Knows nothing of
//! stores, runs or YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::identity::{Digest, Fingerprint};

const HEADER: &str = "# preflow.lock/1: what the last run made. Commit it; do not edit it.\n";

/// What a pipeline's stages are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    pub stages: BTreeMap<String, LockedStage>,
    pub sources: BTreeMap<String, LockedSource>,
}

/// Which files of a hub a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedSource {
    /// `ORG/NAME`, or `datasets/ORG/NAME`.
    pub hub: String,
    /// What the pipeline asks for.
    pub revision: String,
    /// Which of its files; `None`: those of a model.
    pub files: Option<String>,
    /// What that was when it was asked for.
    pub commit: String,
    /// Of their content.
    pub digest: Digest,
}

/// One block of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedStage {
    /// `KIND@VERSION`.
    pub kind: String,
    pub fingerprint: Fingerprint,
    pub outputs: BTreeMap<String, Digest>,
}

/// A lock file that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{path}:{line}: {reason}", path = path.display())]
pub struct LockError {
    pub path: PathBuf,
    pub line: usize,
    pub reason: String,
}

/// Where the lock of a pipeline file lies: `workshop.yaml` → `workshop.lock`.
#[must_use]
pub fn path_of(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("lock")
}

impl Lock {
    /// Reads the text of a lock file; `path` is for messages.
    ///
    /// # Errors
    /// The first line that is not one of a lock file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, LockError> {
        let mut blocks: BTreeMap<String, LockBlock> = BTreeMap::new();
        let mut current: Option<String> = None;
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            let wrong = |reason: &str| LockError {
                path: path.to_owned(),
                line: i + 1,
                reason: reason.to_owned(),
            };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if ["<<<<<<<", "=======", ">>>>>>>", "|||||||"].iter().any(|m| line.starts_with(m)) {
                return Err(wrong("a conflict of git: take either side, then run again"));
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                current = Some(name.to_owned());
                let block = LockBlock { line: i + 1, ..LockBlock::default() };
                if blocks.insert(name.to_owned(), block).is_some() {
                    return Err(wrong("the block stands here twice"));
                }
                continue;
            }
            let name = current.as_deref().unwrap_or_default();
            let (Some(block), Some((key, value))) = (blocks.get_mut(name), line.split_once(" = "))
            else {
                return Err(wrong("neither `[stage]` nor `field = value`"));
            };
            if name.starts_with(SOURCE) {
                if !["hub", "revision", "files", "commit", "digest"].contains(&key) {
                    return Err(wrong("an unknown field: written by another version of preflow?"));
                }
                block.fields.insert(key.to_owned(), value.to_owned());
                continue;
            }
            match (key, key.strip_prefix("output.")) {
                ("kind", _) => block.kind = value.to_owned(),
                ("fingerprint", _) => {
                    let parsed = value.parse().map_err(|_| wrong("not a fingerprint"))?;
                    block.fingerprint = Some(parsed);
                }
                (_, Some(port)) => {
                    let parsed = value.parse().map_err(|_| wrong("not a digest"))?;
                    block.outputs.insert(port.to_owned(), parsed);
                }
                _ => return Err(wrong("an unknown field: written by another version of preflow?")),
            }
        }
        let mut lock = Self::default();
        for (name, block) in blocks {
            let line = block.line;
            let wrong = |reason| LockError { path: path.to_owned(), line, reason };
            if let Some(name) = name.strip_prefix(SOURCE) {
                let source = block.source();
                let source =
                    source.ok_or_else(|| wrong(format!("source `{name}` is not whole")))?;
                lock.sources.insert(name.to_owned(), source);
                continue;
            }
            let Some(fingerprint) = block.fingerprint else {
                return Err(wrong(format!("stage `{name}` has no fingerprint")));
            };
            let stage = LockedStage { kind: block.kind, fingerprint, outputs: block.outputs };
            lock.stages.insert(name, stage);
        }
        Ok(lock)
    }

    /// The text of the file: sorted, so that equal locks have equal bytes.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (name, source) in &self.sources {
            let LockedSource { hub, revision, files, commit, digest } = source;
            text += &format!("\n[{SOURCE}{name}]\nhub = {hub}\nrevision = {revision}\n");
            if let Some(files) = files {
                text += &format!("files = {files}\n");
            }
            text += &format!("commit = {commit}\ndigest = {digest}\n");
        }
        for (name, stage) in &self.stages {
            let LockedStage { kind, fingerprint, outputs } = stage;
            text += &format!("\n[{name}]\nkind = {kind}\nfingerprint = {fingerprint}\n");
            for (port, digest) in outputs {
                text += &format!("output.{port} = {digest}\n");
            }
        }
        text
    }

    /// Merges what two branches made of a lock. A block that both changed to something else is left
    /// out: neither side's run made the merged pipeline, so the next run says what it is.
    #[must_use]
    pub fn merge(base: &Self, ours: &Self, theirs: &Self) -> Self {
        Self {
            stages: merged(&base.stages, &ours.stages, &theirs.stages),
            sources: merged(&base.sources, &ours.sources, &theirs.sources),
        }
    }
}

fn merged<T: Clone + PartialEq>(
    base: &BTreeMap<String, T>,
    ours: &BTreeMap<String, T>,
    theirs: &BTreeMap<String, T>,
) -> BTreeMap<String, T> {
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let one = |name: &String| {
        let (base, ours, theirs) = (base.get(name), ours.get(name), theirs.get(name));
        let merged = match () {
            () if ours == theirs || theirs == base => ours,
            () if ours == base => theirs,
            () => None,
        };
        merged.map(|block| (name.clone(), block.clone()))
    };
    names.into_iter().filter_map(one).collect()
}

/// What the name of a source's block begins with: no stage can be called so.
const SOURCE: &str = "source ";

/// A block while it is read.
#[derive(Default)]
struct LockBlock {
    line: usize,
    kind: String,
    fingerprint: Option<Fingerprint>,
    outputs: BTreeMap<String, Digest>,
    /// Of a source.
    fields: BTreeMap<String, String>,
}

impl LockBlock {
    fn source(mut self) -> Option<LockedSource> {
        Some(LockedSource {
            hub: self.fields.remove("hub")?,
            revision: self.fields.remove("revision")?,
            files: self.fields.remove("files"),
            commit: self.fields.remove("commit")?,
            digest: self.fields.remove("digest")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(seed: &str) -> LockedStage {
        LockedStage {
            kind: "command@1".to_owned(),
            fingerprint: Digest::of(seed.as_bytes()).hex().parse().expect("a fingerprint"),
            outputs: BTreeMap::from([("o".to_owned(), Digest::of(seed.as_bytes()))]),
        }
    }

    fn lock(stages: &[(&str, &str)]) -> Lock {
        let stages = stages.iter().map(|(name, seed)| ((*name).to_owned(), stage(seed)));
        Lock { stages: stages.collect(), ..Lock::default() }
    }

    fn parse(text: &str) -> Result<Lock, String> {
        Lock::parse(Path::new("p.lock"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_written_reads_back_and_is_sorted() {
        let all = lock(&[("b", "1"), ("a", "2")]);
        let text = all.to_text();
        assert_eq!(parse(&text), Ok(all));
        let lines: Vec<&str> = text.lines().skip(2).take(4).collect();
        assert_eq!(lines[0], "[a]");
        assert_eq!(lines[1], "kind = command@1");
        assert!(
            lines[2].starts_with("fingerprint = ") && lines[3].starts_with("output.o = sha256:")
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_line() {
        let good = lock(&[("a", "1")]).to_text();
        let wrong = |text: String| parse(&text).expect_err("refused");
        assert_eq!(
            wrong(format!("<<<<<<< ours\n{good}")),
            "p.lock:1: a conflict of git: take either side, then run again"
        );
        assert_eq!(
            wrong("kind = x\n".to_owned()),
            "p.lock:1: neither `[stage]` nor `field = value`"
        );
        assert_eq!(wrong(format!("{good}[a]\n")), "p.lock:7: the block stands here twice");
        assert_eq!(wrong("[a]\nfingerprint = 12\n".to_owned()), "p.lock:2: not a fingerprint");
        assert_eq!(wrong("[a]\nkind = x@1\n".to_owned()), "p.lock:1: stage `a` has no fingerprint");
    }

    #[test]
    fn sources_of_hubs_have_blocks_of_their_own() {
        let commit = "0123456789abcdef0123456789abcdef01234567".to_owned();
        let source = |revision: &str, files: Option<&str>| LockedSource {
            hub: "datasets/org/name".to_owned(),
            revision: revision.to_owned(),
            files: files.map(str::to_owned),
            commit: commit.clone(),
            digest: Digest::of(revision.as_bytes()),
        };
        let with = |sources: &[(&str, LockedSource)]| Lock {
            sources: sources.iter().map(|(name, s)| ((*name).to_owned(), s.clone())).collect(),
            ..lock(&[("base", "1")])
        };
        let base = with(&[("base", source("main", None)), ("rows", source("v1", Some("a *.csv")))]);
        let text = base.to_text();
        assert_eq!(parse(&text), Ok(base.clone()));
        assert!(text.contains("\n[source base]\nhub = datasets/org/name\nrevision = main\ncommit"));
        let cut = text.replace(&format!("commit = {commit}\n"), "");
        assert_eq!(parse(&cut), Err("p.lock:3: source `base` is not whole".to_owned()));
        assert!(parse(&text.replace("commit =", "kind =")).is_err_and(|e| e.contains("unknown")));
        let ours = with(&[("base", source("v2", None)), ("rows", source("v1", Some("a *.csv")))]);
        let theirs = with(&[("base", source("v3", None)), ("rows", source("v4", None))]);
        let merged = Lock::merge(&base, &ours, &theirs);
        assert_eq!(merged.sources.into_iter().collect::<Vec<_>>().len(), 1);
        let merged = Lock::merge(&base, &ours, &base);
        assert_eq!(merged, ours);
    }

    #[test]
    fn branches_merge_stage_by_stage() {
        let base = lock(&[("a", "1"), ("b", "1"), ("c", "1"), ("gone", "1")]);
        let ours = lock(&[("a", "2"), ("b", "1"), ("c", "2"), ("gone", "1"), ("new", "1")]);
        let theirs = lock(&[("a", "1"), ("b", "3"), ("c", "3")]);
        let merged = Lock::merge(&base, &ours, &theirs);
        assert_eq!(merged, lock(&[("a", "2"), ("b", "3"), ("new", "1")]));
    }
}
