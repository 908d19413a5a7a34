//! A table in memory: named columns of one type each.
//! Knows nothing of files.

use anyhow::{Result, anyhow, bail};

/// The values of one column; `None` is a missing value.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    Text(Vec<Option<String>>),
    Float(Vec<Option<f64>>),
    Int(Vec<Option<i64>>),
    Bool(Vec<Option<bool>>),
}

impl Column {
    /// A column of text without gaps.
    pub fn text(values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Text(values.into_iter().map(|v| Some(v.into())).collect())
    }

    /// A column of numbers; one that is not finite becomes a gap.
    pub fn floats(values: impl IntoIterator<Item = f64>) -> Self {
        Self::Float(values.into_iter().map(|v| v.is_finite().then_some(v)).collect())
    }

    /// A column of whole numbers without gaps.
    pub fn ints(values: impl IntoIterator<Item = i64>) -> Self {
        Self::Int(values.into_iter().map(Some).collect())
    }

    /// A column of truth values without gaps.
    pub fn bools(values: impl IntoIterator<Item = bool>) -> Self {
        Self::Bool(values.into_iter().map(Some).collect())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows at `indices`, in that order.
    #[must_use]
    pub fn take(&self, indices: &[usize]) -> Self {
        fn pick<T: Clone>(values: &[Option<T>], indices: &[usize]) -> Vec<Option<T>> {
            indices.iter().map(|i| values[*i].clone()).collect()
        }
        match self {
            Self::Text(v) => Self::Text(pick(v, indices)),
            Self::Float(v) => Self::Float(pick(v, indices)),
            Self::Int(v) => Self::Int(pick(v, indices)),
            Self::Bool(v) => Self::Bool(pick(v, indices)),
        }
    }

    /// One value as text; `None` when it is missing.
    pub fn display(&self, row: usize) -> Option<String> {
        match self {
            Self::Text(v) => v[row].clone(),
            Self::Float(v) => v[row].map(|x| x.to_string()),
            Self::Int(v) => v[row].map(|x| x.to_string()),
            Self::Bool(v) => v[row].map(|x| x.to_string()),
        }
    }
}

/// Named columns of equal length, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    columns: Vec<(String, Column)>,
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

    /// Renames a column.
    ///
    /// # Errors
    /// When there is none of that name; the message names those there are.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        if from == to {
            return Ok(());
        }
        self.columns.retain(|(n, _)| n != to || n == from);
        let have = self.have();
        let place = self.columns.iter_mut().find(|(n, _)| n == from);
        place.ok_or_else(|| anyhow!("no column `{from}`; the columns are {have}"))?.0 = to.into();
        Ok(())
    }

    /// The rows at `indices`, in that order.
    #[must_use]
    pub fn take(&self, indices: &[usize]) -> Self {
        let take = |(n, c): &(String, Column)| (n.clone(), c.take(indices));
        Self { columns: self.columns.iter().map(take).collect() }
    }

    /// The texts of a column.
    ///
    /// # Errors
    /// When the column is not there (names those that are), not text, or has a gap (names the
    /// row, counted from 1).
    pub fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let Some(column) = self.column(name) else {
            bail!("no column `{name}`; the columns are {}", self.have());
        };
        let Column::Text(values) = column else {
            bail!("column `{name}` holds no text");
        };
        let text = |(i, v): (usize, &'_ Option<String>)| match v {
            Some(_) => Ok(()),
            None => Err(anyhow!("row {}: `{name}` is missing", i + 1)),
        };
        values.iter().enumerate().try_for_each(text)?;
        Ok(values.iter().map(|v| v.as_deref().unwrap_or_default()).collect())
    }

    /// The truth values of a column; a gap counts as `absent`, a missing column as all gaps.
    pub fn bools(&self, name: &str, absent: bool) -> Vec<bool> {
        match self.column(name) {
            Some(Column::Bool(v)) => v.iter().map(|x| x.unwrap_or(absent)).collect(),
            _ => vec![absent; self.rows()],
        }
    }

    /// The numbers of a column; a gap counts as `absent`, a missing column as all gaps.
    pub fn floats(&self, name: &str, absent: f64) -> Vec<f64> {
        match self.column(name) {
            Some(Column::Float(v)) => v.iter().map(|x| x.unwrap_or(absent)).collect(),
            Some(Column::Int(v)) => v.iter().map(|x| x.map_or(absent, |i| i as f64)).collect(),
            _ => vec![absent; self.rows()],
        }
    }

    /// The rows of `below` under these; a column that only one of the two has is left out, one of
    /// two types becomes text.
    ///
    /// # Errors
    /// Never, as the columns of a table are of one length.
    pub fn stack(&self, below: &Self) -> Result<Self> {
        let mut columns = Vec::new();
        for (name, left) in &self.columns {
            let column = match (left, below.column(name)) {
                (_, None) => continue,
                (Column::Text(x), Some(Column::Text(y))) => Column::Text([&x[..], y].concat()),
                (Column::Float(x), Some(Column::Float(y))) => Column::Float([&x[..], y].concat()),
                (Column::Int(x), Some(Column::Int(y))) => Column::Int([&x[..], y].concat()),
                (Column::Bool(x), Some(Column::Bool(y))) => Column::Bool([&x[..], y].concat()),
                (x, Some(y)) => {
                    let text = |c: &Column| (0..c.len()).map(|i| c.display(i)).collect::<Vec<_>>();
                    Column::Text([text(x), text(y)].concat())
                }
            };
            columns.push((name.clone(), column));
        }
        Self::new(columns)
    }

    fn have(&self) -> String {
        if self.columns.is_empty() {
            return "none".into();
        }
        self.names().iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
    }
}
