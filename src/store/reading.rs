//! Whether an object stayed what it was while a stage read it: files may be held open by whoever
//! wrote them, and permissions do not stop everybody. Does not know who reads.

use std::path::{Path, PathBuf};

use super::digest::{Signature, walk};
use super::object::hash_object;
use super::{EntryOutput, Store};
use crate::identity::Digest;

/// An object that is about to be read, as it looks now.
#[derive(Debug, Clone)]
pub struct Reading {
    path: PathBuf,
    digest: Digest,
    is_tree: bool,
    /// Each file inside, or the file itself under an empty name; `None`: it cannot be looked at.
    files: Option<Vec<(String, Signature)>>,
}

impl Reading {
    /// `path`: where the object lies, in the store or still in the scratch.
    #[must_use]
    pub fn begin(path: PathBuf, output: &EntryOutput) -> Self {
        let is_tree = output.tree.is_some();
        Self { files: look(&path, is_tree), path, digest: output.digest, is_tree }
    }

    /// The same for what `hash` is about to read for the first time.
    pub(super) fn hashing<E>(
        path: &Path,
        is_tree: bool,
        hash: impl FnOnce() -> Result<EntryOutput, E>,
    ) -> Result<(EntryOutput, Self), E> {
        let files = look(path, is_tree);
        let output = hash()?;
        let reading = Self { path: path.to_owned(), digest: output.digest, is_tree, files };
        Ok((output, reading))
    }

    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it may have been written to since: by the times of its files, which say nothing of
    /// writes through memory maps where the file system does not note them.
    #[must_use]
    pub fn looks_changed(&self) -> bool {
        let (Some(before), Some(now)) = (&self.files, look(&self.path, self.is_tree)) else {
            return true;
        };
        let same = |((a, before), (b, now)): (&(String, Signature), &(String, Signature))| {
            a == b && before.has_same_content(now)
        };
        before.len() != now.len() || !before.iter().zip(&now).all(same) || is_blind(&self.path)
    }

    /// Reads all of it: whether it is no longer what its digest says.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !hash_object(&self.path, self.is_tree).is_ok_and(|now| now == self.digest)
    }
}

impl Store {
    /// Forgets that an object was sound: it is read again before anybody believes it.
    pub fn doubt(&self, reading: &Reading) {
        let object = self.object_path(&reading.digest);
        let mut memo = self.memo();
        memo.forget(&object);
        for (name, _) in reading.files.iter().flatten() {
            memo.forget(&object.join(name));
        }
    }
}

fn look(path: &Path, is_tree: bool) -> Option<Vec<(String, Signature)>> {
    if !is_tree {
        let meta = std::fs::symlink_metadata(path).ok()?;
        return Some(vec![(String::new(), Signature::of(&meta))]);
    }
    let files = walk(path).ok()?;
    Some(files.into_iter().map(|(name, meta)| (name, Signature::of(&meta))).collect())
}

/// File systems in memory, which do not note writes through memory maps. What lies there is read
/// again instead.
#[cfg(target_os = "linux")]
fn is_blind(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(path).ok().and_then(|stat| u64::try_from(stat.f_type).ok());
    kind.is_some_and(|kind| kind == TMPFS || kind == RAMFS)
}

#[cfg(not(target_os = "linux"))]
fn is_blind(_: &Path) -> bool {
    false
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests break files")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::digest::tree_digest;
    use crate::store::object::hash_tree;

    #[test]
    fn what_is_written_replaced_or_added_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let tree = dir.path().join("tree");
        let reset = || {
            let _ = std::fs::remove_dir_all(&tree);
            std::fs::write(&file, "good").unwrap();
            std::fs::create_dir_all(tree.join("sub")).unwrap();
            std::fs::write(tree.join("sub/a"), "good").unwrap();
        };
        reset();
        let one = EntryOutput { digest: Digest::of(b"good"), bytes: 4, tree: None };
        let files = hash_tree(&tree).unwrap();
        let many = EntryOutput { digest: tree_digest(&files), bytes: 4, tree: Some(files) };
        let harmless: [&dyn Fn(); 2] = [&|| {}, &|| {
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&file, mode).unwrap();
            std::fs::hard_link(&file, dir.path().join("second name")).unwrap();
        }];
        for act in harmless {
            let readings =
                [Reading::begin(file.clone(), &one), Reading::begin(tree.clone(), &many)];
            act();
            for reading in readings {
                assert!(!reading.has_changed());
                assert!(!reading.looks_changed() || is_blind(reading.path()));
            }
        }
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        let harmful: [(bool, &dyn Fn()); 6] = [
            (false, &|| write(&file, "evil")),
            (false, &|| std::fs::remove_file(&file).unwrap()),
            (true, &|| write(&tree.join("sub/a"), "evil")),
            (true, &|| write(&tree.join("sub/b"), "more")),
            (true, &|| std::fs::remove_dir_all(&tree).unwrap()),
            (true, &|| {
                std::fs::remove_file(tree.join("sub/a")).unwrap();
                std::os::unix::fs::symlink("../file", tree.join("sub/a")).unwrap();
            }),
        ];
        for (in_tree, act) in harmful {
            reset();
            let (path, output) = if in_tree { (&tree, &many) } else { (&file, &one) };
            // Clocks of file systems are coarse.
            let long_ago = std::time::SystemTime::UNIX_EPOCH;
            for path in [&file, &tree.join("sub/a")] {
                std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
            }
            let reading = Reading::begin(path.clone(), output);
            assert!(!reading.has_changed());
            act();
            assert!(reading.looks_changed() && reading.has_changed());
        }
    }
}
