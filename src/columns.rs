//! Parquet files by column name, batch by batch, for screens. A damaged file is an error.
//! Does not know what any column means.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader as _};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType, Fields};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::conversation::Content;
use crate::files;

mod head;
mod messages;

pub use head::{Head, head};
pub use messages::{MessagesType, messages_array};

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
    #[error("{path} is compressed by {codec}, which this build cannot read")]
    Codec { path: PathBuf, codec: String },
}

impl ReadError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Open { .. } => "see the error above",
            Self::Codec { .. } => "write it again, compressed by zstd, snappy or gzip",
            _ => "is it whole? download or write it again",
        }
    }
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
    let read = files::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"PAR1"
}

/// The rows of a file, batch by batch, `most` of them.
///
/// # Errors
/// The file cannot be opened, or is no sound Parquet.
pub fn each_batch(path: &Path, most: usize, mut f: impl FnMut(&Columns)) -> Result<(), ReadError> {
    let builder = open(path)?.with_limit(most);
    let mut reader = built(path, builder)?;
    while let Some(batch) = guarded(path, || reader.next())? {
        let batch = batch.map_err(|source| ReadError::Batch { path: path.to_owned(), source })?;
        f(&Columns { batch });
    }
    Ok(())
}

type Builder = ParquetRecordBatchReaderBuilder<std::fs::File>;

fn open(path: &Path) -> Result<Builder, ReadError> {
    let file =
        files::open(path).map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
    let builder = guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))?;
    let broken = |source| ReadError::Parquet { path: path.to_owned(), source };
    let builder = builder.map_err(broken)?;
    match foreign_codec(builder.metadata()) {
        Some(codec) => Err(ReadError::Codec { path: path.to_owned(), codec }),
        None => Ok(builder),
    }
}

fn built(path: &Path, builder: Builder) -> Result<ParquetRecordBatchReader, ReadError> {
    let broken = |source| ReadError::Parquet { path: path.to_owned(), source };
    guarded(path, || builder.build())?.map_err(broken)
}

/// How a column is compressed that this build cannot read.
fn foreign_codec(metadata: &ParquetMetaData) -> Option<String> {
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let foreign = |codec: &Compression| matches!(codec, Compression::LZO);
    columns.map(ColumnChunkMetaData::compression).find(foreign).map(|codec| codec.to_string())
}

/// The first place where two files differ, in their own order of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum RowDifference {
    /// Names and types of the columns.
    Columns { before: Vec<String>, now: Vec<String> },
    /// A value; rows are counted from 1.
    Value { row: usize, column: String, before: String, now: String },
    /// All rows of the shorter file are in the longer one: how many each has.
    Rows { before: usize, now: usize },
}

/// Compares two files value by value; `None`: they hold the same rows.
///
/// # Errors
/// As [`each_batch`].
pub fn first_difference(before: &Path, now: &Path) -> Result<Option<RowDifference>, ReadError> {
    let (mut a, mut b) = (Cursor::open(before)?, Cursor::open(now)?);
    if a.columns != b.columns {
        return Ok(Some(RowDifference::Columns { before: a.columns, now: b.columns }));
    }
    let mut row = 0;
    loop {
        let n = a.fill()?.min(b.fill()?);
        if n == 0 {
            break;
        }
        let (x, y) = (a.take(n), b.take(n));
        if let Some((i, column)) = first_value(&x, &y) {
            let shown = |batch: &RecordBatch| {
                let formatter = ArrayFormatter::try_new(batch.column(column), &SHOWN);
                formatter.map_or_else(|e| e.to_string(), |f| f.value(i).to_string())
            };
            let (before, now) = (shown(&x), shown(&y));
            let column = x.schema().field(column).name().clone();
            return Ok(Some(RowDifference::Value { row: row + i + 1, column, before, now }));
        }
        row += n;
    }
    let rows = |rows: usize| row + rows;
    let (before, now) = (rows(a.rest()?), rows(b.rest()?));
    Ok((before != now).then_some(RowDifference::Rows { before, now }))
}

/// Row and column of the first value that differs, row by row.
fn first_value(a: &RecordBatch, b: &RecordBatch) -> Option<(usize, usize)> {
    let differs =
        |i: usize, from: usize, n: usize| a.column(i).slice(from, n) != b.column(i).slice(from, n);
    let rows = a.num_rows();
    let columns: Vec<usize> = (0..a.num_columns()).filter(|i| differs(*i, 0, rows)).collect();
    (0..rows).find_map(|row| Some((row, *columns.iter().find(|i| differs(**i, row, 1))?)))
}

/// A missing value is told from an empty text.
const SHOWN: FormatOptions = FormatOptions::new().with_null("(none)");

/// A place in a file that is read from its beginning.
struct Cursor {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    /// Name and type of each.
    columns: Vec<String>,
    batch: Option<RecordBatch>,
}

impl Cursor {
    fn open(path: &Path) -> Result<Self, ReadError> {
        let reader = built(path, open(path)?)?;
        let fields = reader.schema();
        let fields = fields.fields().iter();
        let columns = fields.map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
        Ok(Self { path: path.to_owned(), reader, columns, batch: None })
    }

    /// Rows that can be taken now; 0: the end.
    fn fill(&mut self) -> Result<usize, ReadError> {
        while self.batch.as_ref().is_none_or(|b| b.num_rows() == 0) {
            let reader = &mut self.reader;
            let Some(batch) = guarded(&self.path, || reader.next())? else { return Ok(0) };
            let broken = |source| ReadError::Batch { path: self.path.clone(), source };
            self.batch = Some(batch.map_err(broken)?);
        }
        Ok(self.batch.as_ref().map_or(0, RecordBatch::num_rows))
    }

    fn take(&mut self, n: usize) -> RecordBatch {
        let batch = self.batch.take().expect("invariant: filled before");
        self.batch = Some(batch.slice(n, batch.num_rows() - n));
        batch.slice(0, n)
    }

    /// Rows up to the end.
    fn rest(&mut self) -> Result<usize, ReadError> {
        let mut rows = 0;
        loop {
            match self.fill()? {
                0 => return Ok(rows),
                n => rows += self.take(n).num_rows(),
            }
        }
    }
}

/// The reader panics on some damaged files.
fn guarded<T>(path: &Path, f: impl FnOnce() -> T) -> Result<T, ReadError> {
    READING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    READING.set(false);
    result.map_err(|_| ReadError::Damaged { path: path.to_owned() })
}

/// Rows as JSON objects, and columns that are not among their values, with the reason.
pub type Objects = (Vec<Map<String, Value>>, Vec<(String, String)>);

fn as_objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, ArrowError> {
    let mut writer = arrow_json::ArrayWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    serde_json::from_slice(&writer.into_inner()).map_err(|e| ArrowError::JsonError(e.to_string()))
}

/// What values of a type are, for people.
fn in_words(of: &DataType) -> String {
    let keys =
        |fields: &Fields| fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    match of {
        DataType::Struct(fields) => format!("a map of {{{}}}", keys(fields)),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            match item.data_type() {
                DataType::Struct(fields) => format!("a list of {{{}}}", keys(fields)),
                _ => "a list".to_owned(),
            }
        }
        _ if of.is_numeric() => "a number".to_owned(),
        other => format!("of type {other}"),
    }
}

/// Whether a type is that of conversations: lists of structs with a role.
fn is_messages(of: &DataType) -> bool {
    let (DataType::List(item) | DataType::LargeList(item)) = of else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    fields.find("role").or_else(|| fields.find("from")).is_some()
}

/// The name under which Arrow knows JSON text.
pub const JSON: &str = "arrow.json";
/// Where a field says so.
pub const EXTENSION: &str = "ARROW:extension:name";

/// One batch of rows.
#[derive(Debug)]
pub struct Columns {
    batch: RecordBatch,
}

impl Columns {
    /// Of rows at hand.
    #[must_use]
    pub fn of(batch: RecordBatch) -> Self {
        Self { batch }
    }

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

    /// The rows as JSON objects, lists and structs included; a missing value is not there. Columns
    /// of types that JSON cannot hold are left out and named, each with the reason.
    ///
    /// # Errors
    /// The batch is broken.
    pub fn objects(&self) -> Result<Objects, ArrowError> {
        if self.rows() == 0 {
            return Ok(Objects::default());
        }
        if let Ok(objects) = as_objects(&self.batch) {
            return Ok((objects, Vec::new()));
        }
        let (mut kept, mut unread) = (Vec::new(), Vec::new());
        for i in 0..self.batch.num_columns() {
            match self.batch.project(&[i]).and_then(|column| as_objects(&column)) {
                Ok(_) => kept.push(i),
                Err(e) => unread.push((self.batch.schema().field(i).name().clone(), e.to_string())),
            }
        }
        Ok((as_objects(&self.batch.project(&kept)?)?, unread))
    }

    /// What a column holds that is no text, in words; `None` where it is text, or is not there.
    #[must_use]
    pub fn other_than_text(&self, name: &str) -> Option<String> {
        let of = self.batch.column_by_name(name)?.data_type();
        let is_text = |of: &DataType| of.is_string() || *of == DataType::Null;
        let value = if let DataType::Dictionary(_, value) = of { value } else { of };
        (!is_text(value) && !is_messages(of)).then(|| in_words(of))
    }

    /// The texts of a column; empty where there is none. Conversations are as
    /// [`Content::written`] has them.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        if let Some(conversations) = self.conversations(name) {
            return conversations;
        }
        let column = self.cast(name, &DataType::Utf8);
        let Some(column) = column.as_ref().map(|c| c.as_string::<i32>()) else {
            return vec![String::new(); self.rows()];
        };
        column.iter().map(|t| t.unwrap_or_default().to_owned()).collect()
    }

    /// The cells of a column of conversations; `None` where it is another one, or a cell is not
    /// understood.
    fn conversations(&self, name: &str) -> Option<Vec<String>> {
        let place = self.batch.schema().index_of(name).ok()?;
        let field = self.batch.schema().field(place).clone();
        let json: Vec<Option<String>> = if is_messages(field.data_type()) {
            let (objects, _) = Self::of(self.batch.project(&[place]).ok()?).objects().ok()?;
            objects.into_iter().map(|mut row| row.remove(name).map(|v| v.to_string())).collect()
        } else if field.metadata().get(EXTENSION).is_some_and(|name| name == JSON) {
            let texts = self.cast(name, &DataType::Utf8)?;
            texts.as_string::<i32>().iter().map(|t| t.map(ToOwned::to_owned)).collect()
        } else {
            return None;
        };
        let written = |cell: Option<String>| match cell {
            None => Some(String::new()),
            Some(json) => Some(Content::from_json(&json).ok()?.written().into_owned()),
        };
        json.into_iter().map(written).collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::{GzipLevel, ZstdLevel};
    use parquet::file::metadata::FileMetaData;
    use parquet::file::properties::WriterProperties;
    use parquet::schema::parser::parse_message_type;
    use parquet::schema::types::SchemaDescriptor;

    use super::*;

    #[test]
    fn every_codec_is_read() {
        let texts: Vec<String> = (0..500).map(|i| format!("row {i}, row {i}")).collect();
        let column = Arc::new(arrow_array::StringArray::from(texts.clone())) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("text", column)]).expect("a batch");
        for codec in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
            Compression::BROTLI(Default::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
        ] {
            let file = tempfile::NamedTempFile::new().expect("temp");
            let settings = WriterProperties::builder().set_compression(codec).build();
            let mut writer = parquet::arrow::ArrowWriter::try_new(
                file.reopen().expect("open"),
                batch.schema(),
                Some(settings),
            )
            .expect("a writer");
            writer.write(&batch).expect("written");
            writer.close().expect("written");
            let mut found = Vec::new();
            each_batch(file.path(), usize::MAX, |c| found.extend(c.texts("text"))).expect("read");
            assert_eq!(found, texts, "{codec}");
        }
    }

    #[test]
    fn a_codec_that_is_not_read_is_named() {
        let message = "message m { REQUIRED BYTE_ARRAY text (UTF8); }";
        let schema = Arc::new(parse_message_type(message).expect("a schema"));
        let schema = Arc::new(SchemaDescriptor::new(schema));
        let column = ColumnChunkMetaData::builder(schema.column(0));
        let column = column.set_compression(Compression::LZO).build().expect("a column");
        let group = RowGroupMetaData::builder(Arc::clone(&schema)).add_column_metadata(column);
        let group = group.build().expect("a row group");
        let file = FileMetaData::new(1, 0, None, None, schema, None);
        let found = foreign_codec(&ParquetMetaData::new(file, vec![group]));
        assert_eq!(found.as_deref(), Some("LZO"));
    }
}
