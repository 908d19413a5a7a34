//! Paths into columns, such as `chosen[-1].content`.
//! Knows nothing of what the rows are.

use anyhow::{Result, bail};
use serde_json_path::JsonPath;

use crate::advice::error_with_help;
use crate::data::{Column, Table};

/// The values at a path such as `chosen[-1].content`, whose first word is a column; `None` where it
/// is no path into one.
///
/// # Errors
/// A row has nothing at that path, or more than one value.
pub(super) fn at_path(table: &Table, path: &str) -> Result<Option<Column>> {
    let end = path.find(['[', '.']).unwrap_or(path.len());
    let Some(column) = table.column(&path[..end]).filter(|_| end < path.len()) else {
        return Ok(None);
    };
    let help = "for example chosen[-1].content, instances[0].output";
    let query = JsonPath::parse(&format!("${}", &path[end..])).map_err(|e| {
        error_with_help(format!("`{path}` is no path into column `{}`: {e}", &path[..end]), help)
    })?;
    let cell = |row: usize| -> Result<Option<String>> {
        let Some(json) = column.json(row) else { return Ok(None) };
        let value: serde_json::Value = serde_json::from_str(&json)?;
        let found = query.query(&value);
        match found.all().as_slice() {
            [one] => Ok(Some(one.to_string()).filter(|json| json != "null")),
            [] => bail!("{}: nothing at `{path}`", table.place(row)),
            many => bail!("{}: {} values at `{path}`, not one", table.place(row), many.len()),
        }
    };
    let cells = (0..table.rows()).map(cell).collect::<Result<Vec<_>>>()?;
    Ok(Some(Column::of_json(&cells)))
}
