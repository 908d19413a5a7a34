//! Intervals of means over few trials. Does not know where figures come from.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Fewest trials that an interval is worth anything for: of two it is thirteen times their spread.
pub(super) const LEAST: usize = 3;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::table::SettingMean;

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
        let found = SettingMean::of(&[2.0, 2.4, 2.1]).half.expect("enough");
        assert!((found - 0.517_114_501).abs() < 1e-6, "{found}");
        assert_eq!((half(2, 0.5, 1), half(1, 0.0, 1)), (None, None));
    }
}
