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

/// Weights of `n` values, sorted from the least, whose sum is the unbiased estimate of the mean of
/// the largest of `k` draws: C(i−1, k−1) / C(n, k) for the i-th (Nakano et al. 2021; Gao et al.
/// 2022). Values that are sorted by a proxy give the mean of what the proxy picks.
pub fn best_of_weights(n: usize, k: usize) -> Vec<f64> {
    let mut weights = vec![0.0; n];
    if k == 0 || k > n {
        return weights;
    }
    let mut weight = k as f64 / n as f64;
    for i in (k..=n).rev() {
        weights[i - 1] = weight;
        if i > 1 {
            weight *= (i - k) as f64 / (i - 1) as f64;
        }
    }
    weights
}

/// Most nats that the best of `k` lies from the policy that drew them: ln k − (k − 1) / k.
pub fn best_of_kl(k: usize) -> f64 {
    let k = k as f64;
    k.ln() - (k - 1.0) / k
}

/// How the gain of optimisation depends on d = √KL (Gao, Schulman, Hilton 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// R(d) = d (α − β d).
    BestOf,
    /// R(d) = d (α − β ln d).
    Reinforced,
}

/// A law with its coefficients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FittedLaw {
    pub law: Law,
    pub alpha: f64,
    pub beta: f64,
}

impl Law {
    /// The second column of the regression: R = α d − β g(d).
    fn bend(self, d: f64) -> f64 {
        match self {
            Self::BestOf => d * d,
            Self::Reinforced => d * d.ln(),
        }
    }

    /// Least squares through points (d, gain), both relative to the start; d > 0. Nothing for
    /// fewer than three points or when d does not vary.
    pub fn fit(self, points: &[(f64, f64)]) -> Option<FittedLaw> {
        let sane = |p: &&(f64, f64)| p.0 > 0.0 && p.0.is_finite() && p.1.is_finite();
        let points: Vec<&(f64, f64)> = points.iter().filter(sane).collect();
        if points.len() < 3 {
            return None;
        }
        let sum = |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|(d, r)| f(*d, *r)).sum::<f64>();
        let g = |d: f64| -self.bend(d);
        let (dd, dg, gg) = (sum(&|d, _| d * d), sum(&|d, _| d * g(d)), sum(&|d, _| g(d) * g(d)));
        let (dr, gr) = (sum(&|d, r| d * r), sum(&|d, r| g(d) * r));
        let determinant = dd * gg - dg * dg;
        if determinant.abs() <= 1e-9 * dd * gg {
            return None;
        }
        let alpha = (dr * gg - gr * dg) / determinant;
        let beta = (gr * dd - dr * dg) / determinant;
        Some(FittedLaw { law: self, alpha, beta })
    }
}

impl FittedLaw {
    /// The d beyond which more optimisation makes things worse; nothing where it never does.
    pub fn peak(&self) -> Option<f64> {
        let peak = match self.law {
            Law::BestOf => self.alpha / (2.0 * self.beta),
            Law::Reinforced => (self.alpha / self.beta - 1.0).exp(),
        };
        (self.beta > 0.0 && peak > 0.0 && peak.is_finite()).then_some(peak)
    }

    /// The gain at `d`.
    pub fn gain(&self, d: f64) -> f64 {
        self.alpha * d - self.beta * self.law.bend(d)
    }
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

    #[test]
    fn best_of_k_is_the_mean_over_all_choices() {
        // Every choice of k among n, its largest taken: the definition.
        let values = [0.3, 1.0, 2.5, 2.7, 4.0, 9.0];
        for k in 1..=6_u32 {
            let choices = (0_u32..64).filter(|set| set.count_ones() == k);
            let largest = |set: u32| values[(31 - set.leading_zeros()) as usize];
            let all: Vec<f64> = choices.map(largest).collect();
            let weights = best_of_weights(6, k as usize);
            let estimate: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
            assert!((estimate - mean(&all)).abs() < 1e-12, "k {k}: {estimate}");
        }
        // C(0,1)/6, C(1,1)/6, C(2,1)/6, C(3,1)/6.
        let weights = best_of_weights(4, 2);
        for (w, x) in weights.iter().zip([0.0, 1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0]) {
            assert!((w - x).abs() < 1e-12);
        }
        assert!((best_of_weights(200, 64).iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_kl_of_best_of_n_is_the_published_one() {
        for (n, kl) in [(1, 0.0), (2, 0.193), (4, 0.636), (8, 1.204), (16, 1.835), (64, 3.175)] {
            assert!((best_of_kl(n) - kl).abs() < 1e-3, "{n}");
        }
    }

    #[test]
    fn gaos_laws_are_found_again_with_their_peaks() {
        let d = [0.4, 0.9, 1.3, 2.0, 3.1];
        let bon: Vec<(f64, f64)> = d.iter().map(|d| (*d, d * (1.7 - 0.3 * d))).collect();
        let fit = Law::BestOf.fit(&bon).expect("a fit");
        assert!((fit.alpha - 1.7).abs() < 1e-9 && (fit.beta - 0.3).abs() < 1e-9, "{fit:?}");
        assert!((fit.peak().expect("a peak") - 1.7 / 0.6).abs() < 1e-9);
        let rl: Vec<(f64, f64)> = d.iter().map(|d| (*d, d * (0.8 - 0.5 * d.ln()))).collect();
        let fit = Law::Reinforced.fit(&rl).expect("a fit");
        assert!((fit.alpha - 0.8).abs() < 1e-9 && (fit.beta - 0.5).abs() < 1e-9, "{fit:?}");
        assert!((fit.peak().expect("a peak") - (0.8_f64 / 0.5 - 1.0).exp()).abs() < 1e-9);
        assert!((fit.gain(2.0) - rl[3].1).abs() < 1e-9);
        // A line has no peak; two points, or one d, no fit.
        let line: Vec<(f64, f64)> = d.iter().map(|d| (*d, 2.0 * d)).collect();
        assert_eq!(Law::BestOf.fit(&line).and_then(|f| f.peak().filter(|p| *p < 1e6)), None);
        assert_eq!(Law::BestOf.fit(&bon[..2]), None);
        assert_eq!(Law::Reinforced.fit(&[(1.5, 1.0), (1.5, 2.0), (1.5, 3.0)]), None);
    }
}
