//! Labels for other tools: the columns of TRL, CSV, JSON lines, Parquet; pairs as a dataset.
//! Knows nothing of how labels came about.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterVersion};
use serde_json::{Map, Value, json};

use super::error::ExchangeError;
use super::messages::{as_turns, turns};
use crate::columns::{EXTENSION, JSON, MessagesType, each_batch, messages_array};
use crate::conversation::Content;
use crate::store::write_atomic;
use crate::votes::{Choice, Folder, PairText, latest, pair_id};

/// A form in which labels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// JSON lines with `prompt`, `chosen`, `rejected`; no ties. Lists of messages where a row has
    /// one.
    Trl,
    /// The same, always as lists of messages.
    TrlConversational,
    /// All columns, all rows.
    JsonLines,
    /// All columns, all rows.
    Csv,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    pub text: String,
    pub rows: usize,
    /// Ties, which the form cannot hold.
    pub left_out: usize,
}

/// The labels of a Parquet file in another form.
///
/// # Errors
/// The file is damaged.
pub fn export(path: &Path, shape: Shape) -> Result<Labels, ExchangeError> {
    let unreadable = |reason: String| ExchangeError::Unreadable { path: path.to_owned(), reason };
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    let mut header: Vec<String> = Vec::new();
    let mut broken = None;
    each_batch(path, usize::MAX, |columns| {
        header = columns.names();
        match columns.objects() {
            Ok((objects, unread)) => {
                rows.extend(objects);
                broken = broken.take().or_else(|| unread.into_iter().next());
            }
            Err(error) => broken = Some(("a batch".to_owned(), error.to_string())),
        }
    })?;
    if let Some((column, why)) = broken {
        return Err(unreadable(format!("`{column}` cannot be written: {why}")));
    }
    let wants = |name: &&str| !header.iter().any(|have| have == name);
    if matches!(shape, Shape::Trl | Shape::TrlConversational)
        && let Some(name) = ["prompt", "chosen", "rejected"].iter().find(|name| wants(name))
    {
        return Err(unreadable(format!("no column `{name}`")));
    }
    let all = rows.len();
    if matches!(shape, Shape::Trl | Shape::TrlConversational) {
        rows.retain(|row| row.get("tie").and_then(Value::as_bool) != Some(true));
    }
    let conversational = rows.iter().any(|row| {
        let cells = ["prompt", "chosen", "rejected"].map(|name| row.get(name).map(turns));
        cells.into_iter().flatten().any(|found| matches!(found, Ok(Some(_))))
    });
    let text = match shape {
        Shape::Csv => csv_text(&header, &rows).map_err(|e| unreadable(e.to_string()))?,
        Shape::JsonLines => lines(rows.iter().map(|row| Value::Object(row.clone()))),
        // TRL takes one of the two: texts, or messages in all columns.
        Shape::Trl if !conversational => lines(rows.iter().map(|row| {
            let get = |name: &str| row.get(name).cloned().unwrap_or_default();
            json!({"prompt": get("prompt"), "chosen": get("chosen"), "rejected": get("rejected")})
        })),
        Shape::Trl | Shape::TrlConversational => lines(rows.iter().map(|row| {
            let turn =
                |role: &str, name: &str| as_turns(row.get(name).unwrap_or(&Value::Null), role);
            json!({
                "prompt": turn("user", "prompt"),
                "chosen": turn("assistant", "chosen"),
                "rejected": turn("assistant", "rejected"),
            })
        })),
    };
    Ok(Labels { text, rows: rows.len(), left_out: all - rows.len() })
}

/// The columns of votes that are written.
const VOTES: [&str; 12] = [
    "annotator",
    "pair",
    "prompt",
    "response_a",
    "response_b",
    "choice",
    "reasons",
    "note",
    "seconds",
    "at",
    "shown_left",
    "repeat",
];

/// The last word of each annotator on each pair, a row each, as CSV or JSON lines; what was taken
/// back is left out, what was skipped is there. `a` and `b` of a choice are the two responses.
#[must_use]
pub fn votes(folder: &Folder, shape: Shape) -> String {
    let mut rows = Vec::new();
    for (annotator, votes) in &folder.votes {
        for vote in latest(votes).into_values().filter(|v| v.choice != Choice::Retracted) {
            let text = folder.texts.get(&vote.pair);
            let of = |part: fn(&PairText) -> &str| text.map(part);
            #[expect(clippy::cast_precision_loss, reason = "nobody looks for so long")]
            let seconds = vote.ms as f64 / 1000.0;
            let values = json!([
                annotator,
                vote.pair,
                of(|t| &t.prompt),
                of(|t| &t.a),
                of(|t| &t.b),
                vote.choice,
                vote.reasons.join(", "),
                vote.note,
                seconds,
                vote.at,
                vote.shown_left,
                vote.repeat,
            ]);
            let values = values.as_array().cloned().unwrap_or_default();
            let names = VOTES.iter().map(|name| (*name).to_owned());
            rows.push(names.zip(values).collect::<Map<String, Value>>());
        }
    }
    let header = VOTES.map(str::to_owned);
    match shape {
        Shape::Csv => csv_text(&header, &rows).expect("invariant: nothing is written to a file"),
        _ => lines(rows.into_iter().map(Value::Object)),
    }
}

fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

fn csv_text(header: &[String], rows: &[Map<String, Value>]) -> csv::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header)?;
    for row in rows {
        let cell = |name: &String| match row.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        writer.write_record(header.iter().map(cell))?;
    }
    let bytes = writer.into_inner().map_err(|e| csv::Error::from(e.into_error()))?;
    Ok(String::from_utf8(bytes).expect("invariant: text was written"))
}

/// Writes pairs `[prompt, first answer, second answer]` as `dataset/pairs`.
///
/// # Errors
/// The file cannot be written.
pub fn write_pairs(path: &Path, pairs: &[[String; 3]]) -> Result<(), ExchangeError> {
    let failed = |source: std::io::Error| ExchangeError::Write { path: path.to_owned(), source };
    let texts =
        |k: usize| column(pairs.iter().map(|p| p[k].as_str()), ["user", "assistant"][k.min(1)]);
    let names = pairs.iter().map(|[prompt, a, b]| pair_id(prompt, a, b));
    let finished = || Arc::new(BooleanArray::from(vec![true; pairs.len()])) as ArrayRef;
    let named = |name: &str, (field, array): (Field, ArrayRef)| (field.with_name(name), array);
    let text = |array: ArrayRef| (Field::new("", array.data_type().clone(), true), array);
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = [
        named("pair", text(Arc::new(StringArray::from_iter_values(names)))),
        named("prompt", texts(0)),
        named("response_a", texts(1)),
        named("response_b", texts(2)),
        named("finished_a", text(finished())),
        named("finished_b", text(finished())),
    ]
    .into_iter()
    .unzip();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .expect("invariant: the columns are of one length");
    let bytes = parquet_bytes(&batch).map_err(std::io::Error::other).map_err(failed)?;
    write_atomic(path, &bytes).map_err(failed)
}

/// A column of texts; one of conversations where any of them is one, in which a text is a message
/// of `role`.
fn column<'a>(texts: impl Iterator<Item = &'a str> + Clone, role: &str) -> (Field, ArrayRef) {
    let contents: Vec<Content> = texts.clone().map(Content::of_written).collect();
    if contents.iter().any(|content| matches!(content, Content::Messages(_))) {
        let messages: Vec<_> = contents.iter().map(|content| content.messages(role)).collect();
        let rows: Vec<_> = messages.iter().map(|list| Some(list.as_ref())).collect();
        let mut kind = MessagesType::default();
        messages.iter().for_each(|list| kind.see(list));
        if let Some(field) = kind.field()
            && let Ok(array) = messages_array(&field, &rows)
        {
            return (field, array);
        }
        let json = messages.iter().map(|list| Content::Messages(list.to_vec()).to_json());
        let array: ArrayRef = Arc::new(StringArray::from_iter_values(json));
        let known_as = HashMap::from([(EXTENSION.to_owned(), JSON.to_owned())]);
        return (Field::new("", DataType::Utf8, true).with_metadata(known_as), array);
    }
    let array: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    (Field::new("", DataType::Utf8, true), array)
}

/// Settings are pinned: equal rows give equal bytes.
fn parquet_bytes(batch: &RecordBatch) -> parquet::errors::Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_created_by("preflow".into())
        .set_compression(Compression::SNAPPY)
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes)
}
