//! The label page as annotators and their machines meet it: a real server, real connections, a real
//! browser.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

mod browser;
mod cdp;
mod load;
mod support;
