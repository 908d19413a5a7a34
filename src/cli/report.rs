//! `preflow report`: the run report as one HTML file.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Exit, Global};
use crate::html;
use crate::plan::Selection;
use crate::project::report::gather;
use crate::project::{self, Failure, locate};
use crate::report::{OutputStyle, Style, line};
use crate::store::{StoreError, write_atomic};

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub words: Vec<String>,
    /// Where to write it
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Open it when it is written
    #[arg(long)]
    pub open: bool,
    /// html: the whole report, into a file; markdown: its result, printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "html")]
    pub format: ReportFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Html,
    Markdown,
}

/// Writes a page and prints its path; with `open`, also shows it. Where it cannot be shown, that
/// is said and no failure.
///
/// # Errors
/// The file cannot be written.
pub fn write_page(output: &Path, what: &str, html: &str, open: bool) -> Result<Exit, Failure> {
    let path = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
    write_atomic(&path, html.as_bytes()).map_err(|e| {
        let e = std::io::Error::new(e.kind(), format!("write `{}`: {e}", path.display()));
        Failure::Store(StoreError::Io(e))
    })?;
    let mut out = std::io::stdout().lock();
    line(&mut out, &format!(" {what}: {}", path.display()));
    if open && let Err(e) = crate::exec::open::open(&path) {
        super::complain(&format!("note: not opened: {e}\n"));
    }
    Ok(Exit::Done)
}

/// Writes the report and prints its path.
///
/// # Errors
/// The pipeline is wrong, or the file cannot be written.
pub fn report(args: &ReportArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, rest) = locate::file_and_names(&args.words)?;
    if !rest.is_empty() {
        return Err(Failure::usage("`report` takes one pipeline file"));
    }
    let project = project::load(&file, &global.choices())?;
    let all = Selection::new(&project.graph, &[], &[], &[])?;
    let plan = project.plan(&all)?;
    let (data, problems) = gather(&project, &plan, &file);
    for problem in problems {
        super::complain(&format!("{} {problem}\n", look.paint(Style::Warning, "warning:")));
    }
    if args.format == ReportFormat::Markdown {
        return Ok(super::print(&html::brief(&data)));
    }
    let html = html::render(&data);
    write_page(&args.output, "report", &html, args.open)
}
