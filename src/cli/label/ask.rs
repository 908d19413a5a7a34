//! `preflow label ask`: the same questions in a terminal.
//! Decides nothing about votes; a label session does.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use super::serve::{open_session, refused};
use crate::cli::interrupts::listen;
use crate::cli::{Exit, Global, complain};
use crate::label::terminal::{TerminalError, TerminalLabeler};
use crate::project::Failure;
use crate::report::OutputStyle;

#[derive(Debug, Args)]
pub struct AskArgs {
    /// Pipeline file, and the stage that collects labels [default: the only one]
    #[arg(value_name = "[FILE] [STAGE]")]
    pub words: Vec<String>,
    /// Whose votes these are [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub annotator: Option<String>,
    /// Ask again what was skipped, as far as it lacks votes
    #[arg(long)]
    pub skipped: bool,
}

/// Label in the terminal.
///
/// # Errors
/// The stage is unknown, or has nothing to label yet; this is no terminal.
pub fn ask(args: &AskArgs, global: &Global, _look: OutputStyle) -> Result<Exit, Failure> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::usage("`label ask` needs a terminal")
            .help("in a browser: preflow label serve FILE STAGE"));
    }
    let annotator = super::annotator(args.annotator.as_deref())?;
    let (_loaded, assignment) = super::open(&args.words, global)?;
    let session = open_session(assignment, None)?;
    let stop = signals()?;
    let mut labeler = TerminalLabeler::new(&session, annotator);
    if args.skipped {
        labeler.ask_again().map_err(refused)?;
    }
    let ended = labeler.run(&stop);
    let votes = match labeler.votes() {
        1 => "one vote".to_owned(),
        n => format!("{n} votes"),
    };
    let file = session.assignment().votes.join(format!("{}.jsonl", labeler.annotator()));
    complain(&format!(" {votes} in {}\n", file.display()));
    ended.map_err(not_asked)?;
    Ok(if stop.load(Ordering::Relaxed) { Exit::Interrupted } else { Exit::Done })
}

fn not_asked(error: TerminalError) -> Failure {
    match error {
        TerminalError::Session(error) => refused(error),
        TerminalError::Terminal(_) => {
            Failure::usage(error.to_string()).help("in a browser: preflow label serve FILE STAGE")
        }
    }
}

/// Set by a signal that asks the program to end.
fn signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = crate::project::execution::runtime()?;
    let mut heard = runtime.block_on(async { listen() });
    std::thread::spawn(move || {
        runtime.block_on(heard.recv());
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}
