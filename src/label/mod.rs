//! Labelling: what there is to ask, who is asked what next, how the answers are kept.
//! Knows nothing of stages that run, nor of YAML.

mod assignment;
pub mod exchange;
mod quality;

pub use crate::agreement::Readiness;
pub use assignment::{
    Aggregate, Assignment, AssignmentError, Gold, Order, Overlap, People, Quality, ReadyWhen,
    Reuse, read_disagreement, read_gold, read_pairs,
};
pub use quality::{
    AnnotatorReport, Dispute, FEW, OverallReport, QualityReport, quality, readiness,
};
