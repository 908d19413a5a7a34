//! What can be worked out again, kept to save time: each file is signed with what it was worked out
//! from. Nothing is lost with any of it, so nothing is synced.

use std::io::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::digest::Signature;
use super::{Store, named_temp_file};
use crate::files;
use crate::identity::Digest;
use crate::user;

/// A memo of a million files is a quarter of it.
const LARGEST: u64 = 1 << 30;

/// Bytes of a signature.
const SIGNED: usize = 32;

/// A key that changes with the format, with this program's own file (another version may work
/// things out otherwise), and with `from`. Nobody else can sign with it: a repository may carry a
/// store, and what a graph says is run. `None`: the program cannot be found, or the user has no
/// secret.
#[must_use]
pub fn key(format: &str, from: &[u8]) -> Option<Digest> {
    let program = std::fs::metadata(std::env::current_exe().ok()?).ok()?;
    let program = Signature::of(&program).to_bytes();
    let secret = user::secret()?;
    Some(Digest::of(&[&secret, format.as_bytes(), b" ", &program, from].concat()))
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
        let (signature, payload) = bytes.split_at_checked(SIGNED)?;
        sign(from, payload).verify_slice(signature).ok()?;
        bytes.drain(..SIGNED);
        Some(bytes)
    }

    /// Keeps `payload` as `name`. Where that fails, it is worked out again the next time.
    pub fn keep_derived(&self, name: &str, from: &Digest, payload: &[u8]) -> bool {
        let folder = self.root().join("derived-v1");
        // Not its parents: looking at a pipeline makes no store.
        let _ = std::fs::create_dir(&folder);
        let Ok(mut file) = named_temp_file(&folder) else { return false };
        let signature = sign(from, payload).finalize().into_bytes();
        let parts = [signature.as_slice(), payload];
        parts.iter().all(|part| file.write_all(part).is_ok())
            && file.persist(folder.join(name)).is_ok()
    }
}

/// The key itself stands nowhere in a store.
fn sign(from: &Digest, payload: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(from.raw());
    let mut mac = mac.expect("invariant: keys of any length are allowed");
    mac.update(payload);
    mac
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
        for broken in [&whole[..whole.len() - 1], &whole[..20], &[]] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(store.derived("x", &a), None);
        }
        for i in [0, 31, 32] {
            let mut flipped = whole.clone();
            flipped[i] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            assert_eq!(store.derived("x", &a), None, "byte {i}");
        }
        let holds = |part: &[u8]| whole.windows(part.len()).any(|window| window == part);
        assert!(holds(b"payload") && !holds(a.raw()), "whoever has the file could sign others");
        let mut flipped = whole;
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(store.derived("x", &a), None);
    }
}
