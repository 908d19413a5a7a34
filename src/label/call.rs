//! A request to the label page that was let through, and its answer.
//! Knows neither routes nor pages.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::{HeaderName, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;

use super::error::SessionError;
use super::session::LabelSession;
use crate::http::{Guard, Refused, Visitor};

/// What every handler may use.
#[derive(Debug)]
pub struct App {
    pub session: Arc<LabelSession>,
    pub guard: Guard,
    /// Scheme and authority of the links that are given out.
    pub base: String,
    /// How long links are valid.
    pub expires: SignedDuration,
}

/// A request that was let through.
#[derive(Debug)]
pub struct Call {
    /// Of routes for anyone: nobody.
    pub visitor: Option<Visitor>,
    pub params: HashMap<String, String>,
    pub body: Vec<u8>,
    pub now: Timestamp,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub kind: &'static str,
    pub body: Vec<u8>,
    pub headers: Vec<(HeaderName, String)>,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum Failed {
    Refused(Refused),
    LabelSession(SessionError),
    Bad(String),
}

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        Self::LabelSession(error)
    }
}

impl Failed {
    /// The status, and words for whoever called.
    pub fn words(&self) -> (StatusCode, String) {
        match self {
            Self::Refused(Refused(status, why)) => (*status, (*why).to_owned()),
            Self::Bad(why) => (StatusCode::BAD_REQUEST, why.clone()),
            Self::LabelSession(error) => {
                let status = match error {
                    e if e.is_full() => StatusCode::INSUFFICIENT_STORAGE,
                    SessionError::Votes(_)
                    | SessionError::Cache { .. }
                    | SessionError::Taken(_) => StatusCode::SERVICE_UNAVAILABLE,
                    SessionError::BadName(_) | SessionError::BadSubmission(_) => {
                        StatusCode::UNPROCESSABLE_ENTITY
                    }
                    SessionError::OtherPairs => StatusCode::CONFLICT,
                    SessionError::UnknownPair | SessionError::NothingToUndo => {
                        StatusCode::NOT_FOUND
                    }
                };
                (status, format!("{error}; {}", error.help()))
            }
        }
    }
}

impl Reply {
    /// JSON, which no cache keeps.
    #[must_use]
    pub fn json(value: &serde_json::Value) -> Self {
        Self::of(StatusCode::OK, "application/json", value.to_string().into_bytes())
    }

    #[must_use]
    pub fn of(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Self {
        Self { status, kind, body, headers: Vec::new() }
    }
}

impl Call {
    /// Whoever calls.
    ///
    /// # Panics
    /// On routes for anyone.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.visitor.as_ref().expect("invariant: the route is not for anyone").name
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// It is something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failed> {
        serde_json::from_slice(&self.body).map_err(|e| Failed::Bad(format!("not understood: {e}")))
    }
}
