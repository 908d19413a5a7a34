//! The journal: `runs/<id>/events.jsonl`, one event a line. Failing to write warns, never fails
//! the run. Knows nothing of what the events mean.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::event::RunEvent;
use crate::files;
use crate::store::Store;

/// Seconds between two lines about the progress of a stage: when it grew by a two-hundredth, and
/// when not.
const OFTEN: f64 = 1.0;
const SELDOM: f64 = 10.0;
const STEPS: u64 = 200;

/// One line: seconds since the run began, and the event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    pub t: f64,
    #[serde(flatten)]
    pub event: RunEvent,
}

/// A [`JournalLine`] that is written.
#[derive(Serialize)]
struct LineOf<'a> {
    t: f64,
    #[serde(flatten)]
    event: &'a RunEvent,
}

/// Writer of one run's journal.
#[derive(Debug, Default)]
pub struct Journal {
    file: Option<fs::File>,
    /// Lines about reused stages come by the thousand and wait here for the next other one.
    waiting: Vec<u8>,
    /// Progress as it was last written: when, and how much was done.
    progress: HashMap<String, (f64, u64)>,
    /// The first error, told once.
    pub error: Option<std::io::Error>,
}

impl Journal {
    /// Opens the journal in the run's directory, which it makes.
    #[must_use]
    pub fn create(dir: &Path) -> Self {
        let mut journal = Self::default();
        match fs::create_dir_all(dir).and_then(|()| fs::File::create(dir.join("events.jsonl"))) {
            Ok(file) => journal.file = Some(file),
            Err(e) => journal.error = Some(e),
        }
        journal
    }

    /// Appends a line. Of progress only so much is kept that whoever follows sees it move.
    pub fn write(&mut self, t: f64, event: &RunEvent) {
        if self.file.is_none() || !self.is_news(t, event) {
            return;
        }
        serde_json::to_writer(&mut self.waiting, &LineOf { t, event })
            .expect("invariant: an event is representable as JSON");
        self.waiting.push(b'\n');
        if !matches!(event, RunEvent::StageReused { .. }) || self.waiting.len() > 64 * 1024 {
            self.flush();
        }
    }

    fn is_news(&mut self, t: f64, event: &RunEvent) -> bool {
        if matches!(event, RunEvent::Sending { .. } | RunEvent::Fetching { .. }) {
            return false;
        }
        let RunEvent::Progress { stage, done, total, .. } = event else { return true };
        let (last, before) = self.progress.get(stage).copied().unwrap_or((f64::NEG_INFINITY, 0));
        let grown = done.abs_diff(before) >= (*total / STEPS).max(1);
        let news = t - last >= OFTEN && grown || t - last >= SELDOM;
        if news {
            self.progress.insert(stage.clone(), (t, *done));
        }
        news
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
pub fn read(path: &Path) -> std::io::Result<Vec<JournalLine>> {
    let file = BufReader::new(files::open_own(path).map_err(|e| files::named(path, &e))?);
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
pub fn ends(path: &Path) -> std::io::Result<(Option<JournalLine>, Option<JournalLine>)> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = files::open_own(path).map_err(|e| files::named(path, &e))?;
    let mut first = Vec::new();
    BufReader::new(&mut file).read_until(b'\n', &mut first)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let parse = |line: &[u8]| serde_json::from_slice::<JournalLine>(line).ok();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_thinned_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::create(dir.path());
        let total = 4000;
        let at = |done| RunEvent::Progress { stage: "a".into(), done, total, unit: "x".into() };
        // A hundred steps a second, for forty seconds; then it stands still.
        for done in 0..total {
            journal.write(f64::from(u32::try_from(done).expect("small")) / 100.0, &at(done));
        }
        for second in 40..80 {
            journal.write(f64::from(second), &at(total));
        }
        drop(journal);
        let lines = read(&dir.path().join("events.jsonl")).expect("a journal");
        let moving = lines.iter().filter(|l| l.t < 40.0).count();
        assert_eq!((moving, lines.len() - moving), (40, 4));
    }
}
