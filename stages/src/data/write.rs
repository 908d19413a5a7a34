//! Parquet files whose bytes depend on the rows alone.
//! Knows nothing of what the columns mean.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterVersion};
use preflow::columns::{EXTENSION, JSON, MessagesType, messages_array};

use super::{Column, Content, Message, Table};

/// Rows in a row group.
const ROW_GROUP: usize = 65_536;

/// Writes `table` to `path` with pinned settings: no time, host or library version gets in.
///
/// # Errors
/// When the file cannot be written.
pub fn write_parquet(path: &Path, table: &Table) -> Result<()> {
    let of = |(name, column): &(String, Column)| {
        conversations(column).map_or_else(|| field(name, column), |found| found.with_name(name))
    };
    let fields: Vec<Field> = table.columns().iter().map(of).collect();
    let schema = Arc::new(Schema::new(fields));
    let file = fs_err::File::create(path)?;
    let properties = WriterProperties::builder()
        .set_created_by("preflow".into())
        .set_compression(Compression::SNAPPY)
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let context = || format!("cannot write {}", path.display());
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))?;
    // A row group at a time: a second copy of a large table would not fit.
    for start in (0..table.rows()).step_by(ROW_GROUP) {
        let rows = start..(start + ROW_GROUP).min(table.rows());
        let both = table.columns().iter().zip(schema.fields());
        let arrays = both.map(|((_, column), field)| match (column, field.data_type()) {
            (Column::Json(cells), DataType::List(_)) => lists(field, &cells[rows.clone()]),
            _ => Ok(array(column, rows.clone())),
        });
        let batch = RecordBatch::try_new(schema.clone(), arrays.collect::<Result<_>>()?)?;
        writer.write(&batch).with_context(context)?;
        writer.flush().with_context(context)?;
    }
    writer.close().with_context(context)?;
    Ok(())
}

/// The type of a column of which every cell is a list of messages, as lists of structs; `None`: the
/// column holds something else, or messages that no list of structs holds exactly.
fn conversations(column: &Column) -> Option<Field> {
    let Column::Json(cells) = column else { return None };
    if cells.iter().all(Option::is_none) {
        return None;
    }
    let mut kind = MessagesType::default();
    for json in cells.iter().flatten() {
        kind.see(&messages(json)?);
    }
    kind.field()
}

fn messages(json: &str) -> Option<Vec<Message>> {
    match Content::from_json(json) {
        Ok(Content::Messages(list)) => Some(list),
        _ => None,
    }
}

/// Some rows of a column of conversations.
fn lists(field: &Field, cells: &[Option<String>]) -> Result<ArrayRef> {
    let rows: Vec<Option<Vec<Message>>> =
        cells.iter().map(|cell| cell.as_deref().and_then(messages)).collect();
    let rows: Vec<Option<&[Message]>> = rows.iter().map(Option::as_deref).collect();
    Ok(messages_array(field, &rows)?)
}

fn field(name: &str, column: &Column) -> Field {
    let kind = match column {
        Column::Text(_) | Column::Json(_) => DataType::Utf8,
        Column::Bytes(_) => DataType::Binary,
        Column::Float(_) => DataType::Float64,
        Column::Int(_) => DataType::Int64,
        Column::Bool(_) => DataType::Boolean,
    };
    let field = Field::new(name, kind, true);
    match column {
        // Read again, it is told from text.
        Column::Json(_) => field.with_metadata(HashMap::from([(EXTENSION.into(), JSON.into())])),
        _ => field,
    }
}

fn array(column: &Column, rows: Range<usize>) -> ArrayRef {
    match column {
        Column::Text(v) | Column::Json(v) => Arc::new(StringArray::from_iter(&v[rows])),
        Column::Bytes(v) => Arc::new(BinaryArray::from_iter(&v[rows])),
        Column::Float(v) => Arc::new(Float64Array::from(v[rows].to_vec())),
        Column::Int(v) => Arc::new(Int64Array::from(v[rows].to_vec())),
        Column::Bool(v) => Arc::new(BooleanArray::from(v[rows].to_vec())),
    }
}
