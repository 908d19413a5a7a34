//! Prompts and completions as token rows that fit a model's context.
//! Knows nothing of losses.

use anyhow::{Result, bail};

use super::Vocabulary;
use crate::rng::hash;

/// A prompt and a completion as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub prompt: Vec<i64>,
    pub completion: Vec<i64>,
}

/// A row of tokens, and which of them are learned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    pub tokens: Vec<i64>,
    /// One entry a token.
    pub mask: Vec<bool>,
}

impl Row {
    /// Appends tokens which are all learned, or none of them.
    pub fn extend(&mut self, tokens: impl IntoIterator<Item = i64>, learned: bool) {
        self.tokens.extend(tokens);
        self.mask.resize(self.tokens.len(), learned);
    }

    /// Number of tokens that are learned; the first of a row never is.
    pub fn learned(&self) -> usize {
        self.mask.iter().skip(1).filter(|m| **m).count()
    }
}

impl From<&Example> for Row {
    fn from(example: &Example) -> Self {
        let mut row = Self::default();
        row.extend(example.prompt.iter().copied(), false);
        row.extend(example.completion.iter().copied(), true);
        row
    }
}

/// Token rows that fit, and what had to be done to make them fit.
#[derive(Debug, Default)]
pub struct Examples {
    pub rows: Vec<Example>,
    /// Index in the dataset of each row.
    pub sources: Vec<usize>,
    /// Prompts cut from the left.
    pub truncated: usize,
    /// Rows left out because the completion alone does not fit.
    pub skipped: usize,
}

impl Examples {
    /// Makes rows of at most `context` tokens. A prompt that is too long loses its beginning; a
    /// completion is never cut: a row whose completion does not fit is left out and counted.
    ///
    /// # Errors
    /// When the tokenizer fails or no row is left.
    pub fn new<'a>(
        vocabulary: &Vocabulary,
        context: usize,
        rows: impl IntoIterator<Item = (&'a str, &'a str, bool)>,
    ) -> Result<Self> {
        let mut out = Self::default();
        for (source, (prompt, completion, finished)) in rows.into_iter().enumerate() {
            let completion = vocabulary.completion(completion, finished)?;
            if completion.is_empty() {
                out.skipped += 1;
                continue;
            }
            let Some(room) = context.checked_sub(completion.len()).filter(|r| *r >= 4) else {
                out.skipped += 1;
                continue;
            };
            let (prompt, cut) = vocabulary.prompt_within(prompt, room)?;
            if prompt.len() > room {
                out.skipped += 1;
                continue;
            }
            out.truncated += usize::from(cut);
            out.rows.push(Example { prompt, completion });
            out.sources.push(source);
        }
        if out.rows.is_empty() {
            bail!("no row is left: all {} completions are empty or too long", out.skipped);
        }
        Ok(out)
    }

    /// One line about what was cut or left out; `None` when nothing was.
    pub fn warning(&self, context: usize) -> Option<String> {
        (self.truncated + self.skipped > 0).then(|| {
            format!(
                "{} prompts were cut from the left and {} rows left out to fit the context of \
                 {context} tokens",
                self.truncated, self.skipped
            )
        })
    }
}

/// Cuts a prompt to `room` tokens: the two first (`<bos><user>`) and the last ones stay.
/// Returns whether it had to.
pub fn fit_prompt(mut prompt: Vec<i64>, room: usize) -> (Vec<i64>, bool) {
    let cut = prompt.len() > room;
    if cut {
        let surplus = prompt.len() - room;
        prompt.drain(2..(2 + surplus).min(prompt.len()));
    }
    (prompt, cut)
}

/// Whether a prompt belongs to the part of `fraction`: decided by its text and `salt` alone, so
/// rows with one prompt never straddle two parts.
pub fn part_of_prompt(prompt: &str, salt: &str, fraction: f64) -> bool {
    let h = hash(format!("{salt}\0{prompt}").as_bytes());
    ((h >> 11) as f64 / (1u64 << 53) as f64) < fraction
}
