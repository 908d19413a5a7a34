//! What can be worked out again, kept to save time: each file says what it was worked out from, and
//! vouches for its own bytes. Nothing is lost with any of it, so nothing is synced.

use std::io::Write as _;

use super::digest::Signature;
use super::{Store, named_temp_file};
use crate::files;
use crate::identity::Digest;

/// A memo of a million files is a quarter of it.
const LARGEST: u64 = 1 << 30;

/// Bytes of a [`Digest`].
const DIGEST: usize = 32;

/// A key that changes with the format, with this program's own file (another version may work
/// things out otherwise), and with `from`. `None`: the program cannot be found.
#[must_use]
pub fn key(format: &str, from: &[u8]) -> Option<Digest> {
    let program = std::fs::metadata(std::env::current_exe().ok()?).ok()?;
    let program = Signature::of(&program).to_bytes();
    Some(Digest::of(&[format.as_bytes(), b" ", &program, from].concat()))
}

/// The name under which one `what` is kept for each thing of that name, whatever it comes to.
#[must_use]
pub fn name(what: &str, of: &[u8]) -> String {
    format!("{what}-{}", Digest::of(of).short())
}

impl Store {
    /// What was kept as `name`, if it was worked out from what has this digest.
    #[must_use]
    pub fn derived(&self, name: &str, from: &Digest) -> Option<Vec<u8>> {
        let path = self.root().join("derived-v1").join(name);
        let mut bytes = files::read_own(&path, LARGEST).ok()?;
        let (head, payload) = bytes.split_at_checked(2 * DIGEST)?;
        let (key, sum) = head.split_at(DIGEST);
        if key != from.raw() || sum != Digest::of(payload).raw() {
            return None;
        }
        bytes.drain(..2 * DIGEST);
        Some(bytes)
    }

    /// Keeps `payload` as `name`. Where that fails, it is worked out again the next time.
    pub fn keep_derived(&self, name: &str, from: &Digest, payload: &[u8]) -> bool {
        let folder = self.root().join("derived-v1");
        // Not its parents: looking at a pipeline makes no store.
        let _ = std::fs::create_dir(&folder);
        let Ok(mut file) = named_temp_file(&folder) else { return false };
        let sum = Digest::of(payload);
        let parts = [from.raw(), sum.raw(), payload];
        parts.iter().all(|part| file.write_all(part).is_ok())
            && file.persist(folder.join(name)).is_ok()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests break files")]
mod tests {
    use super::*;

    #[test]
    fn only_whole_bytes_worked_out_from_the_same_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert!(!store.keep_derived("x", &a, b"payload"), "there is no store yet");
        assert!(!store.root().exists());
        store.prepare_for_writing().unwrap();
        assert_eq!(store.derived("x", &a), None);
        assert!(store.keep_derived("x", &a, b"payload"));
        assert_eq!(store.derived("x", &a).as_deref(), Some(&b"payload"[..]));
        assert_eq!(store.derived("x", &b), None);
        assert_eq!(store.derived("y", &a), None);
        let path = store.root().join("derived-v1/x");
        let whole = std::fs::read(&path).unwrap();
        for broken in [&whole[..whole.len() - 1], &whole[..40], &[]] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(store.derived("x", &a), None);
        }
        let mut flipped = whole;
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(store.derived("x", &a), None);
    }
}
