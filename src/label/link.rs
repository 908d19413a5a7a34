//! Signed links: who may come in, as whom, until when. A link says it all; nothing is kept about
//! it. Knows nothing of HTTP.

use std::io::{self, Write as _};
use std::path::Path;

use fs_err as fs;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;

use crate::votes::is_annotator;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Votes under the name in the link.
    Annotator,
    /// Sees everybody's figures and settles disputes.
    Admin,
}

/// Whoever holds a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    pub role: Role,
    pub name: String,
}

/// Signs links for one stage of one pipeline and its votes; links for others do not open it.
#[derive(Clone)]
pub struct Signer {
    key: [u8; 32],
    scope: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Role {
    fn letter(self) -> &'static str {
        match self {
            Self::Annotator => "a",
            Self::Admin => "m",
        }
    }
}

impl Signer {
    /// With the key in `path`, which is made if it is not there.
    ///
    /// # Errors
    /// The file cannot be read or made, or is no key.
    pub fn open(path: &Path, scope: &[&str]) -> io::Result<Self> {
        let mut key = [0u8; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        // Whole or not at all: two that start at once must end up with one key.
        let mut fresh = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        fresh.write_all(&key)?;
        fresh.as_file().sync_all()?;
        match fresh.persist_noclobber(path) {
            Ok(_) => {}
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
                let bytes = fs::read(path)?;
                key = bytes.try_into().map_err(|_| {
                    let path = path.display();
                    io::Error::other(format!("{path} is no key: delete it, and send new links"))
                })?;
            }
            Err(e) => return Err(e.error),
        }
        // A file that others made readable is closed to them again.
        let open = fs::OpenOptions::new().read(true).open(path)?;
        let mut mode = open.metadata()?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
        open.file().set_permissions(mode)?;
        let scope: Vec<String> = scope.iter().map(|s| format!("{}:{s}", s.len())).collect();
        Ok(Self { key, scope: scope.join(",") })
    }

    /// The token of a link.
    #[must_use]
    pub fn sign(&self, role: Role, name: &str, until: Timestamp) -> String {
        let head = format!("{}.{}.{}", role.letter(), in_ascii(name), until.as_second());
        let mac = self.mac(&head).finalize().into_bytes();
        format!("{head}.{}", const_hex::encode(mac))
    }

    /// Whom a token lets in. Says nothing about why it does not.
    #[must_use]
    pub fn check(&self, token: &str, now: Timestamp) -> Option<Visitor> {
        let (head, mac) = token.rsplit_once('.')?;
        let mac = const_hex::decode(mac).ok()?;
        // Compares in constant time.
        self.mac(head).verify_slice(&mac).ok()?;
        let [role, name, until] = head.split('.').collect::<Vec<_>>().try_into().ok()?;
        let role = [Role::Annotator, Role::Admin].into_iter().find(|r| r.letter() == role)?;
        let until: i64 = until.parse().ok()?;
        let name = from_ascii(name)?;
        (now.as_second() < until && is_annotator(&name)).then_some(Visitor { role, name })
    }

    /// Tells cookies of several label pages in one browser apart.
    #[must_use]
    pub fn cookie(&self, role: Role) -> String {
        let name = super::queue::hash(&["preflow.cookie/1", &self.scope]);
        format!("preflow_{}_{name:016x}", role.letter())
    }

    fn mac(&self, head: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key)
            .expect("invariant: keys of any length are allowed");
        mac.update(b"preflow.link/1\n");
        mac.update(self.scope.as_bytes());
        mac.update(b"\n");
        mac.update(head.as_bytes());
        mac
    }
}

/// Addresses and cookies are ASCII: the bytes of other letters as `~` and two digits each.
fn in_ascii(name: &str) -> String {
    let byte = |b: u8| if b.is_ascii() { char::from(b).to_string() } else { format!("~{b:02x}") };
    name.bytes().map(byte).collect()
}

fn from_ascii(text: &str) -> Option<String> {
    let mut parts = text.split('~');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_its_own_page_until_it_ends() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("label/key");
        let signer = Signer::open(&path, &["p", "labels", "/votes"]).expect("made");
        let now = Timestamp::from_second(1000).expect("in range");
        let until = Timestamp::from_second(2000).expect("in range");
        let token = signer.sign(Role::Annotator, "ann", until);
        let ann = Visitor { role: Role::Annotator, name: "ann".into() };
        assert_eq!(signer.check(&token, now), Some(ann.clone()));
        assert_eq!(signer.check(&token, until), None);
        // The key outlives the program; other scopes have other links.
        let again = Signer::open(&path, &["p", "labels", "/votes"]).expect("read");
        assert_eq!(again.check(&token, now), Some(ann));
        for scope in [["q", "labels", "/votes"], ["p", "other", "/votes"], ["p", "labels", "/v"]] {
            assert_eq!(Signer::open(&path, &scope).expect("read").check(&token, now), None);
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).expect("there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn names_of_any_alphabet_travel_in_ascii() {
        let dir = tempfile::tempdir().expect("temp");
        let signer = Signer::open(&dir.path().join("key"), &["p"]).expect("made");
        let until = Timestamp::from_second(9999).expect("in range");
        for name in ["josé", "анна", "日本", "a_b-1", "अनिता"] {
            let token = signer.sign(Role::Annotator, name, until);
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-~".contains(&b)));
            let found = signer.check(&token, Timestamp::UNIX_EPOCH).expect("let in");
            assert_eq!(found.name, name);
        }
    }

    #[test]
    fn whatever_is_changed_in_a_link_closes_it() {
        let dir = tempfile::tempdir().expect("temp");
        let signer = Signer::open(&dir.path().join("key"), &["p"]).expect("made");
        let now = Timestamp::from_second(1000).expect("in range");
        let token = signer.sign(Role::Annotator, "ann", Timestamp::from_second(9999).expect("ok"));
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] ^= 1;
            let Ok(other) = String::from_utf8(bytes) else { continue };
            assert_eq!(signer.check(&other, now), None, "{other}");
            assert_eq!(signer.check(&token[..i], now), None);
        }
        let admin = token.replacen("a.", "m.", 1);
        assert_eq!(signer.check(&admin, now), None);
    }
}
