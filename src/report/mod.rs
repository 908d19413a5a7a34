//! Reporters: show a run while it happens, for people, for CI, for programs.
//! Decide nothing.

pub mod diagnostics;
pub mod differences;
pub mod drawing;
pub mod fancy;
pub mod json;
mod line;
pub mod live;
pub mod plain;
mod style;
pub mod table;
pub mod terminal;
pub mod words;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exec::Outcome;
use crate::run::Totals;
use crate::text::{self, clean};
pub use style::Style;

/// How loud, and whether in colour.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputStyle {
    pub colour: bool,
    /// Only failures and the last line.
    pub quiet: bool,
    /// Also what informs only.
    pub verbose: bool,
    /// Columns of the terminal; `None`: what is written is no terminal, and is not folded.
    pub width: Option<usize>,
    /// Tables and titles are Markdown, for pull requests.
    pub markdown: bool,
}

impl OutputStyle {
    /// `text` in a style when colour is on.
    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.markdown || !self.colour {
            return text.to_owned();
        }
        let style = style.ansi();
        format!("{style}{text}{style:#}")
    }
}

/// Writes a line, ignoring a reader that went away.
pub fn line(out: &mut dyn Write, text: &str) {
    note_output(writeln!(out, "{}", terminal::safe(text, terminal::has_colour())));
}

/// Something could not be written to standard output.
static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Tells, once, that standard output cannot be written. A reader that left (`| head`) has all it
/// wanted: not a failure.
pub fn note_output(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
        && !OUTPUT_LOST.swap(true, Ordering::Relaxed)
    {
        let _ = writeln!(io::stderr(), "error: cannot write to standard output: {error}");
    }
}

/// Whether a part of what was to be printed is lost.
#[must_use]
pub fn is_output_lost() -> bool {
    OUTPUT_LOST.load(Ordering::Relaxed)
}

/// The block that tells of a failed attempt. `logs`: the command that shows its log; then where
/// that lies and what performs the attempt once more are said to those who asked for all.
#[must_use]
pub fn failure(
    look: OutputStyle,
    stage: &str,
    outcome: &Outcome,
    (logs, log, again): (Option<&str>, &str, &str),
) -> String {
    let mut out = Vec::new();
    let (message, details, tail, help) = match outcome {
        Outcome::Failed { message, chain, help } => {
            (message.clone(), chain.clone(), String::new(), help.clone())
        }
        Outcome::Crashed { how, tail, help } => {
            (format!("crashed: {how}"), Vec::new(), tail.clone(), help.clone())
        }
        Outcome::TimedOut { seconds, tail } => (
            format!("took longer than its timeout of {}", text::seconds(*seconds)),
            Vec::new(),
            tail.clone(),
            Some("raise `run: { timeout: … }` of this stage".into()),
        ),
        Outcome::Lost { .. } => (
            outcome.headline(),
            Vec::new(),
            String::new(),
            Some("see that what runs stages is there, then run again".into()),
        ),
        other => (format!("{other:?}"), Vec::new(), String::new(), None),
    };
    out.push(format!(
        "{} stage `{stage}`: {}",
        look.paint(Style::Error, "error:"),
        clean(&message)
    ));
    out.extend(details.iter().map(|d| format!("  because: {}", clean(d))));
    out.extend(tail.lines().map(|l| format!("  | {}", clean(l))));
    out.extend(help.map(|h| format!("  = help: {}", clean(&h))));
    out.extend(logs.map(|logs| format!("  = log: {logs}")));
    if !log.is_empty() && (look.verbose || logs.is_none()) {
        out.push(format!("  = log: {log}"));
        if !again.is_empty() {
            out.push(format!("  = again: {again}"));
        }
    }
    out.join("\n")
}

/// The last line of a run: `4 done · 1 waiting · 3 blocked`.
#[must_use]
pub fn totals(totals: &Totals) -> String {
    let parts = [
        (totals.done, "done"),
        (totals.reused, "reused"),
        (totals.fetched, "fetched"),
        (totals.failed, "failed"),
        (totals.waiting, "waiting"),
        (totals.gated, if totals.gated == 1 { "gate not met" } else { "gates not met" }),
        (totals.blocked, "blocked"),
        (totals.stopped, "stopped"),
        (totals.skipped, "not started"),
    ];
    let shown: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if shown.is_empty() { "no stages".into() } else { shown.join(" · ") }
}
