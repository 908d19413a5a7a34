//! The page of a sweep: its table, what each param does, and what is bought with KL.
//! Goes by the names of figures; does not know how they were measured.

mod data;
mod frontier;
mod page;

pub use data::{SweepReport, SweepTrial};
pub use page::{render, sections};
