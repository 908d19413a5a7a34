//! One run as its journal tells it, for its page.

use std::collections::BTreeMap;

use crate::exec::Outcome;
use crate::graph::gate;
use crate::html::StageStatus;
use crate::html::run::{RunPage, StageOfRun};
use crate::project::history;
use crate::protocol::DETAIL;
use crate::report::{totals, words};
use crate::run::{RunEvent, journal};
use crate::store::Store;
use crate::text;

/// The page of a run of this pipeline; `None`: there is no such run.
#[must_use]
pub fn page(store: &Store, pipeline: &str, id: &str) -> Option<RunPage> {
    // A name from outside: only one of those that are there leads to a file.
    if !journal::runs(store).iter().any(|known| known == id) {
        return None;
    }
    let run = history::read(store, id).filter(|run| run.name == pipeline)?;
    let lines = journal::read(&store.run_path(id).join("events.jsonl")).ok()?;
    let took = run.seconds.map(|s| format!(" · {}", text::seconds(s))).unwrap_or_default();
    Some(RunPage {
        pipeline: run.name.clone(),
        id: run.id.clone(),
        at: run.at.get(..16).unwrap_or("").replace('T', " "),
        state: run.state.word().to_owned(),
        totals: format!("{}{took}", totals(&run.totals)),
        command: run.command.join(" "),
        stages: stages(lines.into_iter().map(|line| line.event), run.exit.is_some()),
    })
}

/// `over`: the run came to its end, so nothing runs any more.
fn stages(events: impl Iterator<Item = RunEvent>, over: bool) -> Vec<StageOfRun> {
    let mut order: Vec<String> = Vec::new();
    let mut all: BTreeMap<String, StageOfRun> = BTreeMap::new();
    for event in events {
        if let RunEvent::RunStarted { stages, .. } = &event {
            order.clone_from(stages);
        }
        let Some(name) = stage_of(&event) else { continue };
        let stage = all.entry(name.to_owned()).or_default();
        name.clone_into(&mut stage.name);
        hear(stage, event);
    }
    for stage in all.values_mut().filter(|s| over && s.state == StageStatus::Running) {
        (stage.state, stage.why) = (StageStatus::NotRun, "interrupted".into());
    }
    let never = |name: &String| StageOfRun { name: name.clone(), ..StageOfRun::default() };
    order.iter().map(|name| all.remove(name).unwrap_or_else(|| never(name))).collect()
}

fn stage_of(event: &RunEvent) -> Option<&str> {
    match event {
        RunEvent::StageReused { stage, .. }
        | RunEvent::StageFetched { stage, .. }
        | RunEvent::StageStarted { stage, .. }
        | RunEvent::StageDone { stage, .. }
        | RunEvent::StageFailed { stage, .. }
        | RunEvent::StageWaiting { stage, .. }
        | RunEvent::StageBlocked { stage, .. }
        | RunEvent::GateUnmet { stage, .. }
        | RunEvent::Note { stage, .. } => Some(stage),
        _ => None,
    }
}

fn hear(stage: &mut StageOfRun, event: RunEvent) {
    match event {
        RunEvent::StageReused { .. } => stage.state = StageStatus::Reused,
        RunEvent::StageFetched { .. } => {
            (stage.state, stage.why) = (StageStatus::Reused, "from the remote".into());
        }
        RunEvent::StageStarted { reason, .. } => {
            (stage.state, stage.why) = (StageStatus::Running, words::cause(&reason));
        }
        RunEvent::StageDone { seconds, summary, .. } => {
            (stage.state, stage.seconds) = (StageStatus::Done, Some(seconds));
            let finite = summary.into_iter().filter_map(|(name, x)| Some((name, x?)));
            stage.figures = finite.collect();
            (stage.error, stage.detail) = (String::new(), String::new());
        }
        RunEvent::StageFailed { outcome, .. } => {
            (stage.state, stage.error) = (StageStatus::Failed, outcome.headline());
            stage.detail = detail(&outcome);
        }
        RunEvent::StageWaiting { reason, .. } => {
            (stage.state, stage.why) = (StageStatus::Waiting, reason);
        }
        RunEvent::StageBlocked { by, .. } => stage.why = format!("blocked by {by}"),
        RunEvent::GateUnmet { unmet, accepted, .. } => {
            let accepted = if accepted { "; accepted" } else { "" };
            stage.notes.push(format!("gate not met: {}{accepted}", gate::sentence(&unmet)));
        }
        RunEvent::Note { level, text, .. } if level != DETAIL => stage.notes.push(text),
        _ => {}
    }
}

/// What an outcome says beyond its first line.
#[must_use]
pub fn detail(outcome: &Outcome) -> String {
    let (tail, help) = match outcome {
        Outcome::Failed { help, .. } => ("", help.as_deref()),
        Outcome::Crashed { tail, help, .. } => (tail.as_str(), help.as_deref()),
        Outcome::TimedOut { tail, .. } => (tail.as_str(), None),
        _ => ("", None),
    };
    let parts = [Some(tail.trim_end().to_owned()), help.map(|help| format!("help: {help}"))];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|p| !p.is_empty()).collect();
    parts.join("\n")
}
