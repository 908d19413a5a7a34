//! What a request must bring before anybody looks at what it asks: a Host that is ours, the key
//! where there is one, and a body that no form of another page could send.
//! Does not know what routes do.

use axum::http::{HeaderMap, Method, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use crate::http::own_host;

/// Decides which requests are let in.
#[derive(Debug, Clone)]
pub struct ApiGuard {
    /// What clients must know, hashed: equal lengths tell nothing.
    key: Option<[u8; 32]>,
    /// Reached from other machines, which know this one by names of its own.
    open: bool,
}

impl ApiGuard {
    pub fn new(key: Option<&str>, open: bool) -> Self {
        Self { key: key.map(hashed), open }
    }

    /// # Errors
    /// The request is turned away.
    pub fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        // Who knows the key was not led here by a name that points elsewhere.
        let named = self.open && self.key.is_some();
        if !named && own_host(headers, self.open, None).is_none() {
            let message = "this server answers to its address and to `localhost` alone";
            return Err(ApiError::of(StatusCode::FORBIDDEN, "wrong_host", message));
        }
        if let Some(key) = self.key
            && bearer(headers).map(hashed) != Some(key)
        {
            let message = "the key is missing or wrong: send `Authorization: Bearer KEY`";
            return Err(ApiError::of(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
        }
        if *method == Method::POST && !is_json(headers) {
            let message = "send the body with `Content-Type: application/json`";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::of(status, "unsupported_media_type", message));
        }
        Ok(())
    }
}

fn hashed(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
