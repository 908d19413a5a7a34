//! Parquet files whose bytes depend on the rows alone.
//! Knows nothing of what the columns mean.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::{Column, Table};

/// Rows in a row group.
const ROW_GROUP: usize = 65_536;

/// Writes `table` to `path` with pinned settings: no time, host or library version gets in.
///
/// # Errors
/// When the file cannot be written.
pub fn write_parquet(path: &Path, table: &Table) -> Result<()> {
    let batch = record_batch(table)?;
    let file = fs_err::File::create(path)?;
    let properties = WriterProperties::builder()
        .set_created_by("preflow".into())
        .set_compression(Compression::SNAPPY)
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let context = || format!("cannot write {}", path.display());
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(&batch).with_context(context)?;
    writer.close().with_context(context)?;
    Ok(())
}

fn record_batch(table: &Table) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (name, column) in table.columns() {
        let (kind, array): (DataType, ArrayRef) = match column {
            Column::Text(v) => (DataType::Utf8, Arc::new(StringArray::from_iter(v))),
            Column::Float(v) => (DataType::Float64, Arc::new(Float64Array::from(v.clone()))),
            Column::Int(v) => (DataType::Int64, Arc::new(Int64Array::from(v.clone()))),
            Column::Bool(v) => (DataType::Boolean, Arc::new(BooleanArray::from(v.clone()))),
        };
        fields.push(Field::new(name, kind, true));
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}
