//! `preflow label import`: preferences of other tools become votes.
//! Knows no form; needs no pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{Exit, Global, complain, print};
use crate::label::exchange::{
    self, BadRow, Encoding, ExchangeError, Form, Names, Recorded, Wanted,
};
use crate::project::Failure;
use crate::report::{OutputStyle, Style};
use crate::text::clean;
use crate::votes::Choice;

/// Most bad rows that are named.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// JSON, JSON lines, CSV or Parquet
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Folder of the votes, as in `labeler: { people: { votes: DIR } }`
    #[arg(long, value_name = "DIR")]
    pub votes: PathBuf,
    /// Whose votes they are, where a file does not say
    #[arg(long, value_name = "NAME")]
    pub annotator: Option<String>,
    /// How the files are made up [default: by their columns]
    #[arg(long, value_name = "FORM", default_value = "auto", hide_default_value = true)]
    pub format: ImportFormat,
    /// Columns with other than the usual names, such as `prompt=text,a=left,b=right,choice=best`;
    /// also `chosen`, `rejected`, `annotator`, `reasons` (reasons, with commas between them)
    #[arg(long, value_name = "WHAT=COLUMN", value_delimiter = ',')]
    pub map: Vec<String>,
    /// What the choices mean where their words are not understood, such as `a=0,b=1,tie=2`; also
    /// `a_much`, `b_much`, `both_bad`, `skip`
    #[arg(long, value_name = "CHOICE=WORD", value_delimiter = ',')]
    pub choices: Vec<String>,
    /// Also write the pairs as a Parquet dataset
    #[arg(long, value_name = "FILE")]
    pub pairs_out: Option<PathBuf>,
    /// Leave out rows that cannot be read
    #[arg(long)]
    pub skip_bad: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    Auto,
    Jsonl,
    Csv,
    Parquet,
    Argilla,
    LabelStudio,
    /// Transcripts `chosen` and `rejected`, as in Anthropic's HH
    Hh,
    /// Battles of two conversations, as in Chatbot Arena
    Arena,
}

impl ImportFormat {
    fn form(self) -> Option<Form> {
        match self {
            Self::Auto => None,
            Self::Jsonl | Self::Csv | Self::Parquet => Some(Form::Columns),
            Self::Argilla => Some(Form::Argilla),
            Self::LabelStudio => Some(Form::LabelStudio),
            Self::Hh => Some(Form::HelpfulHarmless),
            Self::Arena => Some(Form::Arena),
        }
    }

    fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Jsonl => Some(Encoding::Json),
            Self::Csv => Some(Encoding::Csv),
            Self::Parquet => Some(Encoding::Parquet),
            _ => None,
        }
    }
}

/// Reads votes or preferences of other tools. All or nothing, unless bad rows may be left out.
///
/// # Errors
/// A file cannot be read, a row says nothing readable, or the votes cannot be written.
pub fn import(args: &ImportArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let wanted = Wanted {
        form: args.format.form(),
        encoding: args.format.encoding(),
        names: Names { choices: choices(&args.choices)?, ..names(&args.map)? },
    };
    let mut unanswered = 0;
    let mut bad = Vec::new();
    let mut opinions = Vec::new();
    for file in &args.files {
        let found = exchange::read(file, &wanted, &mut bad).map_err(failure)?;
        unanswered += found.unanswered;
        opinions.extend(found.opinions.into_iter().map(|opinion| (file.as_path(), opinion)));
    }
    name(&bad);
    if !bad.is_empty() && !args.skip_bad {
        return Err(failure(ExchangeError::BadRows(bad)));
    }
    let now = jiff::Timestamp::now().to_string();
    let recorded = exchange::record(&args.votes, &opinions, args.annotator.as_deref(), &now)
        .map_err(failure)?;
    if let Some(path) = &args.pairs_out {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        exchange::write_pairs(&path, &recorded.pairs).map_err(failure)?;
    }
    if !bad.is_empty() {
        let mark = look.paint(Style::Warning, "warning:");
        complain(&format!("{mark} {}; they were left out\n", ExchangeError::BadRows(bad)));
    }
    Ok(print(&if global.json {
        as_json(&recorded, unanswered)
    } else {
        as_text(&recorded, unanswered, args)
    }))
}

/// The first of the bad rows, a line each.
fn name(bad: &[BadRow]) {
    for row in bad.iter().take(SHOWN) {
        complain(&format!("  {}\n", clean(&row.to_string())));
    }
    if bad.len() > SHOWN {
        complain(&format!("  … and {} more\n", bad.len() - SHOWN));
    }
}

pub(super) fn failure(error: ExchangeError) -> Failure {
    match error {
        ExchangeError::Write { source, .. } => {
            Failure::from(crate::store::StoreError::from(source))
        }
        ExchangeError::Votes(crate::votes::VotesError::Io(source)) => {
            Failure::from(crate::store::StoreError::from(source))
        }
        error => Failure::usage(error.to_string()).help(error.help()),
    }
}

fn names(map: &[String]) -> Result<Names, Failure> {
    let mut names = Names::default();
    for entry in map {
        let known = "prompt, a, b, choice, chosen, rejected, annotator, reasons";
        let wrong = |what: String| {
            Failure::usage(what).help(format!("--map WHAT=COLUMN, WHAT one of {known}"))
        };
        let Some((what, column)) = entry.split_once('=') else {
            return Err(wrong(format!("`{entry}` maps nothing")));
        };
        let slot = match what.trim() {
            "prompt" => &mut names.prompt,
            "a" => &mut names.a,
            "b" => &mut names.b,
            "choice" => &mut names.choice,
            "chosen" => &mut names.chosen,
            "rejected" => &mut names.rejected,
            "annotator" => &mut names.annotator,
            "reasons" => &mut names.reasons,
            other => return Err(wrong(format!("`{other}` is nothing that a column can hold"))),
        };
        *slot = Some(column.trim().to_owned());
    }
    Ok(names)
}

/// Words that files use, and what they mean.
fn choices(map: &[String]) -> Result<BTreeMap<String, Choice>, Failure> {
    let mut choices = BTreeMap::new();
    for entry in map {
        let known = "a, b, a_much, b_much, tie, both_bad, skip";
        let wrong = |what: String| {
            Failure::usage(what).help(format!("--choices CHOICE=WORD, CHOICE one of {known}"))
        };
        let Some((name, word)) = entry.split_once('=') else {
            return Err(wrong(format!("`{entry}` names no choice")));
        };
        let choice = match name.trim() {
            "a" => Choice::A,
            "b" => Choice::B,
            "a_much" => Choice::AMuch,
            "b_much" => Choice::BMuch,
            "tie" => Choice::Tie,
            "both_bad" => Choice::BothBad,
            "skip" => Choice::Skip,
            other => return Err(wrong(format!("`{other}` is no choice"))),
        };
        if choices.insert(word.trim().to_owned(), choice).is_some() {
            return Err(wrong(format!("`{}` means two choices", word.trim())));
        }
    }
    Ok(choices)
}

fn as_json(recorded: &Recorded, unanswered: usize) -> String {
    let value = json!({
        "added": recorded.added,
        "known": recorded.known,
        "replaced": recorded.replaced,
        "pairs": recorded.pairs.len(),
        "unanswered": unanswered,
    });
    format!("{value}\n")
}

fn as_text(recorded: &Recorded, unanswered: usize, args: &ImportArgs) -> String {
    let votes: usize = recorded.added.values().sum();
    let mut out =
        format!(" {votes} new votes on {} pairs in {}", recorded.pairs.len(), args.votes.display());
    if recorded.known > 0 {
        out.push_str(&format!(", {} were there already", recorded.known));
    }
    if recorded.replaced > 0 {
        out.push_str(&format!(", {} replaced by later rows", recorded.replaced));
    }
    if unanswered > 0 {
        out.push_str(&format!(", {unanswered} records without an answer"));
    }
    out.push('\n');
    for (name, votes) in &recorded.added {
        out.push_str(&format!("   {name}: {votes}\n"));
    }
    if let Some(path) = &args.pairs_out {
        out.push_str(&format!(" pairs: {}\n", path.display()));
    }
    out
}
