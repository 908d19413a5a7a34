//! A folder of votes: one append-only file an annotator, the texts beside them. Read whole, written
//! line by line, each line on the disk before it is acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::effective::latest;
use super::{PairText, Vote};

use crate::files;

/// Everything in a folder, as it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folder {
    /// Lines in file order, a submission that stands there twice once.
    pub votes: BTreeMap<String, Vec<Vote>>,
    pub texts: HashMap<String, PairText>,
    /// What was passed over.
    pub problems: Vec<Problem>,
}

/// A line that was passed over: the torn end of a file whose writer died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    pub line: usize,
    pub what: String,
}

/// Votes that cannot be read or written.
#[derive(Debug, Error)]
pub enum VotesError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{path}:{line}: not a vote: {reason}", path = path.display())]
    BadLine { path: PathBuf, line: usize, reason: String },
    #[error("{path}:{line}: a conflict of git", path = path.display())]
    Conflict { path: PathBuf, line: usize },
    #[error("`{path}` is not named after an annotator", path = path.display())]
    BadName { path: PathBuf },
    #[error("`{path}` is not a folder", path = path.display())]
    NotAFolder { path: PathBuf },
    #[error("not in the canonical form of votes")]
    NotCanonical,
}

impl VotesError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Io(_) => "see the error above",
            Self::BadLine { .. } => "mend or delete the line; `git log -p` shows how it was",
            Self::Conflict { .. } => "keep the lines of both sides: delete only the markers",
            Self::BadName { .. } => {
                "files are named ANNOTATOR.jsonl: lower-case letters, digits, `-` and `_`, 64 at most"
            }
            Self::NotAFolder { .. } => "votes are kept in a folder, one file an annotator",
            Self::NotCanonical => "it was written by another version of preflow",
        }
    }

    /// The disk is full or failing: nobody's mistake.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io(e) if full.contains(&e.kind()))
    }
}

/// Most characters of a name, and most bytes: names of files are short.
const LONGEST: usize = 64;
const LONGEST_BYTES: usize = 200;

/// Lower-case letters of any script and digits, `-` and `_`; 64 characters at most; a letter or
/// digit first. As [`composed`] spells it, so that one name is one file.
#[must_use]
pub fn is_annotator(name: &str) -> bool {
    name.len() <= LONGEST_BYTES
        && name.chars().count() <= LONGEST
        && name.starts_with(|c: char| c.is_alphanumeric() && is_plain(c))
        && name.chars().all(|c| is_plain(c) || c == '-' || c == '_')
        && composed(name) == name
        && name.to_lowercase() == name
}

/// A letter, a digit, or a mark that belongs to one; nothing that a reader cannot see.
#[must_use]
pub fn is_plain(c: char) -> bool {
    let hidden = matches!(c as u32, 0x034F | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F
        | 0x3164 | 0xFE00..=0xFE0F | 0xFFA0 | 0xE0100..=0xE01EF);
    (c.is_alphanumeric() || is_combining_mark(c)) && !hidden
}

/// A name in the one spelling that counts: Unicode has two for most letters with accents, and
/// keyboards and file systems write either.
#[must_use]
pub fn composed(name: &str) -> String {
    name.nfc().collect()
}

impl Folder {
    /// Reads a folder; one that does not exist yet is empty.
    ///
    /// # Errors
    /// A line, other than a torn last one, that is no vote; a file that is not named after an
    /// annotator.
    pub fn read(dir: &Path) -> Result<Self, VotesError> {
        let mut folder = Self::default();
        for (annotator, path) in files(dir)? {
            let new: Vec<Vote> = read_lines(&path, &mut folder.problems)?;
            let votes = folder.votes.entry(annotator).or_default();
            votes.extend(new);
            let mut seen = std::collections::HashSet::new();
            votes.retain(|v| v.id.is_empty() || seen.insert(v.id.clone()));
        }
        for (_, path) in files(&dir.join("pairs"))? {
            for text in read_lines::<PairText>(&path, &mut folder.problems)? {
                folder.texts.insert(text.pair.clone(), text);
            }
        }
        Ok(folder)
    }

    /// Files that make up a folder: for whoever must notice that they changed.
    ///
    /// # Errors
    /// The folder cannot be listed, or holds a file that is not named after an annotator.
    pub fn paths(dir: &Path) -> Result<Vec<PathBuf>, VotesError> {
        let all = files(dir)?.into_iter().chain(files(&dir.join("pairs"))?);
        Ok(all.map(|(_, path)| path).collect())
    }

    /// The last word of an annotator on each pair, by pair and whether it is a repeat; skips and
    /// votes taken back included.
    #[must_use]
    pub fn latest(&self, annotator: &str) -> BTreeMap<(&str, bool), &Vote> {
        self.votes.get(annotator).map_or_else(BTreeMap::new, |votes| latest(votes))
    }
}

/// Annotator and path of every `.jsonl` file in a folder, by name. Hidden files are passed over.
fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>, VotesError> {
    let items = match fs::read_dir(dir) {
        Ok(items) => items,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(VotesError::NotAFolder { path: dir.to_owned() });
        }
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for item in items {
        let path = item?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(annotator) = name.strip_suffix(".jsonl").filter(|_| !name.starts_with('.')) else {
            continue;
        };
        let annotator = composed(annotator);
        if !is_annotator(&annotator) {
            return Err(VotesError::BadName { path });
        }
        found.push((annotator, path));
    }
    found.sort();
    Ok(found)
}

/// Room for millions of votes of one annotator.
const LARGEST: u64 = 1 << 30;

fn read_lines<T: DeserializeOwned>(
    path: &Path,
    problems: &mut Vec<Problem>,
) -> Result<Vec<T>, VotesError> {
    let bytes = files::read(path, LARGEST).map_err(|e| files::named(path, &e))?;
    let whole = bytes.ends_with(b"\n");
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    let mut values = Vec::with_capacity(lines.len());
    for (i, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(value) => values.push(value),
            Err(_) if i + 1 == lines.len() && !whole => problems.push(Problem {
                path: path.to_owned(),
                line: i + 1,
                what: "a torn last line was passed over; it was never acknowledged".to_owned(),
            }),
            Err(_)
                if [&b"<<<<<<<"[..], b"=======", b">>>>>>>"]
                    .contains(&&line[..line.len().min(7)]) =>
            {
                return Err(VotesError::Conflict { path: path.to_owned(), line: i + 1 });
            }
            Err(e) => {
                let reason = e.to_string();
                return Err(VotesError::BadLine { path: path.to_owned(), line: i + 1, reason });
            }
        }
    }
    Ok(values)
}

/// Writes votes of one annotator. Several processes may write to one folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
    annotator: String,
}

impl Ledger {
    /// The file need not exist.
    ///
    /// # Errors
    /// The name cannot be one of a file.
    pub fn new(dir: &Path, annotator: &str) -> Result<Self, VotesError> {
        if !is_annotator(annotator) {
            return Err(VotesError::BadName { path: dir.join(format!("{annotator}.jsonl")) });
        }
        Ok(Self { dir: dir.to_owned(), annotator: annotator.to_owned() })
    }

    /// Appends votes, and the texts that nobody wrote down yet; all of it is on the disk when this
    /// returns. After an error nothing of it counts.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn append(&self, votes: &[Vote], texts: &[PairText]) -> Result<(), VotesError> {
        let pairs = self.dir.join("pairs");
        fs::create_dir_all(&pairs)?;
        self.let_git_merge()?;
        let name = format!("{}.jsonl", self.annotator);
        // Texts first: a vote whose text is lost could not be brought back later.
        append_lines(&pairs.join(&name), texts)?;
        append_lines(&self.dir.join(&name), votes)
    }

    /// Branches that both add votes of one annotator merge by keeping the lines of both.
    fn let_git_merge(&self) -> Result<(), VotesError> {
        let path = self.dir.join(".gitattributes");
        match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => Ok(file.write_all(b"*.jsonl merge=union\n")?),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn append_lines<T: Serialize>(path: &Path, values: &[T]) -> Result<(), VotesError> {
    if values.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    for value in values {
        serde_json::to_writer(&mut bytes, value).map_err(io::Error::from)?;
        bytes.push(b'\n');
    }
    let is_new = !path.exists();
    let mut file = files::update(path).map_err(|e| files::named(path, &e))?;
    file.lock()?;
    let end = mend_end(&file)?;
    file.seek(SeekFrom::Start(end))?;
    if let Err(e) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
        // Half a line must not stand before the next one.
        let _ = file.set_len(end);
        return Err(e.into());
    }
    if is_new {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Where the next line starts: behind the last whole line. A torn one, never acknowledged, is cut
/// off; a whole one that lacks its line feed gets it.
fn mend_end(file: &std::fs::File) -> io::Result<u64> {
    let mut file = file;
    let length = file.seek(SeekFrom::End(0))?;
    let mut tail = Vec::new();
    let mut start = length;
    while start > 0 {
        let from = start.saturating_sub(4096);
        file.seek(SeekFrom::Start(from))?;
        let mut part = vec![0; usize::try_from(start - from).expect("invariant: 4096 fit")];
        file.read_exact(&mut part)?;
        part.extend(tail);
        tail = part;
        start = from;
        if tail.ends_with(b"\n") {
            return Ok(length);
        }
        if tail.contains(&b'\n') {
            break;
        }
    }
    let line = tail.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    if line.is_empty() {
        return Ok(length);
    }
    if serde_json::from_slice::<serde_json::Value>(line).is_ok() {
        file.seek(SeekFrom::End(0))?;
        file.write_all(b"\n")?;
        return Ok(length + 1);
    }
    let end = length - line.len() as u64;
    file.set_len(end)?;
    Ok(end)
}
