//! Conversations as text: what two of them share is the prompt, the rest are the answers.
//! Knows nothing of files.

use std::borrow::Cow;

use serde_json::{Value, json};

/// What starts the assistant's turn in a transcript.
const ASSISTANT: &str = "\n\nAssistant:";
const HUMAN: &str = "\n\nHuman:";

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub role: String,
    pub content: String,
}

/// The turns of a list of `{role, content}`, also where it is JSON in a string; `None`: it is none.
///
/// # Errors
/// It is one, and a turn holds something else than text: says which.
pub fn turns(value: &Value) -> Result<Option<Vec<Turn>>, String> {
    let parsed;
    let list = match value {
        Value::Array(list) => list,
        Value::String(text) if text.trim_start().starts_with('[') => {
            parsed = serde_json::from_str::<Value>(text).unwrap_or_default();
            let Some(list) = parsed.as_array() else { return Ok(None) };
            list
        }
        _ => return Ok(None),
    };
    let role = |turn: &Value| turn.get("role")?.as_str().map(str::to_owned);
    let Some(roles) = list.iter().map(role).collect::<Option<Vec<String>>>() else {
        return Ok(None);
    };
    let turn = |(i, role): (usize, String)| match content(&list[i]) {
        Ok(content) => Ok(Turn { role, content }),
        Err(what) => Err(format!("turn {} ({role}) {what}", i + 1)),
    };
    let turns = roles.into_iter().enumerate().map(turn).collect::<Result<Vec<Turn>, String>>()?;
    Ok(Some(turns).filter(|turns| !turns.is_empty()))
}

/// The text of a turn, also where it is a list of parts that are all text.
fn content(turn: &Value) -> Result<String, String> {
    let calls = |name: &&str| turn.get(*name).is_some_and(|calls| !calls.is_null());
    if ["tool_calls", "function_call"].iter().any(calls) {
        return Err("calls tools, which are not read".to_owned());
    }
    match turn.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| part.get("text")?.as_str().map(str::to_owned);
            let texts = parts.iter().map(text).collect::<Option<Vec<String>>>();
            texts.map(|t| t.concat()).ok_or_else(|| "holds parts that are no text".to_owned())
        }
        None | Some(Value::Null) => Err("has no content".to_owned()),
        Some(other) => Err(format!("holds {}, not text", form_of(other))),
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

/// One turn is its content; several are a transcript.
pub fn text(turns: &[Turn]) -> String {
    if let [one] = turns {
        return one.content.clone();
    }
    let name = |role: &str| match role {
        "user" | "human" => "Human".to_owned(),
        "assistant" | "gpt" => "Assistant".to_owned(),
        other => {
            let mut letters = other.chars();
            letters.next().map_or_else(String::new, |c| c.to_uppercase().chain(letters).collect())
        }
    };
    let lines: Vec<String> =
        turns.iter().map(|t| format!("{}: {}", name(&t.role), t.content)).collect();
    lines.join("\n\n")
}

/// What a text says: of turns that are written as JSON, the turns themselves.
pub fn plain(said: &str) -> Cow<'_, str> {
    if !said.trim_start().starts_with('[') {
        return Cow::Borrowed(said);
    }
    match turns(&Value::from(said)) {
        Ok(Some(turns)) => Cow::Owned(text(&turns)),
        _ => Cow::Borrowed(said),
    }
}

/// The turns of a value, or one of a role that says all of it.
pub fn as_turns(value: &Value, role: &str) -> Value {
    match turns(value) {
        Ok(Some(turns)) => {
            turns.iter().map(|t| json!({"role": t.role, "content": t.content})).collect()
        }
        _ => json!([{"role": role, "content": value}]),
    }
}

/// Prompt and both answers of two conversations that begin alike.
pub fn split_turns(one: &[Turn], other: &[Turn]) -> Result<[String; 3], String> {
    let alike = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    // An answer is never empty: the last turn belongs to it.
    let alike = alike.min(one.len() - 1).min(other.len() - 1);
    if alike == 0 {
        return Err("the two conversations do not begin with the same turn".to_owned());
    }
    Ok([text(&one[..alike]), text(&one[alike..]), text(&other[alike..])])
}

/// Prompt and both answers of two transcripts with turns `Human:` and `Assistant:`. What they share
/// up to the last turn of the assistant that begins in it is the prompt; of a single turn, without
/// the word `Human:`.
pub fn split_transcripts(one: &str, other: &str) -> Result<[String; 3], String> {
    let pairs = one.char_indices().zip(other.chars());
    let shared = pairs.take_while(|((_, a), b)| a == b).last();
    let shared = shared.map_or(0, |((at, c), _)| at + c.len_utf8());
    let Some(at) = one[..shared].rfind(ASSISTANT) else {
        return Err("the two transcripts share no beginning up to a turn `Assistant:`".to_owned());
    };
    let end = at + ASSISTANT.len();
    // The turn before is complete: what comes next is the answer on both sides.
    let prompt = &one[..at];
    let single = prompt.strip_prefix(HUMAN).filter(|rest| !rest.contains(HUMAN));
    let prompt = single.map_or_else(|| prompt.trim(), str::trim);
    Ok([prompt.to_owned(), one[end..].trim().to_owned(), other[end..].trim().to_owned()])
}
