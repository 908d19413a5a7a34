//! The label page as annotators and their machines meet it: a real server, real connections, a real
//! browser.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

mod admin;
mod browser;
mod cdp;
mod hostile;
mod limits;
mod links;
mod load;
mod stalled;
mod support;
mod terminal;
