//! Requests to other machines: how clients of HTTP are made here, and how long one waits.
//! Does not know what is asked.

use std::net::IpAddr;
use std::time::Duration;

/// How long a request may go without moving a byte, where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a request may go without moving a byte: `PREFLOW_REMOTE_TIMEOUT` in seconds, or 20.
/// `None`: the variable is no such number.
#[must_use]
pub fn patience() -> Option<Duration> {
    let Ok(said) = std::env::var("PREFLOW_REMOTE_TIMEOUT") else { return Some(PATIENCE) };
    let seconds: f64 = said.parse().ok()?;
    (0.1..=86_400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// The host of an address is this machine.
#[must_use]
pub fn is_loopback(address: &str) -> bool {
    host(address).is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// The host that an address names.
#[must_use]
pub fn host(address: &str) -> Option<String> {
    address.parse::<http::Uri>().ok()?.host().map(str::to_owned)
}

/// A client that follows no redirects; no proxy stands between where it asks this machine.
pub fn client(loopback: bool) -> reqwest::ClientBuilder {
    // Refused when somebody else in this process chose one; then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("preflow/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none());
    if loopback { builder.no_proxy() } else { builder }
}

/// The innermost cause, which says most; never the address, which may hold a secret.
#[must_use]
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
