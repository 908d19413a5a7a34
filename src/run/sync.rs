//! The remote as one run knows it: whether it answers, and what is on its way.
//! Knows nothing of how bytes travel.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::identity::Fingerprint;
use crate::remote::{Config, Mode, Remote, Sent, TransferProgress};

/// An entry to be sent; `again`: over what lies there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upload {
    pub(super) fingerprint: Fingerprint,
    pub(super) again: bool,
}

/// The remote as this run knows it.
#[derive(Debug, Default)]
pub(super) struct RemoteSync {
    pub(super) config: Option<Config>,
    pub(super) remote: Option<Remote>,
    /// It was in trouble: nobody asks again in this run.
    pub(super) down: bool,
    pub(super) uploads: Option<mpsc::UnboundedSender<Upload>>,
    /// What the remote holds of these is no good.
    pub(super) damaged: BTreeSet<Fingerprint>,
    /// Entries on their way up.
    pub(super) sending: BTreeSet<Fingerprint>,
    pub(super) progress: Arc<TransferProgress>,
    pub(super) sent: Sent,
    /// Entries that are up.
    pub(super) entries: usize,
}

impl RemoteSync {
    #[must_use]
    pub fn new(config: Option<Config>) -> Self {
        Self { config, ..Self::default() }
    }

    /// What is made here is to be sent.
    pub(super) fn is_writable(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.mode == Mode::ReadWrite)
    }

    pub(super) fn is_required(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.required)
    }
}
