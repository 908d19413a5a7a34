//! Where two artifacts differ first: the array, the row, the byte.
//! Knows nothing of stages, or of what the values mean.

pub mod arrays;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use fs_err as fs;
use serde::Serialize;

use crate::columns::{self, RowDifference};
use crate::files;

pub use arrays::{ArrayDifference, ValueDifference};

/// The first place where two artifacts differ. Rows and columns go by the file's own order, arrays
/// and files by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "differs", rename_all = "snake_case")]
pub enum FirstDifference {
    /// One is a file, the other a folder.
    Kind { before: &'static str, now: &'static str },
    /// A folder lacks a file that the other has.
    File { file: String, only_in: TreeSide },
    /// A file of a folder.
    Inside { file: String, first: Box<FirstDifference> },
    /// Two Parquet files.
    Table { first: RowDifference },
    /// Two safetensors files.
    Arrays { first: ArrayDifference },
    /// The place of the first byte, counted from 0, and both sizes. `same`: what is equal though
    /// the bytes are not.
    Bytes {
        offset: u64,
        before: u64,
        now: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        same: Option<&'static str>,
    },
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeSide {
    Before,
    Now,
}

/// The first difference of two artifacts, files or folders; `None`: the same bytes.
///
/// # Errors
/// One of them cannot be read from the disk. A file of a known format that is damaged is compared
/// byte by byte.
pub fn compare(before: &Path, now: &Path) -> io::Result<Option<FirstDifference>> {
    match (fs::metadata(before)?.is_dir(), fs::metadata(now)?.is_dir()) {
        (true, true) => folders(before, now),
        (false, false) => files(before, now),
        (true, false) => Ok(Some(FirstDifference::Kind { before: "a folder", now: "a file" })),
        (false, true) => Ok(Some(FirstDifference::Kind { before: "a file", now: "a folder" })),
    }
}

fn folders(before: &Path, now: &Path) -> io::Result<Option<FirstDifference>> {
    let (old, new) = (names(before)?, names(now)?);
    for file in old.union(&new) {
        let only_in = match (old.contains(file), new.contains(file)) {
            (true, false) => Some(TreeSide::Before),
            (false, true) => Some(TreeSide::Now),
            _ => None,
        };
        if let Some(only_in) = only_in {
            return Ok(Some(FirstDifference::File { file: file.clone(), only_in }));
        }
        if let Some(first) = files(&before.join(file), &now.join(file))? {
            return Ok(Some(FirstDifference::Inside {
                file: file.clone(),
                first: Box::new(first),
            }));
        }
    }
    Ok(None)
}

/// Files anywhere below a folder, by their path within it.
fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(dir) = todo.pop() {
        for item in fs::read_dir(dir)? {
            let item = item?;
            if item.file_type()?.is_dir() {
                todo.push(item.path());
            } else {
                let path = item.path();
                let name = path.strip_prefix(folder).unwrap_or(&path);
                found.insert(name.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

fn files(before: &Path, now: &Path) -> io::Result<Option<FirstDifference>> {
    let Some(offset) = first_byte(before, now)? else { return Ok(None) };
    let mut same = None;
    if columns::is_parquet(before) && columns::is_parquet(now) {
        match columns::first_difference(before, now) {
            Ok(Some(first)) => return Ok(Some(FirstDifference::Table { first })),
            Ok(None) => same = Some("rows"),
            // Damaged: its bytes are all there is to compare.
            Err(_) => {}
        }
    } else if let Some((old, new)) = arrays::open(before)?.zip(arrays::open(now)?) {
        match arrays::first_difference(&old, &new)? {
            Some(first) => return Ok(Some(FirstDifference::Arrays { first })),
            None => same = Some("arrays"),
        }
    }
    let (before, now) = (fs::metadata(before)?.len(), fs::metadata(now)?.len());
    Ok(Some(FirstDifference::Bytes { offset, before, now, same }))
}

/// Place of the first byte that differs; where one file is the beginning of the other, its end.
fn first_byte(before: &Path, now: &Path) -> io::Result<Option<u64>> {
    let open = |path| {
        files::open(path)
            .map_err(|e| files::named(path, &e))
            .map(|f| BufReader::with_capacity(1 << 16, f))
    };
    let (mut a, mut b) = (open(before)?, open(now)?);
    let mut at = 0;
    loop {
        let (x, y) = (a.fill_buf()?, b.fill_buf()?);
        let n = x.len().min(y.len());
        if n == 0 {
            return Ok((x.len() != y.len()).then_some(at));
        }
        if let Some(i) = x[..n].iter().zip(&y[..n]).position(|(p, q)| p != q) {
            return Ok(Some(at + i as u64));
        }
        at += n as u64;
        a.consume(n);
        b.consume(n);
    }
}
