//! What a report shows, as plain values.
//! Knows neither where they come from nor how they look.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::label::QualityReport;

/// Everything that a report shows. Empty parts leave no trace on the page.
#[derive(Debug, Clone, Default)]
pub struct ReportData {
    pub pipeline: String,
    /// The exact command that makes all this again.
    pub command: String,
    /// In topological order.
    pub stages: Vec<StageReport>,
    pub labels: Vec<LabelsReport>,
    pub quality: Vec<LabelQuality>,
    pub rewards: Vec<RewardReport>,
    pub evaluation: Vec<EvaluationRow>,
    pub samples: Vec<SampleRow>,
    /// What it ran on: name and value.
    pub environment: Vec<(String, String)>,
}

/// How the people did whose votes a stage reads, as the votes stand when the report is written.
#[derive(Debug, Clone)]
pub struct LabelQuality {
    pub stage: String,
    pub report: QualityReport,
    /// Votes faster than this count as too fast.
    pub min_seconds: f64,
}

/// One stage of the run.
#[derive(Debug, Clone, Default)]
pub struct StageReport {
    pub name: String,
    pub kind: String,
    pub state: StageStatus,
    /// What it took when it was made, which may have been in an earlier run.
    pub seconds: Option<f64>,
    /// Indices into [`ReportData::stages`].
    pub upstream: Vec<usize>,
    pub notes: Vec<Note>,
    pub fingerprint: String,
    /// As [`params`] gives them.
    pub params: Vec<(String, String)>,
    /// Metric → (step, value), by step.
    pub curves: BTreeMap<String, Vec<(f64, f64)>>,
    /// Of a stage that runs.
    pub progress: Option<StageProgress>,
    /// Of a stage that failed, or waits for people.
    pub trouble: Option<StageProblem>,
}

/// Why a stage is not made, and what can be done about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageProblem {
    /// In one line.
    pub text: String,
    /// All that is known; may be empty.
    pub detail: String,
    /// What to type.
    pub command: String,
    /// A page where people can act.
    pub link: Option<String>,
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageProgress {
    /// Of the whole, 0 to 1.
    pub share: f64,
    /// Seconds that the rest takes, if that can be told.
    pub left: Option<f64>,
}

/// Something that a stage wants a person to read.
#[derive(Debug, Clone, Default)]
pub struct Note {
    pub warning: bool,
    pub text: String,
}

/// How a stage stands at the end of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StageStatus {
    Done,
    Reused,
    Failed,
    Waiting,
    Running,
    #[default]
    NotRun,
}

impl StageStatus {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Reused => "reused",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::NotRun => "not run",
        }
    }
}

/// Preferences that a stage collected.
#[derive(Debug, Clone, Default)]
pub struct LabelsReport {
    pub stage: String,
    pub count: usize,
    pub ties: usize,
    /// Judged by a program, not by people.
    pub simulated: bool,
    /// Which, where the labels say so.
    pub labeler: String,
    pub annotators: usize,
    pub examples: Vec<LabelExample>,
}

impl LabelsReport {
    /// What compared instead of people.
    #[must_use]
    pub(super) fn program(&self) -> String {
        match (self.labeler.as_str(), self.labeler.strip_prefix("judge ")) {
            (_, Some(model)) => format!("the language model {model}"),
            ("model", _) => "a reward model".to_owned(),
            _ => "a program with rules".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct LabelExample {
    pub prompt: String,
    pub chosen: String,
    pub rejected: String,
    pub tie: bool,
}

/// How far a reward model agrees with labels that it has not seen.
#[derive(Debug, Clone, Default)]
pub struct RewardReport {
    pub stage: String,
    pub accuracy: Option<f64>,
    /// 95 % interval of the accuracy.
    pub interval: Option<(f64, f64)>,
    /// How many labels it was asked about.
    pub pairs: Option<f64>,
    /// What a perfect judge would reach on labels this noisy.
    pub ceiling: Option<f64>,
    pub bins: Vec<CalibrationBin>,
    /// Accuracy by the number of labels it was trained on.
    pub learning: Vec<LearningPoint>,
}

/// A point of a learning curve.
#[derive(Debug, Clone, Copy, Default)]
pub struct LearningPoint {
    pub labels: f64,
    pub accuracy: f64,
    /// 95 % interval.
    pub interval: Option<(f64, f64)>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct CalibrationBin {
    pub confidence: f64,
    pub accuracy: f64,
    pub n: f64,
}

/// One figure of one policy on one bucket of prompts.
#[derive(Debug, Clone, Default)]
pub struct EvaluationRow {
    pub stage: String,
    pub policy: String,
    pub bucket: String,
    pub name: String,
    pub value: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub n: Option<f64>,
}

/// One response of a model.
#[derive(Debug, Clone, Default)]
pub struct SampleRow {
    pub stage: String,
    pub step: f64,
    /// The policy that answered.
    pub source: String,
    pub bucket: String,
    pub prompt: String,
    pub response: String,
    pub score: Option<f64>,
}

/// Params for the page: dotted names, values in JSON.
#[must_use]
pub fn params(params: &Map<String, Value>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (name, value) in params {
        match value {
            Value::Object(inner) if !inner.is_empty() => out.extend(
                self::params(inner).into_iter().map(|(rest, v)| (format!("{name}.{rest}"), v)),
            ),
            other => out.push((name.clone(), other.to_string())),
        }
    }
    out
}

impl ReportData {
    /// The policy that a stage compares all others with: its `baseline`, or else its `reference`.
    pub(super) fn baseline(&self, stage: &str) -> Option<String> {
        let params = &self.stages.iter().find(|s| s.name == stage)?.params;
        let named = |wanted: &str| {
            let (_, value) = params.iter().find(|(name, _)| name == wanted)?;
            serde_json::from_str::<String>(value).ok().filter(|name| !name.is_empty())
        };
        named("baseline").or_else(|| named("reference"))
    }

    /// Buckets of prompts that nobody labelled, by what the evaluation calls its groups.
    pub(super) fn unseen_buckets(&self, stage: &str) -> Vec<String> {
        let stages = self.stages.iter().filter(|s| s.name == stage);
        let params = stages.flat_map(|s| &s.params);
        let groups = params.filter(|(name, _)| name.contains("groups.") && is_unseen(name));
        groups.filter_map(|(_, v)| serde_json::from_str::<Vec<String>>(v).ok()).flatten().collect()
    }
}

/// Whether a bucket's name says that nobody labelled its prompts.
pub(super) fn is_unseen(bucket: &str) -> bool {
    bucket.contains("unseen") || bucket.contains("held")
}
