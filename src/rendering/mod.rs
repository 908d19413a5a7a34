//! What models and people wrote, as parts of a page: text with whatever hides in it made visible,
//! Markdown, turns of conversations. The one place where words of others become HTML.
//! Knows nothing of pages, files or votes.

mod block;
mod markdown;
#[cfg(test)]
mod tests;
mod turns;
mod visible;

pub use markdown::markdown;
pub use turns::{RenderedText, TextForm, mark_changes, rendered};
pub use visible::visible;

/// How all of it looks; pages add it to their style.
pub const STYLE: &str = include_str!("style.css");
