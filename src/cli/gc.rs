//! `preflow gc` and `preflow verify`: keep the store small and sound.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Exit, Global, rerun};
use crate::project::roots::{roots_of_pipelines, roots_of_runs};
use crate::project::{Failure, locate};
use crate::report::{OutputStyle, Style, line};
use crate::store::StoreError;
use crate::store::gc::Garbage;
use crate::text;

#[derive(Debug, Args)]
pub struct GcArgs {
    /// Remove what is listed; without this nothing is touched
    #[arg(long)]
    pub yes: bool,
    /// Keep what runs of the last DAYS used
    #[arg(long, value_name = "DAYS", default_value_t = 14)]
    pub days: u32,
    /// Keep what is younger than HOURS
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    pub grace: u32,
}

/// Lists what can go, and removes it when told.
///
/// # Errors
/// A pipeline of the workspace cannot be read, or a run is alive: then nothing is removed.
pub fn gc(args: &GcArgs, pipeline: &Global) -> Result<Exit, Failure> {
    let root = here()?;
    let store = locate::open_store(&pipeline.choices(), &root)?;
    let find = || -> Result<Garbage, StoreError> {
        let mut keep = roots_of_runs(&store, args.days)?;
        keep.0.extend(roots_of_pipelines(&root, &pipeline.choices(), &store)?);
        let grace = Duration::from_secs(u64::from(args.grace) * 3600);
        store.find_garbage(&keep.0, &keep.1, grace)
    };
    let found = if args.yes { store.collect(find)? } else { find()? };
    let mut out = std::io::stdout().lock();
    let (entries, objects, other) = (found.entries.len(), found.objects.len(), found.other.len());
    if pipeline.json {
        let value = json!({"removed": args.yes, "bytes": found.bytes, "entries": found.entries,
            "objects": found.objects, "other": found.other, "kept": found.kept});
        line(&mut out, &value.to_string());
        return Ok(Exit::Done);
    }
    let what = format!("{entries} entries, {objects} objects, {other} old runs and other files");
    let size = text::bytes(found.bytes);
    if entries + objects + other == 0 {
        line(&mut out, &format!(" nothing to collect; {} entries kept", found.kept));
    } else if args.yes {
        line(&mut out, &format!(" removed {what}: {size}; {} entries kept", found.kept));
    } else {
        line(&mut out, &format!(" would remove {what}: {size}; {} entries kept", found.kept));
        line(&mut out, " nothing was touched; `preflow gc --yes` removes it");
    }
    Ok(Exit::Done)
}

fn here() -> Result<PathBuf, Failure> {
    let cwd = std::env::current_dir()
        .map_err(|e| Failure::usage(format!("the working directory is gone: {e}")))?;
    Ok(locate::workspace_root(&cwd))
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// With --rerun: pipeline file
    #[arg(value_name = "FILE", requires = "rerun")]
    pub words: Vec<String>,
    /// Make this stage again beside the store, from the same inputs, and compare it byte by byte;
    /// what differs first is told, and nothing is kept. Answers of outside services are those that
    /// the store holds
    #[arg(long, value_name = "STAGE", conflicts_with = "repair")]
    pub rerun: Option<String>,
    /// Move damaged objects aside and mark what needs them for recomputation
    #[arg(long)]
    pub repair: bool,
}

/// Reads every object. Exit 4 when something is damaged and was not repaired. Or makes one stage
/// again: exit 1 when it comes out otherwise.
///
/// # Errors
/// The store cannot be listed; see also [`rerun::rerun`].
pub fn verify(args: &VerifyArgs, pipeline: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    if let Some(stage) = &args.rerun {
        return rerun::rerun(&args.words, stage, pipeline, look);
    }
    let store = locate::open_store(&pipeline.choices(), &here()?)?;
    let found = store.verify()?;
    if args.repair {
        store.repair(&found)?;
    }
    let mut out = std::io::stdout().lock();
    let sound = found.is_clean();
    if pipeline.json {
        let value = json!({"objects": found.objects, "entries": found.entries,
            "damaged": found.damaged, "broken": found.broken, "suspect": found.suspect,
            "unreadable": found.unreadable, "heads": found.heads, "unsummed": found.unsummed,
            "repaired": args.repair && !sound});
        line(&mut out, &value.to_string());
    } else {
        let bad = look.paint(Style::Bad, "✗");
        for (digest, why) in &found.damaged {
            line(&mut out, &format!(" {bad} object {}: {why}", digest.short()));
        }
        for (fingerprint, kind, port) in &found.broken {
            let (fp, what) = (fingerprint.short(), "its object is missing or damaged");
            line(&mut out, &format!(" {bad} entry {fp} ({kind}), output `{port}`: {what}"));
        }
        for (fingerprint, kind, input) in &found.suspect {
            let (fp, input) = (fingerprint.short(), input.short());
            let what = format!("made from object {input}, which was written to");
            line(&mut out, &format!(" {bad} entry {fp} ({kind}): {what}"));
        }
        for (fingerprint, why) in &found.unreadable {
            line(&mut out, &format!(" {bad} entry {}: {why}", fingerprint.short()));
        }
        for (_, why) in &found.heads {
            line(&mut out, &format!(" {bad} {why}"));
        }
        if found.unsummed > 0 {
            let n = found.unsummed;
            line(
                &mut out,
                &format!(" {n} of the entries have no checksum: an earlier version made them"),
            );
        }
        let counts = format!("{} objects, {} entries", found.objects, found.entries);
        let last = match (sound, args.repair) {
            (true, _) => format!(" sound: {counts}"),
            (false, true) => format!(" repaired: {counts} checked; the next run makes it again"),
            (false, false) => {
                format!(
                    " damaged: {counts} checked; `preflow verify --repair` marks it to be made again"
                )
            }
        };
        line(&mut out, &last);
    }
    Ok(if sound || args.repair { Exit::Done } else { Exit::Store })
}
