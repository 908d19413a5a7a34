//! preflow-stages: the built-in stage kinds, on libtorch.
//!
//! In reading order: the worker performs a task through a [`kind`], which sees the world only
//! through its [`context`], and before it runs through [`preflight`]; [`kinds`] hold each loop in
//! full; [`on_policy`], [`training`] and [`imports`] are what several of them share, [`prompts`]
//! what policies answer, [`answering`] a model that stays and is asked, [`endpoint`] how language
//! models elsewhere are asked; [`model`] is the transformer and its files; [`rl`] and [`sampling`]
//! are formulas; [`optim`] is AdamW; [`resume`] the checkpoints inside a stage; [`rng`] the random
//! streams; [`stats`] the intervals; [`data`] the tables, tokens and rules; [`advice`] failures
//! that say what helps. Nothing here knows of caching, pipelines or the clock of a run.

pub mod advice;
pub mod answering;
pub mod catalog;
pub mod context;
pub mod data;
pub mod endpoint;
pub mod exit;
pub mod imports;
pub mod kind;
pub mod kinds;
pub mod model;
pub mod on_policy;
pub mod optim;
pub mod preflight;
pub mod prompts;
pub mod resume;
pub mod rl;
pub mod rng;
pub mod sampling;
pub mod stats;
pub mod training;
pub mod worker;
