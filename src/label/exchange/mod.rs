//! Preferences of other tools: read as votes, written from labels.
//! Knows nothing of pipelines, nor of who runs this.

mod error;
mod forms;
mod messages;
mod opinions;
mod quotes;
mod read;
mod record;
mod rows;
mod sniff;
#[cfg(test)]
mod tests;
mod tools;
mod write;

pub use error::ExchangeError;
pub use messages::{form_of, plain, turns};
pub use opinions::{BadRow, Form, Names, Opinion, Opinions, Wanted};
pub use quotes::QuoteWatch;
pub use read::read;
pub use record::{Recorded, record};
pub use rows::read as rows;
pub use sniff::Encoding;
pub use write::{Labels, Shape, export, votes, write_pairs};
