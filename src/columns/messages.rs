//! Conversations as a column: a list of structs with role and content, as the Python libraries of
//! the field keep them.
//! Knows nothing of what is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::conversation::{Message, ordered_fields};

/// Finds the type of a column of conversations, of which each is seen once.
#[derive(Debug, Default)]
pub struct MessagesType {
    /// Further fields in the order in which they came, and the values of each.
    names: Vec<String>,
    values: BTreeMap<String, Vec<Box<RawValue>>>,
    /// A value was no JSON.
    unreadable: bool,
}

impl MessagesType {
    /// Looks at the messages of a row.
    pub fn see(&mut self, messages: &[Message]) {
        for (name, json) in messages.iter().flat_map(|message| &message.more) {
            let Ok(raw) = RawValue::from_string(json.clone()) else {
                self.unreadable = true;
                continue;
            };
            if !self.values.contains_key(name) {
                self.names.push(name.clone());
            }
            self.values.entry(name.clone()).or_default().push(raw);
        }
    }

    /// The column of lists of structs. `None`: a further field has no type of its own, because its
    /// values differ in form: then JSON must hold the messages.
    #[must_use]
    pub fn field(&self) -> Option<Field> {
        let mut fields = vec![Field::new("role", DataType::Utf8, true)];
        fields.push(Field::new("content", DataType::Utf8, true));
        for name in &self.names {
            let own: Vec<&RawValue> = self.values[name].iter().map(AsRef::as_ref).collect();
            fields.push(Field::new(name, common_type(&own)?, true));
        }
        let item = DataType::Struct(Fields::from(fields));
        let list = DataType::List(Arc::new(Field::new("item", item, true)));
        (!self.unreadable).then(|| Field::new("messages", list, true))
    }
}

/// Rows of a column of conversations, one a row; a row may have none.
///
/// # Errors
/// The messages do not fit the field, which was found for others.
pub fn messages_array(field: &Field, rows: &[Option<&[Message]>]) -> Result<ArrayRef, ArrowError> {
    let field = field.clone().with_name("messages");
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let mut decoder = arrow_json::ReaderBuilder::new(schema)
        .with_batch_size(rows.len().max(1))
        .build_decoder()?;
    let row = |messages: &Option<&[Message]>| -> Value {
        let list = messages.map(|list| list.iter().map(value).collect::<Vec<_>>());
        Value::Object(Map::from_iter([("messages".to_owned(), list.into())]))
    };
    decoder.serialize(&rows.iter().map(row).collect::<Vec<_>>())?;
    Ok(match decoder.flush()? {
        Some(batch) => Arc::clone(batch.column(0)),
        None => arrow_array::new_empty_array(field.data_type()),
    })
}

fn value(message: &Message) -> Value {
    let mut map = Map::new();
    map.insert("role".into(), message.role.as_str().into());
    map.insert("content".into(), message.content.clone().into());
    for (name, json) in &message.more {
        map.insert(name.clone(), serde_json::from_str(json).unwrap_or_default());
    }
    Value::Object(map)
}

/// The one type that holds all of these values without loss; `None` where there is none.
fn common_type(values: &[&RawValue]) -> Option<DataType> {
    let starts = |with: &[char]| values.iter().all(|v| v.get().starts_with(with));
    if starts(&['"']) {
        return Some(DataType::Utf8);
    }
    if starts(&['t', 'f']) {
        return Some(DataType::Boolean);
    }
    if values.iter().all(|v| v.get().parse::<i64>().is_ok()) {
        return Some(DataType::Int64);
    }
    if starts(&['[']) {
        let lists = values.iter().map(|v| serde_json::from_str::<Vec<&RawValue>>(v.get()).ok());
        let items: Vec<&RawValue> =
            lists.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
        let item = common_type(&items)?;
        return Some(DataType::List(Arc::new(Field::new("item", item, true))));
    }
    if !starts(&['{']) {
        return None;
    }
    let maps: Vec<Vec<(String, Box<RawValue>)>> =
        values.iter().map(|v| ordered_fields(v.get())).collect::<Option<_>>()?;
    let keys =
        |map: &[(String, Box<RawValue>)]| map.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>();
    let names = keys(maps.first()?);
    // A key that one map lacks, or has in another place, would come back otherwise.
    if names.is_empty() || maps.iter().any(|map| keys(map) != names) {
        return None;
    }
    let field = |i: usize| {
        let own: Vec<&RawValue> = maps.iter().map(|map| map[i].1.as_ref()).collect();
        Some(Field::new(&names[i], common_type(&own)?, true))
    };
    let fields = (0..names.len()).map(field).collect::<Option<Vec<_>>>()?;
    Some(DataType::Struct(Fields::from(fields)))
}
