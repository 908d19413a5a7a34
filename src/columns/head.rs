//! The beginning of a file: which columns it has, how many rows, and the first of them.

use std::path::Path;

use arrow_schema::{DataType, Field};
use serde_json::{Map, Value};

use super::{Columns, EXTENSION, JSON, ReadError, each_batch, is_messages, open};

/// What a file holds, and its first rows.
#[derive(Debug, PartialEq)]
pub struct Head {
    /// Rows of the whole file.
    pub rows: u64,
    /// Name and type of each column, in order.
    pub columns: Vec<(String, String)>,
    /// The first rows; a missing value is not there.
    pub first: Vec<Map<String, Value>>,
    /// Columns whose values no JSON can hold, each with the reason.
    pub unread: Vec<(String, String)>,
}

/// Reads the beginning of a Parquet file: at most `most` rows.
///
/// # Errors
/// As [`each_batch`].
pub fn head(path: &Path, most: usize) -> Result<Head, ReadError> {
    let file = open(path)?;
    let rows = u64::try_from(file.metadata().file_metadata().num_rows()).unwrap_or(0);
    let fields = file.schema().fields().iter();
    let columns = fields.map(|field| (field.name().clone(), type_of(field))).collect();
    let mut head = Head { rows, columns, first: Vec::new(), unread: Vec::new() };
    let mut broken = None;
    each_batch(path, most, |columns: &Columns| match columns.objects() {
        Ok((rows, unread)) => {
            head.first.extend(rows);
            head.unread = unread;
        }
        Err(source) => broken = Some(source),
    })?;
    match broken {
        Some(source) => Err(ReadError::Batch { path: path.to_owned(), source }),
        None => Ok(head),
    }
}

/// The type of a column, in a word or two.
fn type_of(field: &Field) -> String {
    let is_json = field.metadata().get(EXTENSION).is_some_and(|name| name == JSON);
    if is_json { "JSON".to_owned() } else { word_of(field.data_type()) }
}

fn word_of(of: &DataType) -> String {
    match of {
        _ if is_messages(of) => "conversation".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        DataType::Dictionary(_, value) => word_of(value),
        DataType::Struct(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            format!("map of {}", names.join(", "))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("list of {}", word_of(item.data_type()))
        }
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
    use serde_json::json;

    use super::*;
    use crate::columns::{MessagesType, messages_array};
    use crate::conversation::Content;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test owns its folder")]
    fn a_head_has_all_columns_all_rows_counted_and_the_first_of_them() {
        let written = r#"[{"role":"user","content":"Hi"}]"#;
        let content = Content::of_written(written);
        let messages = content.messages("user");
        let mut of = MessagesType::default();
        of.see(&messages);
        let turns = of.field().expect("one type");
        let turns = messages_array(&turns, &[Some(messages.as_ref()); 5]).expect("rows");
        let columns: [(&str, ArrayRef); 4] = [
            ("prompt", turns),
            ("answer", Arc::new(StringArray::from(vec![Some("a"), None, Some("c"), None, None]))),
            ("n", Arc::new(Int64Array::from_iter_values(0..5))),
            ("score", Arc::new(Float64Array::from(vec![0.5; 5]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let file = tempfile::NamedTempFile::new().expect("temp");
        let target = file.reopen().expect("open");
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(target, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("written");

        let of = |name: &str, of: &str| (name.to_owned(), of.to_owned());
        let found = head(file.path(), 2).expect("read");
        assert_eq!(found.rows, 5);
        let columns = [
            of("prompt", "conversation"),
            of("answer", "text"),
            of("n", "int64"),
            of("score", "float64"),
        ];
        assert_eq!(found.columns, columns);
        let prompt: Value = serde_json::from_str(written).expect("JSON");
        let rows = json!([
            {"prompt": prompt, "answer": "a", "n": 0, "score": 0.5},
            {"prompt": prompt, "n": 1, "score": 0.5},
        ]);
        assert_eq!(json!(found.first), rows);
        assert!(head(file.path(), 0).expect("read").first.is_empty());
        std::fs::write(file.path(), b"PAR1 and nothing more PAR1").expect("written");
        assert!(head(file.path(), 1).is_err());
    }
}
