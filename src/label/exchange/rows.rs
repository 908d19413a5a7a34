//! Files as rows of named values: JSON, JSON lines, CSV, Parquet.
//! Knows nothing of what the values mean.

use std::io::{Cursor, Read as _};
use std::path::Path;

use serde_json::{Map, Value};

use super::error::ExchangeError;
use super::opinions::BadRow;
use super::quotes::QuoteWatch;
use super::sniff::{Encoding, delimiter, no_file, sniff};
use crate::columns::{each_batch, is_parquet};
use crate::files::unpacked;

/// A record and where it stands.
pub type FileRow = (usize, Map<String, Value>);

/// What a file holds.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: Vec<FileRow>,
    /// Columns that no row has, since their type cannot be read, and why.
    pub unread: Vec<(String, String)>,
}

/// Reads all rows of what a file is by its content, or must be.
///
/// # Errors
/// The file cannot be opened, or is nothing that is read.
pub fn read(
    path: &Path,
    asked: Option<Encoding>,
    bad: &mut Vec<BadRow>,
) -> Result<Rows, ExchangeError> {
    let foreign = |what: String| ExchangeError::Foreign { path: path.to_owned(), what };
    if let Some(what) = no_file(path) {
        return Err(foreign(what.to_owned()));
    }
    if is_parquet(path) {
        sniff(b"PAR1", asked).map_err(foreign)?;
        return parquet(path);
    }
    let open = |source| ExchangeError::Open { path: path.to_owned(), source };
    let packed = fs_err::read(path).map_err(open)?;
    let mut bytes = Vec::new();
    let mut unpack = |packed| unpacked(Cursor::new(packed))?.read_to_end(&mut bytes);
    unpack(packed).map_err(|e| ExchangeError::Unreadable {
        path: path.to_owned(),
        reason: format!("it cannot be unpacked: {e}"),
    })?;
    if bytes.starts_with(b"PAR1") {
        return Err(foreign("is a compressed Parquet file: unpack it first".to_owned()));
    }
    let (encoding, bytes) = sniff(&bytes, asked).map_err(foreign)?;
    let unreadable = |reason: String| ExchangeError::Unreadable { path: path.to_owned(), reason };
    let mut refuse = |row, reason| bad.push(BadRow { path: path.to_owned(), row, reason });
    let rows = match encoding {
        Encoding::Csv => csv_rows(bytes, &mut refuse).map_err(unreadable)?,
        _ => json_rows(bytes, &mut refuse).map_err(unreadable)?,
    };
    Ok(Rows { rows, unread: Vec::new() })
}

type Refuse<'a> = &'a mut dyn FnMut(usize, String);

fn json_rows(bytes: &[u8], refuse: Refuse) -> Result<Vec<FileRow>, String> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        let all: Vec<Value> =
            serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
        let all = all.into_iter().enumerate().map(|(i, value)| (i + 1, Ok(value)));
        return Ok(objects(all, refuse));
    }
    let lines = bytes.split(|b| *b == b'\n').enumerate();
    let mut lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).peekable();
    if lines.peek().is_some_and(|(_, first)| first.trim_ascii() == b"{") {
        return Err("an object over several lines: write one a line, or a list of them".to_owned());
    }
    let values = lines.map(|(i, line)| (i + 1, serde_json::from_slice(line)));
    Ok(objects(values, refuse))
}

fn objects(
    values: impl Iterator<Item = (usize, serde_json::Result<Value>)>,
    refuse: Refuse,
) -> Vec<FileRow> {
    let mut rows = Vec::new();
    for (row, value) in values {
        match value {
            Ok(Value::Object(fields)) => rows.push((row, fields)),
            Ok(_) => refuse(row, "not a JSON object".to_owned()),
            Err(e) => refuse(row, format!("not JSON: {e}")),
        }
    }
    rows
}

fn csv_rows(bytes: &[u8], refuse: Refuse) -> Result<Vec<FileRow>, String> {
    let between = delimiter(bytes).unwrap_or(b',');
    let mut reader =
        csv::ReaderBuilder::new().delimiter(between).from_reader(QuoteWatch::new(bytes, between));
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let names: Vec<&str> = header.iter().collect();
    if let Some(twice) = (1..names.len()).find(|i| names[..*i].contains(&names[*i])) {
        return Err(format!("two columns are called `{}`", names[twice]));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                let cells = header.iter().zip(&record);
                let cells = cells.map(|(name, cell)| (name.to_owned(), Value::from(cell)));
                rows.push((usize::try_from(line).unwrap_or(usize::MAX), cells.collect()));
            }
            // Not one row alone: what follows cannot be told apart.
            Err(e) if e.is_io_error() => return Err(e.to_string()),
            Err(e) => {
                let line = e.position().map_or(0, csv::Position::line);
                refuse(usize::try_from(line).unwrap_or(usize::MAX), e.to_string());
            }
        }
    }
    Ok(rows)
}

fn parquet(path: &Path) -> Result<Rows, ExchangeError> {
    let mut all = Rows::default();
    let mut broken = None;
    each_batch(path, usize::MAX, |columns| match columns.objects() {
        Ok((objects, unread)) => {
            let first = all.rows.len() + 1;
            let objects = objects.into_iter().enumerate();
            all.rows.extend(objects.map(|(i, object)| (first + i, object)));
            all.unread.extend(unread);
        }
        Err(error) => broken = Some(error.to_string()),
    })?;
    all.unread.dedup();
    match broken {
        None => Ok(all),
        Some(reason) => Err(ExchangeError::Unreadable { path: path.to_owned(), reason }),
    }
}
