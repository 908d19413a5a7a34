//! Reads JSONL, CSV, Parquet and plain text into tables, and names the rows it cannot read.
//! Knows nothing of what the columns mean.

use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_cast::cast;
use arrow_schema::DataType;
use serde_json::{Map, Value};

use super::{Batches, Column, Table};

/// What to do with a row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRows {
    Fail,
    Skip,
}

/// A row that was left out. `row` counts from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct BadRow {
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

/// Reads one file of a stage's input; a bad row is an error.
///
/// # Errors
/// When a file cannot be read, a row is broken, or there is no row at all.
pub fn read_tables(paths: &[String]) -> Result<Table> {
    let mut bad = Vec::new();
    let mut all: Option<Table> = None;
    for path in paths {
        let table = read_table(Path::new(path), TextUnit::Lines, BadRows::Fail, &mut bad)?;
        all = Some(match all {
            None => table,
            Some(before) => before.stack(&table)?,
        });
    }
    let table = all.ok_or_else(|| anyhow!("no file is connected"))?;
    if table.rows() == 0 {
        bail!("the dataset is empty: {}", paths.join(", "));
    }
    Ok(table)
}

/// Reads one file. Parquet is known by its first bytes, the rest by the file ending; without one,
/// what begins with `{` is JSON lines.
///
/// # Errors
/// When the file cannot be read, or a row is broken and `bad_rows` is [`BadRows::Fail`].
pub fn read_table(
    path: &Path,
    unit: TextUnit,
    bad_rows: BadRows,
    bad: &mut Vec<BadRow>,
) -> Result<Table> {
    let mut magic = [0; 4];
    let read = fs_err::File::open(path)?.read(&mut magic)?;
    let is_parquet = read == 4 && &magic == b"PAR1";
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let mut fail = |row: usize, reason: String| {
        if bad_rows == BadRows::Fail {
            bail!("row {row} of {}: {reason}", path.display());
        }
        bad.push(BadRow { row, reason });
        Ok(())
    };
    if is_parquet {
        return read_parquet(path).with_context(|| format!("cannot read {}", path.display()));
    }
    // What another stage made has no ending.
    let is_json = magic.trim_ascii_start().starts_with(b"{");
    match ending {
        "" if is_json => read_jsonl(path, &mut fail),
        "jsonl" | "ndjson" | "json" => read_jsonl(path, &mut fail),
        "csv" => read_csv(path, &mut fail),
        "parquet" => bail!("{} is not a Parquet file: it does not start with PAR1", path.display()),
        _ => {
            let text = String::from_utf8(fs_err::read(path)?)
                .with_context(|| format!("{} is not UTF-8 text", path.display()))?;
            Table::new(vec![("text", Column::text(split_text(&text, unit)))])
        }
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

type Fail<'a> = &'a mut dyn FnMut(usize, String) -> Result<()>;

fn read_jsonl(path: &Path, fail: Fail) -> Result<Table> {
    let bytes = fs_err::read(path)?;
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(row)) => rows.push(row),
            Ok(_) => fail(i + 1, "not a JSON object".into())?,
            Err(e) => fail(i + 1, format!("not JSON: {e}"))?,
        }
    }
    let mut names: Vec<String> = Vec::new();
    for name in rows.iter().flat_map(Map::keys) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let column = |name: String| {
        let values: Vec<Option<&Value>> =
            rows.iter().map(|r| r.get(&name).filter(|v| !v.is_null())).collect();
        let column = json_column(&values);
        (name, column)
    };
    Table::new(names.into_iter().map(column).collect())
}

/// The narrowest column type that holds all values; mixed and nested values become text.
fn json_column(values: &[Option<&Value>]) -> Column {
    let all = |test: fn(&Value) -> bool| values.iter().flatten().all(|v| test(v));
    if all(Value::is_boolean) && values.iter().any(Option::is_some) {
        Column::Bool(values.iter().map(|v| v.and_then(Value::as_bool)).collect())
    } else if all(Value::is_i64) && values.iter().any(Option::is_some) {
        Column::Int(values.iter().map(|v| v.and_then(Value::as_i64)).collect())
    } else if all(Value::is_number) && values.iter().any(Option::is_some) {
        Column::Float(values.iter().map(|v| v.and_then(Value::as_f64)).collect())
    } else {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        Column::Text(values.iter().map(|v| v.map(text)).collect())
    }
}

fn read_csv(path: &Path, fail: Fail) -> Result<Table> {
    let bytes = fs_err::read(path)?;
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes.as_slice());
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); names.len()];
    for (i, record) in reader.records().enumerate() {
        match record {
            Ok(record) => {
                for (column, value) in columns.iter_mut().zip(record.iter()) {
                    column.push(Some(value.to_owned()));
                }
            }
            Err(e) => fail(i + 1, e.to_string())?,
        }
    }
    Table::new(names.into_iter().zip(columns.into_iter().map(Column::Text)).collect())
}

fn read_parquet(path: &Path) -> Result<Table> {
    let batches = Batches::open(path, &[])?;
    let schema = batches.schema.clone();
    let mut columns: Vec<Column> =
        schema.fields().iter().map(|f| empty_column(f.data_type())).collect();
    for batch in batches {
        let batch = batch?;
        for ((column, array), field) in columns.iter_mut().zip(batch.columns()).zip(schema.fields())
        {
            append(column, array).with_context(|| format!("column `{}`", field.name()))?;
        }
    }
    let names = schema.fields().iter().map(|f| f.name().clone());
    Table::new(names.zip(columns).collect())
}

fn empty_column(kind: &DataType) -> Column {
    match kind {
        k if k.is_integer() => Column::Int(Vec::new()),
        k if k.is_floating() => Column::Float(Vec::new()),
        DataType::Boolean => Column::Bool(Vec::new()),
        _ => Column::Text(Vec::new()),
    }
}

fn append(column: &mut Column, array: &dyn Array) -> Result<()> {
    match column {
        Column::Text(out) if array.data_type().is_nested() => super::nested::append(out, array)?,
        Column::Text(out) => {
            let array = cast(array, &DataType::Utf8)?;
            out.extend(array.as_string::<i32>().iter().map(|v| v.map(str::to_owned)));
        }
        Column::Float(out) => {
            let array = cast(array, &DataType::Float64)?;
            out.extend(array.as_primitive::<Float64Type>().iter());
        }
        Column::Int(out) => {
            let array = cast(array, &DataType::Int64)?;
            out.extend(array.as_primitive::<Int64Type>().iter());
        }
        Column::Bool(out) => out.extend(array.as_boolean().iter()),
    }
    Ok(())
}
