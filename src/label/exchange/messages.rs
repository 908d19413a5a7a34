//! Conversations in the values of a file, as the texts that opinions hold.
//! Knows nothing of files.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::conversation::{Content, Message, PromptAndAnswers};

/// The messages of a list of them, also where it is JSON in a string; `None`: it is none.
///
/// # Errors
/// It is one, and a message is not understood: says which.
pub fn turns(value: &Value) -> Result<Option<Vec<Message>>, String> {
    let parsed;
    let list = match value {
        Value::String(text) if text.trim_start().starts_with('[') => {
            parsed = serde_json::from_str::<Value>(text).unwrap_or_default();
            &parsed
        }
        other => other,
    };
    let Some(items) = list.as_array() else { return Ok(None) };
    let has_role = |item: &Value| item.get("role").or_else(|| item.get("from")).is_some();
    if items.is_empty() || !items.iter().all(has_role) {
        return Ok(None);
    }
    match Content::from_json(&list.to_string())? {
        Content::Messages(messages) => Ok(Some(messages)),
        Content::Text(_) => Ok(None),
    }
}

/// What a value is, in words, where something else was wanted.
pub fn form_of(value: &Value) -> String {
    let keys = |map: &serde_json::Map<String, Value>| {
        map.keys().take(6).cloned().collect::<Vec<_>>().join(", ")
    };
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(b) => format!("the truth value {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(_) => "text".to_owned(),
        Value::Object(map) => format!("a map of {{{}}}", keys(map)),
        Value::Array(list) => match list.first() {
            None => "an empty list".to_owned(),
            Some(Value::Object(map)) => format!("a list of {{{}}}", keys(map)),
            Some(Value::String(_)) => "a list of texts".to_owned(),
            Some(Value::Number(_)) => "a list of numbers".to_owned(),
            Some(_) => "a list".to_owned(),
        },
    }
}

/// For people: what a text of ours says, conversations with their roles.
pub fn plain(said: &str) -> Cow<'_, str> {
    match Content::of_written(said) {
        Content::Text(_) => Cow::Borrowed(said),
        messages => Cow::Owned(messages.transcript().into_owned()),
    }
}

/// The messages of a value, or one of a role that says all of it.
pub fn as_turns(value: &Value, role: &str) -> Value {
    match turns(value) {
        Ok(Some(messages)) => {
            serde_json::from_str(&Content::Messages(messages).to_json()).unwrap_or_default()
        }
        _ => json!([{"role": role, "content": value}]),
    }
}

/// Prompt and both answers as texts, in the order of the answers.
pub fn written(found: &PromptAndAnswers) -> [String; 3] {
    let [one, other] = &found.answers;
    [&found.prompt, one, other].map(|content| content.written().into_owned())
}
