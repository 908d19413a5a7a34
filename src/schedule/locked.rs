//! Under a lock file: nothing is made that is not what the file says.
//! Does not know where the file lies.

use super::{Notice, Scheduler};
use crate::identity::{Digest, Identity};
use crate::lock::{Lock, LockedStage};
use crate::plan::{Outputs, digests};

impl Scheduler<'_> {
    /// What was made or reused, as a lock file says it.
    #[must_use]
    pub fn lock(&self) -> Lock {
        let stages = self.graph.stages.iter().zip(&self.stages).filter_map(|(node, record)| {
            let (fingerprint, outputs) = (record.fingerprint?, record.outputs.as_ref()?);
            let kind = format!("{}@{}", node.kind, node.version);
            Some((node.name.clone(), LockedStage { kind, fingerprint, outputs: digests(outputs) }))
        });
        Lock { stages: stages.collect(), ..Lock::default() }
    }

    /// What the lock file names of a stage.
    #[must_use]
    pub fn locked(&self, stage: usize) -> Option<&LockedStage> {
        self.locked.as_ref()?.stages.get(&self.graph.stages[stage].name)
    }

    /// The lock knows the stage as something else, or not at all.
    pub(super) fn is_barred_by_lock(&self, stage: usize, identity: &Identity) -> bool {
        let fingerprint = || identity.fingerprint();
        self.locked.is_some() && self.locked(stage).is_none_or(|l| l.fingerprint != fingerprint())
    }

    /// What a stage made is not what the lock says: `Some` names the first port.
    pub(super) fn differs_from_lock(&self, stage: usize, outputs: &Outputs) -> Option<String> {
        let locked = self.locked(stage)?;
        let differs =
            |(port, digest): &(&String, &Digest)| locked.outputs.get(*port) != Some(digest);
        outputs.iter().find(differs).map(|(port, _)| port.clone())
    }

    pub(super) fn refuse(&mut self, stage: usize, message: &str) {
        self.tell(Notice::Refused { stage, message: message.to_owned() });
        self.failed(stage);
    }
}
