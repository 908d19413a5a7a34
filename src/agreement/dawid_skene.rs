//! What is most likely true of each item, given how reliable each annotator is: the EM algorithm
//! of Dawid and Skene (1979). Knows nothing of what the categories mean.

use super::Ratings;

/// Most rounds of EM.
const ROUNDS: usize = 1000;
/// EM ends when the log-likelihood of a round grows by less than this.
const ENOUGH: f64 = 1e-10;

/// Votes that every annotator is imagined to have cast before the first: they keep one with few
/// votes from being believed, or disbelieved, altogether.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Smoothing {
    /// Right ones, for each true category.
    pub right: f64,
    /// Wrong ones, for each true category, spread over the others.
    pub wrong: f64,
}

impl Smoothing {
    /// The maximum likelihood of the paper.
    pub const NONE: Self = Self { right: 0.0, wrong: 0.0 };
}

impl Default for Smoothing {
    /// Five votes, four of them right.
    fn default() -> Self {
        Self { right: 4.0, wrong: 1.0 }
    }
}

/// What EM found.
#[derive(Debug, Clone, PartialEq)]
pub struct DawidSkene {
    /// By item: how likely each category is to be the true one.
    pub posterior: Vec<Vec<f64>>,
    /// By annotator, true category and rating: how likely that rating is.
    pub confusion: Vec<Vec<Vec<f64>>>,
    /// How common each true category is.
    pub prevalence: Vec<f64>,
    /// Log-likelihood of the ratings (smoothing left out).
    pub log_likelihood: f64,
}

impl DawidSkene {
    /// The most likely category of an item; `None` where several are as likely.
    #[must_use]
    pub fn winner(&self, item: usize) -> Option<usize> {
        let posterior = &self.posterior[item];
        let best = posterior.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut places = (0..posterior.len()).filter(|c| posterior[*c] > best - 1e-9);
        places.next().filter(|_| places.next().is_none())
    }
}

/// Runs EM from the shares of the votes on each item until it stands still.
#[must_use]
pub fn dawid_skene(ratings: &Ratings, smoothing: Smoothing) -> DawidSkene {
    let mut posterior = vote_shares(ratings);
    let mut before = f64::NEG_INFINITY;
    let mut round = 0;
    loop {
        let prevalence = prevalence(ratings, &posterior);
        let confusion = confusion(ratings, &posterior, smoothing);
        let log_likelihood = expect(ratings, &prevalence, &confusion, &mut posterior);
        round += 1;
        if (log_likelihood - before).abs() < ENOUGH || round == ROUNDS {
            return DawidSkene { posterior, confusion, prevalence, log_likelihood };
        }
        before = log_likelihood;
    }
}

fn vote_shares(ratings: &Ratings) -> Vec<Vec<f64>> {
    let k = ratings.categories;
    let share = |item: &Vec<super::Rating>| {
        if item.is_empty() {
            return vec![1.0 / k as f64; k];
        }
        let mut shares = vec![0.0; k];
        item.iter().for_each(|r| shares[r.category] += 1.0 / item.len() as f64);
        shares
    };
    ratings.items.iter().map(share).collect()
}

/// Items that nobody rated say nothing about how common a category is.
fn prevalence(ratings: &Ratings, posterior: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; ratings.categories];
    let rated = ratings.items.iter().zip(posterior).filter(|(item, _)| !item.is_empty());
    for (_, likely) in rated {
        sum.iter_mut().zip(likely).for_each(|(s, p)| *s += p);
    }
    normalised(sum)
}

fn confusion(
    ratings: &Ratings,
    posterior: &[Vec<f64>],
    smoothing: Smoothing,
) -> Vec<Vec<Vec<f64>>> {
    let k = ratings.categories;
    let wrong = smoothing.wrong / (k.max(2) - 1) as f64;
    let before = |truth: usize| -> Vec<f64> {
        (0..k).map(|said| if said == truth { smoothing.right } else { wrong }).collect()
    };
    let start: Vec<Vec<f64>> = (0..k).map(before).collect();
    let mut counts = vec![start; ratings.annotators.len()];
    for (item, likely) in ratings.items.iter().zip(posterior) {
        for rating in item {
            for (truth, p) in likely.iter().enumerate() {
                counts[rating.annotator][truth][rating.category] += p;
            }
        }
    }
    counts.into_iter().map(|rows| rows.into_iter().map(normalised).collect()).collect()
}

/// Updates the posteriors; returns the log-likelihood.
fn expect(
    ratings: &Ratings,
    prevalence: &[f64],
    confusion: &[Vec<Vec<f64>>],
    posterior: &mut [Vec<f64>],
) -> f64 {
    let mut total = 0.0;
    for (item, likely) in ratings.items.iter().zip(posterior) {
        for (truth, slot) in likely.iter_mut().enumerate() {
            // In logarithms: the product of many votes is too small for a number.
            let said = item.iter().map(|r| confusion[r.annotator][truth][r.category].ln());
            *slot = prevalence[truth].ln() + said.sum::<f64>();
        }
        let most = likely.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        likely.iter_mut().for_each(|p| *p = (*p - most).exp());
        let sum: f64 = likely.iter().sum();
        likely.iter_mut().for_each(|p| *p /= sum);
        if !item.is_empty() {
            total += most + sum.ln();
        }
    }
    total
}

/// Divided by their sum; all alike where it is zero.
fn normalised(mut xs: Vec<f64>) -> Vec<f64> {
    let (sum, n) = (xs.iter().sum::<f64>(), xs.len() as f64);
    xs.iter_mut().for_each(|x| *x = if sum > 0.0 { *x / sum } else { 1.0 / n });
    xs
}
