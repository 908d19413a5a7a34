//! Links that were given out: to whom, until when, and which of them were taken back. A server that
//! runs hears of it at once. Does not know how links are signed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::identity::Digest;
use crate::store::digest::Signature;
use crate::store::summed;

/// Room for a hundred thousand links.
const LARGEST: u64 = 32 << 20;

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenLink {
    /// Whose it is; the admin's says so.
    pub name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Seconds since 1970.
    pub made: i64,
    pub until: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// All links to the pages of one stage, by the beginning of their signature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRecord {
    pub links: BTreeMap<String, GivenLink>,
}

/// The file that they stand in, in a folder of the user's own.
#[derive(Debug, Clone)]
pub struct IssuedLinks {
    path: PathBuf,
    known: Arc<Mutex<Known>>,
}

/// What was taken back, as the file said when it looked like this.
#[derive(Debug, Default)]
struct Known {
    seen: Option<Signature>,
    revoked: BTreeSet<String>,
}

impl IssuedLinks {
    /// The links of a stage: `scope` names pipeline, stage and votes.
    #[must_use]
    pub fn new(folder: &Path, scope: &str) -> Self {
        let name = format!("links-{}.json", Digest::of(scope.as_bytes()).short());
        Self { path: folder.join(name), known: Arc::default() }
    }

    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn read(&self) -> io::Result<LinkRecord> {
        let links = summed::read(&self.path, LARGEST).map_err(|e| files::named(&self.path, &e))?;
        Ok(links.unwrap_or_default())
    }

    /// Changes what is on record; others may do so at the same time. Links that have ended are
    /// forgotten.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read or written.
    pub fn change(&self, change: impl FnOnce(&mut LinkRecord)) -> io::Result<()> {
        let now = Timestamp::now().as_second();
        let changed = summed::change(&self.path, LARGEST, |links: &mut LinkRecord| {
            change(links);
            links.links.retain(|_, link| link.until > now);
        });
        changed.map_err(|e| files::named(&self.path, &e))
    }

    /// Whether a link was taken back. What the file says is read again when it changed; while it
    /// cannot be read, what was known before holds.
    #[must_use]
    pub fn is_revoked(&self, id: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = std::fs::symlink_metadata(&self.path).ok().map(|meta| Signature::of(&meta));
        if now.is_some()
            && now != known.seen
            && let Ok(links) = self.read()
        {
            let revoked = links.links.into_iter().filter(|(_, link)| link.revoked);
            known.revoked.extend(revoked.map(|(id, _)| id));
            known.seen = now;
        }
        known.revoked.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, until: i64) -> GivenLink {
        GivenLink { name: name.into(), admin: false, made: 1, until, revoked: false }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests break files")]
    fn what_is_taken_back_is_heard_of_at_once_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let (server, other) =
            (IssuedLinks::new(dir.path(), "s"), IssuedLinks::new(dir.path(), "s"));
        let later = Timestamp::now().as_second() + 1000;
        server
            .change(|all| {
                all.links.insert("a".into(), link("ann", later));
                all.links.insert("b".into(), link("bob", later));
                all.links.insert("old".into(), link("ann", 10));
            })
            .unwrap();
        assert!(!server.is_revoked("a"));
        other.change(|all| all.links.get_mut("a").expect("there").revoked = true).unwrap();
        assert!(server.is_revoked("a") && !server.is_revoked("b"));
        assert_eq!(other.read().unwrap().links.len(), 2, "what has ended is forgotten");
        let elsewhere = IssuedLinks::new(dir.path(), "t");
        assert!(!elsewhere.is_revoked("a"));
        let path = std::fs::read_dir(dir.path()).unwrap().flatten().map(|item| item.path());
        let path = path.into_iter().find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for broken in [text.replace("bob", "eve"), text[..40].to_owned()] {
            std::fs::write(&path, broken).unwrap();
            assert!(server.is_revoked("a"), "what was known holds");
            assert!(other.read().is_err() && other.change(|_| ()).is_err());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(server.is_revoked("a"));
    }
}
