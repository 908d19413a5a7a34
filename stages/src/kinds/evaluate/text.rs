//! What `evaluate` reads off the words of answers: how varied they are, and what is copied.
//! Knows nothing of models or of who wrote the answers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Longest run of words that is compared; answers are shorter.
const LONGEST: usize = 128;

/// Share of n-grams of words that occur once or more among all of them (Li et al. 2016):
/// distinct-n. NaN when there is none.
pub fn distinct_ngrams(texts: &[&str], n: usize) -> f64 {
    let mut seen = HashSet::new();
    let mut total = 0_usize;
    for text in texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        for gram in words.windows(n) {
            total += 1;
            seen.insert(gram.to_vec());
        }
    }
    if total == 0 { f64::NAN } else { seen.len() as f64 / total as f64 }
}

/// How alike the answers to one prompt are: the mean over pairs of Dice's coefficient of their
/// bigrams of words (of words where an answer has one only). NaN for fewer than two answers.
pub fn self_overlap(answers: &[&str]) -> f64 {
    let grams: Vec<BTreeMap<Vec<&str>, usize>> = answers.iter().map(|a| bigrams(a)).collect();
    let (mut sum, mut pairs) = (0.0, 0_usize);
    for (i, one) in grams.iter().enumerate() {
        for other in &grams[i + 1..] {
            let shared: usize =
                one.iter().map(|(g, n)| (*n).min(other.get(g).copied().unwrap_or(0))).sum();
            let total: usize = one.values().chain(other.values()).sum();
            sum += if total == 0 { 1.0 } else { 2.0 * shared as f64 / total as f64 };
            pairs += 1;
        }
    }
    if pairs == 0 { f64::NAN } else { sum / pairs as f64 }
}

fn bigrams(text: &str) -> BTreeMap<Vec<&str>, usize> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut counts = BTreeMap::new();
    for gram in words.windows(2.min(words.len().max(1))) {
        *counts.entry(gram.to_vec()).or_insert(0) += 1;
    }
    counts
}

/// The completions that a model was trained on, ready to be searched.
pub struct Trained {
    completions: BTreeSet<String>,
    /// Number of each word.
    numbers: HashMap<String, u32>,
    /// All completions in a row; 0 stands between two of them.
    words: Vec<u32>,
    /// Starts of all suffixes of `words`, sorted by their first [`LONGEST`] words.
    suffixes: Vec<u32>,
}

impl Trained {
    /// An index of these completions.
    pub fn new(completions: &[&str]) -> Self {
        let mut numbers = HashMap::new();
        let mut words = Vec::new();
        for completion in completions {
            for word in completion.split_whitespace() {
                let next = numbers.len() as u32 + 1;
                words.push(*numbers.entry(word.to_owned()).or_insert(next));
            }
            words.push(0);
        }
        let mut suffixes: Vec<u32> = (0..words.len() as u32).collect();
        suffixes.sort_unstable_by(|a, b| suffix(&words, *a).cmp(suffix(&words, *b)));
        let completions = completions.iter().map(|c| c.trim().to_owned()).collect();
        Self { completions, numbers, words, suffixes }
    }

    /// The answer is, letter by letter, one of the completions.
    pub fn holds(&self, answer: &str) -> bool {
        self.completions.contains(answer.trim())
    }

    /// Share of an answer's words in the longest run that some completion holds too.
    pub fn shared(&self, answer: &str) -> f64 {
        let words: Vec<u32> = answer
            .split_whitespace()
            .map(|w| self.numbers.get(w).copied().unwrap_or(u32::MAX))
            .collect();
        let longest = (0..words.len()).map(|i| self.longest(&words[i..])).max().unwrap_or(0);
        if words.is_empty() { 0.0 } else { longest as f64 / words.len() as f64 }
    }

    /// Length of the longest beginning of `words` that occurs: it is shared with a neighbour of
    /// the place where `words` would be sorted in.
    fn longest(&self, words: &[u32]) -> usize {
        let words = &words[..words.len().min(LONGEST)];
        let place = self.suffixes.partition_point(|s| suffix(&self.words, *s) < words);
        let common =
            |s: &u32| suffix(&self.words, *s).iter().zip(words).take_while(|(a, b)| a == b).count();
        let around = place.saturating_sub(1)..(place + 1).min(self.suffixes.len());
        self.suffixes[around].iter().map(common).max().unwrap_or(0)
    }
}

fn suffix(words: &[u32], start: u32) -> &[u32] {
    let start = start as usize;
    &words[start..(start + LONGEST).min(words.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_n_counts_grams_once() {
        // "a b a" and "a b": 5 words of 2 kinds; bigrams ab, ba, ab: 2 of 3.
        assert!((distinct_ngrams(&["a b a", "a b"], 1) - 0.4).abs() < 1e-12);
        assert!((distinct_ngrams(&["a b a", "a b"], 2) - 2.0 / 3.0).abs() < 1e-12);
        assert!(distinct_ngrams(&["a"], 2).is_nan());
    }

    #[test]
    fn overlap_is_one_for_equal_answers_and_zero_for_others() {
        assert_eq!(self_overlap(&["a b c", "a b c"]), 1.0);
        assert_eq!(self_overlap(&["a b c", "d e"]), 0.0);
        // ab bc against ab bd: 2·1 / 4.
        assert_eq!(self_overlap(&["a b c", "a b d"]), 0.5);
        assert_eq!(self_overlap(&["yes", "yes"]), 1.0);
        assert!(self_overlap(&["alone"]).is_nan());
    }

    #[test]
    fn copies_are_found_within_one_completion_only() {
        let trained = Trained::new(&["for the bike use a wrench .", "no .", "use a saw"]);
        assert!(trained.holds("no . ") && !trained.holds("no"));
        assert_eq!(trained.shared("for the bike use a wrench ."), 1.0);
        // "use a" of four words.
        assert_eq!(trained.shared("please use a hammer"), 0.5);
        // Not across the border of two completions.
        assert_eq!(trained.shared(". no ."), 2.0 / 3.0);
        assert_eq!(trained.shared("unheard"), 0.0);
        assert_eq!(trained.shared(""), 0.0);
        assert_eq!(Trained::new(&[]).shared("a"), 0.0);
    }

    #[test]
    fn the_longest_shared_run_is_that_of_a_plain_search() {
        let mut stream = crate::rng::Stream::new(1, "test", 0, 0);
        let mut text = |n: usize| -> String {
            (0..n).map(|_| ["a", "b", "c"][stream.below(3)]).collect::<Vec<_>>().join(" ")
        };
        let completions: Vec<String> = (0..20).map(|i| text(i % 9)).collect();
        let refs: Vec<&str> = completions.iter().map(String::as_str).collect();
        let trained = Trained::new(&refs);
        for i in 0..50 {
            let answer = text(1 + i % 11);
            let words: Vec<&str> = answer.split(' ').collect();
            let occurs = |run: &[&str]| {
                refs.iter()
                    .any(|c| c.split(' ').collect::<Vec<_>>().windows(run.len()).any(|w| w == run))
            };
            let plain =
                (1..=words.len()).filter(|n| words.windows(*n).any(occurs)).max().unwrap_or(0);
            let wanted = plain as f64 / words.len() as f64;
            assert_eq!(trained.shared(&answer), wanted, "{answer}");
        }
    }
}
