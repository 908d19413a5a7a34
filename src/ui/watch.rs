//! What the live page shows, looked at again when something changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::follow::Follower;
use crate::graph::{GraphStage, Producer};
use crate::html::ReportData;
use crate::html::live::{LiveData, RunRow};
use crate::html::sweep::SweepReport;
use crate::label::FolderSnapshot;
use crate::plan::Selection;
use crate::project::history::{self, Run, RunState};
use crate::project::report;
use crate::project::{self, Choices, Failure, Project, sweep, sweep_report};
use crate::report::{OutputStyle, totals};
use crate::run::journal;
use crate::store::Store;
use crate::votes;

/// Runs that are listed, and those that are looked at for them.
const LISTED: usize = 10;
const LOOKED_AT: usize = 50;

/// Keeps what the live page shows, and notices when it must be shown anew.
pub struct Watcher {
    file: PathBuf,
    sweep: Option<PathBuf>,
    choices: Choices,
    store: Arc<Store>,
    /// What is made, as of `stamp`.
    base: (ReportData, Option<SweepReport>),
    stamp: Stamp,
    /// Stages that ask people, and where their votes lie.
    asks: Vec<(String, PathBuf)>,
    /// What was wrong when it was last looked at, until it is mended.
    problem: Option<String>,
    run: Option<(String, Follower)>,
    alive: bool,
}

/// What decides whether what is made must be looked at again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamp {
    /// The newest run, how many of its stages came to an end, whether it goes on.
    run: Option<(String, usize, bool)>,
    files: Vec<Option<SystemTime>>,
    /// Votes come in while no run goes on.
    votes: Vec<Option<FolderSnapshot>>,
    /// Label pages that are served.
    pages: Vec<Option<String>>,
}

impl Watcher {
    #[must_use]
    pub fn new(file: PathBuf, sweep: Option<PathBuf>, choices: Choices, store: Arc<Store>) -> Self {
        let base = (ReportData::default(), None);
        Self {
            file,
            sweep,
            choices,
            store,
            base,
            stamp: Stamp::default(),
            asks: Vec::new(),
            problem: None,
            run: None,
            alive: false,
        }
    }

    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Looks for the first time, so that mistakes are told before there is a page.
    ///
    /// # Errors
    /// The pipeline or the sweep is wrong, or the store cannot be read.
    pub fn reload(&mut self) -> Result<(), Failure> {
        let project = project::load(&self.file, &self.choices)?;
        let plan = project.plan(&Selection::new(&project.graph, &[], &[], &[])?)?;
        let (data, _) = report::gather(&project, &plan, &self.file);
        let sweep = match &self.sweep {
            None => None,
            Some(file) => {
                let session = sweep::open(file, &self.choices, |_| Ok(()))?;
                let status = session.status(&self.choices, false)?;
                Some(sweep_report::gather(&session, &status))
            }
        };
        self.base = (data, sweep);
        self.asks = project.graph.stages.iter().filter_map(|stage| asks(&project, stage)).collect();
        Ok(())
    }

    /// The page as it is now; `None`: as it was.
    pub fn changed(&mut self) -> Option<LiveData> {
        let name = self.base.0.pipeline.clone();
        let all = journal::runs(&self.store).into_iter().take(LOOKED_AT);
        let all = all.filter_map(|id| history::read(&self.store, &id));
        let stem = |path: &str| std::path::Path::new(path).file_name().map(ToOwned::to_owned);
        let own = stem(&self.file.to_string_lossy());
        let all = all.filter(|run| run.name == name && stem(&run.pipeline) == own);
        let found: Vec<Run> = all.take(LISTED).collect();
        let newest = found.first();
        if self.run.as_ref().map(|(id, _)| id) != newest.map(|run| &run.id) {
            self.run = newest.map(|run| {
                let path = self.store.run_path(&run.id).join("events.jsonl");
                (run.id.clone(), Follower::new(path))
            });
        }
        let news = self.run.as_mut().is_some_and(|(_, follower)| follower.read());
        let open = newest.is_some_and(|run| run.state == RunState::Open);
        let alive = open && self.store.is_in_use();
        let changed_alive = std::mem::replace(&mut self.alive, alive) != alive;
        let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let files = [Some(&self.file), self.sweep.as_ref()].into_iter().flatten();
        let stamp = Stamp {
            run: self.run.as_ref().map(|(id, f)| (id.clone(), f.ended, alive)),
            files: files.map(modified).collect(),
            votes: self.asks.iter().map(|(_, votes)| FolderSnapshot::of(votes).ok()).collect(),
            pages: self.asks.iter().map(|(stage, _)| served(&self.store, &name, stage)).collect(),
        };
        let stale = stamp != self.stamp;
        if !news && !stale && !changed_alive {
            return None;
        }
        self.stamp = stamp;
        if stale {
            let failed = self.reload().err();
            self.problem = failed.map(|failure| failure.text(OutputStyle::default()));
        }
        let problem = self.problem.clone();
        let (mut report, sweep) = self.base.clone();
        if let Some((_, follower)) = &self.run {
            follower.apply(&mut report, alive);
        }
        // Only here: what is written to a file must not let its readers in.
        for ((stage, _), link) in self.asks.iter().zip(&self.stamp.pages) {
            let stage = report.stages.iter_mut().find(|s| s.name == *stage);
            if let Some(trouble) = stage.and_then(|s| s.trouble.as_mut()) {
                trouble.link.clone_from(link);
            }
        }
        let runs = found.iter().enumerate().map(|(i, run)| RunRow {
            id: run.id.clone(),
            at: run.at.get(..16).unwrap_or("").replace('T', " "),
            state: match run.state {
                RunState::Open if i == 0 && alive => "running".to_owned(),
                RunState::Open => "cut off".to_owned(),
                state => state.word().to_owned(),
            },
            stages: if run.exit.is_some() { totals(&run.totals) } else { String::new() },
        });
        Some(LiveData { report, runs: runs.collect(), sweep, problem })
    }
}

/// The name of a stage that reads votes, and their folder.
fn asks(project: &Project, stage: &GraphStage) -> Option<(String, PathBuf)> {
    let from = stage.inputs.iter().flat_map(|input| &input.from);
    let mut votes = from.filter_map(|producer| match producer {
        Producer::Source(source) => Some(&project.graph.sources[*source]),
        Producer::Output { .. } => None,
    });
    let source = votes.find(|source| source.port_type == votes::PORT_TYPE)?;
    Some((stage.name.clone(), PathBuf::from(&source.path)))
}

fn served(store: &Store, pipeline: &str, stage: &str) -> Option<String> {
    let folder = crate::user::private_folder("label", store.root()).ok()?;
    crate::label::served::link(&folder, pipeline, stage)
}
