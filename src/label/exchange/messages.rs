//! Conversations as text: what two of them share is the prompt, the rest are the answers.
//! Knows nothing of files.

use serde_json::Value;

/// What starts the assistant's turn in a transcript.
const ASSISTANT: &str = "\n\nAssistant:";
const HUMAN: &str = "\n\nHuman:";

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub role: String,
    pub content: String,
}

/// The turns of a list of `{role, content}`, also where it is JSON in a string.
pub fn turns(value: &Value) -> Option<Vec<Turn>> {
    let parsed;
    let list = match value {
        Value::Array(list) => list,
        Value::String(text) if text.trim_start().starts_with('[') => {
            parsed = serde_json::from_str::<Value>(text).ok()?;
            parsed.as_array()?
        }
        _ => return None,
    };
    let turn = |turn: &Value| {
        let word = |name: &str| Some(turn.get(name)?.as_str()?.to_owned());
        Some(Turn { role: word("role")?, content: word("content")? })
    };
    let turns: Option<Vec<Turn>> = list.iter().map(turn).collect();
    turns.filter(|turns| !turns.is_empty())
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
