//! `preflow ci BASE`: what a pull request does to its pipelines, as one text, and as one comment
//! that is kept up to date.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::diff::print::Sections;
use super::format::FormatArgs;
use super::{Exit, Global, complain, print};
use crate::files;
use crate::git_host::{HostError, Kept, LONGEST, PullRequest};
use crate::project::execution::runtime;
use crate::project::review::{
    LockState, Review, ReviewRow, ReviewState, ReviewVerdict, commit_of, review,
};
use crate::project::{Failure, locate};
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style};
use crate::text::{self, markdown};

/// How our comment begins; nobody sees it.
const MARKER: &str = "<!-- preflow ci -->";

#[derive(Debug, Args)]
pub struct CiArgs {
    /// The commit to compare with, as in `origin/main`
    #[arg(value_name = "BASE")]
    pub base: String,
    /// Pipeline files [default: all here and in `pipelines/`]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write it as a comment on the pull request of this job (GitHub, GitLab), or update that
    #[arg(long)]
    pub comment: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// A pipeline file, and what was found; or why it cannot be reviewed.
type Reviewed = (PathBuf, Result<Review, Failure>);

/// Prints what the pipelines here are, seen from `BASE`. Exit 0: all is made, or no lock file asks
/// that it is; 2: a file is wrong; 3: people or a gate; 5: the lock file is behind.
///
/// # Errors
/// There is no such commit, or no pipeline.
pub fn ci(args: &CiArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let files = match args.files.as_slice() {
        [] => locate::all_pipelines()?,
        named => named.to_vec(),
    };
    commit_of(&files[0], &args.base)?;
    let choices = global.choices();
    let all: Vec<Reviewed> =
        files.into_iter().map(|file| (file.clone(), review(&file, &args.base, &choices))).collect();
    let exit = all.iter().map(exit_of).max_by_key(|exit| rank(*exit)).unwrap_or(Exit::Done);
    if global.json {
        let list: Vec<Value> = all.iter().map(as_json).collect();
        print(&format!("{}\n", json!({ "base": args.base, "pipelines": list })));
    } else {
        print(&words(&args.base, &all, args.format.style(look), true));
    }
    if !args.comment {
        return Ok(exit);
    }
    let comment = comment(&args.base, &all, look);
    write_summary(&comment);
    match keep(&comment) {
        Ok(Kept::New) => complain("note: commented on the pull request\n"),
        Ok(Kept::Updated) => complain("note: updated the comment on the pull request\n"),
        Err(error) if error.is_expected() => {
            complain(&format!("note: no comment: {error}\n  = help: {}\n", error.help()));
        }
        Err(error @ HostError::NoPullRequest(_)) => {
            return Err(Failure::usage(error.to_string()).help(error.help()));
        }
        Err(error) => {
            complain(&format!("error: no comment: {error}\n  = help: {}\n", error.help()));
            return Ok(if exit == Exit::Done { Exit::Store } else { exit });
        }
    }
    Ok(exit)
}

fn keep(comment: &str) -> Result<Kept, HostError> {
    let request = PullRequest::of_job(|name| std::env::var(name).ok())?;
    let away = |reason: String| HostError::Away { host: "this machine".into(), reason };
    let runtime = runtime().map_err(|failure| away(failure.to_string()))?;
    runtime.block_on(request.keep(MARKER, comment))
}

/// Adds the text to the page of a job on GitHub: forks see it there. Not a failure where it cannot
/// be written.
fn write_summary(comment: &str) {
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return;
    };
    let file = files::append_own(Path::new(&path));
    if let Err(error) = file.and_then(|mut file| file.write_all(comment.as_bytes())) {
        complain(&format!("note: no summary of the job: {error}\n"));
    }
}

/// The text as a host takes it: where it would be too long, without what is folded.
fn comment(base: &str, all: &[Reviewed], look: OutputStyle) -> String {
    let look = OutputStyle { markdown: true, colour: false, width: None, ..look };
    let of = |details| format!("{MARKER}\n{}", words(base, all, look, details));
    let whole = of(true);
    if whole.len() <= LONGEST {
        return whole;
    }
    let short = of(false);
    if short.len() <= LONGEST {
        return short;
    }
    let mut length = 0;
    let fits = |line: &&str| {
        length += line.len();
        length < LONGEST
    };
    let cut: String = short.split_inclusive('\n').take_while(fits).collect();
    cut + "\nThe rest is too long for a comment; it is in the log of the job.\n"
}

/// The worse of two ends counts.
fn rank(exit: Exit) -> u8 {
    match exit {
        Exit::Done => 0,
        Exit::WouldRun => 1,
        Exit::Waiting => 2,
        Exit::Usage => 3,
        _ => 4,
    }
}

fn exit_of((_, review): &Reviewed) -> Exit {
    match review {
        Err(failure) => Exit::from(failure),
        Ok(review) => match review.verdict() {
            ReviewVerdict::Waiting => Exit::Waiting,
            ReviewVerdict::NotMade => Exit::WouldRun,
            ReviewVerdict::Reruns | ReviewVerdict::Good => Exit::Done,
        },
    }
}

/// All pipelines, one after the other; `details`: also what is folded.
fn words(base: &str, all: &[Reviewed], look: OutputStyle, details: bool) -> String {
    let mut out = String::new();
    for (file, review) in all {
        let name = file.display().to_string();
        match look.markdown {
            true => out.push_str(&format!("### {}\n\n", markdown::escaped(&name))),
            false => {
                out.push_str(&format!(" {}\n", look.paint(Style::Strong, &text::clean(&name))))
            }
        }
        match review {
            Ok(review) => out.push_str(&of_review(base, review, look, details)),
            Err(failure) => out.push_str(&of_failure(failure, look)),
        }
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

fn of_failure(failure: &Failure, look: OutputStyle) -> String {
    if !look.markdown {
        return format!(" ✗ not right\n{}", failure.text(look));
    }
    let text = failure.text(OutputStyle::default());
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("❌ **This file is not right.**\n\n<pre>{}</pre>\n", text.trim_end())
}

fn of_review(base: &str, review: &Review, look: OutputStyle, details: bool) -> String {
    let (mark, sentence) = verdict(review);
    let mut out = match look.markdown {
        true => format!("{mark} **{}**\n", markdown::escaped(&sentence)),
        false => format!(" {mark} {sentence}\n"),
    };
    let mut say = |said: String| out.push_str(&paragraph(&said, look));
    if let LockState::Differs(problems) = &review.lock {
        say(format!("The lock file does not match: {}.", problems.join("; ")));
    }
    for (stage, missed) in &review.gates {
        say(format!("The gate of {stage} is not met: {missed}."));
    }
    if !review.unseen.is_empty() {
        let names = review.unseen.join(", ");
        say(format!(
            "Gates not checked, their figures are not at hand: {names}. `preflow pull` brings them."
        ));
    }
    let (same, changed): (Vec<&ReviewRow>, Vec<_>) =
        review.rows.iter().partition(|row| row.state == ReviewState::AsBefore);
    if !changed.is_empty() {
        out.push('\n');
        out.push_str(&table(&changed).text(look));
    }
    if !same.is_empty() {
        let names: Vec<&str> = same.iter().map(|row| row.stage.as_str()).collect();
        out.push_str(&paragraph(&format!("As before: {}", names.join(", ")), look));
    }
    match &review.difference {
        Ok(all) => {
            let sections = Sections::of(all, look);
            let (main, folded) = sections.split(&["params", "votes", "figures", "stages"]);
            out.push_str(&main.text(look));
            if details && !folded.is_empty() {
                let text = folded.text(look);
                out.push_str(&match look.markdown {
                    true => {
                        format!("\n{}", markdown::folded("Data, code, environment, answers", &text))
                    }
                    false => text,
                });
            }
        }
        Err(why) => {
            out.push_str(&paragraph(&format!("Not compared with {base}: {why}."), look));
        }
    }
    out
}

fn paragraph(said: &str, look: OutputStyle) -> String {
    match look.markdown {
        true => format!("\n{}\n", markdown::escaped(said)),
        false => format!("   {}\n", text::clean(said)),
    }
}

fn verdict(review: &Review) -> (&'static str, String) {
    let count = |state| review.rows.iter().filter(|row| row.state == state).count();
    let (runs, made) = (count(ReviewState::Run), count(ReviewState::Made));
    let price = || {
        let rows = review.rows.iter().filter(|row| row.state == ReviewState::Run);
        let unknown = rows.clone().any(|row| row.seconds.is_none());
        text::price(rows.filter_map(|row| row.seconds).sum(), unknown)
    };
    let changed = |n: usize| match n {
        1 => "1 stage changed".to_owned(),
        n => format!("{n} stages changed"),
    };
    match review.verdict() {
        ReviewVerdict::Waiting if review.gates.is_empty() => {
            ("⏸", "Waits for people or a gate.".to_owned())
        }
        ReviewVerdict::Waiting => ("⛔", "A gate is not met.".to_owned()),
        ReviewVerdict::NotMade => {
            ("⚠", format!("Not made yet: {} to run, {}.", text::counted(runs, "stage"), price()))
        }
        ReviewVerdict::Reruns => {
            ("ℹ", format!("{} to run, {}.", text::counted(runs, "stage"), price()))
        }
        ReviewVerdict::Good if made == 0 => ("✓", "Nothing changed.".to_owned()),
        ReviewVerdict::Good => ("✓", format!("{}, and all are made.", changed(made))),
    }
}

fn word(state: ReviewState) -> &'static str {
    match state {
        ReviewState::AsBefore => "as before",
        ReviewState::Made => "made",
        ReviewState::Run => "to run",
        ReviewState::People => "people",
        ReviewState::Gate => "gate",
    }
}

fn table(rows: &[&ReviewRow]) -> Table {
    let mut table = Table::new(&[2]);
    table.right(3);
    table.row(["stage", "", "why", "est"].map(|head| Cell::styled(Style::Dim, head)));
    for row in rows {
        let style = match row.state {
            ReviewState::AsBefore => Style::Dim,
            ReviewState::Made => Style::Good,
            ReviewState::Run => Style::Busy,
            ReviewState::People | ReviewState::Gate => Style::Warning,
        };
        let est = match (row.state, row.seconds) {
            (ReviewState::Run, Some(seconds)) => text::seconds(seconds),
            (ReviewState::Run, None) => "?".to_owned(),
            _ => String::new(),
        };
        table.row([
            Cell::from(row.stage.as_str()),
            Cell::styled(style, word(row.state)),
            Cell::from(row.why.as_str()),
            Cell::from(est),
        ]);
    }
    table
}

fn as_json((file, review): &Reviewed) -> Value {
    let review = match review {
        Ok(review) => review,
        Err(failure) => return json!({ "file": file, "error": failure.to_string() }),
    };
    let row = |row: &ReviewRow| {
        json!({ "stage": row.stage, "state": word(row.state), "why": row.why,
                "seconds": row.seconds })
    };
    let rows: Vec<Value> = review.rows.iter().map(row).collect();
    let lock = match &review.lock {
        LockState::Absent => json!({ "state": "absent" }),
        LockState::Matches => json!({ "state": "matches" }),
        LockState::Differs(problems) => json!({ "state": "differs", "problems": problems }),
    };
    let gates: Vec<Value> = review
        .gates
        .iter()
        .map(|(stage, missed)| json!({ "stage": stage, "missed": missed }))
        .collect();
    let (_, verdict) = verdict(review);
    let mut value = json!({
        "file": file, "verdict": verdict, "lock": lock, "gates": gates,
        "gates_not_checked": review.unseen, "stages": rows,
    });
    match &review.difference {
        Ok(difference) => value["difference"] = json!(difference),
        Err(why) => value["not_compared"] = json!(why),
    }
    value
}
