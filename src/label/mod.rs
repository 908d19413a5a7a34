//! Labelling: what there is to ask, who is asked what next, how the answers are kept.
//! Knows nothing of stages that run, nor of YAML.

mod admin;
mod api;
mod assignment;
mod books;
mod call;
mod desk;
mod error;
pub mod exchange;
pub mod figures;
mod leases;
mod outlook;
mod page;
mod quality;
mod question;
mod queue;
mod routes;
pub mod served;
mod server;
mod settings;
mod stamps;
#[cfg(test)]
mod tests;

pub use crate::agreement::Readiness;
pub use assignment::{Assignment, AssignmentError, Gold, read_disagreement, read_gold, read_pairs};
pub use desk::Desk;
pub use error::DeskError;
pub use outlook::{Outlook, Room};
pub use quality::{
    AnnotatorReport, Dispute, FEW, OverallReport, QualityReport, quality, readiness,
};
pub use question::{Item, Past, Pick, Progress, Submission};
pub use server::{Links, Options, serve, signer};
pub use settings::{Aggregate, Order, Overlap, People, Quality, ReadyWhen, Reuse};
pub use stamps::Stamps;
