//! The scheduler: what each stage waits for, and what follows from what happens to it. Runs, plans
//! and pulls step the same one: they ask for the next [`Action`], perform it, and say how it ended.
//! Pure: knows no store, no clock, no files and no processes.
//!
//! A stage goes: pending (something upstream is not settled) → ready to be judged → reused, or
//! queued for a share of the machine → running → sealed (outputs hashed; what depends on it may be
//! judged) → done.

mod locked;
mod plan;
pub mod pools;
mod state;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::graph::{Graph, Unmet, gate};
use crate::identity::{Digest, Fingerprint};
use crate::lock::Lock;
use crate::plan::{Gates, KnownOutputs, Reason, Selection, Verdict, digests};
use crate::store::EntryOutput;
pub use plan::plan;
use pools::{Pools, Share};
pub use state::{Action, Miss, Notice, Rules, StageState, Totals};

/// All that is known of one stage.
#[derive(Debug)]
struct StageRecord {
    state: StageState,
    upstream: Vec<usize>,
    downstream: Vec<usize>,
    /// What it is, once that is settled.
    fingerprint: Option<Fingerprint>,
    /// What it made, by port.
    outputs: Option<BTreeMap<String, EntryOutput>>,
    /// The nearest stage upstream whose gate is closed.
    blocked_by_gate: Option<usize>,
    /// Stages upstream whose unmet gate the user accepted.
    accepted: BTreeSet<usize>,
    /// What it holds of the machine.
    share: Share,
    /// It ran, and was stopped before its end.
    is_stopped: bool,
}

/// Steps the stages of one graph, each in its state, from what is told to what is to be done.
pub struct Scheduler<'a> {
    graph: &'a Graph,
    selection: Selection,
    rules: Rules,
    /// Stages may make only what this says.
    locked: Option<Lock>,
    stages: Vec<StageRecord>,
    gates: Gates,
    ready: BTreeSet<usize>,
    queued: BTreeSet<usize>,
    actions: VecDeque<Action>,
    /// What is left of the machine.
    free: Pools,
    /// Stages that are under way, and those of them that are sealed.
    active: usize,
    sealed: usize,
    halted: bool,
}

impl<'a> Scheduler<'a> {
    #[must_use]
    pub fn new(graph: &'a Graph, selection: Selection, rules: Rules, locked: Option<Lock>) -> Self {
        let mut stages: Vec<StageRecord> = (0..graph.stages.len())
            .map(|stage| StageRecord {
                state: StageState::Unwanted,
                upstream: graph.upstream(stage),
                downstream: Vec::new(),
                fingerprint: None,
                outputs: None,
                blocked_by_gate: None,
                accepted: BTreeSet::new(),
                share: Share::default(),
                is_stopped: false,
            })
            .collect();
        for stage in 0..stages.len() {
            for up in stages[stage].upstream.clone() {
                stages[up].downstream.push(stage);
            }
        }
        let wanted = selection.wanted.clone();
        let mut scheduler = Self {
            graph,
            gates: Gates::new(&selection),
            selection,
            free: rules.machine.clone(),
            rules,
            locked,
            stages,
            ready: BTreeSet::new(),
            queued: BTreeSet::new(),
            actions: VecDeque::new(),
            active: 0,
            sealed: 0,
            halted: false,
        };
        for stage in wanted {
            let is_first = scheduler.stages[stage].upstream.is_empty();
            scheduler
                .transition(stage, if is_first { StageState::Ready } else { StageState::Pending });
        }
        scheduler
    }

    /// What is to be done next; `None`: nothing, until something is told.
    pub fn next_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        match self.ready.first() {
            Some(stage) => Some(Action::Judge(*stage)),
            None => self.start_one(),
        }
    }

    /// The first queued stage that fits the free share of the machine.
    fn start_one(&mut self) -> Option<Action> {
        // Every stage takes a thread: without one there is no need to ask a thousand of them.
        if self.halted || self.free.threads == 0 || self.active >= self.rules.open_stages {
            return None;
        }
        let (stage, share) = self.queued.iter().find_map(|&stage| {
            let node = &self.graph.stages[stage];
            let threads = self.rules.machine.threads_for(&node.execution, node.kind_threads);
            Some((stage, self.free.take(threads, &node.execution)?))
        })?;
        self.stages[stage].share = share.clone();
        match self.transition(stage, StageState::Running) {
            StageState::Queued(miss) => Some(Action::Start(stage, miss, share)),
            _ => unreachable!("invariant: only queued stages are in the queue"),
        }
    }

    /// The only place where a state changes.
    fn transition(&mut self, stage: usize, next: StageState) -> StageState {
        let record = &mut self.stages[stage];
        let old = std::mem::replace(&mut record.state, next);
        let now = &record.state;
        self.active = self.active + usize::from(now.is_active()) - usize::from(old.is_active());
        let sealed = |state: &StageState| usize::from(matches!(state, StageState::Sealed));
        self.sealed = self.sealed + sealed(now) - sealed(&old);
        match now {
            StageState::Ready => self.ready.insert(stage),
            _ => self.ready.remove(&stage),
        };
        match now {
            StageState::Queued(_) => self.queued.insert(stage),
            _ => self.queued.remove(&stage),
        };
        if *now != StageState::Running {
            self.free.give_back(std::mem::take(&mut record.share));
        }
        old
    }

    fn tell(&mut self, notice: Notice) {
        self.actions.push_back(Action::Tell(notice));
    }

    /// Whether the cache is not read for a stage.
    #[must_use]
    pub fn is_forced(&self, stage: usize) -> bool {
        self.selection.forced.contains(&stage)
    }

    /// The verdict on a stage that was to be judged.
    pub fn judged(&mut self, stage: usize, verdict: &Verdict) {
        self.look_upstream(stage);
        let behind = self.stages[stage].blocked_by_gate;
        match (verdict, behind) {
            (Verdict::Hit(entry), _) => {
                if self.differs_from_lock(stage, &digests(&entry.outputs)).is_some() {
                    return self.refuse(
                        stage,
                        "the store holds another result of it than the lock file names; \
                         `preflow pull` fetches that one",
                    );
                }
                self.reused(stage, entry.fingerprint, &entry.outputs, &entry.made.summary);
            }
            (Verdict::Wait(_) | Verdict::Barred(_), _) => {
                self.transition(stage, StageState::Pending);
            }
            (Verdict::Miss(..), Some(gate)) => {
                self.transition(stage, StageState::Blocked);
                self.tell(Notice::Blocked { stage, by: gate });
                self.block_downstream(stage);
            }
            (Verdict::Miss(identity, _), None) if self.is_barred_by_lock(stage, identity) => {
                self.refuse(stage, "it is not what the lock file says it is");
            }
            (Verdict::Miss(identity, reason), None) => {
                let miss = Miss { identity: identity.clone(), reason: reason.clone() };
                if self.rules.asks_remote && *reason != Reason::Forced && !self.halted {
                    self.transition(stage, StageState::Asking(miss.clone()));
                    self.actions.push_back(Action::Ask(stage, miss));
                } else {
                    self.transition(stage, StageState::Queued(miss));
                }
            }
        }
    }

    /// An entry that is there settles a stage.
    pub fn reused(
        &mut self,
        stage: usize,
        fingerprint: Fingerprint,
        outputs: &BTreeMap<String, EntryOutput>,
        figures: &gate::Figures,
    ) {
        self.tell(Notice::Reused { stage, fingerprint });
        self.settle(stage, StageState::Reused, fingerprint, outputs, figures);
    }

    /// The remote had it.
    pub fn fetched(
        &mut self,
        stage: usize,
        fingerprint: Fingerprint,
        outputs: &BTreeMap<String, EntryOutput>,
        figures: &gate::Figures,
    ) {
        self.settle(stage, StageState::Fetched, fingerprint, outputs, figures);
    }

    fn settle(
        &mut self,
        stage: usize,
        state: StageState,
        fingerprint: Fingerprint,
        outputs: &BTreeMap<String, EntryOutput>,
        figures: &gate::Figures,
    ) {
        self.stages[stage].fingerprint = Some(fingerprint);
        self.stages[stage].outputs = Some(outputs.clone());
        self.transition(stage, state);
        self.gates.pass(self.graph, stage, figures);
        self.tell_gate(stage);
        self.unlock(stage);
    }

    /// The remote does not have it, or nobody could ask: it is made here.
    pub fn not_found(&mut self, stage: usize) {
        if let StageState::Asking(miss) = self.transition(stage, StageState::Pending) {
            self.resume(stage, StageState::Queued(miss));
        }
    }

    /// Another process makes it: whoever asks for it says when to look again.
    pub fn busy(&mut self, stage: usize) {
        self.transition(stage, StageState::Busy);
    }

    /// It is to be judged once more.
    pub fn look_again(&mut self, stage: usize) {
        self.resume(stage, StageState::Ready);
    }

    /// Goes on with a stage, unless what it reads is being made again meanwhile, or cannot be.
    fn resume(&mut self, stage: usize, next: StageState) {
        if self.is_complete(stage) {
            self.transition(stage, next);
            return;
        }
        self.transition(stage, StageState::Pending);
        let is_over = |state: &StageState| {
            matches!(state, StageState::Failed | StageState::Waiting | StageState::Blocked)
        };
        let mut upstream = self.stages[stage].upstream.iter();
        if let Some(&by) = upstream.find(|up| is_over(&self.stages[**up].state)) {
            self.transition(stage, StageState::Blocked);
            self.tell(Notice::Blocked { stage, by });
            self.block_downstream(stage);
        }
    }

    /// Everything that a stage reads is known.
    fn is_complete(&self, stage: usize) -> bool {
        self.stages[stage].upstream.iter().all(|up| self.stages[*up].outputs.is_some())
    }

    /// A running stage has all its outputs, and these figures. False: the lock file names others,
    /// and nothing of it may be kept.
    pub fn sealed(
        &mut self,
        stage: usize,
        outputs: &BTreeMap<String, EntryOutput>,
        figures: &gate::Figures,
    ) -> bool {
        if let Some(port) = self.differs_from_lock(stage, &digests(outputs)) {
            self.refuse(stage, &format!("its output `{port}` is not what the lock file says"));
            return false;
        }
        // Before anything downstream is judged.
        self.gates.pass(self.graph, stage, figures);
        self.stages[stage].outputs = Some(outputs.clone());
        self.transition(stage, StageState::Sealed);
        self.unlock(stage);
        true
    }

    /// Its entry is on the disk.
    pub fn published(&mut self, stage: usize, fingerprint: Fingerprint) {
        self.stages[stage].fingerprint = Some(fingerprint);
        self.transition(stage, StageState::Done);
        self.tell_gate(stage);
    }

    /// It came to no good end, and is not tried again.
    pub fn failed(&mut self, stage: usize) {
        self.transition(stage, StageState::Failed);
        self.halted |= !self.rules.keep_going;
        self.block_downstream(stage);
    }

    /// It was stopped.
    pub fn cancelled(&mut self, stage: usize) {
        self.stages[stage].is_stopped = true;
        self.transition(stage, StageState::Pending);
    }

    /// It lacks what people must give. `asked`: somebody was asked, and will answer.
    pub fn waits_for_people(&mut self, stage: usize, asked: bool) {
        if asked {
            self.transition(stage, StageState::AskingPeople);
        } else {
            self.transition(stage, StageState::Waiting);
            self.block_downstream(stage);
        }
    }

    /// Inputs of a stage turned out damaged: their producers are judged again, and after them
    /// whatever reads from them and did not begin yet.
    pub fn inputs_damaged(&mut self, stage: usize, producers: &[usize]) {
        self.transition(stage, StageState::Pending);
        for &producer in producers {
            // Another reader may have said so already: then it is being made again, or was.
            if !self.has_entry(producer) {
                continue;
            }
            self.stages[producer].outputs = None;
            self.resume(producer, StageState::Ready);
            for next in self.stages[producer].downstream.clone() {
                if matches!(self.stages[next].state, StageState::Ready | StageState::Queued(_)) {
                    self.transition(next, StageState::Pending);
                }
            }
        }
        self.resume(stage, StageState::Ready);
    }

    /// What a stage made lies in the store.
    #[must_use]
    pub fn has_entry(&self, stage: usize) -> bool {
        matches!(
            self.stages[stage].state,
            StageState::Reused | StageState::Fetched | StageState::Done
        )
    }

    /// Nothing more is started.
    pub fn halt(&mut self) {
        self.halted = true;
    }

    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Nothing is under way that will be told of.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.active == 0
    }

    /// All that is under way are entries on their way to the disk.
    #[must_use]
    pub fn only_publishes(&self) -> bool {
        self.sealed > 0 && self.sealed == self.active
    }

    #[must_use]
    pub fn state(&self, stage: usize) -> &StageState {
        &self.stages[stage].state
    }

    /// What a stage made, where that is known.
    #[must_use]
    pub fn outputs(&self, stage: usize) -> Option<&BTreeMap<String, EntryOutput>> {
        self.stages[stage].outputs.as_ref()
    }

    /// What each stage that is settled turned out to be.
    pub fn settled(&self) -> impl Iterator<Item = (usize, Fingerprint)> + '_ {
        let all = self.stages.iter().enumerate();
        all.filter_map(|(stage, record)| Some((stage, record.fingerprint?)))
    }

    /// Nothing that depends on this stage may run: its gate is not met.
    #[must_use]
    pub fn is_closed(&self, stage: usize) -> bool {
        self.gates.is_closed(stage)
    }

    /// Conditions of gates that are not met, by stage.
    #[must_use]
    pub fn unmet(&self) -> &BTreeMap<usize, Vec<Unmet>> {
        &self.gates.unmet
    }

    /// One line for every gate that a stage ran behind although it was not met.
    #[must_use]
    pub fn acceptances(&self, stage: usize) -> Vec<String> {
        let line = |gate: &usize| {
            let unmet = self.gates.unmet.get(gate)?;
            let name = &self.graph.stages[*gate].name;
            Some(format!("gate of `{name}` not met: {}", gate::sentence(unmet)))
        };
        self.stages[stage].accepted.iter().filter_map(line).collect()
    }

    /// Learns from the stages before it whether a gate keeps this one from running.
    fn look_upstream(&mut self, stage: usize) {
        let mut behind = None;
        let mut accepted = BTreeSet::new();
        for &up in &self.stages[stage].upstream {
            let closed = self.gates.is_closed(up).then_some(up);
            behind = behind.or(closed).or(self.stages[up].blocked_by_gate);
            accepted.extend(&self.stages[up].accepted);
            if self.gates.is_accepted(up) {
                accepted.insert(up);
            }
        }
        self.stages[stage].blocked_by_gate = behind;
        self.stages[stage].accepted = accepted;
    }

    fn tell_gate(&mut self, stage: usize) {
        if let Some(unmet) = self.gates.unmet.get(&stage).cloned() {
            let accepted = self.gates.is_accepted(stage);
            self.tell(Notice::GateUnmet { stage, unmet, accepted });
        }
    }

    /// Downstream stages whose every upstream is known become ready to be judged.
    fn unlock(&mut self, stage: usize) {
        for next in self.stages[stage].downstream.clone() {
            if self.stages[next].state == StageState::Pending && self.is_complete(next) {
                self.transition(next, StageState::Ready);
            }
        }
    }

    /// Nothing that depends on a stage can run.
    fn block_downstream(&mut self, stage: usize) {
        let mut todo = self.stages[stage].downstream.clone();
        while let Some(next) = todo.pop() {
            if self.stages[next].state == StageState::Pending {
                self.transition(next, StageState::Blocked);
                self.tell(Notice::Blocked { stage: next, by: stage });
                todo.extend(&self.stages[next].downstream);
            }
        }
    }
}

impl KnownOutputs for Scheduler<'_> {
    fn is_known(&self, stage: usize) -> bool {
        self.stages[stage].outputs.is_some()
    }

    fn output(&self, stage: usize, port: &str) -> Option<Digest> {
        Some(self.stages[stage].outputs.as_ref()?.get(port)?.digest)
    }
}
