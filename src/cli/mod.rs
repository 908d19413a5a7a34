//! The command line: words, colour, stdout, exit codes.
//! Decides nothing: every verb asks the room that knows.

pub mod chat;
mod check;
mod ci;
pub mod completions;
pub mod config;
mod diff;
mod doctor;
pub mod exit;
mod export;
mod fetch;
mod format;
pub mod gc;
pub mod graph;
mod help;
mod init;
mod interrupts;
pub mod kinds;
mod label;
mod lock;
pub mod logs;
pub mod metrics;
mod perform;
pub mod plan;
mod pull;
mod push;
mod remote;
pub mod report;
mod rerun;
pub mod run;
pub mod runs;
pub mod sample;
mod schema;
mod serve;
mod show;
mod sweep;
#[cfg(test)]
mod tests;
pub mod trace;
mod trust;
mod ui;
mod why;

use std::io::Write as _;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::catalog::Catalog;
use crate::diagnostic::Diagnostic;
use crate::graph::Graph;
use crate::logging::{self, LoggingProgram};
use crate::pipeline::{self, Pipeline};
use crate::project::{Choices, Failure, limits};
use crate::report::terminal::{above_bars, has_colour, safe};
use crate::report::{OutputStyle, Style, is_output_lost, note_output};
use exit::Exit;

/// RLHF pipelines as YAML in git; rerun only what changed.
#[derive(Debug, Parser)]
#[command(name = "preflow", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Heading of the options of every verb: a verb's own ones stand before them.
const GLOBAL: &str = "Global options";

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Give a param of the pipeline another value; may be repeated
    #[arg(long = "set", global = true, help_heading = GLOBAL, value_name = "NAME=VALUE")]
    pub sets: Vec<String>,
    /// Use a profile of the pipeline file
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "NAME")]
    pub profile: Option<String>,
    /// Folder of the store [default: `cache` in the workspace]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DIR", env = "PREFLOW_CACHE")]
    pub cache: Option<std::path::PathBuf>,
    /// The remote: s3://BUCKET/PREFIX, a folder, or `none`
    /// [default: what preflow.yaml says]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "URL", env = "PREFLOW_REMOTE")]
    pub remote: Option<String>,
    /// What may be done there: read-write or read-only
    #[arg(long, global = true, help_heading = GLOBAL, hide = true, value_name = "MODE", env = "PREFLOW_REMOTE_MODE")]
    pub remote_mode: Option<String>,
    /// Print JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Say less
    #[arg(short, long, global = true, help_heading = GLOBAL, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more and log: -v what happens, -vv why, -vvv every step
    #[arg(short, long, global = true, help_heading = GLOBAL, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// What the user chose, but for words of the terminal.
    #[must_use]
    pub fn choices(&self) -> Choices {
        Choices {
            sets: self.sets.clone(),
            profile: self.profile.clone(),
            cache: self.cache.clone(),
            remote: self.remote.clone(),
            remote_mode: self.remote_mode.clone(),
            warn: |text| {
                let look = OutputStyle { colour: has_colour(), ..OutputStyle::default() };
                complain(&format!("{} {text}\n", look.paint(Style::Warning, "warning:")));
            },
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Bring stages up to date
    Run(run::RunArgs),
    /// Show what would run and why; nothing runs
    Plan(plan::PlanArgs),
    /// Show what is cached: when it was made, and how big it is
    Status(plan::StatusArgs),
    /// Explain one stage, down to the root cause
    Why(why::WhyArgs),
    /// Collect votes of people; import, export and judge them
    #[command(subcommand)]
    Label(label::LabelVerb),
    /// Run many trials of a pipeline and compare them
    #[command(subcommand)]
    Sweep(sweep::SweepVerb),
    /// Talk to a model of a pipeline
    Sample(sample::SampleArgs),
    /// Chat with a model of a pipeline, turn by turn
    Chat(chat::ChatArgs),
    /// Serve a model of a pipeline over HTTP, as clients of OpenAI's ask one
    Serve(serve::ServeModelArgs),
    /// Show what a stage made: columns and rows, or files
    Show(show::ShowStageArgs),
    /// Write an output as a folder for others, with a card of where it comes from
    Export(export::ExportStageArgs),
    /// Print the metrics of stages, or write them for TensorBoard
    Metrics(metrics::MetricsArgs),
    /// List what was run, when, and how it ended
    Runs(runs::RunsArgs),
    /// Show what differs between two runs, commits or files
    Diff(diff::DiffArgs),
    /// Review what changed since a commit: for pull requests
    Ci(ci::CiArgs),
    /// Find where a file comes from, back to its votes and data
    Trace(trace::TraceArgs),
    /// Upload artifacts to the remote
    Push(push::PushArgs),
    /// Download what a pipeline needs from the remote
    Pull(pull::PullArgs),
    /// Write, check or merge the lock file: what each stage is and what it made
    Lock(lock::LockArgs),
    /// Show the log of a stage's last attempt
    Logs(logs::LogsArgs),
    /// Find what is wrong in pipeline files, without running anything
    Check(check::CheckArgs),
    /// Print the pipeline with every default filled in and where each value comes from
    Config(config::ConfigArgs),
    /// Print the JSON Schema of pipeline files, for editors
    Schema(schema::SchemaArgs),
    /// List the kinds of stages, or all fields of one
    Kinds(kinds::KindsArgs),
    /// Draw the graph of a pipeline
    Graph(graph::GraphArgs),
    /// Write the run report: one HTML file
    Report(report::ReportArgs),
    /// Show a pipeline live in the browser; read-only
    Ui(ui::UiArgs),
    /// Find unused artifacts in the store; remove them with --yes
    Gc(gc::GcArgs),
    /// Check every object of the store, or rerun a stage and compare
    Verify(gc::VerifyArgs),
    /// Create a workspace with an example pipeline
    Init(init::InitArgs),
    /// Check the installation and the workspace
    Doctor(doctor::DoctorArgs),
    /// Let this workspace start the workers that its `preflow.yaml` names
    Trust(trust::TrustArgs),
    /// Print a script that lets a shell complete commands
    Completions(completions::CompletionsArgs),
    /// (internal) end what a killed run left behind
    #[command(hide = true)]
    Reaper { mark: String },
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> Exit {
    limits::prepare();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // It repeats what was typed.
            let words = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    help::help(std::env::args().skip(1))
                }
                _ => error.render(),
            };
            let text = if has_colour() { words.ansi().to_string() } else { words.to_string() };
            match exit {
                Exit::Done => drop(print(&text)),
                _ => complain(&text),
            }
            return exit;
        }
    };
    std::panic::set_hook(Box::new(|fault| {
        if crate::columns::is_reading() {
            return;
        }
        let place = fault.location().map(ToString::to_string).unwrap_or_default();
        let what = fault.payload_as_str().unwrap_or("no message");
        if limits::is_refused_thread(what) {
            return complain(&format!(
                "error: the system lets this user start no more processes: {what}\n  = help: end \
                 some, or raise the limit (`ulimit -u`); what is stored is safe, and the same \
                 command may be run again\n"
            ));
        }
        complain(&format!(
            "error: a fault in preflow itself, at {place}: {what}\n  = help: please report it with \
             the pipeline file; what is stored is safe, and the same command may be run again\n"
        ));
    }));
    let exit = std::panic::catch_unwind(|| run(&cli));
    match exit {
        Err(_) if limits::refused_a_thread() => Exit::Store,
        Err(_) => Exit::Bug,
        Ok(Exit::Done) if is_output_lost() => Exit::Store,
        Ok(exit) => exit,
    }
}

/// Does what a parsed command line says.
#[must_use]
pub fn run(cli: &Cli) -> Exit {
    let global = &cli.global;
    // The reaper is started by a run, and has nothing to tell.
    let is_reaper = matches!(cli.verb, Verb::Reaper { .. });
    if !is_reaper
        && let Err(error) =
            logging::start(LoggingProgram::Orchestrator, global.verbose, || LogLines)
    {
        complain(
            &Failure::usage(error.to_string()).help(error.help()).text(OutputStyle::default()),
        );
        return Exit::Usage;
    }
    let (quiet, verbose) = (global.quiet, global.verbose > 0);
    let look =
        OutputStyle { colour: has_colour(), quiet, verbose, width: width(), markdown: false };
    let result = match &cli.verb {
        Verb::Run(args) => run::run(args, global, look),
        Verb::Plan(args) => plan::plan(args, global, look),
        Verb::Status(args) => plan::status(args, global, look),
        Verb::Why(args) => why::why(args, global, look),
        Verb::Label(verb) => label::label(verb, global, look),
        Verb::Sweep(verb) => sweep::sweep(verb, global, look),
        Verb::Sample(args) => sample::sample(args, global, look),
        Verb::Chat(args) => chat::chat(args, global, look),
        Verb::Serve(args) => serve::serve(args, global, look),
        Verb::Show(args) => show::show(args, global, look),
        Verb::Export(args) => export::export(args, global),
        Verb::Metrics(args) => metrics::metrics(args, global, look),
        Verb::Runs(args) => runs::runs(args, global, look),
        Verb::Diff(args) => diff::diff(args, global, look),
        Verb::Ci(args) => ci::ci(args, global, look),
        Verb::Trace(args) => trace::trace(args, global, look),
        Verb::Push(args) => push::push(args, global, look),
        Verb::Pull(args) => pull::pull(args, global, look),
        Verb::Lock(args) => lock::lock(args, global),
        Verb::Logs(args) => logs::logs(args, global),
        Verb::Check(args) => check::run(args, global),
        Verb::Config(args) => config::run(args, global),
        Verb::Schema(args) => schema::run(args, global),
        Verb::Kinds(args) => kinds::run(args, global, look),
        Verb::Graph(args) => graph::run(args, global),
        Verb::Report(args) => report::report(args, global, look),
        Verb::Ui(args) => ui::ui(args, global, look),
        Verb::Gc(args) => gc::gc(args, global),
        Verb::Verify(args) => gc::verify(args, global, look),
        Verb::Init(args) => init::init(args, global),
        Verb::Doctor(args) => doctor::doctor(args, global, look),
        Verb::Trust(args) => trust::trust(args, global),
        Verb::Completions(args) => Ok(completions::completions(args)),
        Verb::Reaper { mark } => {
            crate::exec::reaper::main(mark);
            Ok(Exit::Done)
        }
    };
    result.unwrap_or_else(|failure| {
        complain(&failure.text(look));
        Exit::from(&failure)
    })
}

/// Writes to stdout. A reader that left (`| head`) has all it wanted: not a failure.
pub fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    let text = safe(text, has_colour());
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    note_output(written);
    if is_output_lost() { Exit::Store } else { Exit::Done }
}

/// Writes to stderr; when that is gone too, nobody is left to tell.
pub fn complain(text: &str) {
    let text = safe(text, has_colour());
    let _ = above_bars(|| std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Lines of the log: on standard error, as everything else that is no result.
struct LogLines;

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        complain(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Tells what is wrong with a file: exit code 2.
pub fn refuse(problems: &[Diagnostic]) -> Exit {
    complain(&crate::report::diagnostics::diagnostics(problems, has_colour()));
    Exit::Usage
}

/// Columns of the terminal that standard output is; `None`: it is none.
fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Reads and resolves a pipeline file.
pub fn load(
    path: &str,
    global: &Global,
    catalog: &Catalog,
) -> Result<(Pipeline, Graph), Vec<Diagnostic>> {
    let pipeline = pipeline::load(path, global.profile.as_deref(), &global.sets)?;
    let graph = Graph::resolve(&pipeline, catalog)?;
    Ok((pipeline, graph))
}
