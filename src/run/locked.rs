//! Runs under a lock file: nothing is made that is not what the file says.
//! Knows nothing of where the file lies.

use std::collections::BTreeMap;

use super::event::RunEvent;
use super::machine::Machine;
use crate::exec::Outcome;
use crate::identity::{Digest, Identity};
use crate::lock::{Lock, LockedStage};
use crate::plan::Outputs;

impl Machine<'_> {
    /// The lock knows the stage as something else, or not at all.
    pub(super) fn is_barred_by_lock(&self, stage: usize, identity: &Identity) -> bool {
        let Some(locked) = &self.inputs.locked else { return false };
        let name = &self.inputs.graph.stages[stage].name;
        locked.stages.get(name).is_none_or(|l| l.fingerprint != identity.fingerprint())
    }

    /// What a stage made is not what the lock says: `Some` names the first port.
    pub(super) fn differs_from_lock(&self, stage: usize, outputs: &Outputs) -> Option<String> {
        let locked = self.inputs.locked.as_ref()?;
        let stage = locked.stages.get(&self.inputs.graph.stages[stage].name)?;
        let differs =
            |(port, digest): &(&String, &Digest)| stage.outputs.get(*port) != Some(digest);
        outputs.iter().find(differs).map(|(port, _)| port.clone())
    }

    pub(super) fn refuse_by_lock(&mut self, stage: usize, message: &str) {
        let event = RunEvent::StageFailed {
            stage: self.name(stage),
            outcome: refusal(message),
            retrying: false,
            log: String::new(),
            again: String::new(),
            storage: false,
        };
        self.tell(event);
        self.fail(stage);
    }

    /// What was made or reused.
    pub(super) fn lock(&self) -> Lock {
        let stages = self.inputs.graph.stages.iter().enumerate().filter_map(|(i, node)| {
            let (fingerprint, outputs) = (self.settled[i]?, self.known[i].as_ref()?);
            let kind = format!("{}@{}", node.kind, node.version);
            let outputs: BTreeMap<String, Digest> = outputs.clone();
            Some((node.name.clone(), LockedStage { kind, fingerprint, outputs }))
        });
        Lock { stages: stages.collect() }
    }
}

/// Why a stage may not run, or its result may not be kept.
pub(super) fn refusal(message: &str) -> Outcome {
    Outcome::Failed {
        message: message.to_owned(),
        chain: vec![],
        help: Some(
            "run without --locked to make what the files say now, and commit the lock file".into(),
        ),
    }
}
