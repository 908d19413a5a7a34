//! Digests of files and trees, and the memo that spares reading them again.
//! Knows nothing of entries or locks.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Store, StoreError};
use crate::files::{self, describe};
use crate::identity::Digest;

/// Bytes of a [`Signature`].
pub const SIGNATURE: usize = 3 * 8 + 2 * 16;

/// What the file system says of a file: while it is unchanged, so is the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i128,
    pub ctime: i128,
}

impl Signature {
    #[must_use]
    pub fn of(meta: &std::fs::Metadata) -> Self {
        let nanos = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime: nanos(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Neither written to nor replaced since. The change time alone says no such thing: a second
    /// name that is made or removed moves it.
    #[must_use]
    pub fn has_same_content(&self, other: &Self) -> bool {
        Self { ctime: 0, ..*self } == Self { ctime: 0, ..*other }
    }

    /// Field by field, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIGNATURE] {
        let Self { device, inode, size, mtime, ctime } = self;
        let mut bytes = [0; SIGNATURE];
        for (field, place) in [device, inode, size].into_iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        for (field, place) in [mtime, ctime].into_iter().zip(bytes[24..].chunks_exact_mut(16)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Whether the file may have changed after this moment without showing it: clocks of file
    /// systems are coarse ("racily clean").
    #[must_use]
    pub fn is_racy(&self, at: i128) -> bool {
        let coarse = i128::try_from(RACY.as_nanos()).expect("invariant: two seconds fit");
        self.mtime.max(self.ctime) + coarse >= at
    }
}

/// One file of a tree: path inside it, digest, size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFile {
    pub path: String,
    pub digest: Digest,
    pub size: u64,
}

/// Coarsest clock of a common file system (FAT, old NFS).
const RACY: Duration = Duration::from_secs(2);

/// Nanoseconds since 1970, by the clock that stamps files.
#[expect(clippy::disallowed_methods, reason = "compared with file times, never hashed")]
pub fn now() -> i128 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// Hashes an open file from its start to its end; returns the digest and the bytes read.
///
/// # Errors
/// Reading fails.
pub fn hash_reader(file: &mut fs::File) -> Result<(Digest, u64), StoreError> {
    if file.metadata()?.len() > LARGE {
        return hash_large(file);
    }
    let mut hasher = Sha256::new();
    let mut total = 0;
    let mut buffer = [0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((Digest::from_raw(hasher.finalize().into()), total));
        }
        hasher.update(&buffer[..n]);
        total += n as u64;
    }
}

/// From this size on a second thread reads what the first one hashes.
const LARGE: u64 = 4 * 1024 * 1024;

/// Bytes that are handed over at a time: threads that wake each other too often wait for it.
const BLOCK: usize = 1024 * 1024;

/// Blocks on their way between the two.
const BLOCKS: usize = 4;

fn hash_large(file: &mut fs::File) -> Result<(Digest, u64), StoreError> {
    std::thread::scope(|scope| {
        let (full, read) = mpsc::sync_channel::<io::Result<(Vec<u8>, usize)>>(BLOCKS);
        let (empty, buffers) = mpsc::sync_channel(BLOCKS);
        for _ in 0..BLOCKS {
            let _ = empty.send(vec![0; BLOCK]);
        }
        scope.spawn(move || {
            // Either end hanging up ends both: the other one has said why.
            while let Ok(mut buffer) = buffers.recv() {
                let n = file.read(&mut buffer);
                let over = !matches!(n, Ok(1..));
                if full.send(n.map(|n| (buffer, n))).is_err() || over {
                    return;
                }
            }
        });
        let mut hasher = Sha256::new();
        let mut total = 0;
        for block in read {
            let (buffer, n) = block?;
            hasher.update(&buffer[..n]);
            total += n as u64;
            let _ = empty.send(buffer);
        }
        Ok((Digest::from_raw(hasher.finalize().into()), total))
    })
}

/// Hashes one file; the file that is hashed is the file whose signature is returned.
///
/// # Errors
/// It is not a regular file, cannot be read, or changes meanwhile.
pub fn hash_file(path: &Path) -> Result<(Digest, Signature), StoreError> {
    // Opening a FIFO would wait for a writer, so look before.
    refuse_special(path, &fs::metadata(path)?)?;
    let mut file = fs::File::open(path)?;
    let before = Signature::of(&file.metadata()?);
    let (digest, read) = hash_reader(&mut file)?;
    let after = Signature::of(&file.metadata()?);
    if !before.has_same_content(&after) || read != after.size {
        return Err(StoreError::ChangedWhileRead { path: path.to_owned() });
    }
    Ok((digest, after))
}

/// Digest of a directory: SHA-256 of canonical JSON `["preflow.tree/1", [[path, digest], …]]`,
/// sorted by path. Modes and times are not part of it, empty directories neither.
#[must_use]
pub fn tree_digest(files: &[TreeFile]) -> Digest {
    Digest::of(&tree_bytes(files))
}

/// What [`tree_digest`] hashes.
pub(super) fn tree_bytes(files: &[TreeFile]) -> Vec<u8> {
    let mut rows: Vec<(&str, String)> =
        files.iter().map(|f| (f.path.as_str(), f.digest.to_string())).collect();
    rows.sort();
    serde_json::to_vec(&(TREE, rows)).expect("invariant: writing JSON to memory cannot fail")
}

/// Path and digest of each file of a tree, from what [`tree_digest`] hashes.
pub(super) fn tree_rows(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let (tag, rows): (String, Vec<(String, String)>) = serde_json::from_slice(bytes).ok()?;
    (tag == TREE).then_some(rows)
}

/// Format of the bytes that make up the digest of a tree.
const TREE: &str = "preflow.tree/1";

/// Every regular file below `root`, sorted by path. Links are refused, not followed.
///
/// # Errors
/// Anything but files and directories, names that are not UTF-8, unreadable places.
pub fn walk(root: &Path) -> Result<Vec<(String, std::fs::Metadata)>, StoreError> {
    walk_with(root, |_| false, Links::Refused)
}

/// What a walk does with links.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Refused,
    ToFiles,
}

/// The files of a folder that people name, without what `skip` says of a path inside; nothing below
/// a folder that is skipped. A link to a file is that file: hub clients keep models so.
///
/// # Errors
/// As [`walk`]; a link that leads nowhere.
pub(super) fn walk_but(
    root: &Path,
    skip: impl Fn(&str) -> bool,
) -> Result<Vec<(String, std::fs::Metadata)>, StoreError> {
    walk_with(root, skip, Links::ToFiles)
}

fn walk_with(
    root: &Path,
    skip: impl Fn(&str) -> bool,
    links: Links,
) -> Result<Vec<(String, std::fs::Metadata)>, StoreError> {
    let mut found = Vec::new();
    let mut todo = vec![(root.to_owned(), String::new())];
    while let Some((dir, prefix)) = todo.pop() {
        for item in fs::read_dir(&dir)? {
            let item = item?;
            let path = item.path();
            let name = item.file_name();
            let name = name.to_str().ok_or(StoreError::NotAFile {
                path: path.clone(),
                what: "a name that is no UTF-8",
            })?;
            let relative = format!("{prefix}{name}");
            if skip(&relative) {
                continue;
            }
            let mut meta = fs::symlink_metadata(&path)?;
            if meta.is_symlink() && links == Links::ToFiles {
                let target = || fs::read_link(&path).unwrap_or_default();
                meta = match fs::metadata(&path) {
                    Ok(file) if file.is_file() => file,
                    Ok(_) => meta,
                    Err(_) => return Err(StoreError::SourceDangling(path.clone(), target())),
                };
            }
            if meta.is_dir() {
                todo.push((path, format!("{relative}/")));
            } else if meta.is_file() {
                found.push((relative, meta));
            } else {
                return Err(StoreError::NotAFile { what: describe(&meta), path });
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

pub(super) fn refuse_special(path: &Path, meta: &std::fs::Metadata) -> Result<(), StoreError> {
    if meta.is_file() || meta.is_dir() {
        return Ok(());
    }
    Err(StoreError::NotAFile { path: path.to_owned(), what: describe(meta) })
}

impl Store {
    /// Digest of one file by the memo, hashed only when its signature is new.
    ///
    /// # Errors
    /// See [`hash_file`].
    pub fn digest_file(&self, path: &Path) -> Result<(Digest, Signature), StoreError> {
        let meta = fs::metadata(path)?;
        refuse_special(path, &meta)?;
        let signature = Signature::of(&meta);
        if let Some(digest) = self.memo().get(path, &signature) {
            return Ok((digest, signature));
        }
        let start = now();
        let (digest, signature) = hash_file(path)?;
        if signature.is_racy(start) {
            self.memo().forget(path);
        } else {
            self.memo().put(path, signature, digest);
        }
        Ok((digest, signature))
    }

    /// Makes sure that these bytes are an object.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn keep_content(&self, content: &[u8]) -> Result<(), StoreError> {
        let path = self.object_path(&Digest::of(content));
        let there = files::read_own(&path, content.len() as u64);
        if there.is_ok_and(|there| there == content) {
            return Ok(());
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        Ok(super::write_atomic(&path, content)?)
    }
}
