//! The lock file: what each stage of a pipeline is and what it made, one field a line, so that git
//! shows and merges it stage by stage. Knows nothing of stores, runs or YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::identity::{Digest, Fingerprint};

const HEADER: &str = "# preflow.lock/1: what the last run made. Commit it; do not edit it.\n";

/// What a pipeline's stages are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    pub stages: BTreeMap<String, LockedStage>,
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
        let mut stages: BTreeMap<String, LockBlock> = BTreeMap::new();
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
                if stages.insert(name.to_owned(), LockBlock::default()).is_some() {
                    return Err(wrong("the stage stands here twice"));
                }
                continue;
            }
            let stage = current.as_ref().and_then(|name| stages.get_mut(name));
            let (Some(stage), Some((key, value))) = (stage, line.split_once(" = ")) else {
                return Err(wrong("neither `[stage]` nor `field = value`"));
            };
            match (key, key.strip_prefix("output.")) {
                ("kind", _) => stage.kind = value.to_owned(),
                ("fingerprint", _) => {
                    let parsed = value.parse().map_err(|_| wrong("not a fingerprint"))?;
                    stage.fingerprint = Some(parsed);
                }
                (_, Some(port)) => {
                    let parsed = value.parse().map_err(|_| wrong("not a digest"))?;
                    stage.outputs.insert(port.to_owned(), parsed);
                }
                _ => return Err(wrong("an unknown field: written by another version of preflow?")),
            }
        }
        let complete = stages.into_iter().map(|(name, draft)| {
            let incomplete = || LockError {
                path: path.to_owned(),
                line: 1,
                reason: format!("stage `{name}` has no fingerprint"),
            };
            let fingerprint = draft.fingerprint.ok_or_else(incomplete)?;
            let stage = LockedStage { kind: draft.kind, fingerprint, outputs: draft.outputs };
            Ok((name, stage))
        });
        Ok(Self { stages: complete.collect::<Result<_, LockError>>()? })
    }

    /// The text of the file: sorted, so that equal locks have equal bytes.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (name, stage) in &self.stages {
            let LockedStage { kind, fingerprint, outputs } = stage;
            text += &format!("\n[{name}]\nkind = {kind}\nfingerprint = {fingerprint}\n");
            for (port, digest) in outputs {
                text += &format!("output.{port} = {digest}\n");
            }
        }
        text
    }

    /// Merges what two branches made of a lock. A stage that both changed to something else is left
    /// out: neither side's run made the merged pipeline, so the next run says what it is.
    #[must_use]
    pub fn merge(base: &Self, ours: &Self, theirs: &Self) -> Self {
        let names: BTreeSet<&String> = ours.stages.keys().chain(theirs.stages.keys()).collect();
        let one = |name: &String| {
            let of = |lock: &Self| lock.stages.get(name).cloned();
            let (base, ours, theirs) = (of(base), of(ours), of(theirs));
            let merged = match () {
                () if ours == theirs || theirs == base => ours,
                () if ours == base => theirs,
                () => None,
            };
            merged.map(|stage| (name.clone(), stage))
        };
        Self { stages: names.into_iter().filter_map(one).collect() }
    }
}

/// A block while it is read.
#[derive(Default)]
struct LockBlock {
    kind: String,
    fingerprint: Option<Fingerprint>,
    outputs: BTreeMap<String, Digest>,
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
        Lock { stages: stages.collect() }
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
        assert_eq!(wrong(format!("{good}[a]\n")), "p.lock:7: the stage stands here twice");
        assert_eq!(wrong("[a]\nfingerprint = 12\n".to_owned()), "p.lock:2: not a fingerprint");
        assert_eq!(wrong("[a]\nkind = x@1\n".to_owned()), "p.lock:1: stage `a` has no fingerprint");
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
