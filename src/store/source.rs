//! Sources: what nobody makes. Their digests, and whether they are still what was hashed.
//! Knows nothing of what reads them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use super::digest::walk_but;
use super::digest::{Signature, TreeFile, refuse_special, tree_bytes, tree_digest, tree_rows};
use super::{Store, StoreError};
use crate::identity::{Digest, MemberChange};

/// The content of a source, and what must not change while a stage reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDigest {
    pub digest: Digest,
    /// Paths for the worker: the one path, or every match of a pattern.
    pub paths: Vec<PathBuf>,
    pub bytes: u64,
    pub files: SourceFiles,
    /// What the source amounts to, where that is not the bytes of its files: kept as an object
    /// before a worker reads it.
    pub content: Option<Arc<[u8]>>,
}

/// Every file behind a source as it was when it was hashed. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFiles {
    seen: Arc<[SeenFile]>,
    /// The folder whose files these are; `None`: a file, or what a pattern matches.
    folder: Option<PathBuf>,
}

/// One file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SeenFile {
    path: PathBuf,
    /// Its name within a folder or pattern; empty where it is the source itself.
    name: String,
    digest: Digest,
    signature: Signature,
}

/// Names of files and folders that tools leave beside data, anywhere in a folder.
const LEFT_BY_TOOLS: [&str; 6] =
    [".git", "__pycache__", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db", "desktop.ini"];

/// Whether a path inside a folder that is a source was left there by a tool and is no part of it:
/// one of the names above, what the hub's downloads keep in `.cache/huggingface`, and what editors
/// leave: `name~`, `.name.swp`, `#name#`, `.#name`.
#[must_use]
pub fn is_left_by_tool(inside: &str) -> bool {
    let (above, name) = inside.rsplit_once('/').unwrap_or(("", inside));
    let cache = name == "huggingface" && (above == ".cache" || above.ends_with("/.cache"));
    let swap = name.starts_with('.') && (name.ends_with(".swp") || name.ends_with(".swo"));
    let aside = name.len() > 1 && name.ends_with('~')
        || name.starts_with(".#")
        || name.len() > 2 && name.starts_with('#') && name.ends_with('#');
    LEFT_BY_TOOLS.contains(&name) || cache || swap || aside
}

impl Store {
    /// A source whose content was worked out from its files: the worker reads it from the store.
    #[must_use]
    pub fn digest_content(&self, content: Vec<u8>) -> SourceDigest {
        let digest = Digest::of(&content);
        SourceDigest {
            digest,
            paths: vec![self.object_path(&digest)],
            bytes: content.len() as u64,
            files: SourceFiles::default(),
            content: Some(content.into()),
        }
    }

    /// Digest of a source: a file, a directory, or a pattern that matches files.
    ///
    /// # Errors
    /// Missing, empty, dangling, a pipe or device, unreadable, or changing meanwhile.
    pub fn digest_source(&self, path: &str) -> Result<SourceDigest, StoreError> {
        let is_pattern = path.contains(['*', '?', '[']) && !Path::new(path).exists();
        if is_pattern {
            return self.digest_pattern(path);
        }
        let path = Path::new(path);
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(match fs::read_link(path) {
                    Ok(target) => StoreError::SourceDangling(path.to_owned(), target),
                    Err(_) => StoreError::SourceMissing(path.to_owned()),
                });
            }
            Err(e) => return Err(e.into()),
        };
        refuse_special(path, &meta)?;
        if meta.is_dir() {
            let files = names_in(path)?.into_iter().map(|name| (path.join(&name), name)).collect();
            let mut source = self.digest_many(vec![path.to_owned()], files)?;
            source.files.folder = Some(path.to_owned());
            return Ok(source);
        }
        let (digest, signature) = self.digest_file(path)?;
        if signature.size == 0 {
            return Err(StoreError::SourceEmpty(path.to_owned()));
        }
        let seen = SeenFile { path: path.to_owned(), name: String::new(), digest, signature };
        Ok(SourceDigest {
            digest,
            paths: vec![path.to_owned()],
            bytes: signature.size,
            files: SourceFiles { seen: vec![seen].into(), folder: None },
            content: None,
        })
    }

    fn digest_pattern(&self, pattern: &str) -> Result<SourceDigest, StoreError> {
        let bad = |e: String| StoreError::SourcePattern(pattern.to_owned(), e);
        let mut paths = Vec::new();
        for path in glob::glob(pattern).map_err(|e| bad(e.to_string()))? {
            let path = path.map_err(|e| bad(e.to_string()))?;
            if !path.is_dir() {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(StoreError::SourceNoMatch(pattern.to_owned()));
        }
        // Names below the part without wildcards: moving the whole folder changes nothing.
        let fixed: PathBuf = Path::new(pattern)
            .components()
            .take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '[']))
            .collect();
        let files = paths
            .iter()
            .map(|p| {
                let name = p.strip_prefix(&fixed).unwrap_or(p).to_string_lossy().into_owned();
                (p.clone(), name)
            })
            .collect();
        self.digest_many(paths, files)
    }

    /// Digest of several files, each with the name that it is known by.
    ///
    /// # Errors
    /// As [`Store::digest_source`].
    pub fn digest_many(
        &self,
        paths: Vec<PathBuf>,
        files: Vec<(PathBuf, String)>,
    ) -> Result<SourceDigest, StoreError> {
        let mut seen = Vec::with_capacity(files.len());
        for (path, name) in files {
            let (digest, signature) = self.digest_file(&path)?;
            seen.push(SeenFile { path, name, digest, signature });
        }
        let bytes = seen.iter().map(|f| f.signature.size).sum();
        if bytes == 0 {
            return Err(StoreError::SourceEmpty(paths[0].clone()));
        }
        let digest = tree_digest(&tree(&seen));
        let files = SourceFiles { seen: seen.into(), folder: None };
        Ok(SourceDigest { digest, paths, bytes, files, content: None })
    }

    /// Keeps which files make up a folder or pattern that a stage reads, so that it can be told
    /// later which of them changed. Nothing is lost with it.
    pub fn keep_members(&self, source: &SourceDigest) {
        let name = members_name(&source.digest);
        if source.files.is_tree() && !self.root().join("derived-v1").join(&name).exists() {
            self.keep_derived(&name, &source.digest, &tree_bytes(&tree(&source.files.seen)));
        }
    }

    /// How the files of a folder or pattern differ from those that had that digest, by name.
    /// `None`: those are not known any more.
    #[must_use]
    pub fn member_changes(
        &self,
        source: &SourceDigest,
        before: &Digest,
    ) -> Option<Vec<(String, MemberChange)>> {
        if !source.files.is_tree() {
            return None;
        }
        let bytes = self.derived(&members_name(before), before)?;
        let before: BTreeMap<String, String> = tree_rows(&bytes)?.into_iter().collect();
        let now: BTreeMap<&str, String> =
            source.files.seen.iter().map(|f| (f.name.as_str(), f.digest.to_string())).collect();
        let changed = now.iter().filter_map(|(name, digest)| match before.get(*name) {
            None => Some(((*name).to_owned(), MemberChange::New)),
            Some(old) if old != digest => Some(((*name).to_owned(), MemberChange::Changed)),
            Some(_) => None,
        });
        let gone = before.keys().filter(|name| !now.contains_key(name.as_str()));
        Some(changed.chain(gone.map(|name| (name.clone(), MemberChange::Gone))).collect())
    }
}

impl SourceFiles {
    /// The digest of the source is that of a list of files.
    fn is_tree(&self) -> bool {
        self.seen.iter().any(|file| !file.name.is_empty())
    }

    /// Some file, or its place in the file system, is no longer what it was: a cheap question.
    #[must_use]
    pub fn looks_changed(&self) -> bool {
        self.seen.iter().any(SeenFile::looks_changed)
            || self.folder.as_ref().is_some_and(
                |folder| !matches!(names_in(folder), Ok(names) if self.has_names(&names)),
            )
    }

    /// The first file whose bytes are no longer what was hashed, that is gone, or is new in a
    /// folder. Files that were only touched, linked or put back are read again and are the same.
    #[must_use]
    pub fn changed_since(&self, store: &Store) -> Option<PathBuf> {
        let same = |file: &SeenFile| {
            let now = store.digest_file(&file.path);
            now.is_ok_and(|(digest, _)| digest == file.digest)
        };
        let changed = self.seen.iter().find(|file| file.looks_changed() && !same(file));
        if let Some(file) = changed {
            return Some(file.path.clone());
        }
        let folder = self.folder.as_ref()?;
        let Ok(names) = names_in(folder) else { return Some(folder.clone()) };
        if self.has_names(&names) {
            return None;
        }
        let known = |name: &String| self.seen.iter().any(|file| file.name == *name);
        Some(names.iter().find(|name| !known(name)).map_or(folder.clone(), |n| folder.join(n)))
    }

    fn has_names(&self, names: &[String]) -> bool {
        self.seen.iter().map(|file| &file.name).eq(names)
    }
}

impl SeenFile {
    fn looks_changed(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |meta| Signature::of(&meta) != self.signature)
    }
}

/// Names of the files in a folder that is a source, sorted.
fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let names = walk_but(folder, is_left_by_tool)?.into_iter().map(|(name, _)| name).collect();
    Ok(names)
}

fn tree(seen: &[SeenFile]) -> Vec<TreeFile> {
    let one = |file: &SeenFile| TreeFile {
        path: file.name.clone(),
        digest: file.digest,
        size: file.signature.size,
    };
    seen.iter().map(one).collect()
}

fn members_name(digest: &Digest) -> String {
    format!("tree-{}", digest.hex())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own their folders")]
mod tests {
    use super::*;

    fn store(dir: &Path) -> Store {
        let store = Store::open(&dir.join("cache")).unwrap();
        store.prepare_for_writing().unwrap();
        store
    }

    #[test]
    fn a_folder_of_links_is_the_folder_of_their_files() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let digest = |name: &str| {
            let path = dir.path().join(name);
            store.digest_source(&path.to_string_lossy()).map(|source| source.digest)
        };
        for folder in ["blobs", "plain/inner", "linked/inner"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (name, blob, text) in [("config.json", "0a", "{}"), ("inner/b.txt", "0b", "b")] {
            std::fs::write(dir.path().join("blobs").join(blob), text).unwrap();
            std::fs::write(dir.path().join("plain").join(name), text).unwrap();
            let up = if name.contains('/') { "../.." } else { ".." };
            let link = dir.path().join("linked").join(name);
            symlink(format!("{up}/blobs/{blob}"), link).unwrap();
        }
        let before = digest("linked").unwrap();
        assert_eq!(before, digest("plain").unwrap());
        // Another content behind a link is another source.
        std::fs::write(dir.path().join("blobs/0b"), "c").unwrap();
        assert_ne!(digest("linked").unwrap(), before);
        symlink("nowhere", dir.path().join("linked/lost")).unwrap();
        assert!(matches!(digest("linked"), Err(StoreError::SourceDangling(..))));
        std::fs::remove_file(dir.path().join("linked/lost")).unwrap();
        // A folder may lead in circles.
        symlink("..", dir.path().join("linked/up")).unwrap();
        assert!(matches!(digest("linked"), Err(StoreError::NotAFile { what: "a link", .. })));
    }

    #[test]
    fn what_tools_leave_is_no_part_of_a_folder() {
        for left in [
            ".git",
            "a/.git",
            "a/__pycache__",
            ".DS_Store",
            "x/Thumbs.db",
            "notes.txt~",
            ".notes.txt.swp",
            ".ipynb_checkpoints",
            ".cache/huggingface",
            "m/.cache/huggingface",
            "#a#",
            ".#a",
        ] {
            assert!(is_left_by_tool(left), "{left}");
        }
        for own in [
            ".gitignore",
            ".cache",
            ".cache/other",
            "huggingface",
            "~",
            "a.swp",
            ".hidden",
            "#",
            "##",
            "git",
            "pycache.txt",
        ] {
            assert!(!is_left_by_tool(own), "{own}");
        }
        let dir = tempfile::tempdir().unwrap();
        let (store, data) = (store(dir.path()), dir.path().join("data"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("a.txt"), "a").unwrap();
        let plain = store.digest_source(&data.to_string_lossy()).unwrap();
        std::fs::create_dir_all(data.join("__pycache__/deep")).unwrap();
        std::fs::write(data.join("__pycache__/deep/x.pyc"), "x").unwrap();
        std::os::unix::fs::symlink("nobody@host", data.join(".#a.txt")).unwrap();
        std::fs::write(data.join("a.txt~"), "old").unwrap();
        assert_eq!(store.digest_source(&data.to_string_lossy()).unwrap().digest, plain.digest);
        assert!(!plain.files.looks_changed(), "they may come and go while a stage runs");
        // A pattern says which files it wants.
        std::fs::remove_file(data.join(".#a.txt")).unwrap();
        let pattern = store.digest_source(&format!("{}/*", data.display())).unwrap();
        assert!(pattern.paths.contains(&data.join("a.txt~")));
    }

    #[test]
    fn a_file_that_was_touched_is_read_again_and_only_other_bytes_count() {
        let dir = tempfile::tempdir().unwrap();
        let (store, data) = (store(dir.path()), dir.path().join("data"));
        std::fs::create_dir_all(&data).unwrap();
        let (a, b) = (data.join("a.txt"), data.join("b.txt"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        let source = store.digest_source(&data.to_string_lossy()).unwrap();
        assert!(!source.files.looks_changed());
        // Linked, then replaced by a copy of the same bytes.
        std::fs::hard_link(&a, dir.path().join("second")).unwrap();
        assert!(source.files.looks_changed());
        assert_eq!(source.files.changed_since(&store), None);
        std::fs::copy(&b, dir.path().join("copy")).unwrap();
        std::fs::rename(dir.path().join("copy"), &b).unwrap();
        assert_eq!(source.files.changed_since(&store), None);
        std::fs::write(data.join("c.txt"), "c").unwrap();
        assert_eq!(source.files.changed_since(&store), Some(data.join("c.txt")));
        std::fs::remove_file(data.join("c.txt")).unwrap();
        std::fs::write(&b, "B").unwrap();
        assert_eq!(source.files.changed_since(&store), Some(b.clone()));
        std::fs::remove_file(&b).unwrap();
        assert_eq!(source.files.changed_since(&store), Some(b));
    }

    #[test]
    fn the_files_of_a_folder_that_changed_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (store, data) = (store(dir.path()), dir.path().join("data"));
        std::fs::create_dir_all(data.join("in")).unwrap();
        for name in ["a", "in/b", "c"] {
            std::fs::write(data.join(name), name).unwrap();
        }
        let look = || store.digest_source(&data.to_string_lossy()).unwrap();
        let before = look();
        assert_eq!(store.member_changes(&before, &before.digest), None, "nothing is kept yet");
        store.keep_members(&before);
        assert_eq!(store.member_changes(&before, &before.digest), Some(Vec::new()));
        std::fs::write(data.join("in/b"), "other").unwrap();
        std::fs::write(data.join("d"), "d").unwrap();
        std::fs::remove_file(data.join("c")).unwrap();
        let changes = store.member_changes(&look(), &before.digest).unwrap();
        let wanted =
            [("d", MemberChange::New), ("in/b", MemberChange::Changed), ("c", MemberChange::Gone)];
        assert_eq!(changes, wanted.map(|(name, change)| (name.to_owned(), change)));
        let file = store.digest_source(&data.join("a").to_string_lossy()).unwrap();
        store.keep_members(&file);
        assert_eq!(store.member_changes(&file, &file.digest), None, "a file has no members");
    }
}
