//! `preflow label`: from a pipeline file and a stage to what there is to label.
//! Decides nothing about votes.

mod ask;
mod export;
mod import;
mod links;
mod serve;
mod stats;
mod wait;

use clap::Subcommand;

use super::{Exit, Global, complain};
use crate::agreement::ADJUDICATOR;
use crate::label::{self, Assignment};
use crate::project::{self, Failure, Project, labelling, locate};
use crate::report::{OutputStyle, Style};
use crate::votes::{self, Effective, Folder};
pub use serve::Page;
pub use wait::Asking;

#[derive(Debug, Subcommand)]
pub enum LabelVerb {
    /// Open the label page
    Serve(serve::ServeArgs),
    /// Label in the terminal
    Ask(ask::AskArgs),
    /// Show how much annotators agree, and how each does
    Stats(stats::StatsArgs),
    /// Read votes or preferences of other tools
    Import(import::ImportArgs),
    /// Write labels for other tools
    Export(export::ExportArgs),
    /// List the links to a label page that were given out
    Links(links::LinksArgs),
    /// Take links back, one by one
    Revoke(links::RevokeArgs),
}

/// Does what the verb says.
///
/// # Errors
/// See each verb.
pub fn label(verb: &LabelVerb, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    match verb {
        LabelVerb::Serve(args) => serve::serve(args, global, look),
        LabelVerb::Ask(args) => ask::ask(args, global, look),
        LabelVerb::Stats(args) => stats::stats(args, global, look),
        LabelVerb::Import(args) => import::import(args, global, look),
        LabelVerb::Export(args) => export::export(args, global, look),
        LabelVerb::Links(args) => links::links(args, global, look),
        LabelVerb::Revoke(args) => links::revoke(args, global),
    }
}

/// The pipeline and what there is to label in one of its stages.
///
/// # Errors
/// The stage does not ask people, or its pairs were never made.
pub fn open(words: &[String], global: &Global) -> Result<(Project, Assignment), Failure> {
    let (file, names) = locate::file_and_names(words)?;
    let project = project::load(&file, &global.choices())?;
    let name = one(&names, labelling::stages_that_ask(&project), "asks people")?;
    let assignment = labelling::assignment(&project, &name)?;
    Ok((project, assignment))
}

/// The stage that was named, or else the only one that does what is wanted.
fn one(named: &[String], able: Vec<String>, does: &str) -> Result<String, Failure> {
    match (named, able.as_slice()) {
        ([name], _) | ([], [name]) => Ok(name.clone()),
        ([], []) => Err(Failure::usage(format!("no stage of this pipeline {does}"))
            .help("`preflow kinds collect_labels` shows how one does")),
        ([], several) => {
            Err(Failure::usage(format!("more than one stage of this pipeline {does}"))
                .help(format!("name one of {}", several.join(", "))))
        }
        _ => {
            Err(Failure::usage("one stage is labelled at a time")
                .help("preflow label VERB FILE STAGE"))
        }
    }
}

/// The annotator that was named, or else the user.
///
/// # Errors
/// The name cannot be one of a file.
pub fn annotator(named: Option<&str>) -> Result<String, Failure> {
    match named {
        None => Ok(serve::fit(&std::env::var("USER").unwrap_or_default())),
        Some(ADJUDICATOR) => Err(Failure::usage(format!(
            "`{ADJUDICATOR}` is whoever settles disputes, on the admin page"
        ))
        .help("choose another name")),
        Some(name) if votes::is_annotator(&votes::composed(name)) => Ok(votes::composed(name)),
        Some(name) => Err(Failure::usage(format!("`{name}` is no name for an annotator"))
            .help("names are lower-case letters, digits, `-` and `_`, 64 at most")),
    }
}

/// Says of stages that wait for people why what they wait for does not come, where it cannot.
pub fn tell_what_holds_up(project: &Project, waiting: &[String], look: OutputStyle) {
    for name in waiting {
        // The run has told already what is wrong with the stage or its votes.
        let Ok(assignment) = labelling::assignment(project, name) else { continue };
        let Ok(folder) = Folder::read(&assignment.votes) else { continue };
        let ready = label::readiness(&assignment, &Effective::of(&folder));
        if let Some(why) = stats::outlook(&assignment, &ready).and_then(|o| o.why()) {
            complain(&format!(" {} {name}  {why}\n", look.paint(Style::Warning, "◌")));
        }
    }
}
