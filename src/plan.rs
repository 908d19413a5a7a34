//! The plan: for each stage, is it made, must it be made, or can nobody say yet, and why.
//! The only judge; the run loop asks it too. Knows nothing of terminals or processes.

pub mod estimate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::trace;

use crate::graph::{Graph, Producer, Unmet, gate};
use crate::identity::{
    Change, Digest, Fingerprint, Identity, InputIdentity, InputPlace, MemberChange,
};
use crate::store::heads::Heads;
use crate::store::{CachedEntry, EntryOutput, Health, SourceDigest, Store, StoreError};
use crate::votes::{self, ChangedVotes, VotesRead};

/// Why a stage must run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// No entry, and no earlier one to compare with.
    NeverRun,
    /// Its identity differs from the one it had last.
    Changed {
        changes: Vec<StageChange>,
    },
    /// The identity is unchanged, but its entry was removed.
    Collected,
    ObjectMissing {
        port: String,
    },
    ObjectDamaged {
        port: String,
    },
    EntryUnreadable {
        message: String,
    },
    Forced,
}

/// One difference between what a stage was and what it would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StageChange {
    /// At a port that reads votes, counted in votes.
    Votes(ChangedVotes),
    Identity(Change),
}

/// What is known of a stage.
#[derive(Debug, Clone)]
pub enum Verdict {
    Hit(Box<CachedEntry>),
    Miss(Identity, Reason),
    /// An upstream stage must run first: their indices, nearest first.
    Wait(Vec<usize>),
    /// It would run, but the gate of this stage, upstream of it, is not met.
    Barred(usize),
}

impl Verdict {
    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Hit(_) => "hit",
            Self::Miss(..) => "miss",
            Self::Wait(_) => "wait",
            Self::Barred(_) => "barred",
        }
    }
}

/// Digests of a stage's outputs, by port.
pub type Outputs = BTreeMap<String, Digest>;

/// What stages made, as far as that is known.
pub trait KnownOutputs {
    /// Whether the stage is made.
    fn is_known(&self, stage: usize) -> bool;
    /// What lies at one of its ports.
    fn output(&self, stage: usize, port: &str) -> Option<Digest>;
}

/// By stage.
impl KnownOutputs for Vec<Option<Outputs>> {
    fn is_known(&self, stage: usize) -> bool {
        self[stage].is_some()
    }

    fn output(&self, stage: usize, port: &str) -> Option<Digest> {
        self[stage].as_ref()?.get(port).copied()
    }
}

/// Which stages the user wants, and which of them anew.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Indices of the stages to bring up to date; upstream included.
    pub wanted: BTreeSet<usize>,
    /// Indices whose cache is not read.
    pub forced: BTreeSet<usize>,
    /// Indices of stages whose gate may be unmet.
    pub accepted: BTreeSet<usize>,
}

/// A stage name on the command line that the pipeline does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no stage `{name}` in this pipeline")]
pub struct UnknownStage {
    pub name: String,
    pub suggestion: Option<String>,
}

/// What the plan reads besides the graph.
pub struct Judge<'a> {
    pub graph: &'a Graph,
    pub store: &'a Store,
    /// Each source as it is now, where needed.
    pub sources: &'a [Option<SourceDigest>],
    pub heads: &'a Heads,
}

/// Verdicts that can be known now, in graph order; `None` for stages nobody wants.
#[derive(Debug)]
pub struct Plan {
    pub verdicts: Vec<Option<Verdict>>,
    /// Stages that are made and whose gate is not met, with what is not met.
    pub gates: BTreeMap<usize, Vec<Unmet>>,
}

impl Plan {
    /// Stages that would run, or that may: something upstream would.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let runs = |v: &Option<Verdict>| !matches!(v, None | Some(Verdict::Hit(_)));
        (0..self.verdicts.len()).filter(|stage| runs(&self.verdicts[*stage])).collect()
    }
}

impl Selection {
    /// `targets` empty: everything. `from`: that stage and all that follows anew.
    ///
    /// # Errors
    /// A name that is not a stage.
    pub fn new(
        graph: &Graph,
        targets: &[String],
        from: &[String],
        force: &[String],
    ) -> Result<Self, UnknownStage> {
        let find = |name: &String| find(graph, name);
        let mut wanted: BTreeSet<usize> = targets.iter().map(find).collect::<Result<_, _>>()?;
        let mut forced: BTreeSet<usize> = force.iter().map(find).collect::<Result<_, _>>()?;
        let mut started: BTreeSet<usize> = from.iter().map(find).collect::<Result<_, _>>()?;
        if targets.is_empty() {
            wanted.extend(0..graph.stages.len());
        }
        // Stages are in topological order: one pass down, one pass up.
        for stage in 0..graph.stages.len() {
            if graph.upstream(stage).iter().any(|up| started.contains(up)) {
                started.insert(stage);
            }
        }
        forced.extend(started);
        for stage in (0..graph.stages.len()).rev() {
            if wanted.contains(&stage) {
                wanted.extend(graph.upstream(stage));
            }
        }
        Ok(Self { wanted, forced, accepted: BTreeSet::new() })
    }

    /// The same, going on behind the gates of these stages whether they are met or not.
    ///
    /// # Errors
    /// A name that is not a stage.
    pub fn accepting(mut self, graph: &Graph, names: &[String]) -> Result<Self, UnknownStage> {
        self.accepted = names.iter().map(|name| find(graph, name)).collect::<Result<_, _>>()?;
        Ok(self)
    }
}

fn find(graph: &Graph, name: &str) -> Result<usize, UnknownStage> {
    graph.find(name).ok_or_else(|| UnknownStage {
        name: name.to_owned(),
        suggestion: crate::graph::suggest_stage(graph, name),
    })
}

/// Which stages lie behind a closed gate; stages are asked in graph order.
#[derive(Debug)]
pub struct Gates {
    /// Conditions that are not met, by stage.
    pub unmet: BTreeMap<usize, Vec<Unmet>>,
    accepted: BTreeSet<usize>,
}

impl Gates {
    #[must_use]
    pub fn new(selection: &Selection) -> Self {
        Self { unmet: BTreeMap::new(), accepted: selection.accepted.clone() }
    }

    /// Looks at a stage that is made, with these figures. True: its gate is met.
    pub fn pass(&mut self, graph: &Graph, stage: usize, figures: &gate::Figures) -> bool {
        let unmet = gate::unmet(&graph.stages[stage].gate, figures);
        let met = unmet.is_empty();
        self.unmet.remove(&stage);
        if !met {
            self.unmet.insert(stage, unmet);
        }
        met
    }

    /// Nothing that depends on this stage may run.
    #[must_use]
    pub fn is_closed(&self, stage: usize) -> bool {
        self.unmet.contains_key(&stage) && !self.accepted.contains(&stage)
    }

    /// The user lets pass that the gate of this stage is not met.
    #[must_use]
    pub fn is_accepted(&self, stage: usize) -> bool {
        self.unmet.contains_key(&stage) && self.accepted.contains(&stage)
    }
}

impl Judge<'_> {
    /// The verdict on one stage, given the outputs of the stages before it.
    ///
    /// # Errors
    /// The store fails in a way that is no mere miss.
    pub fn judge(
        &self,
        stage: usize,
        known: &dyn KnownOutputs,
        forced: bool,
    ) -> Result<Verdict, StoreError> {
        let upstream = self.graph.upstream(stage).into_iter();
        let waits: Vec<usize> = upstream.filter(|up| !known.is_known(*up)).collect();
        if !waits.is_empty() {
            return Ok(Verdict::Wait(waits));
        }
        let identity = self.identity(stage, known);
        if forced {
            return Ok(Verdict::Miss(identity, Reason::Forced));
        }
        let fingerprint = identity.fingerprint();
        trace!(stage = %self.graph.stages[stage].name, %fingerprint, "looked for");
        let reason = match self.store.cached_entry(&fingerprint) {
            Ok(Some(entry)) if let Some(message) = self.foreign_ports(stage, &entry.outputs) => {
                Reason::EntryUnreadable { message }
            }
            Ok(Some(entry)) => match self.store.health_of(&entry.outputs)? {
                None => return Ok(Verdict::Hit(Box::new(entry))),
                Some((port, Health::Damaged)) => Reason::ObjectDamaged { port },
                Some((port, _)) => Reason::ObjectMissing { port },
            },
            Ok(None) => self.why_missing(stage, &identity, fingerprint),
            Err(StoreError::BadEntry { reason, .. }) => Reason::EntryUnreadable { message: reason },
            Err(e) => return Err(e),
        };
        Ok(Verdict::Miss(identity, reason))
    }

    /// Says so when an entry has other outputs than the stage makes: nothing made that.
    fn foreign_ports(
        &self,
        stage: usize,
        outputs: &BTreeMap<String, EntryOutput>,
    ) -> Option<String> {
        let ports = &self.graph.stages[stage].outputs;
        let same =
            ports.len() == outputs.len() && ports.iter().all(|p| outputs.contains_key(&p.name));
        (!same).then(|| "its outputs are not those of its stage".to_owned())
    }

    /// The pre-image of a stage whose inputs are known.
    ///
    /// # Panics
    /// An input is not known: the caller must have asked first.
    #[must_use]
    pub fn identity(&self, stage: usize, known: &dyn KnownOutputs) -> Identity {
        let node = &self.graph.stages[stage];
        let digest = |producer: Producer| match producer {
            Producer::Source(source) => {
                let source = self.sources[source].as_ref();
                source.expect("invariant: needed sources are hashed first").digest
            }
            Producer::Output { stage, port } => {
                let name = &self.graph.stages[stage].outputs[port].name;
                known.output(stage, name).expect("invariant: upstream is known")
            }
        };
        let inputs = node.inputs.iter().map(|input| {
            let of = if input.many {
                let name = |p: &Producer| self.graph.producer_name(*p).to_owned();
                InputIdentity::Many(input.from.iter().map(|p| (name(p), digest(*p))).collect())
            } else {
                InputIdentity::One(digest(input.from[0]))
            };
            (input.port.clone(), of)
        });
        let named = |o: &crate::graph::GraphOutput| (o.name.clone(), o.port_type.clone());
        Identity {
            kind: node.kind.clone(),
            version: node.version,
            params: node.portable_params(),
            inputs: inputs.collect(),
            endings: self.endings(stage),
            outputs: match node.program {
                Some(_) => node.outputs.iter().map(named).collect(),
                None => BTreeMap::new(),
            },
        }
    }

    /// Endings of the source files that a stage reads: the same bytes mean one thing as `csv` and
    /// another as `txt`. Patterns and directories have their names in the digest already.
    fn endings(&self, stage: usize) -> BTreeMap<String, Vec<String>> {
        let mut endings = BTreeMap::new();
        for input in &self.graph.stages[stage].inputs {
            let of_port: Vec<String> = input
                .from
                .iter()
                .filter_map(|producer| match producer {
                    Producer::Source(source) => self.graph.sources[*source].ending(),
                    Producer::Output { .. } => None,
                })
                .collect();
            if !of_port.is_empty() {
                endings.insert(input.port.clone(), of_port);
            }
        }
        endings
    }

    fn why_missing(&self, stage: usize, identity: &Identity, now: Fingerprint) -> Reason {
        let Some(last) = self.heads.stages.get(&self.graph.stages[stage].name) else {
            return Reason::NeverRun;
        };
        if *last == now {
            return Reason::Collected;
        }
        match self.store.entry(last) {
            Ok(Some(old)) => {
                let changes = identity.changes_from(&old.identity).into_iter();
                let changes =
                    changes.map(|change| self.explained(stage, change, identity, &old.identity));
                Reason::Changed { changes: changes.collect() }
            }
            _ => Reason::NeverRun,
        }
    }

    /// A change, in the terms of what connects to its port, where that is still known.
    fn explained(
        &self,
        stage: usize,
        mut change: Change,
        now: &Identity,
        before: &Identity,
    ) -> StageChange {
        if let Change::Input { port, old: Some(_), new: Some(_), members } = &mut change
            && let Some(source) = self.source_at(stage, port)
        {
            if self.graph.sources[source].port_type == votes::PORT_TYPE
                && let Some(votes) = self.changed_votes(source, &port.port, now, before)
            {
                return StageChange::Votes(votes);
            }
            *members = self.changed_members(source, before.input(port)).unwrap_or_default();
        }
        StageChange::Identity(change)
    }

    /// The source that connects to an input of a stage, if it is one.
    fn source_at(&self, stage: usize, place: &InputPlace) -> Option<usize> {
        match self.graph.connected(stage, &place.port, place.name.as_deref()).next()? {
            Producer::Source(source) => Some(source),
            Producer::Output { .. } => None,
        }
    }

    /// Which files of a folder or pattern differ from those that had this digest.
    fn changed_members(
        &self,
        source: usize,
        before: Option<Digest>,
    ) -> Option<Vec<(String, MemberChange)>> {
        let found = self.store.member_changes(self.sources[source].as_ref()?, &before?)?;
        // The folder's own name says which one it is.
        let path = std::path::Path::new(&self.graph.sources[source].path);
        let fixed = path.components().map(|c| c.as_os_str().to_string_lossy());
        let folder = fixed.take_while(|part| !part.contains(['*', '?', '['])).last();
        let folder = folder.map_or_else(String::new, |folder| format!("{folder}/"));
        Some(found.into_iter().map(|(name, what)| (format!("{folder}{name}"), what)).collect())
    }

    /// How the votes of a source differ from those at a port before.
    fn changed_votes(
        &self,
        source: usize,
        port: &str,
        now: &Identity,
        before: &Identity,
    ) -> Option<ChangedVotes> {
        let InputIdentity::One(digest) = before.inputs.get(port)? else { return None };
        let kept = self.store.object_bytes(digest).ok()?;
        let content = self.sources[source].as_ref()?.content.as_ref()?;
        let then = VotesRead { votes: &kept, others: self.other_inputs(before, port) };
        let now = VotesRead { votes: content, others: self.other_inputs(now, port) };
        votes::explain(port, &then, &now)
    }

    /// Files at the inputs of one artifact each, but for one port.
    fn other_inputs(&self, identity: &Identity, port: &str) -> Vec<PathBuf> {
        let others = identity.inputs.iter().filter(|(name, _)| *name != port);
        let files = others.filter_map(|(_, input)| match input {
            InputIdentity::One(digest) => Some(self.store.object_path(digest)),
            InputIdentity::Many(_) => None,
        });
        files.collect()
    }
}

/// Digests by port, as downstream identities need them.
#[must_use]
pub fn digests(outputs: &BTreeMap<String, EntryOutput>) -> Outputs {
    outputs.iter().map(|(port, output)| (port.clone(), output.digest)).collect()
}
