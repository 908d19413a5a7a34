//! Snapshots: what the plan of a pipeline came to when all its stages were made, one file a
//! pipeline. While everything that it rests on is as it was, nobody need work it out again.
//! Knows nothing of graphs and stages: who keeps a snapshot says what is in it.

use super::{CachedEntry, Store, derived};
use crate::identity::Digest;

/// With fewer entries than this a second thread costs more than it saves.
const WORTHWHILE: usize = 64;

/// A plan in which every stage was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The graph of the pipeline, as bytes.
    pub graph: Vec<u8>,
    /// Files that the graph was read from, by name, and what they held.
    pub texts: Vec<(String, Digest)>,
    /// What each source held; `None`: no stage reads it.
    pub sources: Vec<Option<Digest>>,
    /// Of each stage, what was made.
    pub entries: Vec<CachedEntry>,
}

/// All but the graph.
type Rest = (Vec<(String, Digest)>, Vec<Option<Digest>>, Vec<CachedEntry>);

impl Snapshot {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let length = u64::try_from(self.graph.len()).ok()?.to_le_bytes();
        let rest = rmp_serde::to_vec(&(&self.texts, &self.sources, &self.entries)).ok()?;
        Some([&length, self.graph.as_slice(), &rest].concat())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, bytes) = bytes.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (graph, rest) = bytes.split_at_checked(length)?;
        let (texts, sources, entries): Rest = rmp_serde::from_slice(rest).ok()?;
        Some(Self { graph: graph.to_vec(), texts, sources, entries })
    }
}

impl Store {
    /// The snapshot of a pipeline that was kept under the same key. Whether it still holds, its
    /// parts say: texts and sources by their digests, entries by [`Store::has_all`].
    #[must_use]
    pub fn snapshot(&self, pipeline: &str, key: &Digest) -> Option<Snapshot> {
        Snapshot::from_bytes(&self.derived(&name(pipeline), key)?)
    }

    /// Keeps a snapshot in place of the one that the pipeline had. Not where an entry is so young
    /// that a change of its file might not show: then the plan is made once more the next time.
    pub fn keep_snapshot(&self, pipeline: &str, key: &Digest, snapshot: &Snapshot) {
        if snapshot.entries.iter().all(|entry| entry.file.is_some())
            && let Some(bytes) = snapshot.to_bytes()
        {
            self.keep_derived(&name(pipeline), key, &bytes);
        }
    }

    /// Spares reading the entries of a snapshot again, as long as their files look as they did.
    pub fn reuse_entries(&self, snapshot: Snapshot) {
        let entries = snapshot.entries.into_iter().map(|entry| (entry.fingerprint, entry));
        let _ = self.recent.set(entries.collect());
    }

    /// Whether the files of these entries are those that were read, and all that they made is
    /// there as it was.
    #[must_use]
    pub fn has_all(&self, entries: &[&CachedEntry]) -> bool {
        let has = |entry: &&CachedEntry| {
            self.is_as_read(entry) && matches!(self.health_of(&entry.outputs), Ok(None))
        };
        if entries.len() < WORTHWHILE {
            return entries.iter().all(has);
        }
        let (first, second) = entries.split_at(entries.len() / 2);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| second.iter().all(has));
            first.iter().all(has) && second.join().is_ok_and(|has| has)
        })
    }
}

fn name(pipeline: &str) -> String {
    derived::name("plan", pipeline.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::identity::Fingerprint;
    use crate::store::digest::{Signature, TreeFile};
    use crate::store::{EntryOutput, Provenance};

    #[test]
    fn a_snapshot_reads_back_and_half_of_it_does_not() {
        let digest = Digest::of(b"x");
        let tree = vec![TreeFile { path: "a/b".into(), digest, size: 3 }];
        let outputs = BTreeMap::from([
            ("file".to_owned(), EntryOutput { digest, bytes: 3, tree: None }),
            ("folder".to_owned(), EntryOutput { digest, bytes: 3, tree: Some(tree) }),
        ]);
        let made = Provenance {
            run: "20260101-000000-0".into(),
            seconds: 0.1 + 0.2,
            threads: 2,
            reason: json!({"reason": "changed", "changes": [{"old": 1, "new": -2.5, "at": null}]}),
            summary: BTreeMap::from([("loss".into(), Some(1.5)), ("none".into(), None)]),
            notes: vec!["simulated".into()],
            accepted: vec!["stage".into()],
            ..Provenance::default()
        };
        let signature = Signature { device: 1, inode: 2, size: 3, mtime: -4, ctime: i128::MAX };
        let (fingerprint, file) = (Fingerprint::from_raw([1; 32]), Some(signature));
        let plain = CachedEntry {
            fingerprint: Fingerprint::from_raw([2; 32]),
            outputs: BTreeMap::new(),
            made: Provenance::default(),
            file: None,
        };
        let snapshot = Snapshot {
            graph: vec![1, 2, 3],
            texts: vec![("p.yaml".into(), digest)],
            sources: vec![None, Some(digest)],
            entries: vec![CachedEntry { fingerprint, outputs, made, file }, plain],
        };
        let bytes = snapshot.to_bytes().unwrap();
        assert_eq!(Snapshot::from_bytes(&bytes), Some(snapshot));
        for end in 0..bytes.len() {
            assert_eq!(Snapshot::from_bytes(&bytes[..end]), None, "{end}");
        }
    }
}
