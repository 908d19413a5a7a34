//! JSON objects as rows of a table. Values keep their spelling: a number that no column type holds
//! exactly stays as it is written.
//! Knows nothing of what the columns mean.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use preflow::conversation::OrderedFields;
use serde_json::value::RawValue;

use super::column::is_exact;
use super::form::MARK;
use super::{Column, Table};

/// Told of each bad row by its number; an error ends the reading.
pub type Fail<'a> = &'a mut dyn FnMut(usize, String) -> Result<()>;

type Row = BTreeMap<String, Box<RawValue>>;

/// The objects in the bytes of a file, one a line. Rows are numbered by their lines.
///
/// # Errors
/// When `fail` says so.
pub fn read_lines(path: &Path, bytes: &[u8], fail: Fail) -> Result<Table> {
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match object(line) {
            Ok(row) => {
                rows.push(row);
                numbers.push(i + 1);
            }
            Err(reason) => fail(i + 1, reason)?,
        }
    }
    table(path, &rows, numbers)
}

/// The objects in the bytes of a file that is one list.
///
/// # Errors
/// When it is no list, or `fail` says so.
pub fn read_list(path: &Path, bytes: &[u8], fail: Fail) -> Result<Table> {
    let list: Vec<&RawValue> =
        match serde_json::from_slice(bytes.strip_prefix(MARK).unwrap_or(bytes)) {
            Ok(list) => list,
            Err(e) => bail!("{} is no list of JSON objects: {e}", path.display()),
        };
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    for (i, value) in list.iter().enumerate() {
        match object(value.get().as_bytes()) {
            Ok(row) => {
                rows.push(row);
                numbers.push(i + 1);
            }
            Err(reason) => fail(i + 1, reason)?,
        }
    }
    table(path, &rows, numbers)
}

/// One row.
///
/// # Errors
/// What is wrong with it.
fn object(text: &[u8]) -> Result<Row, String> {
    let fields: OrderedFields = serde_json::from_slice(text).map_err(|e| wrong(text, &e))?;
    let mut row = Row::new();
    for (name, value) in fields.0 {
        if row.contains_key(&name) {
            return Err(format!("key `{name}` is there twice"));
        }
        row.insert(name, value);
    }
    Ok(row)
}

/// Why a text is no object, and what helps.
fn wrong(text: &[u8], error: &serde_json::Error) -> String {
    if error.classify() == serde_json::error::Category::Data {
        return "not a JSON object".to_owned();
    }
    if std::str::from_utf8(text).is_err() {
        return format!("not UTF-8 text: {error} (save the file as UTF-8)");
    }
    let rest = text.get(error.column().saturating_sub(1)..).unwrap_or_default();
    if ["NaN", "Infinity", "-Infinity"].iter().any(|word| rest.starts_with(word.as_bytes())) {
        return format!("not JSON: {error} (NaN and Infinity are no JSON: write null)");
    }
    format!("not JSON: {error} (write one object a line, or one list of objects)")
}

/// The value of one field of a row; `None` when it is missing or null.
///
/// # Errors
/// What is wrong with the row.
pub fn field(text: &[u8], name: &str) -> Result<Option<Column>, String> {
    let row = object(text)?;
    let value = row.get(name).map(|v| v.get()).filter(|v| *v != "null");
    Ok(value.map(|v| column(&[Some(v)])))
}

fn table(path: &Path, rows: &[Row], numbers: Vec<usize>) -> Result<Table> {
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(Row::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let file = path.display().to_string();
    let mut columns = Vec::new();
    for name in names {
        let cells: Vec<Option<&str>> =
            rows.iter().map(|r| r.get(name).map(|v| v.get()).filter(|v| *v != "null")).collect();
        columns.push((name.clone(), column(&cells)));
    }
    Ok(Table::new(columns)?.from_file(&file, numbers))
}

impl Column {
    /// The narrowest column that holds values given as JSON without loss.
    pub fn of_json(cells: &[Option<String>]) -> Self {
        column(&cells.iter().map(Option::as_deref).collect::<Vec<_>>())
    }
}

/// The narrowest column type that holds all values without loss. `cells` are JSON.
fn column(cells: &[Option<&str>]) -> Column {
    let values = || cells.iter().flatten();
    let starts = |with: &[char]| values().all(|v| v.starts_with(with));
    if starts(&['"']) {
        // Also a column without any value.
        let text = |cell: &Option<&str>| cell.map(serde_json::from_str::<String>).transpose();
        // Half of a character has no other form than its spelling.
        if let Ok(texts) = cells.iter().map(text).collect() {
            return Column::Text(texts);
        }
    }
    if starts(&['t', 'f']) {
        return Column::Bool(cells.iter().map(|c| c.map(|v| v == "true")).collect());
    }
    let whole = |v: &str| v.parse::<i64>().ok();
    if values().all(|v| whole(v).is_some()) {
        return Column::Int(cells.iter().map(|c| c.and_then(whole)).collect());
    }
    let number = |v: &str| -> Option<f64> {
        let x: f64 = serde_json::from_str(v).ok()?;
        let written_whole = v.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        (!written_whole || whole(v).is_some_and(is_exact)).then_some(x)
    };
    if values().all(|v| number(v).is_some()) {
        return Column::Float(cells.iter().map(|c| c.and_then(number)).collect());
    }
    Column::Json(cells.iter().map(|c| c.map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cells: &[&str]) -> Column {
        column(&cells.iter().map(|c| Some(*c)).collect::<Vec<_>>())
    }

    #[test]
    fn rows_that_would_be_read_wrongly_are_named() {
        let error = |text: &[u8]| {
            let mut fail = |row: usize, reason: String| bail!("row {row}: {reason}");
            let table = read_lines(Path::new("x"), text, &mut fail);
            format!("{:#}", table.expect_err("refused"))
        };
        let twice = b"{\"a\": 1}\n{\"a\": \"x\", \"b\": 1, \"a\": \"y\"}";
        assert_eq!(error(twice), "row 2: key `a` is there twice");
        assert!(error(b"[1]").ends_with("not a JSON object"));
        assert!(error(b"{\"a\": NaN}").ends_with("(NaN and Infinity are no JSON: write null)"));
        assert!(error(b"{\"a\": \"caf\xe9\"}").ends_with("(save the file as UTF-8)"));
        assert!(error(b"{\"a\": \"NaN").contains("one object a line"));
        // One cell that is no text stops nothing but who asks for it.
        let half = b"{\"a\": \"x\"}\n\n{\"a\": \"\\ud83d\"}";
        let mut fail = |_: usize, reason: String| bail!("{reason}");
        let table = read_lines(Path::new("x"), half, &mut fail).expect("read");
        let error = format!("{:#}", table.texts("a").expect_err("refused"));
        let says = r#"row 3 of x: column `a` holds a text with half a character (`"\ud83d"`)"#;
        assert!(error.starts_with(says), "{error}");
    }

    #[test]
    fn a_column_is_as_narrow_as_its_values_allow() {
        assert_eq!(of(&["\"a\"", "\"\\u00e9\""]), Column::text(["a", "é"]));
        assert_eq!(of(&["true", "false"]), Column::bools([true, false]));
        assert_eq!(of(&["-3", "9223372036854775807"]), Column::ints([-3, i64::MAX]));
        assert_eq!(of(&["1", "0.5", "1e3"]), Column::floats([1.0, 0.5, 1000.0]));
        // What no type holds keeps its spelling.
        for cells in [
            ["18446744073709551615", "1"],
            ["9007199254740993", "1.5"],
            ["123456789012345678901234567890", "2"],
            ["\"a\"", "3"],
            ["[1, 2]", "{\"b\": 1, \"a\": null}"],
            ["true", "1"],
            ["\"a\"", "\"\\ud800\""],
        ] {
            let kept = cells.map(|c| Some(c.to_owned())).to_vec();
            assert_eq!(of(&cells), Column::Json(kept), "{cells:?}");
        }
    }
}
