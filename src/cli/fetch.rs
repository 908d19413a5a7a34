//! Files of sources elsewhere, brought before anything runs, and how that is shown.
//! Does not know where they come from.

use std::sync::Arc;

use super::remote::{Show, interrupted};
use crate::plan::Plan;
use crate::project::{Failure, Project};
use crate::report::OutputStyle;
use crate::store::SourceDigest;
use crate::store::part::TransferProgress;
use crate::text;

/// Brings what stages that would run read and what is not here. False: interrupted.
///
/// # Errors
/// It is not there, may not be read, is not what it should be, nobody answers, the disk is full.
pub fn fetch(
    project: &Project,
    plan: &Plan,
    sources: &mut [Option<SourceDigest>],
    look: OutputStyle,
    json: bool,
) -> Result<bool, Failure> {
    fetch_for(project, &plan.running(), sources, look, json)
}

/// The same for these stages.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_for(
    project: &Project,
    stages: &[usize],
    sources: &mut [Option<SourceDigest>],
    look: OutputStyle,
    json: bool,
) -> Result<bool, Failure> {
    let missing = project.to_fetch(stages, sources);
    if missing.is_empty() {
        return Ok(true);
    }
    let show = Show::new(look, json, "fetch");
    let progress = Arc::new(TransferProgress::default());
    let work = async {
        project.store.prepare_for_writing()?;
        // Nothing may be collected before it is read.
        let _lease = project.store.shared_lease()?;
        for source in missing {
            let (digest, brought) = project.fetch(source, &progress).await?;
            let (files, size) = (text::counted(brought.files, "file"), text::bytes(brought.bytes));
            show.done(&format!(" ↓ {}  {files}, {size}", brought.name));
            sources[source] = Some(digest);
        }
        Ok(())
    };
    Ok(match show.drive(&progress, work)? {
        Some(()) => true,
        None => {
            let _ = interrupted(&format!("run {}", project.graph.path), look);
            false
        }
    })
}
