//! The memo: digests of files that were hashed before, so that unchanged ones are not read again.
//! Knows nothing of what the files are.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Store;
use super::digest::{SIGNATURE, Signature};
use crate::identity::Digest;

/// Digests by path and [`Signature`]. A file whose change lies too close to the moment of hashing
/// is hashed again the next time ("racily clean"): its clock may not tell two writes apart.
#[derive(Debug, Default)]
pub struct Memo {
    /// By the bytes of the path: comparing part by part costs more than the file system does.
    known: HashMap<Box<[u8]>, ([u8; SIGNATURE], Digest)>,
    dirty: bool,
}

/// Where it is kept.
pub(super) const NAME: &str = "memo";

impl Memo {
    pub(super) fn get(&self, path: &Path, signature: &Signature) -> Option<Digest> {
        let known = self.known.get(path.as_os_str().as_bytes());
        known.filter(|(s, _)| *s == signature.to_bytes()).map(|(_, d)| *d)
    }

    /// Whether nobody wrote to the file since it was remembered, as far as its times tell.
    pub(super) fn is_unwritten(&self, path: &Path, now: &Signature) -> bool {
        let known = self.known.get(path.as_os_str().as_bytes());
        // All but the change time, which comes last.
        let content = SIGNATURE - size_of::<i128>();
        known.is_some_and(|(s, _)| s[..content] == now.to_bytes()[..content])
    }

    /// The digest of a file that nobody wrote to since it was remembered; more names of it are no
    /// writing.
    pub(super) fn get_unwritten(&self, path: &Path, now: &Signature) -> Option<Digest> {
        let known = self.known.get(path.as_os_str().as_bytes()).map(|(_, digest)| *digest);
        known.filter(|_| self.is_unwritten(path, now))
    }

    /// Remembers the digest of a file that looks like this.
    pub(crate) fn put(&mut self, path: &Path, signature: Signature, digest: Digest) {
        self.known.insert(path.as_os_str().as_bytes().into(), (signature.to_bytes(), digest));
        self.dirty = true;
    }

    pub(super) fn forget(&mut self, path: &Path) {
        self.dirty |= self.known.remove(path.as_os_str().as_bytes()).is_some();
    }

    /// Row by row: signature, digest, length of the path, path.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.known.len() * 256);
        for (path, (signature, digest)) in &self.known {
            out.extend_from_slice(signature);
            out.extend_from_slice(digest.raw());
            out.extend((path.len() as u64).to_le_bytes());
            out.extend_from_slice(path);
        }
        out
    }

    fn from_bytes(mut rest: &[u8]) -> Option<Self> {
        let mut known = HashMap::with_capacity(rest.len() / 200);
        while !rest.is_empty() {
            let (signature, after) = rest.split_first_chunk()?;
            let (digest, after) = after.split_first_chunk()?;
            let (length, after) = after.split_first_chunk()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let (path, after) = after.split_at_checked(length)?;
            rest = after;
            known.insert(path.into(), (*signature, Digest::from_raw(*digest)));
        }
        Some(Self { known, dirty: false })
    }
}

impl Store {
    pub(super) fn load_memo(&self) -> Memo {
        let bytes = self.derived(NAME, &key());
        bytes.and_then(|bytes| Memo::from_bytes(&bytes)).unwrap_or_default()
    }

    /// Writes the memo of digests, when it changed. A failure costs only time, so it is ignored.
    pub fn save_memo(&self) {
        let mut memo = self.memo();
        if memo.dirty && self.keep_derived(NAME, &key(), &memo.to_bytes()) {
            memo.dirty = false;
            // Where earlier versions kept it.
            let _ = std::fs::remove_file(self.root().join("memo-v1.json"));
        }
    }
}

fn key() -> Digest {
    Digest::of(b"memo/2")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn what_was_written_reads_back() {
        let mut memo = Memo::default();
        let signature = Signature { device: 1, inode: 2, size: 3, mtime: -4, ctime: i128::MAX };
        let name = Path::new(OsStr::from_bytes(b"/no\xff utf-8"));
        memo.put(Path::new("/a/b"), signature, Digest::of(b"b"));
        memo.put(name, Signature { size: u64::MAX, ..signature }, Digest::of(b"n"));
        let bytes = memo.to_bytes();
        let back = Memo::from_bytes(&bytes).unwrap();
        assert_eq!(back.known, memo.known);
        assert_eq!(back.get(Path::new("/a/b"), &signature), Some(Digest::of(b"b")));
        assert_eq!(back.get(name, &signature), None);
        assert!(Memo::from_bytes(&bytes[..bytes.len() - 1]).is_none());
    }
}
