//! What whoever asks for an entry knows of it: its output ports, and perhaps what they hold.
//! Does not know where entries come from.

use std::collections::BTreeMap;

use super::RemoteError;
use crate::identity::{Digest, Fingerprint};
use crate::store::Entry;

/// Output ports of a stage, and what each must hold where a lock file says it.
#[derive(Debug, Clone, Default)]
pub struct Expected(BTreeMap<String, Option<Digest>>);

impl Expected {
    /// A stage with these ports. What a lock file says of it takes their place.
    #[must_use]
    pub fn new<'a>(
        ports: impl IntoIterator<Item = &'a str>,
        locked: Option<&BTreeMap<String, Digest>>,
    ) -> Self {
        match locked {
            Some(outputs) => Self(outputs.iter().map(|(p, d)| (p.clone(), Some(*d))).collect()),
            None => Self(ports.into_iter().map(|port| (port.to_owned(), None)).collect()),
        }
    }

    /// A lock file says what the ports hold.
    #[must_use]
    pub fn names_bytes(&self) -> bool {
        self.0.values().any(Option::is_some)
    }

    /// Refuses an entry that is no entry of such a stage.
    ///
    /// # Errors
    /// It has other ports, or they hold something else.
    pub fn check(&self, entry: &Entry, fingerprint: &Fingerprint) -> Result<(), RemoteError> {
        if !entry.outputs.keys().eq(self.0.keys()) {
            let listed = |names: Vec<&String>| {
                names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
            };
            let (has, makes) =
                (listed(entry.outputs.keys().collect()), listed(self.0.keys().collect()));
            let reason = format!("it has the outputs {has}, its stage makes {makes}");
            return Err(RemoteError::Record { fingerprint: *fingerprint, reason });
        }
        let other = |(port, digest): (&String, &Option<Digest>)| {
            digest.is_some_and(|digest| entry.outputs[port].digest != digest)
        };
        if self.0.iter().any(other) {
            return Err(RemoteError::OtherBytes {
                what: format!("entry {}", fingerprint.short()),
                reason: "its outputs are not those of the lock file".to_owned(),
            });
        }
        Ok(())
    }
}
