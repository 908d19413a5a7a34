//! What a request must bring before anybody looks at what it wants: a Host and an Origin that are
//! ours, and a session that came from a link. Does not know what routes do.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;

use super::link::{Role, Signer, Visitor};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Anyone,
    Annotator,
    Admin,
}

/// Decides which requests are let in.
#[derive(Debug, Clone)]
pub struct Guard {
    pub signer: Signer,
    /// Reached from other machines: addresses of this one are fine as Host.
    pub open: bool,
    /// Where a proxy shows this page: scheme and authority.
    pub public: Option<(String, String)>,
}

/// A request that is turned away, with words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub StatusCode, pub &'static str);

/// What a valid link becomes in a browser.
#[derive(Debug)]
pub struct Entered {
    pub visitor: Visitor,
    /// The session, as a cookie.
    pub cookie: String,
    /// Where the pages lie that the cookie is sent to.
    pub path: String,
}

/// For whoever brings no link that is valid.
pub const NO_LINK: Refused =
    Refused(StatusCode::UNAUTHORIZED, "your link is missing or has expired: ask for a new one");

impl Guard {
    /// Lets a request through, and says whose it is.
    ///
    /// # Errors
    /// It is turned away.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        who: Who,
        changes: bool,
        now: Timestamp,
    ) -> Result<Option<Visitor>, Refused> {
        let host = self.host(headers)?;
        if changes {
            self.origin(headers, host)?;
        }
        let role = match who {
            Who::Anyone => return Ok(None),
            Who::Annotator => Role::Annotator,
            Who::Admin => Role::Admin,
        };
        let visitor = self.visitor(headers, role, now);
        match visitor {
            Some(visitor) if visitor.role == role => Ok(Some(visitor)),
            _ if role == Role::Admin && self.visitor(headers, Role::Annotator, now).is_some() => {
                Err(Refused(StatusCode::FORBIDDEN, "this page is for whoever runs the labelling"))
            }
            _ => Err(NO_LINK),
        }
    }

    /// Makes a session of a link. `lasts`: the browser keeps it when it is closed. `None`: the link
    /// is not valid.
    #[must_use]
    pub fn enter(&self, token: &str, lasts: bool, now: Timestamp) -> Option<Entered> {
        let visitor = self.signer.check(token, now)?;
        let session = self.signer.session(token, now)?;
        let (name, path) = (self.signer.cookie(visitor.role), self.signer.path());
        let age = if lasts { "; Max-Age=31536000" } else { "" };
        let secure = self.public.as_ref().is_some_and(|(scheme, _)| scheme == "https");
        let secure = if secure { "; Secure" } else { "" };
        let cookie =
            format!("{name}={session}; HttpOnly; SameSite=Strict; Path={path}/{age}{secure}");
        Some(Entered { visitor, cookie, path })
    }

    fn visitor(&self, headers: &HeaderMap, role: Role, now: Timestamp) -> Option<Visitor> {
        let name = self.signer.cookie(role);
        let all = headers.get_all(header::COOKIE).into_iter().filter_map(|v| v.to_str().ok());
        let mut tokens = all.flat_map(|v| v.split(';')).filter_map(|part| {
            part.trim().strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('='))
        });
        // Of several cookies of one name, one that is valid will do.
        tokens.find_map(|token| self.signer.check_session(token, now)).filter(|v| v.role == role)
    }

    fn host<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, Refused> {
        let public = self.public.as_ref().map(|(_, authority)| authority.as_str());
        own_host(headers, self.open, public)
            .ok_or(Refused(StatusCode::FORBIDDEN, "this page has another address"))
    }

    /// Another page must not vote in somebody's name: the origin must be this page's.
    fn origin(&self, headers: &HeaderMap, host: &str) -> Result<(), Refused> {
        let refused = Refused(StatusCode::FORBIDDEN, "sent by another page");
        let mut origins = headers.get_all(header::ORIGIN).into_iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return Err(refused) };
        let origin = origin.to_str().map_err(|_| refused.clone())?;
        let scheme = match &self.public {
            Some((scheme, authority)) if authority.eq_ignore_ascii_case(host) => scheme,
            _ => "http",
        };
        let own = format!("{scheme}://{host}");
        if origin.eq_ignore_ascii_case(&own) { Ok(()) } else { Err(refused) }
    }
}

/// The Host of a request, where it is ours: names can be pointed at any machine, by DNS rebinding
/// too; addresses cannot. `open`: reached from other machines; `public`: where a proxy shows it.
#[must_use]
pub fn own_host<'h>(headers: &'h HeaderMap, open: bool, public: Option<&str>) -> Option<&'h str> {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let host = host.to_str().ok()?;
    let authority: Authority = host.parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let ours = match name.parse::<IpAddr>() {
        Ok(address) => open || address.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    };
    let public = public.is_some_and(|authority| authority.eq_ignore_ascii_case(host));
    (ours || public).then_some(host)
}
