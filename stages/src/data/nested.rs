//! Lists and structs of Parquet as JSON text, which is how tables here hold them.
//! Knows nothing of what they mean.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow_array::{Array, RecordBatch, make_array};
use arrow_json::ArrayWriter;
use arrow_schema::{Field, Schema};
use serde_json::Value;

/// Appends the rows of a nested array as JSON text; a null stays a gap.
///
/// # Errors
/// When a value has no form in JSON.
pub fn append(out: &mut Vec<Option<String>>, array: &dyn Array) -> Result<()> {
    let field = Field::new("x", array.data_type().clone(), true);
    let columns = vec![make_array(array.to_data())];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), columns)?;
    let mut bytes = Vec::new();
    let mut writer = ArrayWriter::new(&mut bytes);
    writer.write(&batch).context("nested values cannot be read")?;
    writer.finish()?;
    let rows: Vec<Value> =
        serde_json::from_slice(&bytes).context("nested values cannot be read")?;
    let text = |row: Value| row.get("x").filter(|x| !x.is_null()).map(Value::to_string);
    out.extend(rows.into_iter().map(text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
    use arrow_schema::{DataType, Fields};

    use super::*;

    #[test]
    fn conversations_of_datasets_become_text() {
        let fields: Fields =
            ["role", "content"].map(|n| Field::new(n, DataType::Utf8, true)).into_iter().collect();
        let turn = StructBuilder::from_fields(fields, 2);
        let mut list = ListBuilder::new(turn);
        for (role, content) in [("user", "é \"x\""), ("assistant", "b")] {
            let turn = list.values();
            turn.field_builder::<StringBuilder>(0).expect("text").append_value(role);
            turn.field_builder::<StringBuilder>(1).expect("text").append_value(content);
            turn.append(true);
        }
        list.append(true);
        list.append(false);
        let mut out = Vec::new();
        append(&mut out, &list.finish()).expect("text");
        let messages: Vec<crate::data::Message> =
            serde_json::from_str(out[0].as_deref().expect("a row")).expect("messages");
        assert_eq!(messages[0], crate::data::Message::new("user", "é \"x\""));
        assert_eq!((messages.len(), &out[1]), (2, &None));
    }
}
