//! Reads files row by row or batch by batch, so that a corpus need not fit into memory. The
//! Parquet reader is kept from taking the worker down with it.
//! Knows nothing of what the columns mean.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_cast::cast;
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;

/// Rows of one batch.
const BATCH: usize = 4096;

/// Texts, one after the other.
type Texts = Box<dyn Iterator<Item = Result<String>>>;

/// A Parquet file, batch by batch: never more than a batch and what its pages need in memory.
pub struct Batches {
    path: PathBuf,
    pub schema: SchemaRef,
    reader: ParquetRecordBatchReader,
    failed: bool,
}

impl Batches {
    /// Opens a file; `columns` are those to read, all if empty.
    ///
    /// # Errors
    /// When the file is damaged or not Parquet.
    pub fn open(path: &Path, columns: &[&str]) -> Result<Self> {
        let file = fs_err::File::open(path)?.into_file();
        let (schema, reader) = guarded(path, || build(file, columns))??;
        Ok(Self { path: path.to_owned(), schema, reader, failed: false })
    }
}

fn build(file: File, columns: &[&str]) -> Result<(SchemaRef, ParquetRecordBatchReader)> {
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH);
    if !columns.is_empty() {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        builder = builder.with_projection(mask);
    }
    let schema = builder.schema().clone();
    Ok((schema, builder.build()?))
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let reader = &mut self.reader;
        let next = match guarded(&self.path, || reader.next()) {
            Ok(next) => next?.map_err(anyhow::Error::from),
            Err(e) => Err(e),
        };
        // What comes after an error cannot be trusted.
        self.failed = next.is_err();
        Some(next)
    }
}

/// The reader panics on some damaged files: an error like any other.
fn guarded<T>(path: &Path, f: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f))
        .map_err(|_| anyhow!("{} is damaged: its Parquet reader gave up", path.display()))
}

/// The column `text` of some files, one text after the other: Parquet by batches, JSONL, CSV and
/// plain text by lines. Files are known as in [`super::read_table`]; blank lines of plain text are
/// left out.
pub fn read_texts(paths: &[String]) -> impl Iterator<Item = Result<String>> + use<> {
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    paths.into_iter().flat_map(|path| {
        let texts = texts_of(&path).with_context(|| format!("cannot read {}", path.display()));
        texts.unwrap_or_else(|e| Box::new(std::iter::once(Err(e))))
    })
}

fn texts_of(path: &Path) -> Result<Texts> {
    let mut magic = Vec::new();
    fs_err::File::open(path)?.take(4).read_to_end(&mut magic)?;
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match ending {
        _ if magic == b"PAR1" => parquet_texts(path),
        "jsonl" | "ndjson" | "json" => Ok(Box::new(json_texts(path)?)),
        "csv" => csv_texts(path),
        "parquet" => bail!("it does not start with PAR1"),
        _ => Ok(Box::new(
            lines(path)?
                .map(|(_, line)| line)
                .filter(|line| line.as_ref().map_or(true, |line| !line.trim().is_empty())),
        )),
    }
}

fn parquet_texts(path: &Path) -> Result<Texts> {
    let batches = Batches::open(path, &["text"])?;
    if batches.schema.index_of("text").is_err() {
        let names: Vec<String> =
            batches.schema.fields().iter().map(|f| format!("`{}`", f.name())).collect();
        bail!("no column `text`; the columns are {}", names.join(", "));
    }
    let name = path.display().to_string();
    let mut row = 0;
    let of_batch = move |batch: Result<RecordBatch>| -> Vec<Result<String>> {
        let texts = batch.and_then(|batch| {
            let column = batch.column_by_name("text").context("no column `text`")?;
            let column = cast(column, &DataType::Utf8)?;
            let one = |text: Option<&str>| {
                row += 1;
                text.map(str::to_owned)
                    .ok_or_else(|| anyhow!("row {row} of {name}: `text` is missing"))
            };
            Ok(column.as_string::<i32>().iter().map(one).collect::<Vec<_>>())
        });
        texts.unwrap_or_else(|e| vec![Err(e.context(format!("cannot read {name}")))])
    };
    Ok(Box::new(batches.flat_map(of_batch)))
}

/// Lines with their numbers from 1.
fn lines(path: &Path) -> Result<impl Iterator<Item = (usize, Result<String>)> + use<>> {
    let file = BufReader::new(fs_err::File::open(path)?);
    let name = path.display().to_string();
    Ok(file.lines().enumerate().map(move |(i, line)| {
        (i + 1, line.with_context(|| format!("line {} of {name} is not UTF-8 text", i + 1)))
    }))
}

fn json_texts(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let name = path.display().to_string();
    let one = move |(i, line): (usize, Result<String>)| -> Option<Result<String>> {
        let line = match line {
            Ok(line) if line.trim().is_empty() => return None,
            Ok(line) => line,
            Err(e) => return Some(Err(e)),
        };
        let fail = |reason: String| anyhow!("row {i} of {name}: {reason}");
        let text = serde_json::from_str::<Value>(&line)
            .map_err(|e| fail(format!("not JSON: {e}")))
            .and_then(|row| match row.get("text") {
                Some(Value::String(text)) => Ok(text.clone()),
                Some(Value::Null) | None => Err(fail("`text` is missing".into())),
                Some(_) => Err(fail("`text` holds no text".into())),
            });
        Some(text)
    };
    Ok(lines(path)?.filter_map(one))
}

fn csv_texts(path: &Path) -> Result<Texts> {
    let mut reader = csv::ReaderBuilder::new().from_reader(fs_err::File::open(path)?);
    let headers = reader.headers()?;
    let Some(place) = headers.iter().position(|h| h == "text") else {
        let names: Vec<String> = headers.iter().map(|h| format!("`{h}`")).collect();
        bail!("no column `text`; the columns are {}", names.join(", "));
    };
    let name = path.display().to_string();
    Ok(Box::new(reader.into_records().enumerate().map(move |(i, record)| {
        let record = record.with_context(|| format!("row {} of {name}", i + 1))?;
        Ok(record.get(place).unwrap_or_default().to_owned())
    })))
}
