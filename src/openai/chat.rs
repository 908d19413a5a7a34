//! Requests of `/v1/chat/completions`: the answer of an assistant to a conversation.
//! Does not know how answers are written.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::request::{self, LIKELIEST, Request, RouteFields};
use crate::protocol::questions::PromptDoc;

/// Roles of messages that may be asked about.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// # Errors
/// A field has another type, is not supported or not understood.
pub fn read(body: &[u8]) -> Result<Request, ApiError> {
    let mut fields = Fields::of(body)?;
    let messages = messages(&mut fields)?;
    let arguments = match fields.take("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(value) => return Err(wrong("chat_template_kwargs", &value, "an object")),
    };
    let max_tokens = max_tokens(&mut fields)?;
    let wanted = fields.flag("logprobs")?;
    let likeliest = fields.count("top_logprobs", 0, LIKELIEST)?;
    if likeliest.is_some() && !wanted {
        return Err(ApiError::field("top_logprobs", "`top_logprobs` needs `logprobs: true`"));
    }
    fields.only("tools", &[json!([])])?;
    fields.only("functions", &[json!([])])?;
    fields.only("tool_choice", &[json!("none")])?;
    fields.only("function_call", &[json!("none")])?;
    fields.only("parallel_tool_calls", &[])?;
    fields.only("response_format", &[json!({ "type": "text" })])?;
    fields.only("modalities", &[json!(["text"])])?;
    fields.only("store", &[json!(false)])?;
    let own = RouteFields {
        prompts: vec![PromptDoc::Conversation { messages, arguments }],
        max_tokens,
        echo: false,
        logprobs: wanted.then(|| likeliest.unwrap_or_default()),
    };
    request::read(fields, own)
}

/// Both names of it; the older one is deprecated.
fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let new = fields.count("max_completion_tokens", 1, u32::MAX)?;
    let old = fields.count("max_tokens", 1, u32::MAX)?;
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            let message = "`max_tokens` and `max_completion_tokens` say two things: give one";
            Err(ApiError::field("max_tokens", message))
        }
        (new, old) => Ok(new.or(old)),
    }
}

/// The list of messages, each with its role and what it says.
fn messages(fields: &mut Fields) -> Result<Value, ApiError> {
    const NAME: &str = "messages";
    let Some(messages) = fields.take(NAME) else {
        return Err(ApiError::field(NAME, "`messages` is missing"));
    };
    let Value::Array(list) = &messages else {
        return Err(wrong(NAME, &messages, "a list of messages"));
    };
    if list.is_empty() {
        return Err(ApiError::field(NAME, "`messages` is empty: nothing is asked"));
    }
    for (i, message) in list.iter().enumerate() {
        let at = |field: &str| format!("messages[{i}].{field}");
        let Value::Object(map) = message else {
            return Err(wrong(&format!("messages[{i}]"), message, "an object"));
        };
        let known = |name: &&String| ["role", "content", "name"].contains(&name.as_str());
        if let Some((name, _)) = map.iter().find(|(name, value)| !known(name) && !value.is_null()) {
            let name = at(name);
            return Err(ApiError::field(&name, format!("field `{name}` is not understood here")));
        }
        let role = map.get("role").unwrap_or(&Value::Null);
        if !role.as_str().is_some_and(|role| ROLES.contains(&role)) {
            return Err(wrong(&at("role"), role, &format!("one of {}", ROLES.join(", "))));
        }
        let content = map.get("content").unwrap_or(&Value::Null);
        let is_text = |part: &Value| part["type"] == "text" && part["text"].is_string();
        let sound = match content {
            Value::String(_) => true,
            Value::Array(parts) => !parts.is_empty() && parts.iter().all(is_text),
            _ => false,
        };
        if !sound {
            return Err(wrong(&at("content"), content, "a text, or a list of parts of text"));
        }
    }
    Ok(messages)
}
