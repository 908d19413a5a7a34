//! What a client is told that gets no answer, in OpenAI's form.
//! Does not know what was asked.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::protocol::questions::Refusal;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// The field that it is about.
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

impl ApiError {
    /// A request that is wrong at a field.
    pub fn field(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::request(message) }
    }

    /// A request that is wrong as a whole.
    pub fn request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), param: None, code: None }
    }

    /// Anything else.
    pub fn of(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: Some(code) }
    }

    /// A question that the worker refuses; `param`: the field that holds prompts.
    pub fn refused(why: Refusal, message: String, param: &str) -> Self {
        match why {
            Refusal::TooLong => {
                Self { code: Some("context_length_exceeded"), ..Self::field(param, message) }
            }
            Refusal::Unfit => Self::field(param, message),
            Refusal::Fault => Self::of(StatusCode::INTERNAL_SERVER_ERROR, "model_failed", message),
        }
    }

    /// The body, also of an event in a stream that has begun.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let Self { message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, as_json(&self.body())).into_response();
        let further = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::TOO_MANY_REQUESTS => Some((header::RETRY_AFTER, "5")),
            _ => None,
        };
        if let Some((name, value)) = further {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// An object as the body of a response.
pub fn as_json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
