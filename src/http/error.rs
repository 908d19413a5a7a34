//! Why a page cannot be served.
//! Does not know which page it is.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

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
