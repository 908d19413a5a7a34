//! What a running stage says of itself, on one line: the figures worth watching, how the first of
//! them went, and how long the rest will take. Does not know what a figure means.

use crate::text;
use std::collections::BTreeMap;
use std::time::Instant;

use super::words;

/// Points of the small curve.
const POINTS: usize = 12;
/// Its heights, lowest first.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Figures that are shown.
const SHOWN: usize = 2;
/// Share of the work, and seconds, below which nobody can tell how long the rest takes.
const TOO_EARLY: (f64, f64) = (0.02, 2.0);

/// Names of figures by stage, the most telling first.
pub type LiveMetrics = BTreeMap<String, Vec<String>>;

/// What is known of the stages that run.
#[derive(Debug, Default)]
pub struct Live {
    watched: LiveMetrics,
    stages: BTreeMap<String, RunningStage>,
}

/// What one stage that runs has said.
#[derive(Debug, Default)]
struct RunningStage {
    /// When progress was first heard of, and what was done by then: a stage may go on from a
    /// checkpoint.
    since: Option<(Instant, u64)>,
    /// Seconds that the rest takes.
    left: Option<f64>,
    values: BTreeMap<String, Option<f64>>,
    /// Of the first figure: means over equal numbers of points.
    curve: Vec<f64>,
    /// How many points one of them stands for, and what came after the last full one.
    each: usize,
    rest: Vec<f64>,
}

impl Live {
    #[must_use]
    pub fn new(watched: LiveMetrics) -> Self {
        Self { watched, stages: BTreeMap::new() }
    }

    /// An attempt begins: what an earlier one said counts no longer.
    pub fn start(&mut self, stage: &str) {
        self.stages.insert(stage.to_owned(), RunningStage::default());
    }

    /// Figures of one step.
    pub fn hear(&mut self, stage: &str, values: &BTreeMap<String, Option<f64>>) {
        let first = self.watched.get(stage).and_then(|names| names.first());
        let seen = self.stages.entry(stage.to_owned()).or_default();
        if let Some(value) = first.and_then(|name| values.get(name).copied().flatten()) {
            seen.add(value);
        }
        seen.values.extend(values.iter().map(|(name, value)| (name.clone(), *value)));
    }

    /// So much of the work is done.
    pub fn progress(&mut self, stage: &str, done: u64, total: u64) {
        let seen = self.stages.entry(stage.to_owned()).or_default();
        let (since, before) = *seen.since.get_or_insert_with(|| (Instant::now(), done));
        seen.left = left(since.elapsed().as_secs_f64(), before, done, total);
    }

    /// `~40s left  train/loss 2.31 ▇▅▃▂▁  eval/loss 2.40`.
    #[must_use]
    pub fn text(&self, stage: &str) -> String {
        let Some(seen) = self.stages.get(stage) else { return String::new() };
        let names = self.watched.get(stage).map_or(&[][..], Vec::as_slice);
        let parts = words::ranked(&seen.values, names).into_iter().take(SHOWN);
        let parts = parts.map(|(name, value)| {
            let text = format!("{} {}", super::clean(name), text::figure(value));
            match names.first() == Some(name) {
                true => format!("{text} {}", seen.drawn()).trim_end().to_owned(),
                false => text,
            }
        });
        let left = seen.left.map(|s| format!("~{} left", text::seconds(s)));
        left.into_iter().chain(parts).collect::<Vec<_>>().join("  ")
    }
}

impl RunningStage {
    fn add(&mut self, value: f64) {
        self.each = self.each.max(1);
        self.rest.push(value);
        if self.rest.len() == self.each {
            self.curve.push(mean(&self.rest));
            self.rest.clear();
        }
        if self.curve.len() == 2 * POINTS {
            self.curve = self.curve.chunks(2).map(mean).collect();
            self.each *= 2;
        }
    }

    /// The curve so far; nothing while there are fewer than three points.
    fn drawn(&self) -> String {
        let newest = (!self.rest.is_empty()).then(|| mean(&self.rest));
        let all: Vec<f64> = self.curve.iter().copied().chain(newest).collect();
        sparkline(&all[all.len().saturating_sub(2 * POINTS)..])
    }
}

fn mean(values: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few points")]
    let count = values.len() as f64;
    values.iter().sum::<f64>() / count
}

/// Seconds for the rest at the rate so far, `before` being done at the start of these `seconds`;
/// `None`: too early to tell, or nothing is left.
#[must_use]
pub fn left(seconds: f64, before: u64, done: u64, total: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let of = |part: u64| part as f64 / total as f64;
    let (won, open) = (of(done.saturating_sub(before)), of(total.saturating_sub(done)));
    let told = done < total && won >= TOO_EARLY.0 && seconds >= TOO_EARLY.1;
    told.then(|| seconds / won * open)
}

/// Values as heights from the least to the greatest.
fn sparkline(values: &[f64]) -> String {
    let finite = values.iter().copied().filter(|v| v.is_finite());
    let (least, most) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if values.len() < 3 || least >= most {
        return String::new();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 7")]
    let height = |v: &f64| match v.is_finite() {
        true => HEIGHTS[(((v - least) / (most - least)) * 7.0).round() as usize],
        false => '×',
    };
    values.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: &[(&str, f64)]) -> BTreeMap<String, Option<f64>> {
        of.iter().map(|(name, v)| ((*name).to_owned(), Some(*v))).collect()
    }

    #[test]
    fn the_watched_figures_come_first_with_the_curve_of_the_first() {
        let names = ["train/loss", "eval/loss"].map(str::to_owned).to_vec();
        let mut live = Live::new(BTreeMap::from([("base".to_owned(), names)]));
        live.start("base");
        live.hear("base", &values(&[("a", 1.0), ("train/loss", 4.0), ("train/lr", 0.1)]));
        assert_eq!(live.text("base"), "train/loss 4  a 1");
        live.hear("base", &values(&[("train/loss", 3.0), ("eval/loss", 3.5)]));
        live.hear("base", &values(&[("train/loss", 2.25)]));
        assert_eq!(live.text("base"), "train/loss 2.250 █▄▁  eval/loss 3.500");
        live.start("base");
        assert_eq!(live.text("base"), "");
        live.hear("other", &values(&[("x", 1.0)]));
        assert_eq!(live.text("other"), "x 1");
    }

    #[test]
    fn a_curve_stays_short_and_keeps_its_shape() {
        let mut seen = RunningStage::default();
        for step in 0..1000 {
            seen.add(1.0 / f64::from(step + 1));
        }
        let drawn = seen.drawn();
        assert!((POINTS..=2 * POINTS).contains(&drawn.chars().count()), "{drawn}");
        assert!(drawn.starts_with('█') && drawn.ends_with('▁'), "{drawn}");
        assert_eq!(sparkline(&[1.0, 1.0, 1.0]), "");
        assert_eq!(sparkline(&[0.0, f64::NAN, 1.0]), "▁×█");
    }

    #[test]
    fn the_rest_takes_as_long_as_the_part_since_the_start() {
        assert_eq!(left(10.0, 0, 25, 100), Some(30.0));
        // What a checkpoint brought along took no time.
        assert_eq!(left(10.0, 50, 75, 100), Some(10.0));
        for (seconds, done, total) in [(1.0, 50, 100), (10.0, 1, 100), (9.0, 5, 0), (9.0, 9, 9)] {
            assert_eq!(left(seconds, 0, done, total), None);
        }
    }
}
