//! Intervals and correlations for reports.
//! Knows nothing of models, tensors or files.

use crate::rng::Stream;

/// A value with the bounds of its 95 % confidence interval and the number of observations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub n: u64,
}

/// Mean of `xs`; 0 of nothing.
pub fn mean(xs: &[f64]) -> f64 {
    if xs.is_empty() { 0.0 } else { xs.iter().sum::<f64>() / xs.len() as f64 }
}

/// Biased standard deviation of `xs`.
pub fn std(xs: &[f64]) -> f64 {
    let m = mean(xs);
    mean(&xs.iter().map(|x| (x - m) * (x - m)).collect::<Vec<_>>()).sqrt()
}

/// The value below which a share `q` of the sorted `xs` lies (nearest rank).
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let index = (q * sorted.len() as f64).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// Pearson correlation; 0 when one side does not vary.
pub fn correlation(xs: &[f64], ys: &[f64]) -> f64 {
    let (mx, my) = (mean(xs), mean(ys));
    let products: Vec<f64> = xs.iter().zip(ys).map(|(x, y)| (x - mx) * (y - my)).collect();
    let scale = std(xs) * std(ys);
    if scale < 1e-12 { 0.0 } else { mean(&products) / scale }
}

/// A share of `n` with its score interval (Wilson 1927). `hits` may be fractional: ties count ½.
pub fn wilson(hits: f64, n: u64) -> Estimate {
    if n == 0 {
        return Estimate { value: f64::NAN, low: 0.0, high: 1.0, n };
    }
    let (z, n_f) = (1.959_964, n as f64);
    let p = hits / n_f;
    let centre = (p + z * z / (2.0 * n_f)) / (1.0 + z * z / n_f);
    let half = z / (1.0 + z * z / n_f) * (p * (1.0 - p) / n_f + z * z / (4.0 * n_f * n_f)).sqrt();
    Estimate { value: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0), n }
}

/// Mean of `per_prompt` with a percentile bootstrap over prompts (Efron 1979).
///
/// The resamples depend on `seed` and the number of prompts only, so two calls with the same
/// prompts are paired: differences of policies are taken prompt by prompt before the call.
pub fn bootstrap(per_prompt: &[f64], resamples: u32, seed: u64) -> Estimate {
    let n = per_prompt.len();
    let value = mean(per_prompt);
    if n < 2 || resamples == 0 {
        return Estimate { value, low: value, high: value, n: n as u64 };
    }
    let mut means: Vec<f64> = (0..resamples)
        .map(|i| {
            let mut stream = Stream::new(seed, "bootstrap", u64::from(i), n as u64);
            (0..n).map(|_| per_prompt[stream.below(n)]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Estimate { value, low: quantile(&means, 0.025), high: quantile(&means, 0.975), n: n as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_published_bounds() {
        // 81 of 263, Newcombe 1998, table I, method 3: .2553 to .3662.
        let e = wilson(81.0, 263);
        assert!((e.low - 0.2553).abs() < 1e-4 && (e.high - 0.3662).abs() < 1e-4, "{e:?}");
        // 0 of 20: 0 to .1611.
        let e = wilson(0.0, 20);
        assert!(e.low == 0.0 && (e.high - 0.1611).abs() < 1e-4, "{e:?}");
    }

    #[test]
    fn bootstrap_covers_the_normal_interval() {
        let mut stream = Stream::new(3, "test", 0, 0);
        let xs: Vec<f64> = (0..400).map(|_| stream.normal()).collect();
        let e = bootstrap(&xs, 2000, 1);
        let half = 1.96 * std(&xs) / 20.0;
        assert!((e.high - e.value - half).abs() < 0.02, "{e:?} against ±{half}");
        assert_eq!(bootstrap(&xs, 2000, 1), e);
    }

    #[test]
    fn correlation_of_lines() {
        assert!((correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[1.0, 2.0], &[5.0, 5.0]), 0.0);
    }
}
