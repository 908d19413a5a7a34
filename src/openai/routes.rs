//! The routes: which models there are, chats, completions.
//! Does not know how requests are read or answers written.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::unfold;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answering;
use super::desk::Desk;
use super::error::{ApiError, as_json};
use super::guard::ApiGuard;
use super::request::Request;
use super::written::{ApiRoute, Writer};
use super::{chat, completions};
use crate::http::{self, LetIn};

/// Largest body of a request.
const LARGEST: usize = 16 << 20;
/// Until a body must be there.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// No page may show or load anything of what is answered here.
const CSP: &str = "default-src 'none'; frame-ancestors 'none'";

/// What every route may use.
pub struct ApiState {
    pub desk: Desk,
    pub guard: ApiGuard,
    pub model: String,
    pub fingerprint: String,
    /// When the server began, seconds since 1970.
    pub created: i64,
    /// Most tokens of a prompt and its answer.
    pub context: u64,
}

type App = State<Arc<ApiState>>;

pub fn router(state: Arc<ApiState>) -> Router {
    let nowhere = || async { ApiError::of(StatusCode::NOT_FOUND, "not_found", "no such route") };
    let method = || async {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        ApiError::of(status, "method_not_allowed", "this route takes another method")
    };
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/v1/chat/completions", post(chats))
        .route("/v1/completions", post(complete))
        .fallback(nowhere)
        .method_not_allowed_fallback(method)
        .layer(from_fn_with_state(Arc::clone(&state), admit))
        .with_state(state)
}

async fn admit(app: App, request: HttpRequest, next: Next) -> Response {
    let mut response = match app.guard.admit(request.method(), request.headers()) {
        Ok(()) => {
            let mut response = next.run(request).await;
            response.extensions_mut().insert(LetIn);
            response
        }
        Err(error) => error.into_response(),
    };
    http::dress(response.headers_mut(), CSP);
    response
}

async fn models(app: App) -> Response {
    as_json(&json!({ "object": "list", "data": [described(&app)] }))
}

async fn model(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    known(&app, &id)?;
    Ok(as_json(&described(&app)))
}

fn described(app: &ApiState) -> Value {
    json!({
        "id": app.model, "object": "model", "created": app.created, "owned_by": "preflow",
        "max_model_len": app.context,
    })
}

fn known(app: &ApiState, model: &str) -> Result<(), ApiError> {
    if model == app.model {
        return Ok(());
    }
    let message = format!("there is no model `{model}`; this server has `{}`", app.model);
    let error = ApiError::of(StatusCode::NOT_FOUND, "model_not_found", message);
    Err(ApiError { param: Some("model".into()), ..error })
}

async fn chats(app: App, body: Body) -> Result<Response, ApiError> {
    let request = chat::read(&bytes(body).await?)?;
    answer(&app, ApiRoute::Chat, request).await
}

async fn complete(app: App, body: Body) -> Result<Response, ApiError> {
    let request = completions::read(&bytes(body).await?)?;
    answer(&app, ApiRoute::Completions, request).await
}

async fn bytes(body: Body) -> Result<Vec<u8>, ApiError> {
    let late = |_| ApiError::of(StatusCode::REQUEST_TIMEOUT, "timeout", "the body came too slowly");
    let read = tokio::time::timeout(BODY_LIMIT, to_bytes(body, LARGEST)).await.map_err(late)?;
    read.map(Into::into).map_err(|_| {
        let message = format!("the body is cut off, or has more than {LARGEST} bytes");
        ApiError::of(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    })
}

async fn answer(app: &ApiState, route: ApiRoute, request: Request) -> Result<Response, ApiError> {
    known(app, &request.model)?;
    let Request { model, stream, usage, question } = request;
    let writer = Writer {
        route,
        id: format!("{}-{:032x}", route.prefix(), fastrand::u128(..)),
        created: Timestamp::now().as_second(),
        model,
        fingerprint: app.fingerprint.clone(),
        tokens: question.logprobs.is_some(),
        usage,
    };
    let answers = question.prompts.len() * question.n as usize;
    let answering = Answering::begin(app.desk.ask(question)?, writer, answers).await?;
    if !stream {
        return Ok(as_json(&answering.whole().await?));
    }
    let events = unfold(answering.stream(usage), |mut streaming| async move {
        let data = streaming.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), streaming))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
