//! A sweep: its trials as one graph, what is known of them, and, where it halves, which go on.
//! Decides nothing about stages.

use std::path::{Path, PathBuf};

use super::{Choices, Failure, Place, Project, locate, validate, workers};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::files;
use crate::graph::Graph;
use crate::pipeline::{self, Document, Overrides};
use crate::plan::{Plan, Selection, Verdict};
use crate::sweep::{self, Goal, Sweep, Trial};

/// More trials than this are not begun without asking.
const MANY: u64 = 1000;

/// The file says that it is a sweep.
pub fn is_sweep(file: &Path) -> bool {
    files::read_to_string(file, locate::LARGEST)
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("preflow-sweep:")))
}

/// A pipeline, or all trials of a sweep that are known so far, as one graph. `over`: trials without
/// a figure are out of a halving sweep.
///
/// # Errors
/// The file is wrong, or the store.
pub fn load_any(file: &Path, over: bool, choices: &Choices) -> Result<Project, Failure> {
    if !is_sweep(file) {
        return super::load(file, choices);
    }
    // Nothing is run, so nobody need be asked about their number.
    Ok(open(file, choices, |_| Ok(()))?.status(choices, over)?.project)
}

/// A sweep file and the pipeline it is about.
pub struct SweepSession {
    pub sweep: Sweep,
    pub file: PathBuf,
    document: Document,
    /// All trials; of a halving sweep those with the first budget.
    first: Vec<Trial>,
}

/// All trials known so far, in one graph.
pub struct SweepStatus {
    pub trials: Vec<Trial>,
    /// Trial → its stages in the graph of `project`.
    pub stages: Vec<Vec<usize>>,
    pub project: Project,
    pub plan: Plan,
    /// The metric of each trial, where it is known.
    pub figures: Vec<Option<f64>>,
}

/// Reads a sweep file and makes sure that its trials are meant.
///
/// # Errors
/// The file is wrong; there are very many trials and nobody said yes.
pub fn open(
    file: &Path,
    choices: &Choices,
    confirm: impl FnOnce(u64) -> Result<(), Failure>,
) -> Result<SweepSession, Failure> {
    let sweep = sweep::read(&pipeline::open(&file.to_string_lossy())?)?;
    let set = choices.sets.iter().filter_map(|s| s.split_once('=')).map(|(name, _)| name);
    if let Some(name) = set.into_iter().find(|name| sweep.params().contains(name)) {
        return Err(Failure::usage(format!("--set {name}: the sweep itself sets `{name}`"))
            .help("change the sweep file, or set another param"));
    }
    if sweep.count() > MANY {
        confirm(sweep.count())?;
    }
    let mut first = sweep.trials()?;
    if let Some(halving) = &sweep.halving {
        first = first.iter().map(|trial| with_budget(&sweep, trial, 0)).collect();
        if first.iter().any(|t| t.values.iter().filter(|(k, _)| *k == halving.param).count() > 1) {
            let problem = Diagnostic::new(
                format!("`{}` is the budget: trials cannot set it too", halving.param.name),
                Some(halving.param.span.clone()),
            );
            return Err(vec![problem].into());
        }
    }
    let document = pipeline::open_named(&sweep.pipeline, &file.to_string_lossy())?;
    Ok(SweepSession { sweep, file: file.to_owned(), document, first })
}

/// The same trial with the budget of a round.
fn with_budget(sweep: &Sweep, trial: &Trial, round: usize) -> Trial {
    let halving = sweep.halving.as_ref().expect("invariant: only halving has rounds");
    let budget = halving.budgets[round].clone();
    let mut values: sweep::Values = trial.values.clone();
    let name = &halving.param.name;
    let stem = trial.label.split('~').next().unwrap_or_default();
    if round > 0 {
        values.retain(|(key, _)| key.name != *name);
    }
    values.push((halving.param.clone(), budget));
    let trial = Trial { label: stem.to_owned(), values };
    let shown = trial.value(name).unwrap_or_default();
    Trial { label: format!("{stem}~{name}{shown}"), ..trial }
}

impl SweepSession {
    /// What is known of the trials. Of a halving sweep, rounds whose trials all have their figure
    /// are followed by the next; with `over`, those that have none are out.
    ///
    /// # Errors
    /// A trial makes the pipeline wrong; the store fails.
    pub fn status(&self, choices: &Choices, over: bool) -> Result<SweepStatus, Failure> {
        let mut round = self.first.clone();
        let mut status = self.status_of(round.clone(), choices)?;
        let Some(halving) = &self.sweep.halving else { return Ok(status) };
        for next in 1..halving.budgets.len() {
            let start = status.trials.len() - round.len();
            let mut ranked: Vec<(usize, f64)> = status.figures[start..]
                .iter()
                .enumerate()
                .filter_map(|(i, figure)| Some((i, (*figure)?)))
                .collect();
            if ranked.is_empty() || (ranked.len() < round.len() && !over) {
                break;
            }
            let goal = self.sweep.metric.as_ref().map_or(Goal::Maximize, |m| m.goal);
            ranked.sort_by(|a, b| match goal {
                Goal::Maximize => b.1.total_cmp(&a.1),
                Goal::Minimize => a.1.total_cmp(&b.1),
            });
            #[expect(clippy::cast_precision_loss, reason = "few trials")]
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
            let keep = ((round.len() as f64 * halving.keep).ceil() as usize).max(1);
            let mut kept: Vec<usize> = ranked.into_iter().take(keep).map(|(i, _)| i).collect();
            kept.sort_unstable();
            round = kept.iter().map(|i| with_budget(&self.sweep, &round[*i], next)).collect();
            let all = status.trials.into_iter().chain(round.clone()).collect();
            status = self.status_of(all, choices)?;
        }
        Ok(status)
    }

    /// Warns of a metric that no stage reports. Where trials are chosen by it nothing may run.
    ///
    /// # Errors
    /// It is a halving sweep, and no stage reports its metric.
    pub fn check_metric(&self, status: &SweepStatus) -> Result<(), Failure> {
        let Some(metric) = &self.sweep.metric else { return Ok(()) };
        let known = status.figures.iter().any(Option::is_some);
        let unknown = || validate::unknown_figure(&status.project, &metric.name.text);
        let Some(message) = (!known).then(unknown).flatten() else { return Ok(()) };
        if self.sweep.halving.is_some() {
            let span = Some(metric.name.span.clone());
            return Err(vec![Diagnostic::new(message, span)].into());
        }
        (status.project.choices.warn)(&message);
        Ok(())
    }

    /// The graph of these trials and the verdicts on it.
    fn status_of(&self, trials: Vec<Trial>, choices: &Choices) -> Result<SweepStatus, Failure> {
        let mut place = Place::of(Path::new(&self.document.path), choices)?;
        let Place { at, store, workspace } = &place;
        let catalog = workers::catalog(&at.root, &workspace.workers, Some(store))?;
        let mut graphs = Vec::with_capacity(trials.len());
        for trial in &trials {
            let overrides = Overrides {
                profile: choices.profile.as_deref(),
                trial: &trial.values,
                sets: &choices.sets,
            };
            let pipeline = pipeline::read(&self.document, &overrides)?;
            graphs.push(Graph::resolve(&pipeline, &catalog)?);
        }
        let merged = sweep::merge(&self.sweep.name, &self.file.to_string_lossy(), &trials, graphs);
        place.at.key = locate::locate(&self.file)?.key;
        let project = place.project(merged.graph, choices);
        let plan = project.plan(&Selection::new(&project.graph, &[], &[], &[])?)?;
        let mut status =
            SweepStatus { trials, stages: merged.stages, project, plan, figures: Vec::new() };
        let metric = self.sweep.metric.as_ref().map(|metric| metric.name.text.as_str());
        let of = |trial| metric.and_then(|name| status.figure(trial, name));
        status.figures = (0..status.trials.len()).map(of).collect();
        Ok(status)
    }
}

impl SweepStatus {
    /// A figure of a trial: `STAGE/FIGURE`, or the figure alone.
    #[must_use]
    pub fn figure(&self, trial: usize, wanted: &str) -> Option<f64> {
        let mut found = self.stages[trial].iter().filter_map(|stage| {
            let Some(Verdict::Hit(entry)) = &self.plan.verdicts[*stage] else { return None };
            let summary = &entry.made.summary;
            let word = &self.project.graph.stages[*stage].word;
            let inner = wanted.strip_prefix(word.as_str()).and_then(|w| w.strip_prefix('/'));
            let value = inner.and_then(|name| summary.get(name)).or_else(|| summary.get(wanted))?;
            *value
        });
        found.next()
    }

    /// The stage has its result.
    pub fn is_made(&self, stage: usize) -> bool {
        matches!(self.plan.verdicts[stage], Some(Verdict::Hit(_)))
    }

    /// Every stage of the trial has its result.
    pub fn is_done(&self, trial: usize) -> bool {
        self.stages[trial].iter().all(|stage| self.is_made(*stage))
    }

    /// Figures that finished stages report, as a metric may name them.
    pub fn known_figures(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (stage, verdict) in self.plan.verdicts.iter().enumerate() {
            if let Some(Verdict::Hit(entry)) = verdict {
                let word = &self.project.graph.stages[stage].word;
                names.extend(entry.made.summary.keys().map(|name| format!("{word}/{name}")));
            }
        }
        names.sort();
        names.dedup();
        names
    }
    /// Trials are done, and none of their stages reports the metric.
    #[must_use]
    pub fn unknown_metric(&self, sweep: &Sweep) -> Option<String> {
        let Some(metric) = &sweep.metric else {
            return Some(
                "the sweep names no metric: { name: STAGE/FIGURE, goal: maximize }".to_owned(),
            );
        };
        let any_done = (0..self.trials.len()).any(|t| self.is_done(t));
        if !any_done || self.figures.iter().any(Option::is_some) {
            return None;
        }
        let known = self.known_figures();
        let near = did_you_mean(&metric.name.text, known.iter().map(String::as_str));
        let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        Some(format!(
            "no stage reports `{}`{near} `preflow status` lists figures",
            metric.name.text
        ))
    }
}
