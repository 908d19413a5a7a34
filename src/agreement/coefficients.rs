//! Agreement in one number: percent, Cohen's and Fleiss' kappa, Krippendorff's alpha.
//! Knows nothing of what the categories mean.

use super::{Interval, Ratings, bootstrap};

/// How far apart two categories are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// Equal or not.
    Nominal,
    /// By how many ratings lie between them; the categories are in order.
    Ordinal,
}

/// Ratings of one item by category.
fn counts(ratings: &Ratings, item: usize) -> Vec<f64> {
    let mut counts = vec![0.0; ratings.categories];
    for rating in &ratings.items[item] {
        counts[rating.category] += 1.0;
    }
    counts
}

/// Of the pairs of ratings of one item, the share that agree; `None` of fewer than two ratings.
fn pairwise(counts: &[f64]) -> Option<f64> {
    let n: f64 = counts.iter().sum();
    let same: f64 = counts.iter().map(|c| c * (c - 1.0)).sum();
    (n >= 2.0).then(|| same / (n * (n - 1.0)))
}

/// How often two ratings of one item agree, in the mean over items with at least two.
#[must_use]
pub fn percent(ratings: &Ratings) -> Option<f64> {
    mean(&shares(ratings))
}

/// [`percent`] with its 95 % interval over items.
#[must_use]
pub fn percent_estimate(ratings: &Ratings, resamples: u32, seed: u64) -> Option<Interval> {
    let shares = shares(ratings);
    let of = |drawn: &[usize]| mean(&drawn.iter().map(|i| shares[*i]).collect::<Vec<_>>());
    bootstrap(shares.len(), resamples, seed, of)
}

fn shares(ratings: &Ratings) -> Vec<f64> {
    (0..ratings.items.len()).filter_map(|i| pairwise(&counts(ratings, i))).collect()
}

fn mean(xs: &[f64]) -> Option<f64> {
    (!xs.is_empty()).then(|| xs.iter().sum::<f64>() / xs.len() as f64)
}

/// Cohen's kappa (1960) of two raters, each item as (category of one, category of the other);
/// `None` where chance alone would make them agree always.
#[must_use]
pub fn cohen(items: &[(usize, usize)]) -> Option<f64> {
    let categories = items.iter().map(|(a, b)| a.max(b) + 1).max()?;
    let n = items.len() as f64;
    let (mut one, mut other) = (vec![0.0; categories], vec![0.0; categories]);
    let mut same = 0.0;
    for (a, b) in items {
        one[*a] += 1.0 / n;
        other[*b] += 1.0 / n;
        same += f64::from(u8::from(a == b)) / n;
    }
    let chance = one.iter().zip(&other).map(|(a, b)| a * b).sum();
    beyond_chance(same, chance)
}

/// Fleiss' kappa (1971) over the items with at least two ratings. Where items have different
/// numbers of ratings, an item weighs as one and a rating counts once in the share of its category.
#[must_use]
pub fn fleiss(ratings: &Ratings) -> Option<f64> {
    let (mut shares, mut total) = (Vec::new(), vec![0.0; ratings.categories]);
    for item in 0..ratings.items.len() {
        let counts = counts(ratings, item);
        let Some(share) = pairwise(&counts) else { continue };
        shares.push(share);
        total.iter_mut().zip(&counts).for_each(|(t, c)| *t += c);
    }
    let n: f64 = total.iter().sum();
    let chance = total.iter().map(|t| (t / n) * (t / n)).sum();
    beyond_chance(mean(&shares)?, chance)
}

fn beyond_chance(observed: f64, chance: f64) -> Option<f64> {
    (chance < 1.0 - 1e-12).then(|| (observed - chance) / (1.0 - chance))
}

/// Krippendorff's alpha (Computing Krippendorff's Alpha-Reliability, 2011) over the items with at
/// least two ratings; `None` where there are none, or all ratings are the same.
#[must_use]
pub fn alpha(ratings: &Ratings, metric: Distance) -> Option<f64> {
    let items = coincidences(ratings);
    let all: Vec<usize> = (0..items.len()).collect();
    alpha_of(&items, &all, ratings.categories, metric)
}

/// [`alpha`] with its 95 % interval over items.
#[must_use]
pub fn alpha_estimate(
    ratings: &Ratings,
    metric: Distance,
    resamples: u32,
    seed: u64,
) -> Option<Interval> {
    let items = coincidences(ratings);
    let of = |drawn: &[usize]| alpha_of(&items, drawn, ratings.categories, metric);
    bootstrap(items.len(), resamples, seed, of)
}

/// A matrix an item, row after row: how often two of its ratings meet, each pair in both orders,
/// divided by the number of ratings less one.
fn coincidences(ratings: &Ratings) -> Vec<Vec<f64>> {
    let k = ratings.categories;
    let item = |i: usize| {
        let counts = counts(ratings, i);
        let n: f64 = counts.iter().sum();
        if n < 2.0 {
            return None;
        }
        let meets = |cell: usize| {
            let (a, b) = (cell / k, cell % k);
            counts[a] * (counts[b] - f64::from(u8::from(a == b))) / (n - 1.0)
        };
        Some((0..k * k).map(meets).collect())
    };
    (0..ratings.items.len()).filter_map(item).collect()
}

fn alpha_of(items: &[Vec<f64>], drawn: &[usize], k: usize, metric: Distance) -> Option<f64> {
    let mut met = vec![0.0; k * k];
    for i in drawn {
        met.iter_mut().zip(&items[*i]).for_each(|(m, x)| *m += x);
    }
    let margins: Vec<f64> = (0..k).map(|a| met[a * k..(a + 1) * k].iter().sum()).collect();
    let n: f64 = margins.iter().sum();
    let (mut observed, mut expected) = (0.0, 0.0);
    for a in 0..k {
        for b in a + 1..k {
            let distance = match metric {
                Distance::Nominal => 1.0,
                Distance::Ordinal => {
                    let between: f64 = margins[a..=b].iter().sum();
                    (between - f64::midpoint(margins[a], margins[b])).powi(2)
                }
            };
            observed += met[a * k + b] * distance;
            expected += margins[a] * margins[b] * distance;
        }
    }
    (expected > 0.0).then(|| 1.0 - (n - 1.0) * observed / expected)
}
