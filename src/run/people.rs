//! Waiting for people inside a run: a stage that lacks their word is judged again later.
//! Knows nothing of pages or votes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;

use super::Message;
use super::runner::Runner;
use crate::graph::Producer;
use crate::protocol::InputSpec;
use crate::store::SourceDigest;
use crate::votes;

/// Sources that people changed, by index; `None`: nobody waits any longer.
pub type ChangedSources = Option<Vec<(usize, SourceDigest)>>;

/// Asks people while a run goes on.
pub trait People {
    /// Ends when the stage should be judged again, or `leave` turns true. `inputs`: what the stage
    /// reads, as its worker would be told.
    fn ask(
        &self,
        stage: usize,
        inputs: BTreeMap<String, Vec<InputSpec>>,
        leave: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ChangedSources>>>;
}

impl Runner<'_> {
    /// The stage said that people must act first. Holds no share of the machine.
    pub(super) fn wait_for_people(&mut self, stage: usize) {
        let people = self.inputs.people.filter(|_| !self.scheduler.is_halted());
        let Some((people, (inputs, ..))) = people.zip(self.task_inputs(stage).ok()) else {
            return self.scheduler.waits_for_people(stage, false);
        };
        self.scheduler.waits_for_people(stage, true);
        let answer = people.ask(stage, inputs, self.channels.leave.subscribe());
        let sender = self.channels.messages.clone();
        tokio::task::spawn_local(async move {
            let _ = sender.send(Message::Answered(stage, answer.await));
        });
    }

    pub(super) fn people_answered(&mut self, stage: usize, answer: ChangedSources) {
        let Some(changed) = answer else { return self.scheduler.waits_for_people(stage, false) };
        for (source, digest) in changed {
            self.inputs.sources[source] = Some(digest);
        }
        self.scheduler.look_again(stage);
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
