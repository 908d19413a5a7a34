//! Gates in a run: what lies behind a closed one does not start, what the user accepted is
//! recorded. Knows nothing of how figures come about.

use super::event::RunEvent;
use super::machine::{Machine, State};
use crate::graph::gate;

impl Machine<'_> {
    /// Learns from the stages before it whether a gate keeps this one from running.
    pub(super) fn look_upstream(&mut self, stage: usize) {
        let mut behind = None;
        let mut accepted = std::collections::BTreeSet::new();
        for &up in &self.upstream[stage] {
            let closed = self.gates.is_closed(up).then_some(up);
            behind = behind.or(closed).or(self.behind[up]);
            accepted.extend(&self.accepted[up]);
            if self.gates.is_accepted(up) {
                accepted.insert(up);
            }
        }
        self.behind[stage] = behind;
        self.accepted[stage] = accepted;
    }

    /// A stage that would run, but for a gate.
    pub(super) fn bar(&mut self, stage: usize, gate: usize) {
        self.states[stage] = State::Blocked;
        let by = self.name(gate);
        self.tell(RunEvent::StageBlocked { stage: self.name(stage), by });
        self.block_downstream(stage);
    }

    /// Says what a finished stage's gate misses.
    pub(super) fn tell_gate(&mut self, stage: usize) {
        if let Some(unmet) = self.gates.unmet.get(&stage).cloned() {
            let accepted = self.gates.is_accepted(stage);
            let stage = self.name(stage);
            self.tell(RunEvent::GateUnmet { stage, unmet, accepted });
        }
    }

    /// One line for every gate that this stage ran behind although it was not met.
    pub(super) fn acceptances(&self, stage: usize) -> Vec<String> {
        let line = |gate: &usize| {
            let unmet = self.gates.unmet.get(gate)?;
            Some(format!("gate of `{}` not met: {}", self.name(*gate), gate::sentence(unmet)))
        };
        self.accepted[stage].iter().filter_map(line).collect()
    }
}
