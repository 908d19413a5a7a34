//! Reads files of every form into tables, and names the rows it cannot read.
//! Knows nothing of what the columns mean.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use preflow::label::exchange::QuoteWatch;

use super::arrow_file::{arrow_head, read_arrow};
use super::form::{Form, MARK, Wanted, files_of, open, read_all};
use super::json::{Fail, read_lines, read_list};
use super::parquet_file::{parquet_head, read_parquet};
use super::{Column, Table};

/// What to do with a row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRows {
    Fail,
    Skip,
}

/// A row that was left out. `row` counts from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct BadRow {
    pub file: String,
    pub row: usize,
    pub reason: String,
}

/// How plain text is cut into rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextUnit {
    /// Every line that is not blank.
    Lines,
    /// Blocks between blank lines.
    Paragraphs,
    /// The file is one row.
    Whole,
    /// Pieces of so many characters.
    Chars(usize),
}

impl FromStr for TextUnit {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "lines" => Self::Lines,
            "paragraphs" => Self::Paragraphs,
            "whole" => Self::Whole,
            _ => {
                let n = s.strip_prefix("chars:").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                Self::Chars(n.ok_or_else(|| {
                    anyhow!("`{s}` is not one of lines, paragraphs, whole, chars:N")
                })?)
            }
        })
    }
}

/// Reads the files of a stage's input, folders of parts included; a bad row is an error.
///
/// # Errors
/// When a file cannot be read, a row is broken, or there is no row at all.
pub fn read_tables(paths: &[String], wanted: &Wanted) -> Result<Table> {
    let mut all = Table::default();
    for path in files_of(paths)? {
        let table = read_table(&path, wanted, TextUnit::Lines, BadRows::Fail, &mut Vec::new())?;
        all = all.stack(table)?;
    }
    if all.rows() == 0 {
        bail!("the dataset is empty: {}", paths.join(", "));
    }
    Ok(all)
}

/// Reads one file, whose form is found from its content.
///
/// # Errors
/// When the file cannot be read, or a row is broken and `bad_rows` is [`BadRows::Fail`].
pub fn read_table(
    path: &Path,
    wanted: &Wanted,
    unit: TextUnit,
    bad_rows: BadRows,
    bad: &mut Vec<BadRow>,
) -> Result<Table> {
    let mut fail = |row: usize, reason: String| {
        if bad_rows == BadRows::Fail {
            bail!("row {row} of {}: {reason}", path.display());
        }
        bad.push(BadRow { file: path.display().to_string(), row, reason });
        Ok(())
    };
    match Form::of(path, wanted)? {
        Form::Parquet => {
            read_parquet(path).with_context(|| format!("cannot read {}", path.display()))
        }
        Form::Arrow => read_arrow(path).with_context(|| format!("cannot read {}", path.display())),
        Form::JsonLines => read_lines(path, &read_all(path)?, &mut fail),
        Form::JsonList => read_list(path, &read_all(path)?, &mut fail),
        Form::Delimited(delimiter) => read_delimited(path, delimiter, usize::MAX, &mut fail),
        Form::Text => {
            let bytes = read_all(path)?;
            let bytes = bytes.strip_prefix(MARK).unwrap_or(&bytes);
            let text = std::str::from_utf8(bytes)
                .with_context(|| format!("{} is not UTF-8 text", path.display()))?;
            Table::new(vec![("text", Column::text(split_text(text, unit)))])
        }
    }
}

/// Rows that a look at a file takes in, and the most bytes.
const HEAD_ROWS: usize = 100;
const HEAD_BYTES: u64 = 4 << 20;

/// The first rows of a file, or of the first file of a folder; an empty table where that would
/// mean reading much.
///
/// # Errors
/// As [`read_table`] for those rows.
pub fn read_head(path: &Path, wanted: &Wanted) -> Result<Table> {
    let files = files_of(&[path.to_string_lossy().into_owned()])?;
    let path = &files[0];
    let mut fail = |row: usize, reason: String| bail!("row {row} of {}: {reason}", path.display());
    match Form::of(path, wanted)? {
        Form::Parquet => {
            parquet_head(path, HEAD_ROWS).with_context(|| format!("cannot read {}", path.display()))
        }
        Form::Arrow => {
            arrow_head(path, HEAD_ROWS).with_context(|| format!("cannot read {}", path.display()))
        }
        Form::JsonLines => {
            let mut reader = BufReader::new(open(path)?).take(HEAD_BYTES);
            let mut bytes = Vec::new();
            for _ in 0..HEAD_ROWS {
                let before = bytes.len();
                let read = reader.read_until(b'\n', &mut bytes)?;
                if read > 0 && reader.limit() == 0 && bytes.last() != Some(&b'\n') {
                    bytes.truncate(before);
                    break;
                }
            }
            read_lines(path, &bytes, &mut fail)
        }
        Form::JsonList if fs_err::metadata(path)?.len() > HEAD_BYTES => Ok(Table::default()),
        Form::JsonList => read_list(path, &read_all(path)?, &mut fail),
        Form::Delimited(delimiter) => read_delimited(path, delimiter, HEAD_ROWS, &mut fail),
        // Any line will do.
        Form::Text => Table::new(vec![("text", Column::text(["text"]))]),
    }
}

/// Cuts text into rows; blank rows are left out.
pub fn split_text(text: &str, unit: TextUnit) -> Vec<String> {
    let rows: Vec<String> = match unit {
        TextUnit::Lines => text.lines().map(str::to_owned).collect(),
        TextUnit::Whole => vec![text.to_owned()],
        TextUnit::Paragraphs => {
            let mut rows = vec![String::new()];
            for line in text.lines() {
                let last = rows.last_mut().expect("invariant: rows starts with one row");
                if line.trim().is_empty() {
                    rows.push(String::new());
                } else {
                    last.push_str(if last.is_empty() { "" } else { "\n" });
                    last.push_str(line);
                }
            }
            rows
        }
        TextUnit::Chars(n) => {
            let chars: Vec<char> = text.chars().collect();
            chars.chunks(n).map(|c| c.iter().collect()).collect()
        }
    };
    rows.into_iter().filter(|r| !r.trim().is_empty()).collect()
}

/// A table as text while it is read.
pub type Delimited = csv::Reader<QuoteWatch<Box<dyn Read>>>;

/// A reader of a table as text, which passes over a mark at the beginning, and the names of its
/// columns.
///
/// # Errors
/// The first row cannot be read.
pub fn open_delimited(path: &Path, delimiter: u8) -> Result<(Delimited, Vec<String>)> {
    let file = QuoteWatch::new(open(path)?, delimiter);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    match reader.headers() {
        Ok(names) => {
            let names = names.iter().map(str::to_owned).collect();
            Ok((reader, names))
        }
        Err(e) if e.is_io_error() => Err(anyhow!("{}: {e}", path.display())),
        Err(e) => Err(anyhow!("the first row of {}: {e}", path.display())),
    }
}

/// The first `most` rows of a table as text.
fn read_delimited(path: &Path, delimiter: u8, most: usize, fail: Fail) -> Result<Table> {
    let (mut reader, names) = open_delimited(path, delimiter)?;
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); names.len()];
    let mut numbers = Vec::new();
    for (i, record) in reader.records().take(most).enumerate() {
        match record {
            Ok(record) => {
                numbers.push(i + 1);
                for (column, value) in columns.iter_mut().zip(record.iter()) {
                    column.push(Some(value.to_owned()));
                }
            }
            // Not one row alone: what follows cannot be told apart.
            Err(e) if e.is_io_error() => bail!("{}: {e}", path.display()),
            Err(e) => fail(i + 1, e.to_string())?,
        }
    }
    let table = Table::new(names.into_iter().zip(columns.into_iter().map(Column::Text)).collect());
    let table = table.with_context(|| format!("the first row of {}", path.display()));
    Ok(table?.from_file(&path.display().to_string(), numbers))
}
