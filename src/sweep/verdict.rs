//! What may be said of the best setting of a sweep. Does not know where figures come from.

use super::interval::LEAST;
use super::table::{ResultTable, SettingMean};
use serde::Serialize;

/// What may be said of the best setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum BestSetting {
    /// Too few trials of a setting.
    Few {
        n: usize,
    },
    IsBaseline,
    NoBaseline,
    /// The difference to the baseline, and half of its interval, corrected for having picked the
    /// best of so many.
    Compared {
        mean: f64,
        half: f64,
        settings: usize,
    },
}

impl ResultTable {
    /// What may be said of the best setting; `None` where there is none.
    #[must_use]
    pub fn verdict(&self) -> Option<BestSetting> {
        let best = self.rows.iter().find(|row| row.is_best)?;
        let against = best.against_baseline.unwrap_or_default();
        Some(match against {
            _ if best.is_baseline => BestSetting::IsBaseline,
            _ if best.metric.n < LEAST => BestSetting::Few { n: best.metric.n },
            SettingMean { mean: Some(mean), half: Some(half), .. } => {
                BestSetting::Compared { mean, half, settings: self.settings() }
            }
            SettingMean { n: 0, .. } if !self.rows.iter().any(|row| row.is_baseline) => {
                BestSetting::NoBaseline
            }
            SettingMean { n, .. } => BestSetting::Few { n },
        })
    }

    /// Settings that have a figure.
    pub(super) fn settings(&self) -> usize {
        self.rows.iter().filter(|row| row.metric.mean.is_some()).count()
    }

    /// Trials of a setting, as the sweep calls them.
    fn repeats(&self, n: usize) -> String {
        let word = if self.over == ["seed"] { "seed" } else { "trial" };
        format!("{n} {word}{}", if n == 1 { "" } else { "s" })
    }

    /// The same in words.
    #[must_use]
    pub fn words(&self, number: fn(f64) -> String) -> Option<String> {
        Some(match self.verdict()? {
            BestSetting::Few { n } => format!(
                "{}: cannot be told from chance; three or more of each setting give an interval.",
                self.repeats(n)
            ),
            BestSetting::IsBaseline => "It is the baseline.".to_owned(),
            BestSetting::NoBaseline => "There is no baseline to compare it with.".to_owned(),
            BestSetting::Compared { mean, half, settings } => {
                let sign = if mean < 0.0 { "−" } else { "+" };
                let (apart, half_shown) = (number(mean.abs()), number(half));
                let judged = match mean.abs() > half {
                    true => "more than chance explains",
                    false => "chance may explain it",
                };
                format!(
                    "{sign}{apart} ± {half_shown} against the baseline (95 %, best of {settings}): \
                     {judged}."
                )
            }
        })
    }
}
