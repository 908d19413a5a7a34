//! The HTTP server below every page: connections, their limits, its end.
//! Does not know what is asked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{Instrument as _, info, info_span};

use super::ServeError;
use super::connections::{Connections, WatchedService};

/// Until the head of a request must be there; an idle connection is closed after it too.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// A connection is closed after this, whatever its other end does; what is being answered then has
/// a limit of its own.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// That limit for pages, whose answers take no time.
pub const PAGE_LIMIT: Duration = HEAD_LIMIT;
/// What is still being answered when the server is stopped gets this.
const GRACE: Duration = Duration::from_millis(500);
/// Ports that are tried when the usual one is taken.
const FALLBACKS: u16 = 20;

/// The same pages below a path too: that is where cookies of theirs are sent.
pub fn below(path: &str, router: &axum::Router) -> axum::Router {
    let router = logging(router.clone());
    router.clone().nest(&format!("{path}/"), router.clone())
}

/// The same routes, which log what they answer.
pub fn logging(router: axum::Router) -> axum::Router {
    router.layer(from_fn(logged))
}

/// Answers a request and logs it. Its route is told without what may be a secret: the path of the
/// cookie before it, and what stands for `{token}`.
async fn logged(request: Request, next: Next) -> Response {
    let parts = request.uri().path().matches('/').count();
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str);
    let from = route.rmatch_indices('/').nth(parts.saturating_sub(1)).map_or(0, |(at, _)| at);
    let span = info_span!("request", method = %request.method(), route = &route[from..]);
    let begun = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_millis());
    span.in_scope(|| info!(status, ms, "answered"));
    response
}

/// Serves a router until `stop`, with the limits above. `last`: how long the last answer of a
/// connection may take whose time is over.
pub async fn accept(
    listener: TcpListener,
    router: axum::Router,
    last: Duration,
    stop: impl Future<Output = ()>,
) {
    let service = router;
    let connections = Connections::default();
    let (end, ended) = watch::channel(());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of files, or the other end is gone already: neither is cured by hurry.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let service = service.clone();
        let ended = ended.clone();
        match connections.enter() {
            Some(place) => tokio::spawn(async move {
                tokio::select! {
                    () = connection(stream, place.watch(service), last, ended) => {}
                    () = place.asked_to_leave() => {}
                }
            }),
            None => tokio::spawn(turn_away(stream)),
        };
    }
    drop(listener);
    drop(ended);
    let _ = end.send(());
    // Connections hold the other ends; nothing is lost with those that are cut.
    let _ = timeout(GRACE, end.closed()).await;
}

async fn connection(
    stream: TcpStream,
    service: WatchedService<axum::Router>,
    last: Duration,
    mut ended: watch::Receiver<()>,
) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(16 * 1024);
    let service = TowerToHyperService::new(service);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ending = tokio::select! {
        _ = serving.as_mut() => return,
        _ = ended.changed() => GRACE,
        () = tokio::time::sleep(CONNECTION_LIMIT) => last,
    };
    serving.as_mut().graceful_shutdown();
    let _ = timeout(ending, serving).await;
}

/// Tells a client that there is no room, without listening to it.
async fn turn_away(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\n\
                   connection: close\r\n\r\n";
    let _ = timeout(Duration::from_secs(1), stream.write_all(answer)).await;
}

/// Listens there, or where a port is free nearby if `fallback` allows it.
///
/// # Errors
/// Nothing is free.
pub async fn listen(ip: IpAddr, port: u16, fallback: bool) -> Result<TcpListener, ServeError> {
    let address = SocketAddr::new(ip, port);
    let first = TcpListener::bind(address).await;
    let source = match first {
        Ok(listener) => return Ok(listener),
        Err(source) => source,
    };
    if fallback && source.kind() == io::ErrorKind::AddrInUse {
        for port in (1..=FALLBACKS).filter_map(|i| port.checked_add(i)) {
            if let Ok(listener) = TcpListener::bind(SocketAddr::new(ip, port)).await {
                return Ok(listener);
            }
        }
    }
    Err(ServeError::Listen { address, source })
}
