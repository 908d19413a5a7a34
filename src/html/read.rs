//! Fills a report from the Parquet files that stages made.
//! Goes by port types and column names; what is missing is left out, never an error.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use super::{
    CalibrationBin, EvaluationRow, LabelExample, LabelsReport, LearningPoint, ReportData,
    RewardReport, SampleRow,
};
use crate::columns::{ReadError, each_batch};

/// Rows read of one file; reports are for people.
const MOST_ROWS: usize = 200_000;
/// Rows kept of samples, and examples kept of labels.
const MOST_SAMPLES: usize = 5_000;
const EXAMPLES: usize = 8;

/// One output of one stage.
#[derive(Debug, Clone)]
pub struct OutputFile {
    pub stage: String,
    pub port: String,
    pub port_type: String,
    pub path: PathBuf,
}

/// Adds what the outputs say. Returns what could not be read; the rest is still there.
pub fn fill(data: &mut ReportData, outputs: &[OutputFile]) -> Vec<ReadError> {
    let mut errors = Vec::new();
    for output in outputs {
        if let Err(error) = fill_one(data, output) {
            errors.push(error);
        }
    }
    finish_rewards(data);
    errors
}

fn fill_one(data: &mut ReportData, output: &OutputFile) -> Result<(), ReadError> {
    match output.port_type.as_str() {
        "dataset/metrics" => metrics(data, output),
        "dataset/labels" => labels(data, output),
        "dataset/calibration" => calibration(data, output),
        "dataset/evaluation" => evaluation(data, output),
        "dataset/samples" => samples(data, output),
        _ => Ok(()),
    }
}

fn metrics(data: &mut ReportData, output: &OutputFile) -> Result<(), ReadError> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    each_batch(&output.path, MOST_ROWS, |columns| {
        let names = columns.texts("name");
        let points = columns.numbers("step").into_iter().zip(columns.numbers("value"));
        for (name, (step, value)) in names.into_iter().zip(points) {
            if let (Some(step), Some(value)) = (step, value) {
                curves.entry(name).or_default().push((step, value));
            }
        }
    })?;
    if let Some(stage) = data.stages.iter_mut().find(|s| s.name == output.stage) {
        for (name, mut points) in curves {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            // A figure that was told twice at one step: the last one counts.
            points.reverse();
            points.dedup_by_key(|p| p.0);
            points.reverse();
            stage.curves.entry(name).or_default().extend(points);
        }
    }
    Ok(())
}

fn labels(data: &mut ReportData, output: &OutputFile) -> Result<(), ReadError> {
    let mut report = LabelsReport { stage: output.stage.clone(), ..LabelsReport::default() };
    let mut people = HashSet::new();
    each_batch(&output.path, MOST_ROWS, |columns| {
        let (prompts, ties) = (columns.texts("prompt"), columns.flags("tie"));
        let (chosen, rejected) = (columns.texts("chosen"), columns.texts("rejected"));
        let (a, b) = (columns.texts("response_a"), columns.texts("response_b"));
        report.count += columns.rows();
        report.ties += ties.iter().filter(|t| **t).count();
        report.simulated |= columns.flags("simulated").contains(&true);
        let labeler = columns.texts("labeler").into_iter().find(|l| !l.is_empty());
        report.labeler = labeler.unwrap_or(report.labeler.clone());
        let voters = columns.texts("voters");
        people.extend(voters.iter().flat_map(|v| v.split_whitespace()).map(ToOwned::to_owned));
        for i in 0..columns.rows() {
            if report.examples.iter().filter(|e| e.tie == ties[i]).count() == EXAMPLES {
                continue;
            }
            // A tie has no chosen response: show the two that were compared.
            let none = ties[i] && chosen[i].is_empty() && rejected[i].is_empty();
            let first = if none { &a[i] } else { &chosen[i] };
            let second = if none { &b[i] } else { &rejected[i] };
            report.examples.push(LabelExample {
                prompt: prompts[i].clone(),
                chosen: first.clone(),
                rejected: second.clone(),
                tie: ties[i],
            });
        }
    })?;
    // The first of each, those with a preference before ties.
    report.examples.sort_by_key(|e| e.tie);
    report.annotators = people.len();
    data.labels.push(report);
    Ok(())
}

fn calibration(data: &mut ReportData, output: &OutputFile) -> Result<(), ReadError> {
    let mut report = RewardReport { stage: output.stage.clone(), ..RewardReport::default() };
    each_batch(&output.path, MOST_ROWS, |columns| {
        let (confidence, accuracy) = (columns.numbers("confidence"), columns.numbers("accuracy"));
        let counts = columns.numbers("n");
        for ((confidence, accuracy), n) in confidence.into_iter().zip(accuracy).zip(counts) {
            if let (Some(confidence), Some(accuracy)) = (confidence, accuracy) {
                let n = n.unwrap_or(0.0);
                report.bins.push(CalibrationBin { confidence, accuracy, n });
            }
        }
    })?;
    data.rewards.push(report);
    Ok(())
}

/// Accuracy and ceiling are metrics of the stage that made the calibration.
fn finish_rewards(data: &mut ReportData) {
    for reward in &mut data.rewards {
        let Some(stage) = data.stages.iter().find(|s| s.name == reward.stage) else { continue };
        let last = |name: &str| stage.curves.get(name).and_then(|c| c.last()).map(|p| p.1);
        reward.accuracy = reward.accuracy.or_else(|| last("eval/accuracy"));
        reward.ceiling = reward.ceiling.or_else(|| last("eval/ceiling"));
        reward.pairs = reward.pairs.or_else(|| last("eval/pairs"));
        let interval = last("eval/accuracy_low").zip(last("eval/accuracy_high"));
        reward.interval = reward.interval.or(interval);
        let curve = |name: &str| stage.curves.get(&format!("curve/{name}")).map(Vec::as_slice);
        let (low, high) = (curve("accuracy_low"), curve("accuracy_high"));
        let points = curve("accuracy").unwrap_or_default().iter().enumerate();
        let point = |(i, (labels, accuracy)): (usize, &(f64, f64))| LearningPoint {
            labels: *labels,
            accuracy: *accuracy,
            interval: low
                .and_then(|l| l.get(i))
                .zip(high.and_then(|h| h.get(i)))
                .map(|(l, h)| (l.1, h.1)),
        };
        reward.learning = points.map(point).collect();
    }
}

fn evaluation(data: &mut ReportData, output: &OutputFile) -> Result<(), ReadError> {
    each_batch(&output.path, MOST_ROWS, |columns| {
        let (policies, buckets) = (columns.texts("policy"), columns.texts("bucket"));
        let (names, values) = (columns.texts("name"), columns.numbers("value"));
        let (low, high) = (columns.numbers("low"), columns.numbers("high"));
        let counts = columns.numbers("n");
        for i in 0..columns.rows() {
            let Some(value) = values[i] else { continue };
            data.evaluation.push(EvaluationRow {
                stage: output.stage.clone(),
                policy: policies[i].clone(),
                bucket: buckets[i].clone(),
                name: names[i].clone(),
                value,
                low: low[i],
                high: high[i],
                n: counts[i],
            });
        }
    })
}

fn samples(data: &mut ReportData, output: &OutputFile) -> Result<(), ReadError> {
    let mut kept = 0;
    each_batch(&output.path, MOST_ROWS, |columns| {
        let (steps, scores) = (columns.numbers("step"), columns.numbers("score"));
        let (sources, buckets) = (columns.texts("source"), columns.texts("bucket"));
        let (prompts, responses) = (columns.texts("prompt"), columns.texts("response"));
        for i in 0..columns.rows() {
            if kept == MOST_SAMPLES {
                break;
            }
            kept += 1;
            data.samples.push(SampleRow {
                stage: output.stage.clone(),
                step: steps[i].unwrap_or(0.0),
                source: sources[i].clone(),
                bucket: buckets[i].clone(),
                prompt: prompts[i].clone(),
                response: responses[i].clone(),
                score: scores[i].filter(|s| s.is_finite()),
            });
        }
    })
}
