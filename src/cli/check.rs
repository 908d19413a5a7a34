//! `preflow check`: is the file right? Nothing runs.
//! Does not look at the store.

use crate::project::{Failure, locate, validate, workers::catalog_of};
use std::path::Path;

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::{Global, complain, load, print};
use crate::diagnostic::Diagnostic;

/// Problems of a file that programs are told of.
const LISTED: usize = 50_000;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Pipeline files [default: all here and in `pipelines/`]
    #[arg(value_name = "FILE")]
    pub files: Vec<String>,
}

/// Checks every file, also after one that is wrong.
///
/// # Errors
/// The workspace file, or a worker it names, is wrong.
pub fn run(args: &CheckArgs, global: &Global) -> Result<Exit, Failure> {
    let mut out = String::new();
    let mut exit = Exit::Done;
    let mut found = Vec::new();
    let files = match args.files.as_slice() {
        [] => locate::all_pipelines()?.iter().map(|file| file.display().to_string()).collect(),
        named => named.to_vec(),
    };
    for file in &files {
        let catalog = catalog_of(Path::new(file), &global.choices())?;
        match load(file, global, &catalog) {
            Ok((pipeline, graph)) => {
                let root = locate::locate(Path::new(file))?.root;
                let problems = validate::params(&pipeline, &graph, &root, global.choices().warn);
                if !problems.is_empty() {
                    exit = Exit::Usage;
                    found.push(told(file, &problems, global));
                    continue;
                }
                let stages = graph.stages.len();
                let plural = if stages == 1 { "" } else { "s" };
                let name = if files.len() > 1 { format!("{file}: ") } else { String::new() };
                out.push_str(&format!(
                    "{name}ok: {stages} stage{plural}; `plan` looks at the data too\n"
                ));
                found.push(json!({ "file": file, "stages": stages, "problems": [] }));
            }
            Err(problems) => {
                exit = Exit::Usage;
                found.push(told(file, &problems, global));
            }
        }
    }
    let printed = if global.json {
        print(&format!("{:#}\n", serde_json::Value::Array(found)))
    } else if global.quiet {
        Exit::Done
    } else {
        print(&out)
    };
    Ok(if exit == Exit::Done { printed } else { exit })
}

/// Tells people what is wrong with a file, or says it for programs.
fn told(file: &str, problems: &[Diagnostic], global: &Global) -> serde_json::Value {
    if !global.json {
        complain(&crate::report::diagnostics::diagnostics(
            problems,
            crate::report::terminal::has_colour(),
        ));
        return serde_json::Value::Null;
    }
    let listed: Vec<_> = problems.iter().take(LISTED).map(as_json).collect();
    let mut said = json!({ "file": file, "problems": listed });
    if problems.len() > LISTED {
        said["more"] = json!(problems.len() - LISTED);
    }
    said
}

/// A problem for programs: lines and columns from 1.
fn as_json(problem: &Diagnostic) -> serde_json::Value {
    let place = problem.span.as_ref().map(|span| {
        let (line, column) = span.line_column();
        json!({ "file": span.source.name, "line": line, "column": column,
                "start": span.range.start, "end": span.range.end })
    });
    json!({ "message": problem.message, "place": place, "label": problem.label, "help": problem.help })
}
