//! A model that is asked over HTTP as OpenAI's are: what is understood, what is refused, who may
//! ask, how answers are written. Knows nothing of how a model answers.

mod answer;
mod chat;
mod completions;
mod desk;
mod error;
mod fields;
mod guard;
mod request;
mod routes;
mod serve;
#[cfg(test)]
mod tests;
mod written;

pub use serve::{ApiOptions, serve};
