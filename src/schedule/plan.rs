//! A plan: the scheduler stepped as far as verdicts go, with nothing started.

use super::pools::Pools;
use super::{Action, Rules, Scheduler, StageState};
use crate::plan::{Judge, KnownOutputs as _, Plan, Selection, Verdict};
use crate::store::StoreError;

/// Verdicts on every wanted stage, as far as they can be known before anything runs.
///
/// # Errors
/// See [`Judge::judge`].
pub fn plan(judge: &Judge, selection: &Selection) -> Result<Plan, StoreError> {
    let graph = judge.graph;
    let machine = Pools { threads: 0, memory: 0, gpus: Vec::new() };
    let rules = Rules { keep_going: true, asks_remote: false, open_stages: 0, machine };
    let mut scheduler = Scheduler::new(graph, selection.clone(), rules, None);
    let mut verdicts: Vec<Option<Verdict>> = vec![None; graph.stages.len()];
    while let Some(action) = scheduler.next_action() {
        if let Action::Judge(stage) = action {
            let verdict = judge.judge(stage, &scheduler, scheduler.is_forced(stage))?;
            scheduler.judged(stage, &verdict);
            verdicts[stage] = Some(verdict);
        }
    }
    // What was not judged waits; behind a closed gate it would not even run.
    let mut behind: Vec<Option<usize>> = vec![None; verdicts.len()];
    for stage in 0..verdicts.len() {
        if *scheduler.state(stage) == StageState::Unwanted {
            continue;
        }
        let upstream = graph.upstream(stage);
        let closed = |up: &usize| scheduler.is_closed(*up).then_some(*up).or(behind[*up]);
        behind[stage] = upstream.iter().find_map(closed);
        let is_made = matches!(verdicts[stage], Some(Verdict::Hit(_)));
        match behind[stage] {
            Some(gate) if !is_made => verdicts[stage] = Some(Verdict::Barred(gate)),
            _ => {}
        }
        if verdicts[stage].is_none() {
            let unknown = upstream.into_iter().filter(|up| !scheduler.is_known(*up));
            verdicts[stage] = Some(Verdict::Wait(unknown.collect()));
        }
    }
    Ok(Plan { verdicts, gates: scheduler.unmet().clone() })
}
