//! The run report, one self-contained HTML file that loads nothing from anywhere, and the pages
//! that are served beside it. Does not know how stages are run; it shows what it is given.

mod alarms;
mod answers;
mod brief;
mod chart;
mod data;
mod evaluation;
mod evidence;
mod flow;
mod frontier;
pub mod live;
mod markup;
mod metrics;
mod page;
mod policies;
pub mod read;
mod report;
mod result;
pub mod run;
pub mod sweep;
#[cfg(test)]
mod tests;
mod training;

pub use brief::brief;
pub use data::{
    CalibrationBin, EvaluationRow, LabelExample, LabelQuality, LabelsReport, LearningPoint, Note,
    ReportData, RewardReport, SampleRow, StageProblem, StageProgress, StageReport, StageStatus,
    params,
};
pub use report::render;
