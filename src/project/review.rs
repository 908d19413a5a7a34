//! What a pull request does to a pipeline: is the file right, is its lock file, what runs again,
//! what differs from the base, which gates are not met. Does not know how it is shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diff::{PipelineDiff, PipelineState, compare};
use super::rows::{PlanRow, RowState, rows};
use super::{Choices, Failure, locate, lock, validate};
use crate::exec::git;
use crate::graph::gate;
use crate::identity::Fingerprint;
use crate::lock::{Lock, path_of};
use crate::plan::{Selection, Verdict};

/// What becomes of a stage, seen from the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewState {
    /// It is what it was at the base.
    AsBefore,
    /// It changed, and is made.
    Made,
    /// It changed, and is to run, or waits for another stage.
    Run,
    /// It lacks votes of people.
    People,
    /// It is behind a gate that is not met.
    Gate,
}

/// One stage.
#[derive(Debug)]
pub struct ReviewRow {
    pub stage: String,
    pub state: ReviewState,
    pub why: String,
    /// What it takes, where it is to run and somebody can tell.
    pub seconds: Option<f64>,
}

/// What the lock file says.
#[derive(Debug, PartialEq, Eq)]
pub enum LockState {
    /// There is none.
    Absent,
    Matches,
    /// What in it does not match the pipeline.
    Differs(Vec<String>),
}

/// What a pull request does to one pipeline.
#[derive(Debug)]
pub struct Review {
    pub file: PathBuf,
    pub rows: Vec<ReviewRow>,
    pub lock: LockState,
    /// Gates that are not met: stage and what is missed.
    pub gates: Vec<(String, String)>,
    /// Finished stages whose figures are not at hand, so that their gates cannot be checked.
    pub unseen: Vec<String>,
    /// What differs from the base; or why nothing can be compared.
    pub difference: Result<PipelineDiff, String>,
}

/// What follows from a review, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReviewVerdict {
    /// A gate is not met, or people must vote first.
    Waiting,
    /// The lock file names stages that are others now.
    NotMade,
    /// Stages run again; no lock file says that they did.
    Reruns,
    Good,
}

impl Review {
    #[must_use]
    pub fn verdict(&self) -> ReviewVerdict {
        let has = |states: &[ReviewState]| self.rows.iter().any(|r| states.contains(&r.state));
        match () {
            () if !self.gates.is_empty() || has(&[ReviewState::Gate, ReviewState::People]) => {
                ReviewVerdict::Waiting
            }
            () if matches!(self.lock, LockState::Differs(_)) => ReviewVerdict::NotMade,
            () if has(&[ReviewState::Run]) => ReviewVerdict::Reruns,
            () => ReviewVerdict::Good,
        }
    }
}

/// The commit that a word names in the repository of a pipeline file.
///
/// # Errors
/// There is none.
pub fn commit_of(file: &Path, base: &str) -> Result<String, Failure> {
    let root = locate::locate(file)?.root;
    let Some(commit) = git::resolve(&root, base) else {
        if let Some(trouble) = git::commit(&root).trouble {
            return Err(Failure::usage(trouble.message).help(trouble.remedy));
        }
        return Err(Failure::usage(format!("`{base}` is no commit here"))
            .help("fetch it: `git fetch origin BRANCH`, or check out with the whole history"));
    };
    Ok(commit)
}

/// Reviews a pipeline file as it stands against the commit that `base` names.
///
/// # Errors
/// The file, its sources or the store are wrong; there is no such commit.
pub fn review(file: &Path, base: &str, choices: &Choices) -> Result<Review, Failure> {
    let at = locate::locate(file)?;
    let commit = commit_of(file, base)?;
    let project = super::load(file, choices)?;
    let selection = Selection::new(&project.graph, &[], &[], &[])?;
    let sources = project.digest_sources(&selection.wanted)?;
    let plan = project.judge(&selection, &sources)?;
    validate::refuse(&project, &plan, &sources)?;

    let has_lock = path_of(file).exists();
    let check = if has_lock { Some(lock::check(file, &project)?) } else { None };
    let locked = |stage: &str| check.as_ref().and_then(|check| check.matching.get(stage)).copied();
    let base_state = state(base, file, choices);
    let before = fingerprints(&base_lock(&at.root, &commit, &at.key), base_state.as_ref().ok());
    let listed = rows(&project, &plan);
    let list = listed.into_iter().zip(&plan.verdicts).map(|(row, verdict)| {
        let made = match verdict {
            Some(Verdict::Hit(entry)) => Some(entry.fingerprint),
            _ => locked(&row.stage),
        };
        reviewed(row, made, &before)
    });
    let mut review = Review {
        file: file.to_owned(),
        rows: list.collect(),
        lock: match &check {
            None => LockState::Absent,
            Some(check) if check.problems.is_empty() => LockState::Matches,
            Some(check) => LockState::Differs(check.problems.clone()),
        },
        gates: Vec::new(),
        unseen: Vec::new(),
        difference: base_state.and_then(|before| {
            Ok(compare(&before, &state(&file.to_string_lossy(), file, choices)?))
        }),
    };
    for (stage, node) in project.graph.stages.iter().enumerate() {
        if let Some(unmet) = plan.gates.get(&stage) {
            review.gates.push((node.name.clone(), gate::sentence(unmet)));
        }
        let is_here = matches!(plan.verdicts[stage], Some(Verdict::Hit(_)));
        if !node.gate.is_empty() && !is_here && locked(&node.name).is_some() {
            review.unseen.push(node.name.clone());
        }
    }
    Ok(review)
}

/// The lock file at a commit; empty where there is none that can be read.
fn base_lock(root: &Path, commit: &str, key: &str) -> Lock {
    let path = path_of(Path::new(key));
    let text = git::file_at(root, commit, &path);
    text.and_then(|text| Lock::parse(&path, &text).ok()).unwrap_or_default()
}

fn state(word: &str, file: &Path, choices: &Choices) -> Result<PipelineState, String> {
    PipelineState::named(word, file, choices).map_err(|failure| failure.to_string())
}

/// What each stage was at the base, as far as its lock file or the store tells.
fn fingerprints(lock: &Lock, state: Option<&PipelineState>) -> BTreeMap<String, Fingerprint> {
    let stages = state.map(|state| &state.stages).into_iter().flatten();
    let known = stages
        .filter_map(|(name, facts)| Some((name.clone(), facts.identity.as_ref()?.fingerprint())));
    let locked = lock.stages.iter().map(|(name, stage)| (name.clone(), stage.fingerprint));
    known.chain(locked).collect()
}

/// The row of a stage, given what it is made as, if it is.
fn reviewed(
    row: PlanRow,
    made: Option<Fingerprint>,
    before: &BTreeMap<String, Fingerprint>,
) -> ReviewRow {
    let PlanRow { stage, state, why, seconds, .. } = row;
    let Some(made) = made else {
        let state = match state {
            RowState::People => ReviewState::People,
            RowState::Gate => ReviewState::Gate,
            RowState::Run | RowState::Wait | RowState::Reuse => ReviewState::Run,
        };
        return ReviewRow { stage, state, why, seconds };
    };
    let is_same = before.get(&stage) == Some(&made);
    let state = if is_same { ReviewState::AsBefore } else { ReviewState::Made };
    ReviewRow { stage, state, why, seconds: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::unfinished::Unfinished;

    #[test]
    fn a_stage_is_as_before_only_when_it_was_the_same_at_the_base() {
        let row = |state| PlanRow {
            stage: "sft".to_owned(),
            state,
            why: "lr 1 → 2".to_owned(),
            seconds: Some(5.0),
            alike: false,
            unfinished: Unfinished::default(),
        };
        let [one, two] = [1, 2].map(|byte| Fingerprint::from_raw([byte; 32]));
        let before = BTreeMap::from([("sft".to_owned(), one)]);
        let of = |state, made, before: &BTreeMap<_, _>| reviewed(row(state), made, before).state;
        assert_eq!(of(RowState::Wait, Some(one), &before), ReviewState::AsBefore);
        assert_eq!(of(RowState::Wait, Some(two), &before), ReviewState::Made);
        assert_eq!(of(RowState::Reuse, Some(one), &BTreeMap::new()), ReviewState::Made);
        assert_eq!(of(RowState::Wait, None, &before), ReviewState::Run);
        assert_eq!(of(RowState::Gate, None, &before), ReviewState::Gate);
        let waits = reviewed(row(RowState::People), None, &before);
        assert_eq!((waits.state, waits.seconds), (ReviewState::People, Some(5.0)));
    }
}
