//! The HTTP server below the label page: connections, their limits, its end.
//! Does not know what is asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::assignment::Assignment;
use super::connections::{Connections, Watched};
use super::desk::{Desk, real_path};
use super::guard::Guard;
use super::link::{Role, Signer};
use super::routes::{App, router};
use super::served::Served;

/// Until the head of a request must be there; an idle connection is closed after it too.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// A connection is closed after this, whatever its other end does.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// What is still being answered when the server is stopped gets this.
const GRACE: Duration = Duration::from_millis(500);
/// Ports that are tried when the usual one is taken.
const FALLBACKS: u16 = 20;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: IpAddr,
    /// 0: any.
    pub port: u16,
    /// Whether a port nearby will do when this one is taken.
    pub fallback: bool,
    /// Where a proxy shows this page, if one does.
    pub public_url: Option<String>,
    pub annotators: Vec<String>,
    /// How long links are valid.
    pub expires: SignedDuration,
    /// Folder of the user's own for the signing key and the record of links.
    pub folder: PathBuf,
}

/// Where the page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Without anybody's token.
    pub base: String,
    pub address: SocketAddr,
    /// Annotator and link.
    pub annotators: Vec<(String, String)>,
    pub admin: String,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("`{url}` is not where a page can be: {reason}")]
    BadUrl { url: String, reason: &'static str },
    #[error("cannot keep the key that signs links, or the record of them: {0}")]
    Key(io::Error),
    #[error("links cannot be valid for so long")]
    Expires,
}

/// Signs links to the page of an assignment, with the key in `folder`.
///
/// # Errors
/// See [`Signer::open`].
pub fn signer(assignment: &Assignment, folder: &Path) -> io::Result<Signer> {
    let votes = real_path(&assignment.votes);
    Signer::open(folder, &[&assignment.pipeline, &assignment.stage, &votes.to_string_lossy()])
}

/// Serves the label page until `stop`. `ready` learns the links as soon as they work.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    desk: Arc<Desk>,
    options: Options,
    ready: impl FnOnce(&Links),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let assignment = desk.assignment();
    let signer = signer(assignment, &options.folder).map_err(ServeError::Key)?;
    let public = options.public_url.as_deref().map(public).transpose()?;
    let listener = listen(options.listen, options.port, options.fallback).await?;
    let address = listener.local_addr().map_err(|source| ServeError::Listen {
        address: SocketAddr::new(options.listen, options.port),
        source,
    })?;
    let links = links(&options, &signer, address, public.as_ref())?;
    // Whose page it is cannot be told where there are several annotators.
    let link = match links.annotators.as_slice() {
        [(_, link)] => link,
        _ => &links.admin,
    };
    // Without it screens name the command in place of the page.
    let (pipeline, stage) = (&assignment.pipeline, &assignment.stage);
    let _served = Served::tell(&options.folder, pipeline, stage, link).ok();
    desk.announce(&links.base);
    let path = signer.path();
    let guard = Guard { signer, open: !options.listen.is_loopback(), public };
    let router = below(&path, &router(Arc::new(App { desk, guard })));
    ready(&links);
    accept(listener, router, stop).await;
    Ok(())
}

/// The same pages below a path too: that is where cookies of theirs are sent.
pub fn below(path: &str, router: &axum::Router) -> axum::Router {
    router.clone().nest(&format!("{path}/"), router.clone())
}

/// Serves a router until `stop`, with the limits above.
pub async fn accept(listener: TcpListener, router: axum::Router, stop: impl Future<Output = ()>) {
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
                    () = connection(stream, place.watch(service), ended) => {}
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
    service: Watched<axum::Router>,
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
        () = tokio::time::sleep(CONNECTION_LIMIT) => HEAD_LIMIT,
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

fn links(
    options: &Options,
    signer: &Signer,
    address: SocketAddr,
    public: Option<&(String, String)>,
) -> Result<Links, ServeError> {
    let until = Timestamp::now().checked_add(options.expires).map_err(|_| ServeError::Expires)?;
    let base = match public {
        Some((scheme, authority)) => format!("{scheme}://{authority}"),
        None if address.ip().is_unspecified() => {
            format!("http://{}", SocketAddr::new(outward(), address.port()))
        }
        None => format!("http://{address}"),
    };
    let link = |role, name: &str| {
        let token = signer.give(role, name, until).map_err(ServeError::Key)?;
        Ok::<_, ServeError>(format!("{base}/in/{token}"))
    };
    let annotators = options.annotators.iter();
    let annotators = annotators.map(|n| Ok((n.clone(), link(Role::Annotator, n)?)));
    Ok(Links {
        annotators: annotators.collect::<Result<_, ServeError>>()?,
        admin: link(Role::Admin, "admin")?,
        address,
        base,
    })
}

/// The address that other machines see; nothing is sent to find it.
fn outward() -> IpAddr {
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |a| a.ip())
}

/// Scheme and authority of an address that people are given.
fn public(url: &str) -> Result<(String, String), ServeError> {
    let bad = |reason| ServeError::BadUrl { url: url.to_owned(), reason };
    let parsed: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
    let (Some(scheme), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
        return Err(bad("it must begin with https:// or http://"));
    };
    if !["http", "https"].contains(&scheme) || authority.as_str().contains('@') {
        return Err(bad("it must begin with https:// or http:// and a host"));
    }
    if !["", "/"].contains(&parsed.path()) || parsed.query().is_some() {
        return Err(bad("the page needs a host of its own, not a path on one"));
    }
    Ok((scheme.to_owned(), authority.as_str().to_ascii_lowercase()))
}
