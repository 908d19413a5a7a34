//! Word of a label page that is served, for other programs on this machine: where it is, as long
//! as it is there. Does not know what is asked.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::files;
use crate::identity::Digest;

/// A page that is served; dropping it takes the word back.
#[derive(Debug)]
pub struct Served {
    path: PathBuf,
    /// Held while the page is there: it is freed by death.
    _lock: File,
}

impl Served {
    /// Leaves a link to the page of a stage in the folder of the label pages. Whoever may read the
    /// key that signs links may read it, nobody else.
    ///
    /// # Errors
    /// The folder cannot be written, or cannot lock files.
    pub fn tell(cache: &Path, pipeline: &str, stage: &str, link: &str) -> io::Result<Self> {
        fs::create_dir_all(cache)?;
        let path = place(cache, pipeline, stage);
        let mut file = tempfile::NamedTempFile::new_in(cache)?;
        file.as_file().lock()?;
        file.write_all(link.as_bytes())?;
        let lock = file.persist(&path).map_err(|e| e.error)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The link to the page of a stage that is served now.
#[must_use]
pub fn link(cache: &Path, pipeline: &str, stage: &str) -> Option<String> {
    let path = place(cache, pipeline, stage);
    let file = files::open_own(&path).ok()?;
    let held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    held.then(|| io::read_to_string(file).ok()).flatten()
}

fn place(cache: &Path, pipeline: &str, stage: &str) -> PathBuf {
    let key = Digest::of(format!("{pipeline}\0{stage}").as_bytes());
    cache.join(format!("served-{}", key.short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_told_of_as_long_as_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(link(dir.path(), "p", "s"), None);
        let served = Served::tell(dir.path(), "p", "s", "http://here").unwrap();
        assert_eq!(link(dir.path(), "p", "s").as_deref(), Some("http://here"));
        assert_eq!(link(dir.path(), "p", "other"), None);
        // What a killed server leaves leads nowhere.
        std::fs::copy(place(dir.path(), "p", "s"), place(dir.path(), "p", "dead")).unwrap();
        assert_eq!(link(dir.path(), "p", "dead"), None);
        drop(served);
        assert_eq!(link(dir.path(), "p", "s"), None);
    }
}
