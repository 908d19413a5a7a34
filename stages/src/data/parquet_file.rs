//! Parquet files batch by batch, and their columns in the types that tables have. The reader is
//! kept from taking the worker down with it.
//! Knows nothing of what the columns mean.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_json::WriterBuilder;
use arrow_json::writer::JsonArray;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use preflow::columns::{EXTENSION, JSON};
use serde_json::value::RawValue;

use super::{Column, Table};

/// Rows of one batch.
const BATCH: usize = 4096;

/// The name under which Arrow knows identifiers of 16 bytes.
const UUID: &str = "arrow.uuid";

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
    let mut builder = match ParquetRecordBatchReaderBuilder::try_new(file.try_clone()?) {
        Ok(builder) => builder,
        // Types of other writers that are not known here: the file's own types say enough.
        Err(first) => {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
                .map_err(|_| first)?
        }
    };
    builder = builder.with_batch_size(BATCH);
    let parts = builder.metadata().row_groups().iter().flat_map(|g| g.columns());
    if parts.into_iter().any(|part| part.compression() == Compression::LZO) {
        bail!("it is compressed by LZO, which is not read: write it again, for example with zstd");
    }
    if !columns.is_empty() {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        builder = builder.with_projection(mask);
    }
    let schema = builder.schema().clone();
    let names: Vec<&String> = schema.fields().iter().map(|f| f.name()).collect();
    if let Some((_, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        bail!("two columns are named `{name}`");
    }
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

/// All rows of a file. A column whose values have no form here is left out, with its reason.
///
/// # Errors
/// When the file is damaged or not Parquet.
pub fn read_parquet(path: &Path) -> Result<Table> {
    read_rows(path, usize::MAX)
}

/// The first rows of a file, `most` or some more.
///
/// # Errors
/// As [`read_parquet`].
pub fn parquet_head(path: &Path, most: usize) -> Result<Table> {
    read_rows(path, most)
}

/// Number of rows of a file; `None` where it is no sound Parquet file.
pub fn parquet_rows(path: &Path) -> Option<u64> {
    let file = File::open(path).ok()?;
    let reader = guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file)).ok()?.ok()?;
    u64::try_from(reader.metadata().file_metadata().num_rows()).ok()
}

fn read_rows(path: &Path, most: usize) -> Result<Table> {
    let batches = Batches::open(path, &[])?;
    table_of(path, &batches.schema.clone(), batches, most)
}

/// The first rows of some batches as a table, `most` or some more.
///
/// # Errors
/// A batch cannot be read.
pub fn table_of(
    path: &Path,
    schema: &Schema,
    batches: impl Iterator<Item = Result<RecordBatch>>,
    most: usize,
) -> Result<Table> {
    let file = path.display().to_string();
    let fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    let mut columns: Vec<Result<Column, String>> =
        fields.iter().map(|field| convert(field, &empty(field))).collect();
    let mut rows = 0;
    for batch in batches {
        if rows >= most {
            break;
        }
        let batch = batch?;
        rows += batch.num_rows();
        for ((column, array), field) in columns.iter_mut().zip(batch.columns()).zip(&fields) {
            let before = std::mem::replace(column, Err(String::new()));
            *column = before.and_then(|before| Ok(before.stack(convert(field, array)?)));
        }
    }
    let mut table = Table::default();
    for (field, column) in fields.iter().zip(columns) {
        match column {
            Ok(column) => table.set(field.name(), column.settle())?,
            Err(reason) => table.note_unreadable(field.name(), reason),
        }
    }
    Ok(table.from_file(&file, 1..=rows))
}

fn empty(field: &Field) -> ArrayRef {
    arrow_array::new_empty_array(field.data_type())
}

/// A part of a column.
///
/// # Errors
/// Why its values have no form here.
pub fn convert(field: &Field, array: &ArrayRef) -> Result<Column, String> {
    let known_as = field.metadata().get(EXTENSION).map(String::as_str);
    let to = |kind: &DataType| cast(array, kind).map_err(|e| e.to_string());
    let text = |array: &ArrayRef| {
        let texts = array.as_string::<i64>();
        texts.iter().map(|v| v.map(str::to_owned)).collect::<Vec<_>>()
    };
    Ok(match array.data_type() {
        DataType::Dictionary(_, inner) => {
            return convert(&field.clone().with_data_type((**inner).clone()), &to(inner)?);
        }
        DataType::RunEndEncoded(_, inner) => {
            return convert(inner, &to(inner.data_type())?);
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if known_as == Some(JSON) => {
            Column::Json(text(&to(&DataType::LargeUtf8)?))
        }
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Column::Text(text(&to(&DataType::LargeUtf8)?))
        }
        DataType::UInt64 => wide(array),
        kind if kind.is_integer() => {
            let array = to(&DataType::Int64)?;
            Column::Int(array.as_primitive::<Int64Type>().iter().collect())
        }
        kind if kind.is_floating() => {
            let array = to(&DataType::Float64)?;
            Column::Float(array.as_primitive::<Float64Type>().iter().collect())
        }
        DataType::Boolean => Column::Bool(array.as_boolean().iter().collect()),
        DataType::FixedSizeBinary(16) if known_as == Some(UUID) => {
            let bytes = array.as_fixed_size_binary();
            Column::Text(bytes.iter().map(|v| v.map(uuid)).collect())
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => {
            let array = to(&DataType::LargeBinary)?;
            Column::Bytes(array.as_binary::<i64>().iter().map(|v| v.map(<[u8]>::to_vec)).collect())
        }
        kind if kind.is_decimal() => Column::Json(formatted(array)?),
        kind if kind.is_nested() && has_no_number(array) => {
            return Err("it holds numbers that are not finite, within lists or maps".into());
        }
        kind if kind.is_nested() => Column::Json(nested(array)?),
        _ => Column::Text(formatted(array)?),
    })
}

/// Whole numbers up to 2^64 − 1; those that `Int` cannot hold keep their digits.
fn wide(array: &ArrayRef) -> Column {
    let values = array.as_primitive::<UInt64Type>();
    let ints: Vec<_> = values.iter().map(|v| v.map(i64::try_from).transpose()).collect();
    match ints.into_iter().collect() {
        Ok(ints) => Column::Int(ints),
        Err(_) => Column::Json(values.iter().map(|v| v.map(|x| x.to_string())).collect()),
    }
}

/// Groups of 8, 4, 4, 4 and 12 digits, as RFC 9562 writes them.
fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Times with their offset, dates, decimals: as Arrow writes them.
fn formatted(array: &ArrayRef) -> Result<Vec<Option<String>>, String> {
    let options = FormatOptions::new().with_display_error(false);
    let formatter = ArrayFormatter::try_new(array, &options).map_err(|e| e.to_string())?;
    let value = |row: usize| match array.is_null(row) {
        true => Ok(None),
        false => formatter.value(row).try_to_string().map(Some).map_err(|e| e.to_string()),
    };
    (0..array.len()).map(value).collect()
}

/// Whether numbers within lists and structs are NaN or infinite: JSON would write null.
fn has_no_number(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            cast(array, &DataType::Float64).is_ok_and(|array| {
                array.as_primitive::<Float64Type>().iter().flatten().any(|x| !x.is_finite())
            })
        }
        _ => {
            let data = array.to_data();
            let mut parts = data.child_data().iter().cloned();
            parts.any(|part| has_no_number(&arrow_array::make_array(part)))
        }
    }
}

/// Lists and structs as JSON; keys without a value are kept as null.
fn nested(array: &ArrayRef) -> Result<Vec<Option<String>>, String> {
    let field = Field::new("x", array.data_type().clone(), true);
    let unreadable = |e: &dyn std::fmt::Display| format!("it has no form in JSON: {e}");
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array.clone()])
        .map_err(|e| unreadable(&e))?;
    let mut bytes = Vec::new();
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, JsonArray>(&mut bytes);
    writer.write(&batch).map_err(|e| unreadable(&e))?;
    writer.finish().map_err(|e| unreadable(&e))?;
    if batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let rows: Vec<std::collections::BTreeMap<&str, &RawValue>> =
        serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
    let text = |row: &std::collections::BTreeMap<&str, &RawValue>| {
        row.get("x").map(|x| x.get()).filter(|x| *x != "null").map(str::to_owned)
    };
    Ok(rows.iter().map(text).collect())
}

/// The texts of one column, batch by batch.
///
/// # Errors
/// When the file is damaged or has no such column; each text that is missing or none.
pub fn parquet_texts(
    path: &Path,
    name: &'static str,
) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let all = Batches::open(path, &[])?.schema;
    let Ok(place) = all.index_of(name) else {
        let names: Vec<String> = all.fields().iter().map(|f| format!("`{}`", f.name())).collect();
        bail!("no column `{name}`; the columns are {}", names.join(", "));
    };
    let field = all.field(place).clone();
    let batches = Batches::open(path, &[name])?;
    let file = path.display().to_string();
    let mut before = 0;
    let of_batch = move |batch: Result<RecordBatch>| -> Vec<Result<String>> {
        let texts = batch.and_then(|batch| {
            let array = batch.column_by_name(name).context("the column is gone")?;
            let column =
                convert(&field, array).map_err(|e| anyhow!("column `{name}`: {e}"))?.settle();
            let rows = column.len();
            let table =
                Table::new(vec![(name, column)])?.from_file(&file, before + 1..=before + rows);
            before += rows;
            Ok(table.texts(name)?.into_iter().map(str::to_owned).map(Ok).collect())
        });
        texts.unwrap_or_else(|e| vec![Err(e)])
    };
    Ok(batches.flat_map(of_batch))
}

#[cfg(test)]
mod tests {
    use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
    use arrow_array::{
        BinaryArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Int32Array,
        LargeStringArray, StringArray, StringViewArray, TimestampMicrosecondArray, UInt64Array,
    };
    use arrow_schema::Fields;

    use super::*;

    fn of(array: impl Array + 'static) -> Column {
        let array: ArrayRef = Arc::new(array);
        let field = Field::new("x", array.data_type().clone(), true);
        convert(&field, &array).expect("a column").settle()
    }

    #[test]
    fn every_type_of_text_is_text() {
        let text = Column::Text(vec![Some("é".into()), None]);
        assert_eq!(of(StringArray::from(vec![Some("é"), None])), text);
        assert_eq!(of(LargeStringArray::from(vec![Some("é"), None])), text);
        assert_eq!(of(StringViewArray::from(vec![Some("é"), None])), text);
        assert_eq!(of(BinaryArray::from(vec![Some("é".as_bytes()), None])), text);
        let keys = Int32Array::from(vec![Some(0), None]);
        let words = Arc::new(StringArray::from(vec!["é"]));
        assert_eq!(of(DictionaryArray::new(keys, words)), text);
    }

    #[test]
    fn values_at_the_edge_of_their_type_stay_what_they_are() {
        let wide = of(UInt64Array::from(vec![Some(1), Some(u64::MAX), None]));
        let digits = |t: &str| Some(t.to_owned());
        assert_eq!(wide, Column::Json(vec![digits("1"), digits("18446744073709551615"), None]));
        assert_eq!(of(UInt64Array::from(vec![7])), Column::ints([7]));
        let bytes = of(BinaryArray::from(vec![&[0xff, 0][..], b"ok"]));
        assert_eq!(bytes, Column::Bytes(vec![Some(vec![0xff, 0]), Some(b"ok".to_vec())]));
        let money = Decimal128Array::from(vec![150]).with_precision_and_scale(10, 2).expect("fits");
        assert_eq!(of(money), Column::Json(vec![digits("1.50")]));
        let moment = TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]);
        assert_eq!(of(moment.clone().with_timezone("UTC")), Column::text(["2023-11-14T22:13:20Z"]));
        assert_eq!(
            of(moment.with_timezone("Europe/Berlin")),
            Column::text(["2023-11-14T23:13:20+01:00"])
        );
    }

    #[test]
    fn what_has_no_form_here_is_told() {
        let mut list = ListBuilder::new(arrow_array::builder::Float32Builder::new());
        list.append_value([Some(0.5), None]);
        assert_eq!(of(list.finish()), Column::Json(vec![Some("[0.5,null]".into())]));
        list.append_value([Some(f32::NAN)]);
        let array: ArrayRef = Arc::new(list.finish());
        let field = Field::new("x", array.data_type().clone(), true);
        assert!(convert(&field, &array).expect_err("refused").contains("not finite"));
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        let field = |name| Field::new(name, DataType::Utf8, true);
        let schema = Arc::new(Schema::new(vec![field("text"), field("text")]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let batch = RecordBatch::try_new(schema.clone(), vec![texts.clone(), texts]).expect("ok");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let writer = file.reopen().expect("open");
        let mut writer = parquet::arrow::ArrowWriter::try_new(writer, schema, None).expect("ok");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        let error = |result: Option<anyhow::Error>| result.expect("refused").to_string();
        let expected = "two columns are named `text`";
        assert_eq!(error(read_parquet(file.path()).err()), expected);
        assert_eq!(error(parquet_texts(file.path(), "text").err()), expected);
    }

    #[test]
    fn identifiers_are_written_in_groups() {
        let id: Vec<u8> = (0..16).collect();
        let array: ArrayRef =
            Arc::new(FixedSizeBinaryArray::try_from_iter([id].into_iter()).expect("one"));
        let field = Field::new("x", array.data_type().clone(), true)
            .with_metadata(std::collections::HashMap::from([(EXTENSION.into(), UUID.into())]));
        let text = Column::text(["00010203-0405-0607-0809-0a0b0c0d0e0f"]);
        assert_eq!(convert(&field, &array), Ok(text));
    }

    #[test]
    fn conversations_of_datasets_become_json_with_their_gaps() {
        let fields: Fields =
            ["role", "content"].map(|n| Field::new(n, DataType::Utf8, true)).into_iter().collect();
        let turn = StructBuilder::from_fields(fields, 2);
        let mut list = ListBuilder::new(turn);
        for (role, content) in [("user", Some("é \"x\"")), ("assistant", None)] {
            let turn = list.values();
            turn.field_builder::<StringBuilder>(0).expect("text").append_value(role);
            turn.field_builder::<StringBuilder>(1).expect("text").append_option(content);
            turn.append(true);
        }
        list.append(true);
        list.append(false);
        let text = r#"[{"role":"user","content":"é \"x\""},{"role":"assistant","content":null}]"#;
        assert_eq!(of(list.finish()), Column::Json(vec![Some(text.into()), None]));
    }
}
