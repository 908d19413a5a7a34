//! How sure the figures of a sweep are: intervals of means over few trials, and what may be said of
//! the best setting. Does not know where figures come from.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::table::{Cell, Table};

/// Fewest trials that an interval is worth anything for: of two it is thirteen times their spread.
const LEAST: usize = 3;
const CONFIDENCE: f64 = 0.95;

/// Half of the interval around a mean of `n` figures whose standard deviation is `spread`:
/// t · spread / √n, with Student's t at n − 1 degrees of freedom. Of `comparisons` such intervals
/// all hold at once in 95 of 100 cases: each is at 0.95^(1/comparisons) (Šidák 1967). `None` for
/// fewer than three figures.
#[must_use]
pub fn half(n: usize, spread: f64, comparisons: usize) -> Option<f64> {
    if n < LEAST {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "few trials")]
    let (n, comparisons) = (n as f64, comparisons.max(1) as f64);
    let t = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    let outside = 1.0 - CONFIDENCE.powf(1.0 / comparisons);
    Some(t.inverse_cdf(1.0 - outside / 2.0) * spread / n.sqrt())
}

/// What may be said of the best setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Verdict {
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

impl Table {
    /// What may be said of the best setting; `None` where there is none.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let best = self.rows.iter().find(|row| row.is_best)?;
        let against = best.against_baseline.unwrap_or_default();
        Some(match against {
            _ if best.is_baseline => Verdict::IsBaseline,
            _ if best.metric.n < LEAST => Verdict::Few { n: best.metric.n },
            Cell { mean: Some(mean), half: Some(half), .. } => {
                Verdict::Compared { mean, half, settings: self.settings() }
            }
            Cell { n: 0, .. } if !self.rows.iter().any(|row| row.is_baseline) => {
                Verdict::NoBaseline
            }
            Cell { n, .. } => Verdict::Few { n },
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
            Verdict::Few { n } => format!(
                "{}: cannot be told from chance; three or more of each setting give an interval.",
                self.repeats(n)
            ),
            Verdict::IsBaseline => "It is the baseline.".to_owned(),
            Verdict::NoBaseline => "There is no baseline to compare it with.".to_owned(),
            Verdict::Compared { mean, half, settings } => {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// From `scipy.stats.t.ppf(1 - (1 - 0.95 ** (1 / m)) / 2, n - 1)`.
    #[test]
    fn intervals_are_those_of_scipy() {
        for (n, comparisons, t) in [
            (3, 1, 4.302_652_729_749_462),
            (5, 1, 2.776_445_105_197_793),
            (10, 1, 2.262_157_162_798_205),
            (30, 1, 2.045_229_642_132_703),
            (3, 4, 8.774_233_720_344_855),
            (5, 4, 4.290_465_233_544_008),
            (3, 26, 22.491_988_062_596_24),
            (5, 26, 7.201_225_988_924_013),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let expected = t * 0.5 / (n as f64).sqrt();
            let found = half(n, 0.5, comparisons).expect("enough");
            assert!((found / expected - 1.0).abs() < 1e-6, "{n} {comparisons}: {found} {expected}");
        }
        // `scipy.stats.t.interval(0.95, 2, mean, stdev / sqrt(3))` of 2.0, 2.4, 2.1.
        let found = Cell::of(&[2.0, 2.4, 2.1]).half.expect("enough");
        assert!((found - 0.517_114_501).abs() < 1e-6, "{found}");
        assert_eq!((half(2, 0.5, 1), half(1, 0.0, 1)), (None, None));
    }
}
