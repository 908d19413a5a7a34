//! Files as rows of named values: JSON, JSON lines, CSV, Parquet.
//! Knows nothing of what the values mean.

use std::path::Path;

use serde_json::{Map, Value};

use super::{BadRow, ExchangeError};
use crate::columns::{each_batch, is_parquet};

/// A record and where it stands.
pub type Row = (usize, Map<String, Value>);

/// Reads all rows. Parquet is known by its first bytes, CSV by its ending, the rest is JSON.
///
/// # Errors
/// The file cannot be opened, or is none of these.
pub fn read(path: &Path, bad: &mut Vec<BadRow>) -> Result<Vec<Row>, ExchangeError> {
    if is_parquet(path) {
        return parquet(path);
    }
    let bytes = fs_err::read(path)
        .map_err(|source| ExchangeError::Open { path: path.to_owned(), source })?;
    let unreadable = |reason: String| ExchangeError::Unreadable { path: path.to_owned(), reason };
    let mut refuse = |row, reason| bad.push(BadRow { path: path.to_owned(), row, reason });
    let rows = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        csv_rows(&bytes, &mut refuse).map_err(unreadable)?
    } else if bytes.trim_ascii_start().starts_with(b"[") {
        let all: Vec<Value> =
            serde_json::from_slice(&bytes).map_err(|e| unreadable(format!("not JSON: {e}")))?;
        let all = all.into_iter().enumerate().map(|(i, value)| (i + 1, Ok(value)));
        objects(all, &mut refuse)
    } else {
        let lines = bytes.split(|b| *b == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
        let values = lines.map(|(i, line)| (i + 1, serde_json::from_slice(line)));
        objects(values, &mut refuse)
    };
    Ok(rows)
}

type Refuse<'a> = &'a mut dyn FnMut(usize, String);

fn objects(
    values: impl Iterator<Item = (usize, serde_json::Result<Value>)>,
    refuse: Refuse,
) -> Vec<Row> {
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

fn csv_rows(bytes: &[u8], refuse: Refuse) -> Result<Vec<Row>, String> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                let cells = header.iter().zip(&record);
                let cells = cells.map(|(name, cell)| (name.to_owned(), Value::from(cell)));
                rows.push((usize::try_from(line).unwrap_or(usize::MAX), cells.collect()));
            }
            Err(e) => {
                let line = e.position().map_or(0, csv::Position::line);
                refuse(usize::try_from(line).unwrap_or(usize::MAX), e.to_string());
            }
        }
    }
    Ok(rows)
}

fn parquet(path: &Path) -> Result<Vec<Row>, ExchangeError> {
    let mut rows = Vec::new();
    let mut broken = None;
    each_batch(path, usize::MAX, |columns| match columns.objects() {
        Ok(objects) => {
            let first = rows.len() + 1;
            rows.extend(objects.into_iter().enumerate().map(|(i, object)| (first + i, object)));
        }
        Err(error) => broken = Some(error.to_string()),
    })?;
    match broken {
        None => Ok(rows),
        Some(reason) => Err(ExchangeError::Unreadable { path: path.to_owned(), reason }),
    }
}
