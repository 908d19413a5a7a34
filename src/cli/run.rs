//! `preflow run`: bring stages up to date.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::interrupts::listen;
use super::label::{Asking, Page};
use super::{Exit, Global, complain};
use crate::exec::process::{GRACE, Processes};
use crate::lock::Lock;
use crate::plan::Selection;
use crate::project::track::Tracking;
use crate::project::{
    self, Failure, Project, execution, execution::Resources, locate, lock, validate,
};
use crate::report::OutputStyle;
use crate::report::fancy::Fancy;
use crate::report::json::Json;
use crate::report::live::LiveMetrics;
use crate::report::plain::Plain;
use crate::run::{self, Inputs, Reporter, RunEvent, RunOptions, Summary};

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars at a terminal, lines elsewhere
    #[default]
    Auto,
    Bar,
    Lines,
    None,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Pipeline file, then the stages to bring up to date [default: all]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    /// Run this stage and all that follows again
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
    /// Run this stage again
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// After a failure, go on with what does not depend on it
    #[arg(long, short)]
    pub keep_going: bool,
    /// Go on behind this stage's gate though it is not met; what runs then keeps a note of it
    #[arg(long, value_name = "STAGE")]
    pub accept_gate: Vec<String>,
    /// Make only what the lock file says: anything else fails before it runs
    #[arg(long)]
    pub locked: bool,
    /// Where a stage waits for people, open its label page and go on when there are enough votes
    #[arg(long)]
    pub wait: bool,
    #[command(flatten, next_help_heading = "The label page, with --wait")]
    pub page: Page,
    #[command(flatten, next_help_heading = None)]
    pub resources: ResourceArgs,
}

/// What a run may take of the machine, and how it shows its progress.
#[derive(Debug, Default, Args)]
pub struct ResourceArgs {
    /// Threads to share out among stages [default: all]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<u32>,
    /// Memory to share out among stages that name `run: { memory }`, in GiB [default: all]
    #[arg(long, value_name = "GIB")]
    pub memory: Option<f64>,
    /// Gpus to share out among stages that name `run: { gpus }` [default: all]
    #[arg(long, value_name = "N")]
    pub gpus: Option<u32>,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressMode,
}

impl ResourceArgs {
    #[must_use]
    pub fn resources(&self) -> Resources {
        Resources { threads: self.jobs, memory: self.memory, gpus: self.gpus }
    }
}

/// Runs; returns the exit code.
///
/// # Errors
/// Nothing could be started.
pub fn run(args: &RunArgs, pipeline: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, targets) = locate::file_and_names(&args.words)?;
    let project = project::load_to_judge(&file, &pipeline.choices())?;
    let selection = Selection::new(&project.graph, &targets, &args.from, &args.force)?;
    let selection = project.accepting(selection, &args.accept_gate)?;
    let asking =
        args.wait.then(|| Asking::new(&project, &args.page, pipeline, look)).transpose()?;
    let people = asking.as_ref().map(|a| a as &dyn run::People);
    let locked = args.locked.then(|| lock::read(&file)).transpose()?;
    let request = RunRequest { selection, keep_going: args.keep_going, people, locked };
    let summary = execute(&project, request, &args.resources, pipeline, look)?;
    super::label::tell_what_holds_up(&project, &summary.waiting, look);
    if !args.locked {
        lock::keep(&file, &project, &summary.made);
    }
    Ok(exit_of(&summary))
}

/// The exit code of a run.
#[must_use]
pub fn exit_of(summary: &Summary) -> Exit {
    match summary.exit() {
        0 => Exit::Done,
        1 => Exit::StageFailed,
        2 => Exit::Usage,
        3 => Exit::Waiting,
        4 => Exit::Store,
        _ => Exit::Interrupted,
    }
}

/// What a run is asked to do.
pub struct RunRequest<'a> {
    pub selection: Selection,
    pub keep_going: bool,
    /// Whom to ask when a stage waits for people.
    pub people: Option<&'a dyn run::People>,
    /// Nothing may be made that is not what this says.
    pub locked: Option<Lock>,
}

/// Brings the selected stages up to date.
///
/// # Errors
/// A source is missing, a stage asks for more than there is, the store fails.
pub fn execute(
    project: &Project,
    request: RunRequest,
    args: &ResourceArgs,
    global: &Global,
    look: OutputStyle,
) -> Result<Summary, Failure> {
    let RunRequest { selection, keep_going, people, locked } = request;
    let mut sources = project.digest_sources(&selection.wanted)?;
    let plan = project.judge(&selection, &sources)?;
    if !super::fetch::fetch(project, &plan, &mut sources, look, global.json)? {
        return Ok(Summary::interrupted());
    }
    validate::refuse(project, &plan, &sources)?;
    let options = RunOptions { keep_going, ..execution::options(project, args.resources())? };
    let is_new = !project.store.root().exists();
    let watched = project.graph.stages.iter().map(|s| (s.name.clone(), s.live.clone()));
    let shown = reporter(args.progress, look, global.json, watched.collect());
    let mut reporter = Told { shown, tracking: Tracking::of(project) };
    let reaper = std::env::current_exe().map(|exe| vec![exe, PathBuf::from("reaper")]);
    let executor = Processes::new(reaper.unwrap_or_default(), GRACE);
    let inputs = Inputs {
        graph: &project.graph,
        store: Arc::clone(&project.store),
        sources,
        selection,
        plan: Some(plan),
        executor: &executor,
        people,
        locked,
        remote: project.remote()?,
    };
    // A store that cannot be written has no collector to keep away either.
    let _lease = project.store.shared_lease();
    let runtime = execution::runtime()?;
    let summary = runtime.block_on(async {
        let interrupts = listen();
        run::run(inputs, &options, &mut reporter, interrupts).await
    })?;
    if is_new && !look.quiet && !global.json {
        complain(&place_of(project));
    }
    Ok(summary)
}

/// Who hears of a run: the screen, and the workspace's trackers.
struct Told<'a> {
    shown: Box<dyn Reporter>,
    tracking: Tracking<'a>,
}

impl Reporter for Told<'_> {
    fn event(&mut self, event: &RunEvent) {
        self.shown.event(event);
        self.tracking.event(event);
    }
}

/// Where the store of a workspace was made, and why there.
fn place_of(project: &Project) -> String {
    let place = project.store.root().display();
    let marked = [crate::workspace::FILE, ".git"].iter().any(|m| project.root.join(m).exists());
    let why = match marked {
        true => "",
        false => {
            ", beside the pipeline: there is no git repository and no `preflow.yaml` above it \
             (`preflow init` writes one)"
        }
    };
    format!("note: results are kept in {place}{why}\n")
}

fn reporter(
    progress: ProgressMode,
    look: OutputStyle,
    json: bool,
    watched: LiveMetrics,
) -> Box<dyn Reporter> {
    if json {
        return Box::new(Json);
    }
    let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
    match progress {
        ProgressMode::Bar => Box::new(Fancy::new(look, watched)),
        ProgressMode::Auto if terminal && !look.quiet => Box::new(Fancy::new(look, watched)),
        ProgressMode::None => Box::new(Plain::new(OutputStyle { quiet: true, ..look }, watched)),
        _ => Box::new(Plain::new(look, watched)),
    }
}
