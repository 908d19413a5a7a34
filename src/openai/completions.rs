//! Requests of `/v1/completions`: texts that go on, and how likely texts are.
//! Does not know how answers are written.

use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::request::{self, LIKELIEST, ROWS, Request, RouteFields};
use crate::protocol::questions::PromptDoc;

/// What OpenAI's models write where no length is asked for.
const USUAL_LENGTH: u32 = 16;

/// # Errors
/// A field has another type, is not supported or not understood.
pub fn read(body: &[u8]) -> Result<Request, ApiError> {
    let mut fields = Fields::of(body)?;
    let prompts = prompts(&mut fields)?;
    let echo = fields.flag("echo")?;
    let max_tokens = fields.count("max_tokens", 0, u32::MAX)?.unwrap_or(USUAL_LENGTH);
    if max_tokens == 0 && !echo {
        return Err(ApiError::field("max_tokens", "`max_tokens: 0` asks for nothing but an echo"));
    }
    let logprobs = fields.count("logprobs", 0, LIKELIEST)?;
    fields.only("suffix", &[])?;
    let best_of = fields.take("best_of");
    let own = RouteFields { prompts, max_tokens: Some(max_tokens), echo, logprobs };
    let request = request::read(fields, own)?;
    if best_of.is_some_and(|best_of| best_of != json!(request.question.n)) {
        return Err(ApiError::field("best_of", "`best_of` is not supported here: leave it out"));
    }
    Ok(request)
}

/// One prompt or several, as texts or as tokens.
fn prompts(fields: &mut Fields) -> Result<Vec<PromptDoc>, ApiError> {
    const NAME: &str = "prompt";
    let Some(value) = fields.take(NAME) else {
        return Err(ApiError::field(NAME, "`prompt` is missing"));
    };
    let found = match &value {
        Value::Array(list) if !list.is_empty() && !list.iter().all(Value::is_number) => {
            list.iter().map(prompt).collect()
        }
        one => prompt(one).map(|prompt| vec![prompt]),
    };
    let what = "a text, a list of tokens, or a list of one of these";
    let found: Vec<PromptDoc> = found.ok_or_else(|| wrong(NAME, &value, what))?;
    match found.len() {
        n if n > ROWS => {
            Err(ApiError::field(NAME, format!("{n} prompts: at most {ROWS} at a time")))
        }
        _ => Ok(found),
    }
}

fn prompt(value: &Value) -> Option<PromptDoc> {
    match value {
        Value::String(text) => Some(PromptDoc::Text(text.clone())),
        Value::Array(list) => {
            list.iter().map(Value::as_i64).collect::<Option<_>>().map(PromptDoc::Tokens)
        }
        _ => None,
    }
}
