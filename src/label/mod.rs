//! Labelling: what there is to ask, who is asked what next, how the answers are kept.
//! Knows nothing of stages that run, nor of YAML.

mod admin;
mod api;
mod assignment;
mod ballots;
mod call;
mod error;
pub mod exchange;
pub mod figures;
mod folder_snapshot;
mod leases;
mod outlook;
mod page;
mod quality;
mod question;
mod queue;
mod routes;
pub mod served;
mod server;
mod session;
mod settings;
pub mod terminal;
#[cfg(test)]
mod tests;
mod vote_index;

pub use crate::agreement::Readiness;
pub use assignment::{
    Assignment, AssignmentError, Gold, read_disagreement, read_gold, read_guidelines, read_pairs,
};
pub use error::SessionError;
pub use folder_snapshot::FolderSnapshot;
pub use outlook::{Outlook, Room};
pub use quality::{
    AnnotatorReport, Dispute, FEW, OverallReport, QualityReport, ReasonCount, quality, readiness,
};
pub use question::{Item, LabelProgress, Past, Pick, Submission};
pub use server::{Links, ServeOptions, serve, signer};
pub use session::LabelSession;
pub use settings::{Aggregate, AskOrder, Overlap, PeopleSettings, Quality, ReadyWhen, Reuse};
