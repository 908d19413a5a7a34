//! `preflow trace FILE`: from an artifact, or a copy of one, back to what made it.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Exit, Global, print};
use crate::html;
use crate::project::origin::{
    Step, all_entries, back, by_annotator, find, run_pipeline, run_stage, votes,
};
use crate::project::{Failure, locate};
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style, words};
use crate::store::Store;
use crate::text::{self, clean};

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A file or a folder: an object, a view, or a copy of one anywhere
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Prints where a file comes from.
///
/// # Errors
/// The file cannot be read, or nothing in the store made it.
pub fn trace(args: &TraceArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let here = std::path::absolute(".").unwrap_or_default();
    let store = locate::open_store(&global.choices(), &locate::workspace_root(&here))?;
    let source = store.digest_source(&args.file.to_string_lossy())?;
    let entries = all_entries(&store)?;
    let Some((entry, output)) = find(&entries, &source.digest) else {
        return Err(Failure::usage(format!(
            "nothing in the store at {} made `{}`",
            store.root().display(),
            args.file.display()
        ))
        .help(format!("its content is {}; was it changed after it was made?", source.digest)));
    };
    let steps = back(&entries, entry, &output);
    if global.json {
        let list: Vec<Value> = steps.iter().map(|step| as_json(&store, step)).collect();
        return Ok(print(&format!("{}\n", json!({ "digest": source.digest, "steps": list }))));
    }
    let mut out = format!(" {}\n", source.digest);
    for step in &steps {
        out.push_str(&text(&store, step, look));
    }
    Ok(print(&out))
}

fn text(store: &Store, step: &Step, look: OutputStyle) -> String {
    let made = &step.entry.made;
    let indent = "   ".repeat(step.depth);
    let arrow = if step.depth > 0 { "← " } else { "" };
    let stage = run_stage(store, step).unwrap_or_else(|| step.entry.identity.kind.clone());
    let at = made.at.get(..16).unwrap_or("").replace('T', " ");
    let out = format!(
        " {indent}{arrow}{}  {} of {}@{}, {at} in {}, run {}\n",
        look.paint(Style::Strong, &clean(&stage)),
        step.output,
        step.entry.identity.kind,
        step.entry.identity.version,
        text::seconds(made.seconds),
        made.run
    );
    let mut table = Table::new(&[1]);
    let mut more = |what: &str, text: String| {
        if !text.is_empty() {
            let what = Cell::styled(Style::Dim, format!("{indent}   {what}"));
            table.row([what, Cell::from(text)]);
        }
    };
    more("pipeline", run_pipeline(store, step).unwrap_or_default());
    more("commit", words::commit(&made.commit));
    let on = [&made.worker, &made.backend, &made.device, &made.cpu].map(String::as_str);
    more("on", on.join(" ").trim().to_owned());
    let params = html::params(&step.entry.identity.params).into_iter();
    more("params", params.map(|(name, v)| format!("{name}: {v}")).collect::<Vec<_>>().join(", "));
    let votes = votes(store, &step.entry);
    for (port, votes) in &votes {
        let counts: Vec<String> =
            by_annotator(votes).into_iter().map(|(who, n)| format!("{who} {n}")).collect();
        more(port, format!("{} votes: {}", votes.votes(), counts.join(", ")));
    }
    let votes: Vec<&str> = votes.iter().map(|(port, _)| port.as_str()).collect();
    for (port, digest) in step.sources.iter().filter(|(port, _)| !votes.contains(&port.as_str())) {
        let place = made.sources.get(port).map_or(String::new(), |place| format!("{place} "));
        more(port, format!("{place}{digest}"));
    }
    out + &table.text(look)
}

fn as_json(store: &Store, step: &Step) -> Value {
    let entry = &step.entry;
    let votes: serde_json::Map<String, Value> = votes(store, entry)
        .into_iter()
        .map(|(port, votes)| {
            let by: serde_json::Map<String, Value> =
                by_annotator(&votes).into_iter().map(|(who, n)| (who, json!(n))).collect();
            (port, json!({ "votes": votes.votes(), "annotators": by }))
        })
        .collect();
    let sources: serde_json::Map<String, Value> =
        step.sources.iter().map(|(port, digest)| (port.clone(), json!(digest))).collect();
    json!({
        "depth": step.depth,
        "stage": run_stage(store, step),
        "pipeline": run_pipeline(store, step),
        "output": step.output,
        "fingerprint": entry.fingerprint,
        "identity": entry.identity,
        "made": entry.made,
        "votes": votes,
        "sources": sources,
    })
}
