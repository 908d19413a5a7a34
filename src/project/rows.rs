//! A plan as a list: of each stage what would happen, why, and how long it takes.
//! Does not know how it is shown.

use super::unfinished::Unfinished;
use super::{Project, labelling};
use crate::graph::gate;
use crate::plan::estimate::Estimator;
use crate::plan::{Plan, Verdict};

/// What would happen to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    Reuse,
    Run,
    /// It lacks votes of people.
    People,
    /// Something upstream runs first.
    Wait,
    /// It lies behind a gate that is not met.
    Gate,
}

impl RowState {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reuse => "reuse",
            Self::Run => "run",
            Self::People => "people",
            Self::Wait => "wait",
            Self::Gate => "gate",
        }
    }
}

/// What a plan says of a stage.
pub struct PlanRow {
    pub stage: String,
    pub state: RowState,
    pub why: String,
    /// What it took where it is made; what it will take where not, if the store has an idea.
    pub seconds: Option<f64>,
    /// `seconds` are those of other stages like it: this one never ran.
    pub alike: bool,
    pub unfinished: Unfinished,
}

/// Rows of a plan in graph order.
#[must_use]
pub fn rows(project: &Project, plan: &Plan) -> Vec<PlanRow> {
    let heads = project.heads();
    let estimator = Estimator::new(&project.graph, &project.store, &heads);
    let mut rows = Vec::new();
    // What stages still lack from people; each folder of votes is read once.
    let mut lacks: Vec<Option<String>> = Vec::with_capacity(plan.verdicts.len());
    for (stage, verdict) in plan.verdicts.iter().enumerate() {
        let miss = matches!(verdict, Some(Verdict::Miss(..)));
        lacks.push(miss.then(|| labelling::lack(project, plan, stage)).flatten());
        let Some(verdict) = verdict else { continue };
        let name = project.graph.stages[stage].name.clone();
        let unfinished = match verdict {
            Verdict::Hit(_) => Unfinished::default(),
            Verdict::Miss(identity, _) => Unfinished::of(project, &heads, &name, Some(identity)),
            _ => Unfinished::of(project, &heads, &name, None),
        };
        let (state, why) = match verdict {
            Verdict::Hit(_) => (RowState::Reuse, unmet(plan, stage)),
            Verdict::Miss(_, reason) => match &lacks[stage] {
                Some(lack) => (RowState::People, lack.clone()),
                None => (RowState::Run, unfinished.words(Some(reason), &project.graph.path, &name)),
            },
            Verdict::Wait(upstream) => {
                let waits = waits_for(project, plan, &lacks, upstream);
                let left = unfinished.words(None, &project.graph.path, &name);
                (RowState::Wait, if left.is_empty() { waits } else { format!("{waits}; {left}") })
            }
            Verdict::Barred(by) => {
                let by = &project.graph.stages[*by].name;
                (RowState::Gate, format!("gate of `{by}` not met"))
            }
        };
        let (seconds, alike) = match verdict {
            Verdict::Hit(entry) => (Some(entry.made.seconds), false),
            _ => estimator.of(stage).map_or((None, false), |e| {
                (Some(e.seconds * (1.0 - unfinished.share_done())), !e.own)
            }),
        };
        rows.push(PlanRow { stage: name, state, why, seconds, alike, unfinished });
    }
    rows
}

/// What the gate of a finished stage misses; empty when it is met.
#[must_use]
pub fn unmet(plan: &Plan, stage: usize) -> String {
    let missed = plan.gates.get(&stage);
    missed.map_or_else(String::new, |unmet| format!("gate not met: {}", gate::sentence(unmet)))
}

fn waits_for(
    project: &Project,
    plan: &Plan,
    lacks: &[Option<String>],
    upstream: &[usize],
) -> String {
    let said: Vec<String> = upstream
        .iter()
        .map(|up| {
            let name = &project.graph.stages[*up].name;
            match &plan.verdicts[*up] {
                Some(Verdict::Miss(..)) if lacks[*up].is_some() => {
                    format!("{name} waits for people")
                }
                Some(Verdict::Miss(..)) => format!("{name} runs"),
                _ => format!("{name} may change"),
            }
        })
        .collect();
    said.join(", ")
}
