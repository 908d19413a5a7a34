//! How sure a figure is: score intervals of shares, bootstrap intervals of anything.
//! Knows nothing of what the figures say.

use serde::Serialize;

/// A value, the bounds of its 95 % confidence interval, and how many observations it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub n: u64,
}

impl Interval {
    /// The interval leaves `value` out.
    #[must_use]
    pub fn excludes(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

/// A share of `n` with its score interval (Wilson 1927); `None` of nothing.
#[must_use]
pub fn wilson(hits: u64, n: u64) -> Option<Interval> {
    if n == 0 {
        return None;
    }
    let (z, count) = (1.959_964_f64, n as f64);
    let p = hits as f64 / count;
    let centre = (p + z * z / (2.0 * count)) / (1.0 + z * z / count);
    let half =
        z / (1.0 + z * z / count) * (p * (1.0 - p) / count + z * z / (4.0 * count * count)).sqrt();
    Some(Interval { value: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0), n })
}

/// A statistic of `n` items with its percentile bootstrap (Efron 1979): the items are drawn again
/// with replacement, `resamples` times. Equal arguments give equal intervals. Draws of which the
/// statistic is not defined are left out; `None` where it is not defined of the items themselves.
pub fn bootstrap(
    n: usize,
    resamples: u32,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    let mut drawn: Vec<usize> = (0..n).collect();
    let value = statistic(&drawn)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut values = Vec::with_capacity(resamples as usize);
    for _ in 0..resamples {
        drawn.iter_mut().for_each(|place| *place = random.usize(0..n));
        values.extend(statistic(&drawn));
    }
    values.sort_by(f64::total_cmp);
    let low = quantile(&values, 0.025).unwrap_or(value);
    let high = quantile(&values, 0.975).unwrap_or(value);
    Some(Interval { value, low, high, n: n as u64 })
}

/// The value below which a share `q` of the sorted values lies (nearest rank).
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "q is in [0, 1]")]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}
