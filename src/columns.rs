//! Parquet files by column name, batch by batch, for screens. A damaged file is an error.
//! Does not know what any column means.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};
use thiserror::Error;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// A file that cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{path} is not readable as Parquet: {source}")]
    Parquet { path: PathBuf, source: parquet::errors::ParquetError },
    #[error("{path} holds a broken batch: {source}")]
    Batch { path: PathBuf, source: arrow_schema::ArrowError },
    #[error("{path} is damaged: its Parquet reader gave up")]
    Damaged { path: PathBuf },
}

/// This thread is inside the Parquet reader, whose panics are errors of the file: a panic hook
/// keeps quiet about them.
#[must_use]
pub fn is_reading() -> bool {
    READING.get()
}

/// Whether a file begins as Parquet does; other files are never read by this room.
#[must_use]
pub fn is_parquet(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"PAR1"
}

/// The rows of a file, batch by batch, `most` of them.
///
/// # Errors
/// The file cannot be opened, or is no sound Parquet.
pub fn each_batch(path: &Path, most: usize, mut f: impl FnMut(&Columns)) -> Result<(), ReadError> {
    let open = |source| ReadError::Open { path: path.to_owned(), source };
    let broken = |source| ReadError::Parquet { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(open)?;
    let build = || ParquetRecordBatchReaderBuilder::try_new(file)?.with_limit(most).build();
    let mut reader = guarded(path, build)?.map_err(broken)?;
    while let Some(batch) = guarded(path, || reader.next())? {
        let batch = batch.map_err(|source| ReadError::Batch { path: path.to_owned(), source })?;
        f(&Columns { batch });
    }
    Ok(())
}

/// The reader panics on some damaged files.
fn guarded<T>(path: &Path, f: impl FnOnce() -> T) -> Result<T, ReadError> {
    READING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    READING.set(false);
    result.map_err(|_| ReadError::Damaged { path: path.to_owned() })
}

/// One batch of rows.
#[derive(Debug)]
pub struct Columns {
    batch: RecordBatch,
}

impl Columns {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// There is a column of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// A hash of each row, by the names and the values of its columns. Good within one process.
    #[must_use]
    pub fn row_hashes(&self) -> Vec<u64> {
        let options = FormatOptions::default();
        let schema = self.batch.schema();
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .zip(self.batch.columns())
            .filter_map(|(f, c)| Some((f.name(), ArrayFormatter::try_new(c, &options).ok()?)))
            .collect();
        let row = |i: usize| {
            let mut hasher = DefaultHasher::new();
            for (name, column) in &columns {
                (name, column.value(i).to_string()).hash(&mut hasher);
            }
            hasher.finish()
        };
        (0..self.rows()).map(row).collect()
    }

    fn cast(&self, name: &str, wanted: &DataType) -> Option<ArrayRef> {
        cast(self.batch.column_by_name(name)?, wanted).ok()
    }

    /// Names of the columns, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.batch.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    /// The rows as JSON objects, lists and structs included; a missing value is not there.
    ///
    /// # Errors
    /// A column is of a type that JSON cannot hold.
    pub fn objects(&self) -> Result<Vec<Map<String, Value>>, ArrowError> {
        let mut writer = arrow_json::ArrayWriter::new(Vec::new());
        if self.rows() > 0 {
            writer.write(&self.batch)?;
        }
        writer.finish()?;
        let bytes = writer.into_inner();
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&bytes).map_err(|e| ArrowError::JsonError(e.to_string()))
    }

    /// The texts of a column; empty where there is none.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        let column = self.cast(name, &DataType::Utf8);
        let Some(column) = column.as_ref().map(|c| c.as_string::<i32>()) else {
            return vec![String::new(); self.rows()];
        };
        column.iter().map(|t| t.unwrap_or_default().to_owned()).collect()
    }

    /// The numbers of a column; `None` where there is none.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<Option<f64>> {
        let column = self.cast(name, &DataType::Float64);
        match column.as_ref().map(|c| c.as_primitive::<Float64Type>()) {
            Some(column) => column.iter().collect(),
            None => vec![None; self.rows()],
        }
    }

    /// The truth values of a column; false where there is none.
    #[must_use]
    pub fn flags(&self, name: &str) -> Vec<bool> {
        let column = self.cast(name, &DataType::Boolean);
        match column.as_ref().map(|c| c.as_boolean()) {
            Some(column) => column.iter().map(|b| b.unwrap_or(false)).collect(),
            None => vec![false; self.rows()],
        }
    }

    /// The texts of a column that may hold a list in every row.
    #[must_use]
    pub fn words(&self, name: &str) -> Vec<Vec<String>> {
        let Some(column) = self.batch.column_by_name(name) else { return Vec::new() };
        let Some(list) = column.as_list_opt::<i32>() else {
            return self.texts(name).into_iter().map(|t| vec![t]).collect();
        };
        let row = |i: usize| {
            let texts = cast(&list.value(i), &DataType::Utf8).ok();
            let texts = texts.as_ref().map(|c| c.as_string::<i32>().iter().flatten());
            texts.map(|t| t.map(ToOwned::to_owned).collect()).unwrap_or_default()
        };
        (0..list.len()).map(row).collect()
    }
}
