//! preflow: RLHF pipelines as YAML in git; rerun only what changed.
//!
//! Data flow, one step a line; modules in reading order.
//! A YAML file becomes a [`pipeline`]; with the [`catalog`] of kinds it becomes a typed [`graph`];
//! each stage with the digests of its inputs is an [`identity`]; the [`store`] knows which
//! identities were run; the [`plan`] judges each stage; the [`run`] loop hands misses to an
//! [`exec`]utor, which speaks the [`protocol`] with a worker; [`report`] and [`html`] tell people.

pub mod agreement;
pub mod catalog;
pub mod cli;
pub mod columns;
pub mod compare;
pub mod diagnostic;
pub mod exec;
pub mod files;
pub mod foreign;
pub mod graph;
pub mod html;
pub mod http;
pub mod identity;
pub mod label;
pub mod lock;
pub mod pipeline;
pub mod plan;
pub mod project;
pub mod protocol;
pub mod remote;
pub mod report;
pub mod run;
pub mod schedule;
pub mod store;
pub mod sweep;
pub mod tensorboard;
pub mod text;
pub mod trust;
pub mod user;
pub mod votes;
pub mod workspace;
