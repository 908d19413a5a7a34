//! `collect_labels`: pairs become preferences, by people, by a program that plays an annotator, by
//! a reward model, or by a language model behind an endpoint.
//! Knows nothing of what is trained on them.

mod aggregate;
mod by_model;
mod judge;
mod people;
mod rows;
mod simulated;

use anyhow::Result;
use preflow::label::{PeopleSettings, ReadyWhen};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::Table;
use crate::kind::{Stage, Summary, optional, output};
use crate::preflight::Preflight;

/// Params of `collect_labels`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectLabels {
    /// Who compares.
    labeler: Labeler,
    /// When there are enough labels to go on.
    #[serde(default)]
    ready_when: ReadyWhen,
    /// Names the random streams of a simulated labeler.
    #[serde(default)]
    seed: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Labeler {
    /// People, on the label page (`preflow label serve`) or in the terminal (`preflow label ask`).
    People(PeopleSettings),
    /// A program that plays an annotator: it scores both answers by rules and errs like a person.
    Simulated(simulated::Simulated),
    /// A reward model, connected at port `reward`.
    Model(by_model::ByModel),
    /// A language model behind an OpenAI-compatible endpoint.
    Judge(judge::LlmJudge),
}

impl Stage for CollectLabels {
    const NAME: &'static str = "collect_labels";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "collect preferences over pairs of answers";
    const FIGURES: &'static [&'static str] = &["labels*"];
    const THREADS: u32 = 1;

    fn inputs() -> Vec<InputDoc> {
        let doc = "the answers to compare; only votes of people with `reuse: all` do without";
        vec![
            optional("pairs", &["dataset/pairs"], doc),
            optional("reward", &["model/reward"], "the model that compares, of labeler `model`"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("labels", "dataset/labels", "parquet", "prompt, chosen, rejected and more")]
    }

    fn check(&self, look: &mut Preflight) {
        match &self.labeler {
            Labeler::Simulated(annotator) => annotator.look(look),
            Labeler::Model(_) if look.inputs("reward").is_empty() => {
                let message = "input `reward` is not connected: labeler `model` is one";
                look.refuse("reward", message, Some("connect it: `reward: STAGE`".into()));
            }
            Labeler::Judge(judge) => {
                look.tell("labeler.judge.endpoint", judge.check());
            }
            Labeler::Model(_) | Labeler::People(_) => {}
        }
        let alone = matches!(&self.labeler, Labeler::People(people) if people.needs_no_pairs());
        if !alone {
            look.tell("pairs", connected(!look.inputs("pairs").is_empty()));
        }
        let most = match (&self.labeler, pairs_known(look)) {
            (_, None) => None,
            // Votes that are there already may be more than the page would ask for.
            (Labeler::People(people), Some(pairs))
                if look.sees_inputs()
                    && look.inputs("votes").iter().all(|v| v.paths.is_empty()) =>
            {
                people.most_votes(pairs)
            }
            (Labeler::People(_), _) => None,
            (_, Some(pairs)) => Some(pairs),
        };
        if let Some(most) = most.filter(|most| self.ready_when.votes > *most) {
            let message = format!(
                "`ready_when` asks for {} votes, but the pairs can give {most} at most",
                self.ready_when.votes
            );
            let help = "sample more pairs, show them to more annotators (`overlap`), or ask for \
                        fewer votes";
            look.refuse("ready_when.votes", message, Some(help.into()));
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        match &self.labeler {
            Labeler::People(people) => people::collect(people, cx, &self.ready_when),
            Labeler::Simulated(annotator) => annotator.collect(cx, &self.ready_when, self.seed),
            Labeler::Model(model) => model.collect(cx, &self.ready_when),
            Labeler::Judge(judge) => judge.collect(cx, &self.ready_when),
        }
    }
}

/// Number of pairs at most, where it is known before the stage runs.
fn pairs_known(look: &Preflight) -> Option<u64> {
    let drawn =
        || look.of_origin(look.inputs("pairs").first()?, "sample_pairs", "/pairs")?.as_u64();
    look.rows("pairs").or_else(drawn)
}

/// The pairs that are connected.
fn pairs(cx: &Context) -> Result<Table> {
    connected(!cx.inputs("pairs").is_empty())?;
    cx.table("pairs")
}

fn connected(pairs: bool) -> Result<()> {
    if !pairs {
        let help = "connect it: `pairs: STAGE`; only `people` with `reuse: all` does without";
        return Err(error_with_help(
            "input `pairs` is not connected: there is nothing to compare",
            help,
        ));
    }
    Ok(())
}

/// Refuses to go on when a program labels all pairs, and they are fewer than asked for.
fn enough(pairs: &Table, ready: &ReadyWhen) -> Result<()> {
    if (pairs.rows() as u64) < ready.votes {
        let message = format!(
            "ready_when asks for {} votes, but there are only {} pairs",
            ready.votes,
            pairs.rows()
        );
        return Err(error_with_help(message, "sample more pairs, or ask for fewer votes"));
    }
    Ok(())
}
