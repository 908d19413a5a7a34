//! `preflow why STAGE`: why it must run, or why it ran, down to the root.

use clap::Args;
use serde_json::json;

use super::{Exit, Global};
use crate::plan::Selection;
use crate::project::diff::PipelineState;
use crate::project::explain::{explain, explain_against};
use crate::project::{self, Failure, locate};
use crate::report::table::hang;
use crate::report::{OutputStyle, Style, line};

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Pipeline file and the stage
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// Why it is not what it was in this run (its id, `last`), commit, or other pipeline file
    #[arg(long, value_name = "A")]
    pub against: Option<String>,
}

/// Columns before which a folded text goes on, at most.
const DEEPEST: usize = 30;

/// Prints the explanation.
///
/// # Errors
/// The pipeline, its sources or the store are wrong.
pub fn why(args: &WhyArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("`why` explains one stage").help("preflow why FILE STAGE"));
    };
    let project = project::load(&file, &global.choices())?;
    let selection = Selection::new(&project.graph, std::slice::from_ref(name), &[], &[])?;
    let plan = project.plan(&selection)?;
    let target = project.graph.find(name).expect("invariant: the selection found it");
    let steps = match &args.against {
        None => explain(&project, &plan, target),
        Some(word) => {
            let other = PipelineState::named(word, &file, &global.choices())?;
            explain_against(&project, &plan, &other, target)
        }
    };
    let mut out = std::io::stdout().lock();
    if global.json {
        let list: Vec<_> = steps
            .iter()
            .map(|s| json!({"depth": s.depth, "stage": s.stage, "why": s.text}))
            .collect();
        line(&mut out, &json!({ "stage": name, "because": list }).to_string());
        return Ok(Exit::Done);
    }
    for step in steps {
        let indent = "   ".repeat(step.depth);
        let arrow = if step.depth > 0 { "← " } else { "" };
        let stage = look.paint(Style::Strong, &step.stage);
        let before = indent.len() + arrow.chars().count() + step.stage.chars().count() + 3;
        let text = hang(&step.text, before.min(DEEPEST), look);
        line(&mut out, &format!(" {indent}{arrow}{stage}  {text}"));
    }
    Ok(Exit::Done)
}
