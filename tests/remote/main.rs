//! Remotes: the real binary, a real S3 server on this machine, and a proxy between them that cuts,
//! stalls, flips and refuses. `scripts/moto.sh` installs the server.
//!
//! `PREFLOW_TEST_S3` (an address) and `PREFLOW_TEST_BUCKET`, with the usual `AWS_` variables, let
//! the same tests run against another server: `make remote-check`.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

mod config;
mod faults;
mod hostile;
mod kills;
mod proxy;
mod server;
mod share;
mod team;
#[path = "../workspace/mod.rs"]
mod workspace;
