//! Serving the label page: where it is, who gets a link to it, until when.
//! Knows neither connections nor routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::Uri;
use jiff::{SignedDuration, Timestamp};

use super::assignment::Assignment;
use super::call::App;
use super::routes::router;
use super::served::Served;
use super::session::{LabelSession, real_path};
use crate::http::{Guard, PAGE_LIMIT, Role, ServeError, Signer, accept, below, listen};

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
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
    session: Arc<LabelSession>,
    options: ServeOptions,
    ready: impl FnOnce(&Links),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let assignment = session.assignment();
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
    session.announce(&links.base);
    let path = signer.path();
    let guard = Guard { signer, open: !options.listen.is_loopback(), public };
    let app = App { session, guard, base: links.base.clone(), expires: options.expires };
    let router = below(&path, &router(Arc::new(app)));
    ready(&links);
    accept(listener, router, PAGE_LIMIT, stop).await;
    Ok(())
}

fn links(
    options: &ServeOptions,
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
