//! Files that others publish: what a repository of a hub holds at a commit, and files of it or of
//! the web, brought whole or not at all. Knows nothing of pipelines or terminals.
//!
//! Nothing that comes is trusted: a large file counts when its bytes have the SHA-256 that the hub
//! names, a small one when they have its git hash, a file of the web when they have the hash that
//! its user wrote.

mod client;
mod error;
mod fetch;
mod listing;
mod settings;
#[cfg(test)]
mod tests;

pub use client::Hub;
pub use error::HubError;
pub use fetch::WantedFile;
pub use listing::{Listing, is_commit, model_files};
pub use settings::HubSettings;
