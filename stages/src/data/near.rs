//! Texts that are nearly the same: most of their runs of words are in both.
//! Knows nothing of tables.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::rng::{Stream, hash};

/// Words of one run.
const RUN: usize = 3;
/// Bands of a signature, and rows of a band: two texts that share 0.8 of their runs meet in one of
/// the bands with probability 1 − (1 − 0.8⁴)²⁰ = 0.99998 (Leskovec, Rajaraman, Ullman: Mining of
/// Massive Datasets, chapter 3).
const BANDS: usize = 20;
const ROWS: usize = 4;

/// Finds texts of a list that are nearly the same as an earlier one, by the share of their runs of
/// three words that both have (Jaccard). Candidates come from signatures (MinHash, Broder 1997),
/// and each is compared exactly, so what is found is near; little that is near is missed.
#[derive(Debug)]
pub struct NearTexts {
    threshold: f64,
    salts: Vec<u64>,
    runs: Vec<HashSet<u64>>,
    buckets: BTreeMap<(usize, u64), Vec<usize>>,
}

impl NearTexts {
    /// Texts that share at least `threshold` of their runs are near.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        let mut stream = Stream::new(0, "near", 0, 0);
        let salts = (0..BANDS * ROWS).map(|_| stream.next_u64()).collect();
        Self { threshold, salts, runs: Vec::new(), buckets: BTreeMap::new() }
    }

    /// The first text that was added and is near this one; `None`: there is none.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<usize> {
        let runs = runs(text);
        self.find_runs(&runs, &self.bands(&runs))
    }

    /// As [`NearTexts::find`]; a text that is near none is added, and its number is how many were
    /// added before.
    pub fn find_or_add(&mut self, text: &str) -> Option<usize> {
        let runs = runs(text);
        let bands = self.bands(&runs);
        let found = self.find_runs(&runs, &bands);
        if found.is_none() {
            self.keep(runs, bands);
        }
        found
    }

    /// Adds a text, whose number is how many were added before.
    pub fn add(&mut self, text: &str) {
        let runs = runs(text);
        let bands = self.bands(&runs);
        self.keep(runs, bands);
    }

    fn find_runs(&self, runs: &HashSet<u64>, bands: &[(usize, u64)]) -> Option<usize> {
        let candidates: BTreeSet<usize> =
            bands.iter().filter_map(|band| self.buckets.get(band)).flatten().copied().collect();
        candidates.into_iter().find(|other| share(runs, &self.runs[*other]) >= self.threshold)
    }

    fn keep(&mut self, runs: HashSet<u64>, bands: Vec<(usize, u64)>) {
        for band in bands {
            self.buckets.entry(band).or_default().push(self.runs.len());
        }
        self.runs.push(runs);
    }

    /// The signature's bands, each by its number and the hash of its rows.
    fn bands(&self, runs: &HashSet<u64>) -> Vec<(usize, u64)> {
        let least = |salt: &u64| {
            runs.iter().map(|run| hash((run ^ salt).to_le_bytes())).min().unwrap_or_default()
        };
        let signature: Vec<u64> = self.salts.iter().map(least).collect();
        let band = |(i, rows): (usize, &[u64])| {
            let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
            (i, hash(bytes))
        };
        signature.chunks(ROWS).enumerate().map(band).collect()
    }
}

/// The runs of words of a text, in small letters and without marks; a shorter text is one run.
fn runs(text: &str) -> HashSet<u64> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let run = |words: &[String]| hash(words.join(" ").bytes());
    match words.len() {
        // Marks alone are compared as they stand.
        0 => HashSet::from([hash(text.bytes())]),
        n if n < RUN => HashSet::from([run(&words)]),
        _ => words.windows(RUN).map(run).collect(),
    }
}

/// Share of the runs of either that both have.
fn share(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let both = a.intersection(b).count();
    both as f64 / (a.len() + b.len() - both) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_jaccards_of_runs_of_three_words() {
        let [a, b] = ["one two three four five", "ONE, two three four; six!"].map(runs);
        // Runs: 123 234 345 and 123 234 346: two of four.
        assert_eq!(share(&a, &b), 0.5);
        assert_eq!(share(&runs("a b"), &runs("A b.")), 1.0);
        assert_eq!(share(&runs("?"), &runs("!")), 0.0);
    }

    #[test]
    fn near_texts_are_found_and_others_are_not() {
        let mut stream = Stream::new(1, "words", 0, 0);
        let words: Vec<String> = (0..500).map(|i| format!("w{i}")).collect();
        let mut near = NearTexts::new(0.8);
        let texts: Vec<Vec<&String>> =
            (0..300).map(|_| (0..40).map(|_| stream.choose(&words)).collect()).collect();
        let text =
            |words: &[&String]| words.iter().map(|w| w.as_str()).collect::<Vec<_>>().join(" ");
        for words in &texts {
            assert_eq!(near.find(&text(words)), None);
            assert_eq!(near.find_or_add(&text(words)), None);
        }
        for (i, words) in texts.iter().enumerate() {
            // One word more at the end: 38 of 39 runs are shared.
            assert_eq!(near.find(&format!("{} end", text(words))), Some(i));
            // The later half replaced: fewer than half are.
            assert_eq!(near.find(&format!("{} x y z", text(&words[..20]))), None);
        }
    }
}
