//! Signed links: who may come in, as whom, until when; and the sessions that they become, which are
//! no links. Knows nothing of HTTP.

use std::io;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::given::{GivenLink, IssuedLinks};
use crate::user;
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
    given: IssuedLinks,
}

/// What a signature is for: one for another purpose is none.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Link,
    Session,
    Path,
}

/// Hexadecimal digits of a signature that name a link.
const ID: usize = 16;

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
    /// With the key in `folder`, which is made if it is not there. The folder is the user's own and
    /// closed to others: whoever has the key signs links.
    ///
    /// # Errors
    /// The file cannot be read or made, is no key, or somebody else's.
    pub fn open(folder: &Path, scope: &[&str]) -> io::Result<Self> {
        let key = user::key(folder, "key")?;
        let scope: Vec<String> = scope.iter().map(|s| format!("{}:{s}", s.len())).collect();
        let scope = scope.join(",");
        Ok(Self { key, given: IssuedLinks::new(folder, &scope), scope })
    }

    /// The record of the links that were given out.
    #[must_use]
    pub fn given(&self) -> &IssuedLinks {
        &self.given
    }

    /// Makes a link and puts it on record, so that it can be taken back.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn give(&self, role: Role, name: &str, until: Timestamp) -> io::Result<String> {
        let token = self.sign(role, name, until);
        let link = GivenLink {
            name: name.to_owned(),
            admin: role == Role::Admin,
            made: Timestamp::now().as_second(),
            until: until.as_second(),
            revoked: false,
        };
        let id = id_of(&token).expect("invariant: a token ends on its signature");
        // Given before, and perhaps taken back: it stays so.
        self.given.change(|all| {
            all.links.entry(id.to_owned()).or_insert(link);
        })?;
        Ok(token)
    }

    /// The token of a link.
    #[must_use]
    pub fn sign(&self, role: Role, name: &str, until: Timestamp) -> String {
        let head = format!("{}.{}.{}", role.letter(), in_ascii(name), until.as_second());
        let mac = self.mac(Purpose::Link, &head).finalize().into_bytes();
        format!("{head}.{}", const_hex::encode(mac))
    }

    /// Whom a token lets in. Says nothing about why it does not.
    #[must_use]
    pub fn check(&self, token: &str, now: Timestamp) -> Option<Visitor> {
        let head = self.verified(Purpose::Link, token)?;
        self.visitor(head, id_of(token)?, now)
    }

    /// What a browser keeps of a link: it opens the pages as the link does, and as long, but is no
    /// link. `None`: the link is not valid.
    #[must_use]
    pub fn session(&self, token: &str, now: Timestamp) -> Option<String> {
        self.check(token, now)?;
        let (head, _) = token.rsplit_once('.')?;
        let head = format!("{head}.{}", id_of(token)?);
        let mac = self.mac(Purpose::Session, &head).finalize().into_bytes();
        Some(format!("{head}.{}", const_hex::encode(mac)))
    }

    /// Whom a session lets in.
    #[must_use]
    pub fn check_session(&self, session: &str, now: Timestamp) -> Option<Visitor> {
        let (head, id) = self.verified(Purpose::Session, session)?.rsplit_once('.')?;
        self.visitor(head, id, now)
    }

    /// What stands before the signature, if it is signed for that purpose.
    fn verified<'t>(&self, purpose: Purpose, token: &'t str) -> Option<&'t str> {
        let (head, mac) = token.rsplit_once('.')?;
        let mac = const_hex::decode(mac).ok()?;
        // Compares in constant time.
        self.mac(purpose, head).verify_slice(&mac).ok()?;
        Some(head)
    }

    fn visitor(&self, head: &str, id: &str, now: Timestamp) -> Option<Visitor> {
        let [role, name, until] = head.split('.').collect::<Vec<_>>().try_into().ok()?;
        let role = [Role::Annotator, Role::Admin].into_iter().find(|r| r.letter() == role)?;
        let until: i64 = until.parse().ok()?;
        let name = from_ascii(name)?;
        let valid = now.as_second() < until && is_annotator(&name) && !self.given.is_revoked(id);
        valid.then_some(Visitor { role, name })
    }

    /// Where the pages of this stage lie below the server's root: cookies do not tell one port from
    /// another, but are sent to their own path only, which no other server knows.
    #[must_use]
    pub fn path(&self) -> String {
        let mac = self.mac(Purpose::Path, "").finalize().into_bytes();
        format!("/at/{}", &const_hex::encode(mac)[..32])
    }

    /// Tells cookies of several label pages in one browser apart.
    #[must_use]
    pub fn cookie(&self, role: Role) -> String {
        let name = Sha256::digest(format!("preflow.cookie/1\0{}\0", self.scope));
        format!("preflow_{}_{}", role.letter(), const_hex::encode(&name[..8]))
    }

    fn mac(&self, purpose: Purpose, head: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key)
            .expect("invariant: keys of any length are allowed");
        mac.update(match purpose {
            Purpose::Link => b"preflow.link/1\n",
            Purpose::Session => b"preflow.session/1\n",
            Purpose::Path => b"preflow.path/1\n",
        });
        mac.update(self.scope.as_bytes());
        mac.update(b"\n");
        mac.update(head.as_bytes());
        mac
    }
}

/// What names a link where it is listed and taken back.
fn id_of(token: &str) -> Option<&str> {
    token.rsplit_once('.')?.1.get(..ID)
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
        let path = dir.path();
        let signer = Signer::open(path, &["p", "labels", "/votes"]).expect("made");
        let now = Timestamp::from_second(1000).expect("in range");
        let until = Timestamp::from_second(2000).expect("in range");
        let token = signer.sign(Role::Annotator, "ann", until);
        let ann = Visitor { role: Role::Annotator, name: "ann".into() };
        assert_eq!(signer.check(&token, now), Some(ann.clone()));
        assert_eq!(signer.check(&token, until), None);
        // The key outlives the program; other scopes have other links.
        let again = Signer::open(path, &["p", "labels", "/votes"]).expect("read");
        assert_eq!(again.check(&token, now), Some(ann));
        for scope in [["q", "labels", "/votes"], ["p", "other", "/votes"], ["p", "labels", "/v"]] {
            assert_eq!(Signer::open(path, &scope).expect("read").check(&token, now), None);
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(path.join("key")).expect("there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn names_of_any_alphabet_travel_in_ascii() {
        let dir = tempfile::tempdir().expect("temp");
        let signer = Signer::open(dir.path(), &["p"]).expect("made");
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
        let signer = Signer::open(dir.path(), &["p"]).expect("made");
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

    #[test]
    fn a_session_is_no_link_and_ends_with_its_link() {
        let dir = tempfile::tempdir().expect("temp");
        let signer = Signer::open(dir.path(), &["p"]).expect("made");
        let now = Timestamp::now();
        let until = now + jiff::SignedDuration::from_secs(100);
        let token = signer.give(Role::Annotator, "ann", until).expect("on record");
        let other = signer.give(Role::Annotator, "bob", until).expect("on record");
        let session = signer.session(&token, now).expect("valid");
        let ann = signer.check_session(&session, now).expect("let in");
        assert_eq!((ann.name.as_str(), ann.role), ("ann", Role::Annotator));
        assert_eq!(signer.check(&session, now), None, "it is no link");
        assert_eq!(signer.session(&session, now), None);
        assert_eq!(signer.check_session(&token, now), None, "a link is no session");
        assert_eq!(signer.check_session(&session, until), None);
        for i in 0..session.len() {
            let mut bytes = session.clone().into_bytes();
            bytes[i] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert_eq!(signer.check_session(&changed, now), None, "{changed}");
        }
        let elsewhere = tempfile::tempdir().expect("temp");
        let foreign = Signer::open(elsewhere.path(), &["p"]).expect("made");
        assert_eq!(foreign.check_session(&session, now), None);
        assert_ne!(foreign.path(), signer.path());
        let id = id_of(&token).expect("signed").to_owned();
        let again = Signer::open(dir.path(), &["p"]).expect("read");
        let taken =
            again.given().change(|all| all.links.get_mut(&id).expect("there").revoked = true);
        taken.expect("written");
        assert_eq!(signer.check(&token, now), None);
        assert_eq!(signer.session(&token, now), None);
        assert_eq!(signer.check_session(&session, now), None, "an open page ends too");
        assert!(signer.check(&other, now).is_some());
        assert_eq!(again.give(Role::Annotator, "ann", until).expect("on record"), token);
        assert_eq!(signer.check(&token, now), None, "giving it again does not bring it back");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests break files")]
    fn a_key_that_is_not_the_users_own_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("temp");
        let key = dir.path().join("key");
        let open = || Signer::open(dir.path(), &["p"]).map(|_| ()).map_err(|e| e.to_string());
        std::fs::write(&key, [65; 32]).expect("written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(open().expect_err("others read it").contains("is not yours alone"));
        std::fs::rename(&key, dir.path().join("target")).expect("moved");
        std::os::unix::fs::symlink("target", &key).expect("linked");
        assert!(open().expect_err("a link").contains("a link"));
        let mode = |path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(dir.path().join("target")), 0o644, "what it leads to is left alone");
        std::fs::remove_file(&key).expect("removed");
        for bytes in [&[1; 31][..], &[1; 33], &[]] {
            std::fs::write(&key, bytes).expect("written");
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
            assert!(open().expect_err("no key").contains("is no key"));
        }
    }
}
