//! Entries that were read and checked before, in one file a pipeline: while the file of an entry
//! looks as it did, what it says is taken from here. Does not know who asks, nor for what.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::digest::{SIGNATURE, Signature};
use super::entry::ENTRY_FORMAT;
use super::{Entry, EntryOutput, Provenance, Store, derived};
use crate::identity::{Digest, Fingerprint, Identity};

/// Goes into the key; changes with the meaning of the bytes.
const FORMAT: &str = "entries/1";

/// What an entry says but for its identity: whoever knows the fingerprint has worked it out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub outputs: BTreeMap<String, EntryOutput>,
    pub made: Provenance,
}

/// Rows of fingerprint, signature of the entry's file, length of the rest, and the rest: a
/// [`Seen`] as MessagePack.
#[derive(Debug, Default)]
pub(super) struct Pack {
    bytes: Vec<u8>,
    rows: HashMap<Fingerprint, Range<usize>>,
}

const FINGERPRINT: usize = 32;
const LENGTH: usize = 4;

impl Seen {
    /// The whole entry. The identity must be the one that has this fingerprint.
    #[must_use]
    pub fn into_entry(self, fingerprint: Fingerprint, identity: Identity) -> Entry {
        let Self { outputs, made } = self;
        Entry { format: ENTRY_FORMAT, fingerprint, outputs, identity, made }
    }
}

impl Pack {
    /// `None`: these bytes are something else.
    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let mut rows = HashMap::with_capacity(bytes.len() / 400);
        let mut at = 0;
        while at < bytes.len() {
            let (fingerprint, rest) = bytes[at..].split_first_chunk::<FINGERPRINT>()?;
            let (length, _) = rest.get(SIGNATURE..)?.split_first_chunk::<LENGTH>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let end = at + FINGERPRINT + SIGNATURE + LENGTH + length;
            bytes.get(at..end)?;
            rows.insert(Fingerprint::from_raw(*fingerprint), at..end);
            at = end;
        }
        Some(Self { bytes, rows })
    }

    /// The row of that entry, whatever its file looks like now.
    pub(super) fn row(&self, fingerprint: &Fingerprint) -> Option<&[u8]> {
        Some(&self.bytes[self.rows.get(fingerprint)?.clone()])
    }
}

/// What a row says of an entry whose file looks like this.
pub(super) fn read_row(row: &[u8], signature: &Signature) -> Option<Seen> {
    let (then, rest) = row.get(FINGERPRINT..)?.split_first_chunk::<SIGNATURE>()?;
    let same = *then == signature.to_bytes();
    same.then(|| rmp_serde::from_slice(rest.get(LENGTH..)?).ok())?
}

/// The row of an entry whose file looks like this.
pub(super) fn write_row(
    fingerprint: &Fingerprint,
    signature: &Signature,
    seen: &Seen,
) -> Option<Vec<u8>> {
    let rest = rmp_serde::to_vec(seen).ok()?;
    let length = u32::try_from(rest.len()).ok()?.to_le_bytes();
    Some([fingerprint.raw(), &signature.to_bytes(), &length, &rest].concat())
}

impl Store {
    pub(super) fn load_pack(&self, pipeline: &str) -> Pack {
        let bytes = key().and_then(|key| self.derived(&name(pipeline), &key));
        bytes.and_then(Pack::from_bytes).unwrap_or_default()
    }

    /// Writes the entries that were looked at ahead, when too many of them were not in the pack.
    pub(super) fn save_pack(&self) {
        if let (Some((pipeline, rows)), Some(key)) = (self.unpacked(), key()) {
            self.keep_derived(&name(&pipeline), &key, &rows);
        }
    }
}

fn name(pipeline: &str) -> String {
    derived::name("entries", pipeline.as_bytes())
}

fn key() -> Option<Digest> {
    derived::key(FORMAT, &[])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::digest::TreeFile;

    #[test]
    fn a_row_gives_back_what_it_was_made_of_while_the_file_is_the_same() {
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
        let seen = Seen { outputs, made };
        let signature = Signature { device: 1, inode: 2, size: 3, mtime: -4, ctime: i128::MAX };
        let (one, two) = (Fingerprint::from_raw([1; 32]), Fingerprint::from_raw([2; 32]));
        let plain = Seen { outputs: BTreeMap::new(), made: Provenance::default() };
        let rows = [
            write_row(&one, &signature, &plain).unwrap(),
            write_row(&two, &signature, &plain).unwrap(),
            write_row(&one, &signature, &seen).unwrap(),
        ];
        let pack = Pack::from_bytes(rows.concat()).unwrap();
        assert_eq!(read_row(pack.row(&one).unwrap(), &signature), Some(seen));
        assert_eq!(read_row(pack.row(&two).unwrap(), &signature), Some(plain));
        for other in [
            Signature { device: 0, ..signature },
            Signature { inode: 0, ..signature },
            Signature { size: 0, ..signature },
            Signature { mtime: 0, ..signature },
            Signature { ctime: 0, ..signature },
        ] {
            assert_eq!(read_row(pack.row(&one).unwrap(), &other), None);
        }
        assert!(pack.row(&Fingerprint::from_raw([3; 32])).is_none());
        let whole = rows.concat();
        assert!(Pack::from_bytes(whole[..whole.len() - 1].to_vec()).is_none());
        assert!(Pack::from_bytes(vec![0; 17]).is_none());
    }
}
