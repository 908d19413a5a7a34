//! The command line: one verb a file. Words, colour, standard output, exit codes.

pub mod exit;
pub mod failure;
pub mod gc;
pub mod logs;
pub mod plan;
pub mod run;
pub mod why;
pub mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Look;
use failure::Failure;
use workspace::PipelineArgs;

/// RLHF pipelines as YAML in git; rerun only what changed
#[derive(Debug, Parser)]
#[command(name = "preflow", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// JSON instead of words
    #[arg(long, global = true)]
    json: bool,
    /// Say less
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring stages up to date
    Run(run::RunArgs),
    /// Show what would run and why; nothing runs
    Plan(plan::PlanArgs),
    /// Show what is made and when
    Status(plan::StatusArgs),
    /// Explain one stage, down to the root cause
    Why(why::WhyArgs),
    /// Show what a stage's last attempt said
    Logs(logs::LogsArgs),
    /// Find what nobody needs in the store
    Gc(gc::GcArgs),
    /// Read every object of the store and check it
    Verify(gc::VerifyArgs),
    /// (internal) end what a killed run left behind
    #[command(hide = true)]
    Reaper,
}

/// Parses the command line, runs the verb, returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::DONE });
        }
    };
    let look = Look { colour: false, quiet: cli.quiet, verbose: cli.verbose };
    match dispatch(&cli, look) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{failure:?}");
            ExitCode::from(failure.exit())
        }
    }
}

fn dispatch(cli: &Cli, look: Look) -> Result<u8, Failure> {
    let (pipeline, json) = (&cli.pipeline, cli.json);
    match &cli.verb {
        Verb::Run(args) => run::run(args, pipeline, look, json),
        Verb::Plan(args) => plan::plan(args, pipeline, look, json),
        Verb::Status(args) => plan::status(args, pipeline, look, json),
        Verb::Why(args) => why::why(args, pipeline, look, json),
        Verb::Logs(args) => logs::logs(args, pipeline),
        Verb::Gc(args) => gc::gc(args, pipeline, json),
        Verb::Verify(args) => gc::verify(args, pipeline, look, json),
        Verb::Reaper => {
            crate::exec::reaper::main();
            Ok(exit::DONE)
        }
    }
}
