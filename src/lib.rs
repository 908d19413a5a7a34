//! preflow: RLHF pipelines as YAML in git; rerun only what changed.
//!
//! A YAML file becomes a [`pipeline`]; with the [`catalog`] of kinds it becomes a typed [`graph`];
//! each stage with the digests of its inputs is an [`identity`]; the [`store`] knows which
//! identities were run; the [`plan`] judges each stage; the [`schedule`] says what is next; the
//! [`run`] hands misses to an [`exec`]utor, which speaks the [`protocol`] with a worker;
//! [`report`] and [`html`] tell people. A [`project`] holds all that belongs to one file, and
//! [`cli`] is the command line. Modules stand in reading order.

// What a file says.
pub mod diagnostic;

pub mod files;

pub mod logging;

pub mod pipeline;

pub mod workspace;

pub mod catalog;

pub mod graph;

// What was made of it.
pub mod identity;

pub mod store;

pub mod lock;

pub mod user;

pub mod trust;

// What to do about it.
pub mod plan;

pub mod schedule;

// Doing it.
pub mod protocol;

pub mod exec;

pub mod run;

pub mod web;

pub mod remote;

pub mod hub;

pub mod git_host;

pub mod sweep;

// People.
pub mod conversation;

pub mod votes;

pub mod agreement;

pub mod label;

// Reading results.
pub mod columns;

pub mod foreign;

pub mod compare;

pub mod tensorboard;

// Showing them.
pub mod text;

pub mod rendering;

pub mod report;

pub mod http;

pub mod html;

pub mod openai;

// All together.
pub mod project;

pub mod ui;

pub mod cli;
