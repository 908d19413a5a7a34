//! Which workspaces the user lets start programs of their own: kept in the user's state folder, by
//! the place of the workspace and the commands that it names. Does not know what they start.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::store::summed;
use crate::user;

/// Says yes for all workspaces of one process, where nobody can be asked: `1`.
pub const VARIABLE: &str = "PREFLOW_TRUST";

/// Room for ten thousand workspaces.
const LARGEST: u64 = 16 << 20;

/// Name of a worker → its program and arguments.
pub type Commands = BTreeMap<String, Vec<String>>;

/// What the user has agreed to: place of the workspace → commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    workspaces: BTreeMap<PathBuf, Commands>,
}

/// The record of the user, on disk.
#[derive(Debug)]
pub struct TrustRecord {
    path: PathBuf,
}

impl TrustRecord {
    /// The one of the user who runs this. `None`: nothing says where their files are.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        Some(Self { path: user::state_folder()?.join("trust.json") })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was agreed to; nothing where there is no record.
    ///
    /// # Errors
    /// It is damaged, or somebody else may write to it.
    pub fn read(&self) -> io::Result<Trust> {
        let named = |e: io::Error| files::named(&self.path, &e);
        let bytes = match files::open_own(&self.path) {
            Ok(file) => {
                let meta = file.metadata()?;
                if !user::is_own(meta.uid()) || meta.mode() & 0o022 != 0 {
                    return Err(named(io::Error::other("others may write to it")));
                }
                files::read_own(&self.path, LARGEST).map_err(named)?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Trust::default()),
            Err(e) => return Err(named(e)),
        };
        summed::from_bytes(bytes).map_err(|reason| named(io::Error::other(reason)))
    }

    /// Changes what is on record; others may do so at the same time.
    ///
    /// # Errors
    /// As [`TrustRecord::read`]; the folder cannot be made or written.
    pub fn change<R>(&self, change: impl FnOnce(&mut Trust) -> R) -> io::Result<R> {
        user::make_private(self.path.parent().unwrap_or(Path::new("/")))?;
        // Nothing is added to a record that is not the user's.
        self.read()?;
        summed::change(&self.path, LARGEST, change).map_err(|e| files::named(&self.path, &e))
    }
}

impl Trust {
    /// Whether these are the commands that the user agreed to.
    #[must_use]
    pub fn has(&self, root: &Path, commands: &Commands) -> bool {
        self.workspaces.get(&real(root)) == Some(commands)
    }

    pub fn add(&mut self, root: &Path, commands: Commands) {
        self.workspaces.insert(real(root), commands);
    }

    /// False: there was nothing to take back.
    pub fn remove(&mut self, root: &Path) -> bool {
        self.workspaces.remove(&real(root)).is_some()
    }

    /// All of them, by place.
    pub fn workspaces(&self) -> impl Iterator<Item = (&Path, &Commands)> {
        self.workspaces.iter().map(|(root, commands)| (root.as_path(), commands))
    }
}

/// Whether the environment agrees to everything.
#[must_use]
pub fn by_environment() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == "1")
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn commands(words: &[&str]) -> Commands {
        [("w".to_owned(), words.iter().map(|w| (*w).to_owned()).collect())].into()
    }

    #[test]
    fn only_these_commands_at_this_place_are_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let record = TrustRecord { path: folder.path().join("state/preflow/trust.json") };
        assert_eq!(record.read().unwrap(), Trust::default());
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        record.change(|trust| trust.add(&one, commands(&["python3", "w.py"]))).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(record.path()), 0o600);
        assert_eq!(mode(record.path().parent().unwrap()), 0o700);
        let mut read = record.read().unwrap();
        assert!(read.has(&one, &commands(&["python3", "w.py"])));
        std::os::unix::fs::symlink("one", folder.path().join("link")).unwrap();
        assert!(read.has(&folder.path().join("link"), &commands(&["python3", "w.py"])));
        assert!(!read.has(&one, &commands(&["python3", "w.py", "-x"])));
        assert!(!read.has(&one, &Commands::new()));
        assert!(!read.has(&two, &commands(&["python3", "w.py"])));
        assert!(read.remove(&one) && !read.remove(&one));
        assert!(!read.has(&one, &commands(&["python3", "w.py"])));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests break files")]
    fn a_record_that_others_made_or_that_is_damaged_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let record = TrustRecord { path: folder.path().join("own/trust.json") };
        let add = |trust: &mut Trust| trust.add(folder.path(), commands(&["w"]));
        record.change(add).unwrap();
        let open = std::fs::Permissions::from_mode(0o622);
        std::fs::set_permissions(record.path(), open).unwrap();
        assert!(record.read().unwrap_err().to_string().contains("others may write to it"));
        assert!(record.change(add).is_err());
        std::fs::set_permissions(record.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = std::fs::read_to_string(record.path()).unwrap();
        std::fs::write(record.path(), text.replace("[\"w\"]", "[\"x\"]")).unwrap();
        assert!(record.read().unwrap_err().to_string().contains("checksum"));
        std::fs::rename(record.path(), folder.path().join("own/other")).unwrap();
        std::os::unix::fs::symlink("other", record.path()).unwrap();
        assert!(record.read().unwrap_err().to_string().contains("a link"));
    }
}
