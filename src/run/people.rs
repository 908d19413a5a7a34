//! Waiting for people inside a run: a stage that lacks their word is judged again later.
//! Knows nothing of pages or votes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;

use super::Message;
use super::machine::{Machine, State};
use crate::graph::Producer;
use crate::protocol::InputSpec;
use crate::store::SourceDigest;
use crate::votes;

/// Sources that people changed, by index; `None`: nobody waits any longer.
pub type Answer = Option<Vec<(usize, SourceDigest)>>;

/// Asks people while a run goes on.
pub trait People {
    /// Ends when the stage should be judged again, or `leave` turns true. `inputs`: what the stage
    /// reads, as its worker would be told.
    fn ask(
        &self,
        stage: usize,
        inputs: BTreeMap<String, Vec<InputSpec>>,
        leave: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = Answer>>>;
}

impl Machine<'_> {
    /// The stage said that people must act first. Holds no share of the machine.
    pub(super) fn wait_for_people(&mut self, stage: usize) {
        self.states[stage] = State::Waiting;
        let people = self.inputs.people.filter(|_| !self.halted);
        let Some((people, (inputs, ..))) = people.zip(self.task_inputs(stage).ok()) else {
            return self.block_downstream(stage);
        };
        let answer = people.ask(stage, inputs, self.leave.subscribe());
        self.active += 1;
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let _ = sender.send(Message::Answered(stage, answer.await));
        });
    }

    pub(super) fn answered(&mut self, stage: usize, answer: Answer) {
        self.active -= 1;
        let Some(changed) = answer else { return self.block_downstream(stage) };
        for (source, digest) in changed {
            self.inputs.sources[source] = Some(digest);
        }
        self.states[stage] = State::Pending;
        self.ready.insert(stage);
    }

    /// What to type when votes are what a stage waits for.
    pub(super) fn remedy(&self, stage: usize) -> Option<String> {
        let graph = self.inputs.graph;
        let from = graph.stages[stage].inputs.iter().flat_map(|i| &i.from);
        let mut sources = from.filter_map(|producer| match producer {
            Producer::Source(source) => Some(&graph.sources[*source]),
            Producer::Output { .. } => None,
        });
        let name = &graph.stages[stage].name;
        let asks = sources.any(|source| source.port_type == votes::PORT_TYPE);
        asks.then(|| format!("preflow label serve {} {name}", graph.path))
    }
}
