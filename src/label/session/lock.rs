//! What keeps two label pages from one folder of votes: a lock in the cache, named by the place
//! where the folder really is. Does not know what is locked out.

use std::path::{Path, PathBuf};

use crate::files;
use crate::label::error::SessionError;
use crate::label::queue;

/// Names a folder of votes in the cache.
#[must_use]
pub fn votes_name(votes: &Path) -> String {
    format!("{:016x}", queue::hash(&["preflow.votes/1", &real_path(votes).to_string_lossy()]))
}

/// Where a folder really is, whether or not it is there yet: the first vote makes it, and must not
/// change what it is called.
#[must_use]
pub fn real_path(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let real = absolute.ancestors().find_map(|above| {
        let rest = absolute.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    // Joined with nothing, a path ends in a slash.
    real.map_or(absolute, |path| path.components().collect())
}

/// The lock of a folder of that name, freed when the file is closed.
pub fn take_lock(cache: &Path, name: &str) -> Result<std::fs::File, SessionError> {
    let path = cache.join(format!("{name}.lock"));
    let wrong = |source| SessionError::Cache { path: path.clone(), source };
    fs_err::create_dir_all(cache).map_err(wrong)?;
    let file = files::update_own(&path).map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let place = files::read_to_string(&path, 4096).unwrap_or_default();
            Err(SessionError::Taken(place.chars().filter(|c| !c.is_control()).take(200).collect()))
        }
        Err(std::fs::TryLockError::Error(source)) => Err(wrong(source)),
    }
}
