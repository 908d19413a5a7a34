//! Two data files row by row: how many rows are new, how many are gone.
//! Goes by content; does not know what rows mean.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use serde::Serialize;

use crate::columns;
use crate::files;

/// What happened to the rows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RowChange {
    pub before: usize,
    pub now: usize,
    pub added: usize,
    pub removed: usize,
}

/// Compares two files; `None` where one cannot be read as rows.
#[must_use]
pub fn compare(before: &Path, now: &Path) -> Option<RowChange> {
    let (old, new) = (rows(before)?, rows(now)?);
    let missing = |a: &HashMap<u64, usize>, b: &HashMap<u64, usize>| -> usize {
        a.iter().map(|(row, n)| n.saturating_sub(b.get(row).copied().unwrap_or(0))).sum()
    };
    Some(RowChange {
        before: old.values().sum(),
        now: new.values().sum(),
        added: missing(&new, &old),
        removed: missing(&old, &new),
    })
}

/// Hash of each row → how often it stands there. Parquet by its values, other files by lines.
fn rows(path: &Path) -> Option<HashMap<u64, usize>> {
    use std::io::{BufRead as _, Read as _};
    let mut found: HashMap<u64, usize> = HashMap::new();
    let mut file = files::open(path).ok()?;
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_ok() && magic == *b"PAR1" {
        columns::each_batch(path, usize::MAX, |batch| {
            for row in batch.row_hashes() {
                *found.entry(row).or_default() += 1;
            }
        })
        .ok()?;
        return Some(found);
    }
    let lines = std::io::BufReader::new(files::open(path).ok()?);
    for line in lines.split(b'\n') {
        let line = line.ok()?;
        if !line.trim_ascii().is_empty() {
            let mut hasher = DefaultHasher::new();
            line.trim_ascii().hash(&mut hasher);
            *found.entry(hasher.finish()).or_default() += 1;
        }
    }
    Some(found)
}
