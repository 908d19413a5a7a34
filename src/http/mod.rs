//! What all pages that are served have in common: the shell around them, who is let in, how many
//! connections there may be. Does not know what they show.

mod connections;
mod error;
mod given;
mod guard;
pub mod link;
mod page;
mod server;

pub use connections::LetIn;
pub use error::ServeError;
pub use given::GivenLink;
pub use guard::{Entered, Guard, NO_LINK, Refused, Who, own_host};
pub use link::{Role, Signer, Visitor};
pub use page::{PageKind, document, dress, go_on};
pub use server::{PAGE_LIMIT, accept, below, listen, logging};
