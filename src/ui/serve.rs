//! The way to the live page: one link, read-only routes, and what is new as server-sent events.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{Stream, unfold};
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::history;
use super::watch::Watcher;
use crate::html::{self, live};
use crate::http::{self, Guard, LetIn, Refused, Role, ServeError, Signer, Who, accept, below};
use crate::store::Store;

/// How often it is looked whether something changed.
const EVERY: Duration = Duration::from_millis(500);

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                   connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every route may use.
struct App {
    guard: Guard,
    title: String,
    /// The page as it is now.
    now: watch::Receiver<Arc<str>>,
    /// Where runs are written down.
    store: Arc<Store>,
}

/// Serves the page until `stop`; `ready` learns the link.
///
/// # Errors
/// The key that signs the link cannot be made.
pub async fn serve(
    listener: TcpListener,
    mut watcher: Watcher,
    title: String,
    ready: impl FnOnce(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let key = tempfile::tempdir().map_err(ServeError::Key)?;
    // A key for this time only: the link ends with the program.
    let signer = Signer::open(key.path(), &["ui"]).map_err(ServeError::Key)?;
    let until = Timestamp::now().checked_add(SignedDuration::from_hours(24 * 365));
    let token = signer.sign(Role::Admin, "ui", until.map_err(|_| ServeError::Expires)?);
    let address = listener.local_addr().map_err(ServeError::Key)?;
    let first = watcher.changed().map(|data| live::render(&data)).unwrap_or_default();
    let (sender, now) = watch::channel(Arc::<str>::from(first));
    let path = signer.path();
    let guard = Guard { signer, open: false, public: None };
    let app = Arc::new(App { guard, title, now, store: watcher.store() });
    let watcher = Arc::new(Mutex::new(watcher));
    let watching = tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            // Nobody looks: only the app itself holds a receiver.
            if sender.receiver_count() < 2 {
                continue;
            }
            let watcher = Arc::clone(&watcher);
            let look = move || {
                let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
                watcher.changed().map(|data| live::render(&data))
            };
            if let Ok(Some(page)) = tokio::task::spawn_blocking(look).await {
                sender.send_replace(page.into());
            }
        }
    });
    ready(&format!("http://{address}/in/{token}"));
    accept(listener, below(&path, &router(app)), http::PAGE_LIMIT, stop).await;
    watching.abort();
    Ok(())
}

fn router(app: Arc<App>) -> Router {
    let inside = Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/runs/{id}", get(run_page))
        .layer(from_fn_with_state(Arc::clone(&app), admit_visitor));
    Router::new()
        .route("/in/{token}", get(enter))
        .route("/live.js", get(|| async { typed("text/javascript; charset=utf-8", live::SCRIPT) }))
        .route("/live.css", get(|| async { typed("text/css; charset=utf-8", live::STYLE) }))
        .merge(inside)
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here") })
        .layer(from_fn_with_state(Arc::clone(&app), admit_anyone))
        .layer(from_fn(dress))
        .with_state(app)
}

fn typed(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn admit_visitor(app: State<Arc<App>>, request: Request, next: Next) -> Response {
    admit(&app, Who::Admin, request, next).await
}

async fn admit_anyone(app: State<Arc<App>>, request: Request, next: Next) -> Response {
    admit(&app, Who::Anyone, request, next).await
}

async fn admit(app: &App, who: Who, request: Request, next: Next) -> Response {
    match app.guard.admit(request.headers(), who, false, Timestamp::now()) {
        Ok(_) => {
            let mut response = next.run(request).await;
            if who != Who::Anyone {
                response.extensions_mut().insert(LetIn);
            }
            response
        }
        Err(Refused(StatusCode::UNAUTHORIZED, _)) => {
            let why = "the link that `preflow ui` printed leads here; this one does not";
            (StatusCode::UNAUTHORIZED, why).into_response()
        }
        Err(Refused(status, why)) => (status, why).into_response(),
    }
}

/// Puts on what every answer carries.
async fn dress(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    http::dress(response.headers_mut(), CSP);
    response
}

/// The link becomes a cookie.
async fn enter(app: State<Arc<App>>, Path(token): Path<String>) -> Response {
    let Some(entered) = app.guard.enter(&token, false, Timestamp::now()) else {
        return (StatusCode::UNAUTHORIZED, "this link is of another time").into_response();
    };
    let place = format!("{}/", entered.path);
    let refresh = HeaderValue::from_str(&format!("0; url={place}"));
    let (Ok(cookie), Ok(refresh)) = (HeaderValue::from_str(&entered.cookie), refresh) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let headers = [(header::SET_COOKIE, cookie), (header::REFRESH, refresh)];
    (headers, Html(http::go_on(&place, "/live.css").into_string())).into_response()
}

async fn page(app: State<Arc<App>>) -> Html<String> {
    let now = app.now.borrow().clone();
    Html(live::shell(&app.title, &now))
}

/// The page of one run of this pipeline.
async fn run_page(app: State<Arc<App>>, Path(id): Path<String>) -> Response {
    let found = tokio::task::spawn_blocking(move || {
        history::page(&app.store, &app.title, &id).map(|page| html::run::render(&page))
    });
    match found.await {
        Ok(Some(page)) => Html(page).into_response(),
        _ => (StatusCode::NOT_FOUND, "there is no such run of this pipeline").into_response(),
    }
}

/// The page now, and again whenever it changes.
async fn events(app: State<Arc<App>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut receiver = app.now.clone();
    receiver.mark_changed();
    let stream = unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        let page = receiver.borrow_and_update().to_string();
        Some((Ok(Event::default().data(page)), receiver))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
