//! A table in memory: named columns of equal length, and where its rows come from.
//! Knows nothing of how files are read.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};

use super::Column;
use crate::advice::error_with_help;

/// Where forms of data that people bring are described.
const GUIDE: &str = "see docs/your-data.md";

/// Named columns of equal length, in order.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<(String, Column)>,
    /// Columns of the files that could not be read, and why.
    unreadable: BTreeMap<String, String>,
    origin: Origin,
}

/// The files that the rows of a table were read from.
#[derive(Debug, Clone, Default)]
struct Origin {
    files: Vec<String>,
    /// Index of the file, and row in it counted from 1; empty when the rows come from no file.
    rows: Vec<(u32, u32)>,
}

/// Two tables are equal when their columns are, wherever they come from.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.columns == other.columns
    }
}

impl Table {
    /// A table of these columns.
    ///
    /// # Errors
    /// When two columns have the same name or different lengths.
    pub fn new(columns: Vec<(impl Into<String>, Column)>) -> Result<Self> {
        let mut table = Self::default();
        for (name, column) in columns {
            let name = name.into();
            if table.column(&name).is_some() {
                bail!("two columns are named `{name}`");
            }
            table.set(&name, column)?;
        }
        Ok(table)
    }

    /// Says that the rows come from a file; `rows` are their numbers in it, counted from 1.
    #[must_use]
    pub fn from_file(mut self, file: &str, rows: impl IntoIterator<Item = usize>) -> Self {
        let rows = rows.into_iter().map(|row| (0, u32::try_from(row).unwrap_or(u32::MAX)));
        self.origin = Origin { files: vec![file.to_owned()], rows: rows.collect() };
        self
    }

    /// Says that the file has a column whose values cannot be read.
    pub fn note_unreadable(&mut self, name: &str, reason: String) {
        self.unreadable.insert(name.to_owned(), reason);
    }

    /// Columns of the files that could not be read, and why.
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, c)| c.len())
    }

    /// Names of the columns, in order.
    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|(n, _)| n.as_str()).collect()
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[(String, Column)] {
        &self.columns
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, c)| c)
    }

    /// The column of that name, to be changed.
    pub fn column_mut(&mut self, name: &str) -> Option<&mut Column> {
        self.columns.iter_mut().find(|(n, _)| n == name).map(|(_, c)| c)
    }

    /// The column of that name.
    ///
    /// # Errors
    /// When it is not there: names those that are, or says why it could not be read.
    pub fn require(&self, name: &str) -> Result<&Column> {
        if let Some(column) = self.column(name) {
            return Ok(column);
        }
        match self.unreadable.get(name) {
            Some(reason) => bail!("column `{name}` cannot be read: {reason}"),
            None => Err(error_with_help(
                format!("no column `{name}`; the columns are {}", self.have()),
                format!(
                    "a stage of kind `prepare` gives columns other names: \
                     `columns: {{ {name}: THEIRS }}`"
                ),
            )),
        }
    }

    /// Adds a column at the end, or replaces the one of that name.
    ///
    /// # Errors
    /// When its length is not that of the table.
    pub fn set(&mut self, name: &str, column: Column) -> Result<()> {
        if !self.columns.is_empty() && column.len() != self.rows() {
            bail!("column `{name}` has {} rows, the table {}", column.len(), self.rows());
        }
        match self.columns.iter_mut().find(|(n, _)| n == name) {
            Some((_, place)) => *place = column,
            None => self.columns.push((name.to_owned(), column)),
        }
        Ok(())
    }

    /// Leaves out a column; nothing where there is none of that name.
    pub fn remove(&mut self, name: &str) {
        self.columns.retain(|(n, _)| n != name);
    }

    /// Renames columns, all at once: `names` says what each new name was before. A column that has
    /// a new name already, and none of its own, is replaced.
    ///
    /// # Errors
    /// When there is none of a name; the message names those there are.
    pub fn rename(&mut self, names: &BTreeMap<String, String>) -> Result<()> {
        names.values().try_for_each(|from| self.require(from).map(|_| ()))?;
        let mut renamed = Vec::new();
        for (name, column) in std::mem::take(&mut self.columns) {
            let news = || names.iter().filter(|(_, from)| **from == name).map(|(to, _)| to);
            if news().next().is_some() {
                renamed.extend(news().map(|to| (to.clone(), column.clone())));
            } else if !names.contains_key(&name) {
                renamed.push((name, column));
            }
        }
        self.columns = renamed;
        Ok(())
    }

    /// The rows at `indices`, in that order.
    #[must_use]
    pub fn take(&self, indices: &[usize]) -> Self {
        let take = |(n, c): &(String, Column)| (n.clone(), c.take(indices));
        let rows = match self.origin.rows.as_slice() {
            [] => Vec::new(),
            rows => indices.iter().map(|i| rows[*i]).collect(),
        };
        Self {
            columns: self.columns.iter().map(take).collect(),
            unreadable: self.unreadable.clone(),
            origin: Origin { files: self.origin.files.clone(), rows },
        }
    }

    /// Where a row stands, for messages: "row 3 of rows.jsonl".
    pub fn place(&self, row: usize) -> String {
        match self.origin.rows.get(row) {
            Some((file, number)) => {
                format!("row {number} of {}", self.origin.files[*file as usize])
            }
            None => format!("row {}", row + 1),
        }
    }

    /// The number of a row in its file, counted from 1.
    pub fn row_number(&self, row: usize) -> usize {
        self.origin.rows.get(row).map_or(row + 1, |(_, number)| *number as usize)
    }

    /// An error about one cell, by file, row and column.
    pub fn bad_cell(&self, row: usize, name: &str, what: &str) -> anyhow::Error {
        anyhow!("{}: column `{name}` {what}", self.place(row))
    }

    /// The texts of a column.
    ///
    /// # Errors
    /// When the column is not there (names those that are), or a cell is missing or holds something
    /// else: names file, row, column and form.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let column = self.require(name)?;
        let Column::Text(values) = column else {
            let text = |row| self.cell_text(column, name, row);
            let first = (0..column.len()).map(text).find_map(Result::err);
            return Err(first.unwrap_or_else(|| anyhow!("column `{name}` holds no text")));
        };
        if let Some(row) = values.iter().position(Option::is_none) {
            return Err(self.bad_cell(row, name, "is missing"));
        }
        Ok(values.iter().map(|v| v.as_deref().unwrap_or_default()).collect())
    }

    fn cell_text(&self, column: &Column, name: &str, row: usize) -> Result<()> {
        match column.text_at(row) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.bad_cell(row, name, "is missing")),
            Err(found) => {
                Err(self.bad_cell(row, name, &format!("holds {found}, not text: {GUIDE}")))
            }
        }
    }

    /// The truth values of a column; a gap counts as `absent`, a missing column as all gaps.
    ///
    /// # Errors
    /// When a cell is neither true nor false: names file, row, column and form.
    pub fn bools(&self, name: &str, absent: bool) -> Result<Vec<bool>> {
        let Some(column) = self.optional(name)? else { return Ok(vec![absent; self.rows()]) };
        let value = |row| match column.bool_at(row) {
            Ok(value) => Ok(value.unwrap_or(absent)),
            Err(found) => {
                let what = format!("holds {found}, neither true nor false (nor 1 and 0)");
                Err(self.bad_cell(row, name, &what))
            }
        };
        (0..self.rows()).map(value).collect()
    }

    /// The numbers of a column; a gap counts as `absent`, a missing column as all gaps.
    ///
    /// # Errors
    /// When a cell is no number: names file, row, column and form.
    pub fn floats(&self, name: &str, absent: f64) -> Result<Vec<f64>> {
        let Some(column) = self.optional(name)? else { return Ok(vec![absent; self.rows()]) };
        let value = |row| match column.float_at(row) {
            Ok(value) => Ok(value.unwrap_or(absent)),
            Err(found) => Err(self.bad_cell(row, name, &format!("holds {found}, not a number"))),
        };
        (0..self.rows()).map(value).collect()
    }

    /// A column that may be left out, but not be there and unreadable.
    fn optional(&self, name: &str) -> Result<Option<&Column>> {
        match self.unreadable.contains_key(name) {
            true => self.require(name).map(Some),
            false => Ok(self.column(name)),
        }
    }

    /// The rows of `below` under these. A column that only one of the two has is missing in the
    /// rows of the other; one of two types becomes one that holds both.
    ///
    /// # Errors
    /// Never, as the columns of a table are of one length.
    pub fn stack(mut self, below: Self) -> Result<Self> {
        if self.columns.is_empty() || below.columns.is_empty() {
            let mut kept = if self.columns.is_empty() { below } else { self.clone() };
            kept.unreadable.extend(self.unreadable);
            return Ok(kept);
        }
        let (above_rows, below_rows) = (self.rows(), below.rows());
        let mut rest: Vec<(String, Column)> = below.columns;
        let mut columns = Vec::new();
        for (name, mut column) in self.columns {
            match rest.iter().position(|(n, _)| *n == name) {
                Some(place) => {
                    let below = rest.remove(place).1;
                    let values = column.values() + below.values();
                    column = column.stack(below);
                    if column.values() < values {
                        let reason = "bytes, or numbers that are not finite, stand among cells of \
                                      another kind";
                        self.unreadable.insert(name.clone(), reason.into());
                    }
                }
                None => column.extend_gaps(below_rows),
            }
            columns.push((name, column));
        }
        for (name, column) in rest {
            let mut gaps = column.take(&[]);
            gaps.extend_gaps(above_rows);
            columns.push((name, gaps.stack(column)));
        }
        let mut unreadable = self.unreadable;
        unreadable.extend(below.unreadable);
        // What is read in one part alone must not look like gaps in the other.
        columns.retain(|(name, _)| !unreadable.contains_key(name));
        let mut table = Self::new(columns)?;
        table.unreadable = unreadable;
        table.origin = self.origin.stack(below.origin);
        Ok(table)
    }

    /// Names of the columns, for messages.
    pub fn have(&self) -> String {
        if self.columns.is_empty() {
            return "none".into();
        }
        self.names().iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
    }
}

impl Origin {
    fn stack(mut self, below: Self) -> Self {
        if self.rows.is_empty() || below.rows.is_empty() {
            return Self::default();
        }
        let shift = self.files.len() as u32;
        self.files.extend(below.files);
        self.rows.extend(below.rows.into_iter().map(|(file, row)| (file + shift, row)));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacked_tables_keep_all_columns_and_know_their_rows() {
        let table = |file: &str, columns: Vec<(&str, Column)>| {
            let rows = columns[0].1.len();
            Table::new(columns).expect("a table").from_file(file, 1..=rows)
        };
        let a =
            table("a", vec![("p", Column::text(["x", "y"])), ("tie", Column::bools([true; 2]))]);
        let b = table("b", vec![("p", Column::text(["z"])), ("n", Column::ints([1]))]);
        let both = a.stack(b).expect("stacked");
        assert_eq!(both.names(), ["p", "tie", "n"]);
        assert_eq!(both.bools("tie", false).expect("truth"), [true, true, false]);
        assert_eq!(both.column("n"), Some(&Column::Int(vec![None, None, Some(1)])));
        assert_eq!(both.take(&[2, 0]).place(0), "row 1 of b");
        assert_eq!(both.place(1), "row 2 of a");
    }

    #[test]
    fn names_are_changed_at_once() {
        let of = |names: &[&str]| {
            Table::new(names.iter().map(|n| (*n, Column::text([*n]))).collect()).expect("a table")
        };
        let mut table = of(&["a", "b", "c", "d"]);
        let names = [("a", "b"), ("b", "a"), ("d", "c"), ("e", "c")];
        table.rename(&names.map(|(to, from)| (to.into(), from.into())).into()).expect("renamed");
        let cells: Vec<_> = table
            .columns()
            .iter()
            .map(|(n, c)| (n.as_str(), c.display(0).expect("text")))
            .collect();
        let expected = [("b", "a"), ("a", "b"), ("d", "c"), ("e", "c")];
        assert_eq!(cells, expected.map(|(to, from)| (to, from.to_owned())));
        assert!(table.rename(&[("x".into(), "no".into())].into()).is_err());
    }

    #[test]
    fn what_one_part_cannot_say_is_no_gap_of_the_whole() {
        let of = |column| Table::new(vec![("p", Column::text(["x"])), ("n", column)]).expect("ok");
        let both = of(Column::Float(vec![Some(f64::INFINITY)])).stack(of(Column::text(["a"])));
        let both = both.expect("stacked");
        assert_eq!(both.names(), ["p"]);
        assert!(both.require("n").expect_err("refused").to_string().contains("not finite"));
        let mut unread = Table::new(vec![("p", Column::text(["x"]))]).expect("ok");
        unread.note_unreadable("n", "of a type nobody knows".into());
        let both = unread.stack(of(Column::ints([1]))).expect("stacked");
        assert!(both.column("n").is_none() && both.unreadable().contains_key("n"));
    }

    #[test]
    fn a_cell_of_another_type_is_named() {
        let mut table =
            Table::new(vec![("p", Column::Json(vec![Some("\"a\"".into()), Some("[]".into())]))])
                .expect("a table")
                .from_file("rows.jsonl", [1, 3]);
        let error = format!("{:#}", table.texts("p").expect_err("refused"));
        assert_eq!(
            error,
            "row 3 of rows.jsonl: column `p` holds a list (`[]`), not text: see docs/your-data.md"
        );
        table.set("tie", Column::text(["true", "half"])).expect("set");
        let error = format!("{:#}", table.bools("tie", false).expect_err("refused"));
        assert!(error.starts_with("row 3 of rows.jsonl: column `tie` holds the text (`half`)"));
        table.note_unreadable("x", "of a type nobody knows".into());
        assert!(table.floats("x", 1.0).is_err() && table.floats("y", 1.0).is_ok());
    }
}
