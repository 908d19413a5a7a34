//! `preflow metrics`: the figures that stages left behind, as CSV, JSON or for TensorBoard.
//! Goes by port types; does not know what the figures mean.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Exit, Global, complain, print};
use crate::plan::Selection;
use crate::project::metrics::{StageMetrics, read};
use crate::project::{self, Failure, locate};
use crate::report::{OutputStyle, Style};
use crate::store::{StoreError, write_atomic};
use crate::tensorboard::{Scalar, event_file};

/// Outputs that hold figures by step.
const METRICS: &str = "dataset/metrics";

#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Pipeline file, then stages [default: all that have metrics]
    #[arg(value_name = "[FILE] [STAGE]...")]
    pub words: Vec<String>,
    /// Write event files, a folder a stage, instead of printing
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
}

/// Prints figures, or writes them for TensorBoard.
///
/// # Errors
/// A stage is unknown, or its metrics cannot be read or written.
pub fn metrics(args: &MetricsArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, targets) = locate::file_and_names(&args.words)?;
    let project = project::load(&file, &global.choices())?;
    let selection = Selection::new(&project.graph, &targets, &[], &[])?;
    let plan = project.plan(&selection)?;
    let _lease = project.store.shared_lease();
    let mut all = Vec::new();
    for (stage, node) in project.graph.stages.iter().enumerate() {
        let asked = targets.is_empty() || targets.contains(&node.name);
        let ports = node.outputs.iter().filter(|o| o.port_type == METRICS);
        let ports: Vec<&str> = ports.map(|o| o.name.as_str()).collect();
        if !asked || (ports.is_empty() && targets.is_empty()) {
            continue;
        }
        let Some((entry, stale)) = project.newest(&plan, stage) else {
            say(look, &format!("`{}` was never made", node.name));
            continue;
        };
        if let Some(why) = stale {
            say(look, &format!("`{}` is stale ({why}); these are the last it made", node.name));
        }
        if ports.is_empty() {
            say(look, &format!("`{}` has no metrics", node.name));
            continue;
        }
        all.push(read(&project, &node.name, &entry, &ports)?);
    }
    match &args.tensorboard {
        Some(dir) => write(dir, &all),
        None if global.json => Ok(print(&as_json(&all))),
        None => Ok(print(&as_csv(&all))),
    }
}

fn say(look: OutputStyle, text: &str) {
    complain(&format!("{} {text}\n", look.paint(Style::Warning, "warning:")));
}

fn write(dir: &Path, all: &[StageMetrics]) -> Result<Exit, Failure> {
    let mut out = String::new();
    for figures in all {
        let folder = dir.join(&figures.stage);
        // One name a time it was made: written again, it is written over.
        let path = folder.join(format!("events.out.tfevents.{:.0}.preflow", figures.at));
        let bytes = event_file(figures.at, &figures.scalars);
        fs_err::create_dir_all(&folder)
            .and_then(|()| write_atomic(&path, &bytes))
            .map_err(StoreError::from)?;
        out.push_str(&format!(" {}: {} figures\n", path.display(), figures.scalars.len()));
    }
    Ok(print(&out))
}

fn as_json(all: &[StageMetrics]) -> String {
    let line = |f: &StageMetrics, s: &Scalar| {
        json!({ "stage": f.stage, "step": s.step, "name": s.tag, "value": s.value }).to_string()
            + "\n"
    };
    all.iter().flat_map(|f| f.scalars.iter().map(move |s| line(f, s))).collect()
}

fn as_csv(all: &[StageMetrics]) -> String {
    let mut out = "stage,step,name,value\n".to_owned();
    for figures in all {
        for s in &figures.scalars {
            out.push_str(&format!("{},{},{},{}\n", figures.stage, s.step, field(&s.tag), s.value));
        }
    }
    out
}

/// A field of CSV (RFC 4180): quoted where it must be.
pub fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_json_hold_one_figure_a_line() {
        let scalar = |tag: &str, step, value| Scalar { tag: tag.to_owned(), step, value };
        let scalars = vec![scalar("eval/loss", 1, 0.25), scalar("odd,\"name\"", 2, 1e-9)];
        let all = [StageMetrics { stage: "sft".to_owned(), at: 0.0, scalars }];
        assert_eq!(
            as_csv(&all),
            "stage,step,name,value\nsft,1,eval/loss,0.25\nsft,2,\"odd,\"\"name\"\"\",0.000000001\n"
        );
        let lines: Vec<serde_json::Value> =
            as_json(&all).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            lines[1],
            json!({"stage": "sft", "step": 2, "name": "odd,\"name\"", "value": 1e-9})
        );
    }
}
