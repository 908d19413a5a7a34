//! The metrics that stages left behind.
//! Goes by columns; does not know what the metrics mean.

use super::{Failure, Project};
use crate::columns::each_batch;
use crate::store::CachedEntry;
use crate::tensorboard::Scalar;

/// The figures of one stage.
pub struct StageMetrics {
    pub stage: String,
    /// Seconds since 1970 when they were made.
    pub at: f64,
    pub scalars: Vec<Scalar>,
}

/// Reads the metrics that a stage left at these ports.
///
/// # Errors
/// They cannot be read.
pub fn read(
    project: &Project,
    stage: &str,
    entry: &CachedEntry,
    ports: &[&str],
) -> Result<StageMetrics, Failure> {
    let mut scalars = Vec::new();
    for port in ports {
        let Some(output) = entry.outputs.get(*port) else { continue };
        let path = project.store.object_path(&output.digest);
        each_batch(&path, usize::MAX, |columns| {
            let rows = columns.numbers("step").into_iter().zip(columns.numbers("value"));
            for ((step, value), tag) in rows.zip(columns.texts("name")) {
                if let (Some(step), Some(value)) = (step, value) {
                    #[expect(clippy::cast_possible_truncation, reason = "steps are whole")]
                    scalars.push(Scalar { tag, step: step as i64, value });
                }
            }
        })
        .map_err(|e| Failure::usage(format!("metrics of `{stage}`: {e}")))?;
    }
    scalars.sort_by_key(|s| s.step);
    let at: Result<jiff::Timestamp, _> = entry.made.at.parse();
    let at = at.map_or(0.0, |at| at.as_duration().as_secs_f64());
    Ok(StageMetrics { stage: stage.to_owned(), at, scalars })
}
