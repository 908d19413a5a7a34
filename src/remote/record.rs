//! Records: what lies at a remote for one entry, and whether it can be believed.
//! Does not know how records travel.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::identity::{Digest, Fingerprint};
use crate::store::digest::tree_digest;
use crate::store::entry::ENTRY_FORMAT;
use crate::store::{Entry, EntryOutput, summed};

/// Format of a record; a newer one is not read.
pub const RECORD_FORMAT: u32 = 1;

/// No record is longer: one of a tree with a hundred thousand files is a fifth of this.
pub const LONGEST: u64 = 128 << 20;

/// An entry as it lies at a remote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRecord {
    pub format: u32,
    pub entry: Entry,
    /// What the stage read that no stage made and that a store keeps, such as votes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<KeptInput>,
}

/// An input that lies beside the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptInput {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl EntryRecord {
    /// Reads a record and checks all that can be checked without its files.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8], fingerprint: &Fingerprint) -> Result<Self, String> {
        let head: Head = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if head.format > RECORD_FORMAT {
            return Err(format!("its format {} is newer than {RECORD_FORMAT}", head.format));
        }
        let record: Self = summed::from_bytes(bytes.to_vec())?;
        record.check(fingerprint)?;
        Ok(record)
    }

    /// Another version of preflow wrote these bytes, and must not lose them.
    #[must_use]
    pub fn is_newer(bytes: &[u8]) -> bool {
        serde_json::from_slice::<Head>(bytes).is_ok_and(|head| head.format > RECORD_FORMAT)
    }

    /// The bytes that [`EntryRecord::read`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        summed::to_bytes(self)
    }

    fn check(&self, fingerprint: &Fingerprint) -> Result<(), String> {
        let entry = &self.entry;
        if entry.format > ENTRY_FORMAT {
            return Err(format!(
                "its entry's format {} is newer than {ENTRY_FORMAT}",
                entry.format
            ));
        }
        if entry.fingerprint != *fingerprint || entry.identity.fingerprint() != *fingerprint {
            return Err("its identity does not have this fingerprint".to_owned());
        }
        // These become names of files and lines on a terminal.
        let plain = |text: &str, more: &str| {
            text.len() <= 128 && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !plain(&entry.made.run, "-") || !plain(&entry.made.at, "-+:.TZ") {
            return Err("it names its run in letters that no run has".to_owned());
        }
        for (port, output) in &entry.outputs {
            if port.is_empty() || !plain(port, "_-") {
                return Err("an output has a name that no output has".to_owned());
            }
            check_tree(port, output)?;
        }
        let read: BTreeSet<Digest> = entry.identity.input_digests().collect();
        if let Some(odd) = self.inputs.iter().find(|input| !read.contains(&input.digest)) {
            return Err(format!("its stage never read {}", odd.digest));
        }
        self.sizes().map(|_| ())
    }

    /// Every file that belongs to it, with its size.
    ///
    /// # Errors
    /// One file with two sizes, or more bytes than there are.
    pub fn sizes(&self) -> Result<BTreeMap<Digest, u64>, String> {
        let mut sizes = BTreeMap::new();
        let outputs = self.entry.outputs.values().flat_map(|output| match &output.tree {
            Some(files) => files.iter().map(|f| (f.digest, f.size)).collect(),
            None => vec![(output.digest, output.bytes)],
        });
        for (digest, size) in outputs.chain(self.inputs.iter().map(|i| (i.digest, i.size))) {
            if sizes.insert(digest, size).is_some_and(|other| other != size) {
                return Err(format!("it gives {digest} two sizes"));
            }
            if (size == 0) != (digest == Digest::of(b"")) {
                return Err(format!("{digest} cannot have {size} bytes"));
            }
        }
        let total = sizes.values().try_fold(0_u64, |sum, size| sum.checked_add(*size));
        total.ok_or("its files have more bytes than can be")?;
        Ok(sizes)
    }
}

/// The remote is not trusted with paths: nothing may leave the folder of its artifact.
fn check_tree(port: &str, output: &EntryOutput) -> Result<(), String> {
    let Some(files) = &output.tree else { return Ok(()) };
    let mut seen = BTreeSet::new();
    for file in files {
        let plain = |part: &str| {
            !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control)
        };
        if file.path.len() > 4096 || !file.path.split('/').all(plain) {
            let path = file.path.escape_debug();
            return Err(format!("output `{port}` holds `{path}`, which is no path in a folder"));
        }
        if !seen.insert(file.path.as_str()) {
            return Err(format!("output `{port}` holds `{}` twice", file.path));
        }
    }
    // A file cannot be a folder as well.
    let folder = |path: &&str| path.match_indices('/').any(|(i, _)| seen.contains(&path[..i]));
    if let Some(path) = seen.iter().find(|path| folder(path)) {
        return Err(format!("output `{port}` holds `{path}` below a file"));
    }
    let bytes = files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size));
    if bytes != Some(output.bytes) || tree_digest(files) != output.digest {
        return Err(format!("the files of output `{port}` are not what its digest says"));
    }
    Ok(())
}
