//! `preflow sweep`: from a sweep file to trials, their graph, and what is known of them.
//! Decides nothing about stages.

pub mod page;
mod plan;
mod run;
mod show;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::workspace::{self, Loaded};
use super::{Exit, Global, ahead};
use crate::diagnostic::Diagnostic;
use crate::files;
use crate::graph::Graph;
use crate::pipeline::{self, Document, Overrides};
use crate::plan::{Plan, Selection, Verdict};
use crate::report::{Look, Style};
use crate::sweep::{self, Goal, Sweep, Trial};

/// More trials than this are not begun without asking.
const MANY: u64 = 1000;

#[derive(Debug, Subcommand)]
pub enum SweepVerb {
    /// Price a sweep on the graph that its trials share; nothing runs
    Plan(plan::PlanArgs),
    /// Bring every trial up to date; each stage that trials share runs once
    Run(run::RunArgs),
    /// Show what came out: mean, spread and the effect of each param; also while it runs
    Show(show::ShowArgs),
}

/// Which sweep.
#[derive(Debug, Args)]
pub struct Which {
    /// Sweep file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Do not ask, however many trials there are
    #[arg(long)]
    pub yes: bool,
}

/// Does what the verb says.
///
/// # Errors
/// See each verb.
pub fn sweep(verb: &SweepVerb, global: &Global, look: Look) -> Result<Exit, Failure> {
    match verb {
        SweepVerb::Plan(args) => plan::plan(args, global, look),
        SweepVerb::Run(args) => run::run(args, global, look),
        SweepVerb::Show(args) => show::show(args, global, look),
    }
}

/// The file says that it is a sweep.
pub fn is_sweep(file: &Path) -> bool {
    files::read_to_string(file, workspace::LARGEST)
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("preflow-sweep:")))
}

/// A sweep file and the pipeline it is about.
pub struct Opened {
    pub sweep: Sweep,
    file: PathBuf,
    document: Document,
    /// All trials; of a halving sweep those with the first budget.
    first: Vec<Trial>,
}

/// All trials known so far, in one graph.
pub struct Survey {
    pub trials: Vec<Trial>,
    /// Trial → its stages in the graph of `loaded`.
    pub stages: Vec<Vec<usize>>,
    pub loaded: Loaded,
    pub plan: Plan,
    /// The metric of each trial, where it is known.
    pub figures: Vec<Option<f64>>,
}

/// Reads a sweep file and makes sure that its trials are meant.
///
/// # Errors
/// The file is wrong; there are very many trials and nobody said yes.
pub fn open(which: &Which, global: &Global) -> Result<Opened, Failure> {
    let sweep = sweep::read(&pipeline::open(&which.file.to_string_lossy())?)?;
    let set = global.sets.iter().filter_map(|s| s.split_once('=')).map(|(name, _)| name);
    if let Some(name) = set.into_iter().find(|name| sweep.params().contains(name)) {
        return Err(Failure::usage(format!("--set {name}: the sweep itself sets `{name}`"))
            .help("change the sweep file, or set another param"));
    }
    if sweep.count() > MANY && !which.yes {
        ask(sweep.count())?;
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
    let document = pipeline::open_named(&sweep.pipeline, &which.file.to_string_lossy())?;
    Ok(Opened { sweep, file: which.file.clone(), document, first })
}

fn ask(count: u64) -> Result<(), Failure> {
    let many =
        || Failure::usage(format!("this sweep has {count} trials")).help("--yes if it is meant");
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(many());
    }
    super::complain(&format!("this sweep has {count} trials. Go on? [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(many()),
    }
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

impl Opened {
    /// What is known of the trials. Of a halving sweep, rounds whose trials all have their figure
    /// are followed by the next; with `over`, those that have none are out.
    ///
    /// # Errors
    /// A trial makes the pipeline wrong; the store fails.
    pub fn survey(&self, global: &Global, over: bool) -> Result<Survey, Failure> {
        let mut round = self.first.clone();
        let mut survey = self.look(round.clone(), global)?;
        let Some(halving) = &self.sweep.halving else { return Ok(survey) };
        for next in 1..halving.budgets.len() {
            let start = survey.trials.len() - round.len();
            let mut ranked: Vec<(usize, f64)> = survey.figures[start..]
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
            let all = survey.trials.into_iter().chain(round.clone()).collect();
            survey = self.look(all, global)?;
        }
        Ok(survey)
    }

    /// Warns of a metric that no stage reports. Where trials are chosen by it nothing may run.
    ///
    /// # Errors
    /// It is a halving sweep, and no stage reports its metric.
    fn check_metric(&self, survey: &Survey, look: Look) -> Result<(), Failure> {
        let Some(metric) = &self.sweep.metric else { return Ok(()) };
        let known = survey.figures.iter().any(Option::is_some);
        let unknown = || ahead::unknown_figure(&survey.loaded, &metric.name.text);
        let Some(message) = (!known).then(unknown).flatten() else { return Ok(()) };
        if self.sweep.halving.is_some() {
            let span = Some(metric.name.span.clone());
            return Err(vec![Diagnostic::new(message, span)].into());
        }
        super::complain(&format!("{} {message}\n", look.paint(Style::Warning, "warning:")));
        Ok(())
    }

    /// The graph of these trials and the verdicts on it.
    fn look(&self, trials: Vec<Trial>, global: &Global) -> Result<Survey, Failure> {
        let (dir, root, _) = workspace::whereabouts(Path::new(&self.document.path))?;
        let store = workspace::open_store(global, &root)?;
        let catalog = workspace::catalog(&root, Some(&store))?;
        let mut graphs = Vec::with_capacity(trials.len());
        for trial in &trials {
            let overrides = Overrides {
                profile: global.profile.as_deref(),
                trial: &trial.values,
                sets: &global.sets,
            };
            let pipeline = pipeline::read(&self.document, &overrides)?;
            graphs.push(Graph::resolve(&pipeline, &catalog)?);
        }
        let merged = sweep::merge(&self.sweep.name, &self.file.to_string_lossy(), &trials, graphs);
        let (_, _, key) = workspace::whereabouts(&self.file)?;
        let loaded = Loaded { graph: merged.graph, store, dir, root, key };
        let plan = loaded.plan(&Selection::new(&loaded.graph, &[], &[], &[])?)?;
        let figures = merged.stages.iter().map(|s| self.figure(&loaded.graph, &plan, s)).collect();
        Ok(Survey { trials, stages: merged.stages, loaded, plan, figures })
    }

    /// The metric of a trial: `STAGE/FIGURE`, or the figure alone.
    fn figure(&self, graph: &Graph, plan: &Plan, stages: &[usize]) -> Option<f64> {
        let wanted = &self.sweep.metric.as_ref()?.name.text;
        let mut found = stages.iter().filter_map(|stage| {
            let Some(Verdict::Hit(entry)) = &plan.verdicts[*stage] else { return None };
            let summary = &entry.made.summary;
            let word = &graph.stages[*stage].word;
            let inner = wanted.strip_prefix(word.as_str()).and_then(|w| w.strip_prefix('/'));
            let value = inner.and_then(|name| summary.get(name)).or_else(|| summary.get(wanted))?;
            *value
        });
        found.next()
    }
}

impl Survey {
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
                let word = &self.loaded.graph.stages[stage].word;
                names.extend(entry.made.summary.keys().map(|name| format!("{word}/{name}")));
            }
        }
        names.sort();
        names.dedup();
        names
    }
}
