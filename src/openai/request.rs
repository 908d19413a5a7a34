//! What a request asks, whichever route it takes, and the fields that all routes have.
//! Does not know how answers are written.

use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use crate::protocol::questions::{PromptDoc, QuestionSpec};

/// Most of the likeliest tokens that are told at a place.
pub const LIKELIEST: u32 = 20;
/// Most answers to one prompt.
const ANSWERS: u32 = 128;
/// Most prompts of a request, and most answers to all of them.
pub const ROWS: usize = 2048;
/// Most texts that stop an answer.
const STOPS: usize = 16;
/// Largest temperature, as that of the kind `sample`.
const HOTTEST: f64 = 100.0;

/// What a client asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model by its name.
    pub model: String,
    /// Pieces are told as they come.
    pub stream: bool,
    /// A stream ends with the numbers of tokens.
    pub usage: bool,
    /// Its id is not given yet.
    pub question: QuestionSpec,
}

/// Fields that a route reads by itself.
pub struct RouteFields {
    pub prompts: Vec<PromptDoc>,
    pub max_tokens: Option<u32>,
    pub echo: bool,
    pub logprobs: Option<u32>,
}

/// Reads the fields that all routes have, and refuses what is left.
///
/// # Errors
/// A field has another type, is not supported or not understood.
pub fn read(mut fields: Fields, own: RouteFields) -> Result<Request, ApiError> {
    let model = match fields.take("model") {
        Some(Value::String(model)) => model,
        Some(value) => return Err(wrong("model", &value, "a name")),
        None => return Err(ApiError::field("model", "`model` is missing")),
    };
    let stream = fields.flag("stream")?;
    let usage = stream_options(&mut fields, stream)?;
    let n = fields.count("n", 1, ANSWERS)?.unwrap_or(1);
    let temperature = fields.number("temperature", 0.0, HOTTEST)?.unwrap_or(1.0);
    let top_p = fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0);
    let seed = seed(&mut fields)?;
    let stop = fields.texts("stop", STOPS)?;
    fields.only("frequency_penalty", &[json!(0)])?;
    fields.only("presence_penalty", &[json!(0)])?;
    fields.only("logit_bias", &[json!({})])?;
    // Names who asks: nothing to do with the answer.
    let _ = fields.take("user");
    fields.end()?;
    let RouteFields { prompts, max_tokens, echo, logprobs } = own;
    let answers = prompts.len() * n as usize;
    if answers > ROWS {
        let message = format!("{answers} answers are asked for: at most {ROWS} at a time");
        return Err(ApiError::field("n", message));
    }
    let question = QuestionSpec {
        id: 0,
        prompts,
        n,
        max_tokens,
        temperature,
        top_p,
        seed,
        stop,
        echo,
        logprobs,
    };
    Ok(Request { model, stream, usage, question })
}

/// Whether a stream is to end with numbers of tokens.
fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    const NAME: &str = "stream_options";
    let Some(value) = fields.take(NAME) else { return Ok(false) };
    if !stream {
        return Err(ApiError::field(NAME, "`stream_options` is for streams alone"));
    }
    let Value::Object(map) = &value else { return Err(wrong(NAME, &value, "an object")) };
    if let Some(other) = map.keys().find(|name| *name != "include_usage") {
        let name = format!("{NAME}.{other}");
        return Err(ApiError::field(&name, format!("field `{name}` is not understood here")));
    }
    match map.get("include_usage") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(usage)) => Ok(*usage),
        Some(value) => Err(wrong("stream_options.include_usage", value, "true or false")),
    }
}

/// The seed; one of chance where none is given.
fn seed(fields: &mut Fields) -> Result<u64, ApiError> {
    match fields.take("seed") {
        None => Ok(fastrand::u64(..)),
        Some(value) => {
            let negative = value.as_i64().map(i64::cast_unsigned);
            let seed = value.as_u64().or(negative);
            seed.ok_or_else(|| wrong("seed", &value, "a whole number"))
        }
    }
}
