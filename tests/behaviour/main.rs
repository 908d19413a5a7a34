//! The binary as a user meets it: a directory, a pipeline, one command after another.
#![expect(clippy::disallowed_methods, reason = "tests own their folders and processes")]

mod again;
mod ahead;
mod bad_input;
mod before;
mod ci;
mod damage;
mod escapes;
mod exchange;
mod export;
mod failed;
mod gate;
mod history;
mod hub;
mod hub_server;
mod interrupt;
mod left_behind;
mod limits;
mod lock;
mod logging;
mod narrow;
mod open;
mod peer;
mod repository;
mod rerun;
mod shared;
mod shown;
mod space;
mod special_files;
mod sweep;
mod track;
mod trust;
mod workers;
#[path = "../workspace/mod.rs"]
mod workspace;
