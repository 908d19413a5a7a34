//! All routes of the label page in one table: the router is built from it, and so is the test that
//! tries to get past it. Handlers are plain functions; they may wait for the disk.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use jiff::Timestamp;
use serde_json::json;

use super::call::{App, Call, Failed, Reply};
use super::{admin, api, ballots, page};
use crate::http::{LetIn, NO_LINK, Refused, Who, dress};

/// Largest request body.
pub const LARGEST: usize = 64 * 1024;

/// A whole request, body and answer, takes no longer.
const LIMIT: Duration = Duration::from_secs(15);

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                   base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

type Handler = fn(&App, &Call) -> Result<Reply, Failed>;

/// One way in.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub method: RouteMethod,
    pub path: &'static str,
    pub who: Who,
    /// Changes votes, or who holds what.
    pub changes: bool,
    pub handler: Handler,
}

/// The two methods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMethod {
    Get,
    Post,
}

const fn get(path: &'static str, who: Who, handler: Handler) -> Route {
    Route { method: RouteMethod::Get, path, who, changes: false, handler }
}

const fn post(path: &'static str, who: Who, handler: Handler) -> Route {
    Route { method: RouteMethod::Post, path, who, changes: true, handler }
}

/// Everything that can be asked for.
pub const ROUTES: &[Route] = &[
    get("/", Who::Annotator, page::label),
    get("/in/{token}", Who::Anyone, page::enter),
    get("/page.js", Who::Anyone, page::script),
    get("/page.css", Who::Anyone, page::style),
    get("/api/text/{pair}/{part}", Who::Annotator, api::text),
    get("/api/history", Who::Annotator, api::history),
    get("/api/progress", Who::Annotator, api::progress),
    post("/api/next", Who::Annotator, api::next),
    post("/api/again", Who::Annotator, api::again),
    post("/api/vote", Who::Annotator, api::vote),
    post("/api/undo", Who::Annotator, api::undo),
    get("/admin", Who::Admin, admin::page),
    get("/admin.js", Who::Anyone, admin::script),
    post("/api/admin/settle", Who::Admin, admin::settle),
    post("/api/admin/link", Who::Admin, admin::link),
    get("/admin/votes", Who::Admin, ballots::all),
    get("/admin/votes/{name}", Who::Admin, ballots::of_one),
    get("/admin/notes", Who::Admin, ballots::noted),
];

/// The router of the table.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let app = Arc::clone(&app);
        let filter = match route.method {
            RouteMethod::Get => MethodFilter::GET,
            RouteMethod::Post => MethodFilter::POST,
        };
        let handler = move |params: RawPathParams, request: Request| {
            let app = Arc::clone(&app);
            async move { timed(answer(app, route, params, request)).await }
        };
        router = router.route(route.path, MethodRouter::new().merge(on(filter, handler)));
    }
    let missing = move |status: StatusCode, why: &'static str| {
        let app = Arc::clone(&app);
        move |request: Request| {
            let admitted = app.guard.admit(request.headers(), Who::Anyone, false, Timestamp::now());
            // A page of this server from before its key was made anew.
            let lost = request.uri().path().starts_with("/at/");
            let missing = if lost { NO_LINK } else { Refused(status, why) };
            let refused = admitted.err().unwrap_or(missing);
            async move { finish(request.uri().path(), Err(Failed::Refused(refused))) }
        }
    };
    router
        .fallback(missing(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(missing(StatusCode::METHOD_NOT_ALLOWED, "not by this method"))
}

async fn timed(answer: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(response) => response,
        Err(_) => {
            let why = Refused(StatusCode::REQUEST_TIMEOUT, "this took too long: try again");
            finish("/api/", Err(Failed::Refused(why)))
        }
    }
}

async fn answer(
    app: Arc<App>,
    route: &'static Route,
    params: RawPathParams,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let result = call(app, route, &params, request).await;
    let mut response = finish(&path, result);
    if route.who != Who::Anyone && response.status().is_success() {
        response.extensions_mut().insert(LetIn);
    }
    response
}

async fn call(
    app: Arc<App>,
    route: &'static Route,
    params: &RawPathParams,
    request: Request,
) -> Result<Reply, Failed> {
    let now = Timestamp::now();
    let (parts, body) = request.into_parts();
    let visitor =
        app.guard.admit(&parts.headers, route.who, route.changes, now).map_err(Failed::Refused)?;
    let too_large =
        || Failed::Refused(Refused(StatusCode::PAYLOAD_TOO_LARGE, "more than 64 KiB were sent"));
    let told = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    if told.and_then(|v| v.parse::<usize>().ok()).is_some_and(|n| n > LARGEST) {
        return Err(too_large());
    }
    let is_json = |v: &HeaderValue| v.as_bytes().starts_with(b"application/json");
    if route.changes && !parts.headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
        let why = "JSON is expected";
        return Err(Failed::Refused(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why)));
    }
    let body = to_bytes(body, LARGEST).await.map_err(|_| too_large())?.to_vec();
    let params = params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let call = Call { visitor, params, body, now };
    let done = tokio::task::spawn_blocking(move || (route.handler)(&app, &call)).await;
    done.unwrap_or_else(|_| {
        let why = "a fault in preflow itself; the terminal says more";
        Err(Failed::Refused(Refused(StatusCode::INTERNAL_SERVER_ERROR, why)))
    })
}

/// Puts on what every answer carries.
fn finish(path: &str, result: Result<Reply, Failed>) -> Response {
    let reply = result.unwrap_or_else(|failed| {
        let (status, words) = failed.words();
        if path.contains("/api/") {
            let mut reply = Reply::json(&json!({ "error": words }));
            reply.status = status;
            reply
        } else {
            page::sorry(status, &words)
        }
    });
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    dress(headers, CSP);
    let mut set = |name: HeaderName, value: &str| {
        let value = HeaderValue::from_str(value).expect("invariant: our own words are plain");
        headers.insert(name, value);
    };
    set(header::CONTENT_TYPE, reply.kind);
    if reply.status == StatusCode::PAYLOAD_TOO_LARGE {
        // The rest of the request is not read, so the connection ends; a client that is not told
        // sends its next request into it.
        set(header::CONNECTION, "close");
    }
    for (name, value) in &reply.headers {
        set(name.clone(), value);
    }
    response
}

impl From<RouteMethod> for Method {
    fn from(method: RouteMethod) -> Self {
        match method {
            RouteMethod::Get => Self::GET,
            RouteMethod::Post => Self::POST,
        }
    }
}
