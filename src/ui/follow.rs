//! The journal of a run, followed as it grows: where each stage stands, and its curves.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::history;
use crate::files;
use crate::html::{ReportData, StageProgress, StageStatus};
use crate::report::live::left;
use crate::run::RunEvent;
use crate::run::journal::JournalLine;

/// Points of one curve that are kept; beyond that, every other one goes.
const MOST_POINTS: usize = 4000;
/// Bytes that are read at a time.
const PIECE: u64 = 8 << 20;

/// Metric → (step, value).
type Curves = BTreeMap<String, Vec<(f64, f64)>>;

/// What a journal says so far.
#[derive(Debug, Default)]
pub struct Follower {
    path: PathBuf,
    offset: u64,
    states: BTreeMap<String, StageStatus>,
    curves: BTreeMap<String, Curves>,
    /// First and last word on progress: seconds of the run, units done; and all units.
    progress: BTreeMap<String, [(f64, u64, u64); 2]>,
    /// What is known of failures beyond their first line.
    details: BTreeMap<String, (String, String)>,
    /// Stages that came to an end: what they made is to be read again.
    pub ended: usize,
}

impl Follower {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }

    /// Reads what is new; a half line waits for its end. True: there was something.
    pub fn read(&mut self) -> bool {
        let mut bytes = Vec::new();
        let read = files::open_own(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(PIECE).read_to_end(&mut bytes)
        });
        let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        if read.is_err() || end == 0 {
            return false;
        }
        self.offset += end as u64;
        for line in bytes[..end].split(|b| *b == b'\n') {
            if let Ok(line) = serde_json::from_slice::<JournalLine>(line) {
                self.hear(line.t, line.event);
            }
        }
        true
    }

    fn hear(&mut self, t: f64, event: RunEvent) {
        let (stage, state) = match event {
            RunEvent::Metric { stage, step, values } => {
                let curves = self.curves.entry(stage).or_default();
                for (name, value) in values {
                    #[expect(clippy::cast_precision_loss, reason = "a place on a chart")]
                    if let Some(value) = value {
                        add(curves.entry(name).or_default(), (step as f64, value));
                    }
                }
                return;
            }
            RunEvent::Progress { stage, done, total, .. } => {
                let now = (t, done, total);
                self.progress.entry(stage).or_insert([now, now])[1] = now;
                return;
            }
            RunEvent::StageStarted { stage, .. } => {
                // A further attempt tells its figures anew.
                self.curves.remove(&stage);
                self.progress.remove(&stage);
                (stage, StageStatus::Running)
            }
            RunEvent::StageDone { stage, .. } => (stage, StageStatus::Done),
            RunEvent::StageReused { stage, .. } | RunEvent::StageFetched { stage, .. } => {
                (stage, StageStatus::Reused)
            }
            RunEvent::StageFailed { stage, retrying: false, outcome, .. } => {
                let told = (outcome.headline(), history::detail(&outcome));
                self.details.insert(stage.clone(), told);
                (stage, StageStatus::Failed)
            }
            RunEvent::StageWaiting { stage, .. } => (stage, StageStatus::Waiting),
            _ => return,
        };
        let ended = [StageStatus::Done, StageStatus::Failed, StageStatus::Waiting];
        self.ended += usize::from(ended.contains(&state));
        self.states.insert(stage, state);
    }

    /// Puts it into what is made: `alive` says whether the run still goes on.
    pub fn apply(&self, data: &mut ReportData, alive: bool) {
        for stage in &mut data.stages {
            let made = stage.state == StageStatus::Done;
            match self.states.get(&stage.name) {
                Some(StageStatus::Running) if alive => {
                    stage.state = StageStatus::Running;
                    stage.trouble = None;
                    stage.seconds = None;
                    stage.curves = self.curves.get(&stage.name).cloned().unwrap_or_default();
                    stage.progress = self.progress.get(&stage.name).and_then(|[first, last]| {
                        let (since, before, _) = *first;
                        let (now, done, total) = *last;
                        let left = left(now - since, before, done, total);
                        #[expect(clippy::cast_precision_loss, reason = "a share")]
                        (total > 0)
                            .then(|| StageProgress { share: done as f64 / total as f64, left })
                    });
                }
                Some(state @ (StageStatus::Failed | StageStatus::Waiting)) if !made => {
                    stage.state = *state;
                    if let Some((text, detail)) = self.details.get(&stage.name) {
                        let trouble = stage.trouble.get_or_insert_default();
                        if trouble.text.is_empty() {
                            text.clone_into(&mut trouble.text);
                        }
                        detail.clone_into(&mut trouble.detail);
                    }
                }
                _ => {}
            }
        }
    }
}

fn add(points: &mut Vec<(f64, f64)>, point: (f64, f64)) {
    points.push(point);
    if points.len() > MOST_POINTS {
        let mut i = 0;
        points.retain(|_| {
            i += 1;
            i % 2 == 0
        });
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own their folders")]
mod tests {
    use super::*;
    use crate::html::StageReport;

    #[test]
    fn a_journal_is_followed_as_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut follower = Follower::new(path.clone());
        assert!(!follower.read(), "there is none yet");
        let fingerprint = "0".repeat(64);
        let started = format!(
            "{{\"t\":0.1,\"event\":\"stage_started\",\"stage\":\"a\",\"fingerprint\":\"{fingerprint}\",\
             \"attempt\":1,\"reason\":{{\"reason\":\"never_run\"}}}}\n"
        );
        let progress = |t: u32, done: u32| {
            format!(
                "{{\"t\":{t},\"event\":\"progress\",\"stage\":\"a\",\"done\":{done},\"total\":100,\"unit\":\"steps\"}}\n"
            )
        };
        let metric = "{\"t\":1,\"event\":\"metric\",\"stage\":\"a\",\"step\":3,\"values\":{\"loss\":0.5,\"x\":null}}\n";
        let begun = format!("{started}{metric}{}{}", progress(2, 20), progress(12, 40));
        std::fs::write(&path, format!("{begun}{{\"t\":2,\"ev")).unwrap();
        assert!(follower.read());
        assert!(!follower.read(), "half a line is none");
        let stage = |name: &str| StageReport { name: name.into(), ..StageReport::default() };
        let shown = |follower: &Follower, alive| {
            let mut data =
                ReportData { stages: vec![stage("a"), stage("b")], ..ReportData::default() };
            follower.apply(&mut data, alive);
            (data.stages[0].state, data.stages[0].curves.clone(), data.stages[1].state)
        };
        let curves = Curves::from([("loss".to_owned(), vec![(3.0, 0.5)])]);
        assert_eq!(shown(&follower, true), (StageStatus::Running, curves, StageStatus::NotRun));
        let mut data = ReportData { stages: vec![stage("a")], ..ReportData::default() };
        follower.apply(&mut data, true);
        assert_eq!(data.stages[0].progress, Some(StageProgress { share: 0.4, left: Some(30.0) }));
        // A run that was killed says nothing of its end.
        assert_eq!(shown(&follower, false).0, StageStatus::NotRun);
        let failed = "{\"t\":3,\"event\":\"stage_failed\",\"stage\":\"a\",\"outcome\":{\"outcome\":\"cancelled\"},\
                      \"retrying\":false,\"log\":\"\",\"task\":\"\",\"storage\":false}\n";
        std::fs::write(&path, format!("{begun}{failed}")).unwrap();
        assert!(follower.read());
        assert_eq!(shown(&follower, false).0, StageStatus::Failed);
    }

    #[test]
    fn a_curve_stays_bounded_and_keeps_its_end() {
        let mut points = Vec::new();
        for i in 0..100_000 {
            add(&mut points, (f64::from(i), 0.0));
        }
        assert!(points.len() <= MOST_POINTS && points.len() > MOST_POINTS / 3);
        assert_eq!(points.last().unwrap().0, 99_999.0);
    }
}
