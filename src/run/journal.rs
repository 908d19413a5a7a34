//! The journal: `runs/<id>/events.jsonl`, one event a line. Failing to write warns, never fails
//! the run. Knows nothing of what the events mean.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::event::RunEvent;
use crate::store::Store;

/// One line: seconds since the run began, and the event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub t: f64,
    #[serde(flatten)]
    pub event: RunEvent,
}

/// A [`Line`] that is written.
#[derive(Serialize)]
struct LineOf<'a> {
    t: f64,
    #[serde(flatten)]
    event: &'a RunEvent,
}

/// Writer of one run's journal.
#[derive(Debug)]
pub struct Journal {
    file: Option<fs::File>,
    /// Lines about reused stages come by the thousand and wait here for the next other one.
    waiting: Vec<u8>,
    /// The first error, told once.
    pub error: Option<std::io::Error>,
}

impl Journal {
    /// Opens the journal in the run's directory, which it makes.
    #[must_use]
    pub fn create(dir: &Path) -> Self {
        match fs::create_dir_all(dir).and_then(|()| fs::File::create(dir.join("events.jsonl"))) {
            Ok(file) => Self { file: Some(file), waiting: Vec::new(), error: None },
            Err(e) => Self { file: None, waiting: Vec::new(), error: Some(e) },
        }
    }

    /// Appends a line. Progress is left out: it says nothing once it is over.
    pub fn write(&mut self, t: f64, event: &RunEvent) {
        if matches!(event, RunEvent::Progress { .. }) {
            return;
        }
        if self.file.is_none() {
            return;
        }
        serde_json::to_writer(&mut self.waiting, &LineOf { t, event })
            .expect("invariant: an event is representable as JSON");
        self.waiting.push(b'\n');
        if !matches!(event, RunEvent::StageReused { .. }) || self.waiting.len() > 64 * 1024 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(file) = &mut self.file else { return };
        if let Err(e) = file.write_all(&self.waiting) {
            self.file = None;
            self.error = Some(e);
        }
        self.waiting.clear();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Reads a journal; lines that a dying run left half written are skipped.
///
/// # Errors
/// The file cannot be opened.
pub fn read(path: &Path) -> std::io::Result<Vec<Line>> {
    let file = BufReader::new(fs::File::open(path)?);
    Ok(file
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect())
}

/// First and last line of a journal; the rest is not looked at.
///
/// # Errors
/// The file cannot be read.
pub fn ends(path: &Path) -> std::io::Result<(Option<Line>, Option<Line>)> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = fs::File::open(path)?;
    let mut first = Vec::new();
    BufReader::new(&mut file).read_until(b'\n', &mut first)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let parse = |line: &[u8]| serde_json::from_slice::<Line>(line).ok();
    let last = tail.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    Ok((parse(&first), parse(last)))
}

/// Ids of all runs in the store, newest first.
#[must_use]
pub fn runs(store: &Store) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(store.root().join("runs"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|item| item.path().is_dir())
        .map(|item| item.file_name().to_string_lossy().into_owned())
        .collect();
    // Ids begin with the time.
    names.sort_by(|a, b| b.cmp(a));
    names
}
