//! Prompts and completions as token rows that fit a model's context.
//! Knows nothing of losses.

use anyhow::{Result, bail};

use super::{Content, Prompt, Vocabulary};
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

/// Room for a prompt and its completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Longest row, tokens.
    pub context: usize,
    /// Tokens that a prompt leaves free at least, however short the completion.
    pub free: usize,
}

/// Fewest tokens of a prompt that are worth keeping.
pub const LEAST_PROMPT: usize = 4;

impl Room {
    /// Rows of at most `context` tokens.
    pub fn new(context: usize) -> Self {
        Self { context, free: 0 }
    }

    /// The rows of one prompt with each of its completions, all with the same prompt: one that is
    /// too long for the longest of them loses its beginning. `true`: it had to be cut. `None`: a
    /// completion is empty or does not fit.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn rows(
        self,
        vocabulary: &Vocabulary,
        prompt: &Prompt,
        completions: &[(&Content, bool)],
    ) -> Result<Option<(Vec<Example>, bool)>> {
        let whole =
            |(answer, finished): &(&Content, bool)| vocabulary.example(prompt, answer, *finished);
        let mut rows = completions.iter().map(whole).collect::<Result<Vec<_>>>()?;
        let longest = rows.iter().map(|r| r.completion.len()).max().unwrap_or_default();
        let most = self.context.saturating_sub(longest.max(self.free));
        if most < LEAST_PROMPT || rows.iter().any(|r| r.completion.is_empty()) {
            return Ok(None);
        }
        let mut cut = false;
        for row in &mut rows {
            let (fitted, was_cut) =
                vocabulary.fit(prompt, std::mem::take(&mut row.prompt), most)?;
            if fitted.len() > most {
                return Ok(None);
            }
            row.prompt = fitted;
            cut |= was_cut;
        }
        Ok(Some((rows, cut)))
    }
}

/// Token rows that fit, and what had to be done to make them fit.
#[derive(Debug, Default)]
pub struct Examples {
    pub rows: Vec<Example>,
    /// Index in the dataset of each row.
    pub sources: Vec<usize>,
    pub left: LeftOut,
}

/// What had to be done to make rows fit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// Prompts cut from the left.
    pub truncated: usize,
    /// Rows left out because a completion is empty or does not fit.
    pub skipped: usize,
}

impl LeftOut {
    /// One line about it; `None` when nothing was done.
    pub fn warning(self, context: usize) -> Option<String> {
        (self.truncated + self.skipped > 0).then(|| {
            format!(
                "{} prompts were cut from the left and {} rows left out to fit the context of \
                 {context} tokens",
                self.truncated, self.skipped
            )
        })
    }
}

impl Examples {
    /// Makes rows that fit. A prompt that is too long loses its beginning; a completion is never
    /// cut: a row whose completion does not fit is left out and counted.
    ///
    /// # Errors
    /// When the tokenizer fails or no row is left.
    pub fn new<'a>(
        vocabulary: &Vocabulary,
        room: Room,
        rows: impl IntoIterator<Item = (&'a Prompt, &'a Content, bool)>,
    ) -> Result<Self> {
        let mut out = Self::default();
        for (source, (prompt, completion, finished)) in rows.into_iter().enumerate() {
            let Some((rows, cut)) = room.rows(vocabulary, prompt, &[(completion, finished)])?
            else {
                out.left.skipped += 1;
                continue;
            };
            out.left.truncated += usize::from(cut);
            out.rows.extend(rows);
            out.sources.push(source);
        }
        if out.rows.is_empty() {
            bail!("no row is left: all {} completions are empty or too long", out.left.skipped);
        }
        Ok(out)
    }

    /// One line about what was cut or left out; `None` when nothing was.
    pub fn warning(&self, context: usize) -> Option<String> {
        self.left.warning(context)
    }
}

/// Cuts a prompt to `room` tokens: the first `start` (`<bos><user>`) and the last ones stay.
/// Returns whether it had to.
pub fn fit_prompt(mut prompt: Vec<i64>, room: usize, start: usize) -> (Vec<i64>, bool) {
    let cut = prompt.len() > room;
    if cut {
        let surplus = prompt.len() - room;
        prompt.drain(start..(start + surplus).min(prompt.len()));
    }
    (prompt, cut)
}

/// Whether a prompt belongs to the part of `fraction`: decided by its text and `salt` alone, so
/// rows with one prompt never straddle two parts.
pub fn part_of_prompt(prompt: &str, salt: &str, fraction: f64) -> bool {
    let h = hash(format!("{salt}\0{prompt}").as_bytes());
    ((h >> 11) as f64 / (1u64 << 53) as f64) < fraction
}
