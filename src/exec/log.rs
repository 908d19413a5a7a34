//! The log of an attempt, `log.txt`: what the worker writes on standard error, and beside it what
//! its events say to people. Knows nothing of who reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::Outcome;
use crate::files;
use crate::protocol::Event;
use crate::text::figure;

/// Where the log of an attempt lies.
#[must_use]
pub fn path(logs: &Path) -> PathBuf {
    logs.join("log.txt")
}

/// The log, opened to append to; what others write there stays.
///
/// # Errors
/// The file cannot be made.
pub fn open(logs: &Path) -> std::io::Result<File> {
    files::append_own(&path(logs))
}

/// What an event says to people; `None`: nothing.
#[must_use]
pub fn words(event: &Event) -> Option<String> {
    match event {
        Event::Note { level, text } if level == "warn" => Some(format!("warning: {text}\n")),
        Event::Note { text, .. } => Some(format!("note: {text}\n")),
        Event::Metric { step, values } => Some(format!("step {step}  {}\n", figures(values))),
        Event::Done { summary } if summary.is_empty() => Some("done\n".to_owned()),
        Event::Done { summary } => Some(format!("done  {}\n", figures(summary))),
        Event::Waiting { reason, .. } => Some(format!("waiting for people: {reason}\n")),
        _ => None,
    }
}

/// Writes how an attempt failed below what it said. A log that cannot be written is no failure of
/// the stage.
pub fn conclude(logs: &Path, outcome: &Outcome) {
    let (chain, help): (&[String], _) = match outcome {
        Outcome::Failed { chain, help, .. } => (chain, help.as_ref()),
        Outcome::Crashed { help, .. } => (&[], help.as_ref()),
        _ => (&[], None),
    };
    let message = match outcome {
        Outcome::Failed { message, .. } => message.clone(),
        other => other.headline(),
    };
    let mut text = format!("error: {message}\n");
    text.extend(chain.iter().map(|cause| format!("  because: {cause}\n")));
    text.extend(help.map(|help| format!("  help: {help}\n")));
    let _ = open(logs).and_then(|mut file| file.write_all(text.as_bytes()));
}

fn figures(values: &BTreeMap<String, Option<f64>>) -> String {
    let one = |(name, x): (&String, &Option<f64>)| match x {
        Some(x) => format!("{name} {}", figure(*x)),
        None => format!("{name} (not finite)"),
    };
    values.iter().map(one).collect::<Vec<_>>().join("  ")
}
