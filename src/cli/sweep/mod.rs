//! `preflow sweep`: from a sweep file to trials, their graph, and what is known of them.
//! Decides nothing about stages.

mod plan;
mod run;
mod show;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Exit, Global};
use crate::project::Failure;
use crate::project::sweep::{self, SweepSession};
use crate::report::OutputStyle;

#[derive(Debug, Subcommand)]
pub enum SweepVerb {
    /// Price a sweep on the graph that its trials share; nothing runs
    Plan(plan::SweepPlanArgs),
    /// Bring every trial up to date; each stage that trials share runs once
    Run(run::SweepRunArgs),
    /// Show what came out: mean, spread and the effect of each param; also while it runs
    Show(show::ShowArgs),
}

/// The sweep, and whether it may be large.
#[derive(Debug, Args)]
pub struct SweepArgs {
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
pub fn sweep(verb: &SweepVerb, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    match verb {
        SweepVerb::Plan(args) => plan::plan(args, global, look),
        SweepVerb::Run(args) => run::run(args, global, look),
        SweepVerb::Show(args) => show::show(args, global, look),
    }
}

/// Reads the sweep file. Where there are very many trials, somebody at a terminal is asked.
pub fn open(args: &SweepArgs, global: &Global) -> Result<SweepSession, Failure> {
    let confirm = |count| if args.yes { Ok(()) } else { ask(count) };
    sweep::open(&args.file, &global.choices(), confirm)
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
