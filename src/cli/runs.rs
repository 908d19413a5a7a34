//! `preflow runs`: what was run here, when, and how it ended.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::format::FormatArgs;
use super::{Exit, Global, print};
use crate::project::history::{Run, RunState, read};
use crate::project::{Failure, locate};
use crate::report::OutputStyle;
use crate::report::table::{GLUE, Table};
use crate::run::journal;
use crate::text;

#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Only runs of this pipeline or sweep: its name, or its file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<String>,
    /// Only runs in this state
    #[arg(long, value_enum, value_name = "STATE")]
    pub state: Option<RunState>,
    /// Only runs that ran this stage
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Only runs from this day on, as in 2026-01-31
    #[arg(long, value_name = "DAY")]
    pub since: Option<String>,
    /// Number of runs to show; 0: all
    #[arg(short, long, value_name = "N", default_value_t = 20)]
    pub n: usize,
    #[command(flatten)]
    pub format: FormatArgs,
}

impl ValueEnum for RunState {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Done, Self::Failed, Self::Waiting, Self::Interrupted, Self::Open]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let value = PossibleValue::new(self.word());
        Some(match self {
            Self::Open => value.help("Running, or killed"),
            _ => value,
        })
    }
}

/// Columns of a terminal from which on all is shown.
const WIDE: usize = 100;

/// Prints a table of runs, newest first.
///
/// # Errors
/// The store cannot be opened; `--since` is no day.
pub fn runs(args: &RunsArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    if let Some(day) = args.since.as_deref().filter(|d| d.parse::<jiff::civil::Date>().is_err()) {
        return Err(Failure::usage(format!("--since {day}: not a day"))
            .help("as in 2026-01-31, in the time of the journal, UTC"));
    }
    let here = std::path::absolute(".").unwrap_or_default();
    let store = locate::open_store(&global.choices(), &locate::workspace_root(&here))?;
    let wanted = |run: &Run| {
        let stem = |path: &str| {
            std::path::Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned())
        };
        let pipeline = args.pipeline.as_ref();
        pipeline.is_none_or(|p| run.name == *p || stem(&run.pipeline) == stem(p))
            && args.state.is_none_or(|state| run.state == state)
            && args.since.as_ref().is_none_or(|day| run.at.as_str() >= day.as_str())
            && args.stage.as_ref().is_none_or(|s| store.run_path(&run.id).join(s).is_dir())
    };
    let most = if args.n == 0 { usize::MAX } else { args.n };
    let all = journal::runs(&store).into_iter().filter_map(|id| read(&store, &id));
    let shown: Vec<Run> = all.filter(wanted).take(most).collect();
    if global.json {
        return Ok(print(&shown.iter().map(as_json).collect::<String>()));
    }
    if shown.is_empty() {
        return Ok(print(&format!(" no such run in {}\n", store.root().display())));
    }
    Ok(print(&table(&shown, args.format.style(look))))
}

fn table(runs: &[Run], look: OutputStyle) -> String {
    // On a narrow terminal the name of a run says when it began.
    let narrow = look.width.is_some_and(|width| width < WIDE);
    let mut table = Table::new(if narrow { &[3, 4] } else { &[4, 5] });
    let mut row = |cells: [String; 6]| {
        let cells = cells.into_iter().enumerate().filter(|(i, _)| !(narrow && *i == 1));
        table.row(cells.map(|(_, cell)| cell));
    };
    row(["run", "begun", "pipeline", "state", "stages", "asked for"].map(str::to_owned));
    for run in runs {
        let set = run.command.iter().skip_while(|w| *w != "run").skip(1);
        let set: Vec<&str> = set.map(String::as_str).filter(|w| !w.ends_with("yaml")).collect();
        row([
            run.id.clone(),
            run.at.get(..16).unwrap_or("").replace('T', " "),
            run.name.clone(),
            run.state.word().to_owned(),
            counts(run),
            crate::text::clean(&set.join(" ")),
        ]);
    }
    table.text(look)
}

/// How many stages came to which end, and how long it took; folded between these only.
fn counts(run: &Run) -> String {
    let totals = crate::report::totals(&run.totals);
    let counts = totals.split(" · ").map(|count| count.replace(' ', &GLUE.to_string()));
    let counts = counts.collect::<Vec<_>>().join(&format!("{GLUE}· "));
    format!("{counts} {}", run.seconds.map(text::seconds).unwrap_or_default())
}

fn as_json(run: &Run) -> String {
    let line = json!({
        "run": run.id, "at": run.at, "pipeline": run.pipeline, "name": run.name,
        "state": run.state.word(), "exit": run.exit, "seconds": run.seconds,
        "totals": run.totals, "command": run.command,
    });
    format!("{line}\n")
}
