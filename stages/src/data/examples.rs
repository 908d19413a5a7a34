//! Prompts and completions as token rows that fit a model's context.
//! Knows nothing of losses.

use anyhow::{Result, bail};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Content, Prompt, Vocabulary};
use crate::advice::error_with_help;
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

/// What becomes of a row that does not fit the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// A prompt loses its beginning, a conversation that is learned as a whole is left out.
    #[default]
    Auto,
    /// Prompts and conversations lose their beginning; what the system says first stays.
    CutLeft,
    /// The row is left out.
    Drop,
    /// The stage fails and names the row.
    Fail,
}

/// Room for a prompt and its completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Longest row, tokens.
    pub context: usize,
    /// Tokens that a prompt leaves free at least, however short the completion.
    pub free: usize,
    pub too_long: TooLong,
}

/// What a prompt and its completions are in a room.
#[derive(Debug)]
pub enum RowFit {
    Whole(Vec<Example>),
    /// The prompt lost its beginning.
    Cut(Vec<Example>),
    /// A completion is empty.
    Empty,
    /// A completion is too long, or the prompt is and may not be cut.
    TooLong,
}

/// Fewest tokens of a prompt that are worth keeping.
pub const LEAST_PROMPT: usize = 4;

impl Room {
    /// Refuses a row that does not fit, if that is what becomes of such rows.
    ///
    /// # Errors
    /// It is.
    pub fn refuse(self, row: usize) -> Result<()> {
        if self.too_long != TooLong::Fail {
            return Ok(());
        }
        let message = format!("row {} does not fit the room of {} tokens", row + 1, self.context);
        Err(error_with_help(message, "shorten it, or say `too_long: drop` or `too_long: cut_left`"))
    }

    /// Rows of at most `context` tokens.
    pub fn new(context: usize) -> Self {
        Self { context, free: 0, too_long: TooLong::Auto }
    }

    /// The rows of one prompt with each of its completions, all with the same prompt: one that is
    /// too long for the longest of them loses its beginning, where it may.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn rows(
        self,
        vocabulary: &Vocabulary,
        prompt: &Prompt,
        completions: &[(&Content, bool)],
    ) -> Result<RowFit> {
        let whole =
            |(answer, finished): &(&Content, bool)| vocabulary.example(prompt, answer, *finished);
        let mut rows = completions.iter().map(whole).collect::<Result<Vec<_>>>()?;
        let longest = rows.iter().map(|r| r.completion.len()).max().unwrap_or_default();
        let most = self.context.saturating_sub(longest.max(self.free));
        if rows.iter().any(|r| r.completion.is_empty()) {
            return Ok(RowFit::Empty);
        }
        if most < LEAST_PROMPT {
            return Ok(RowFit::TooLong);
        }
        let may_cut = matches!(self.too_long, TooLong::Auto | TooLong::CutLeft);
        if !may_cut && rows.iter().any(|r| r.prompt.len() > most) {
            return Ok(RowFit::TooLong);
        }
        let mut cut = false;
        for row in &mut rows {
            let (fitted, was_cut) =
                vocabulary.fit(prompt, std::mem::take(&mut row.prompt), most)?;
            if fitted.len() > most {
                return Ok(RowFit::TooLong);
            }
            row.prompt = fitted;
            cut |= was_cut;
        }
        Ok(if cut { RowFit::Cut(rows) } else { RowFit::Whole(rows) })
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
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Rows that lost their beginning.
    pub cut: Vec<usize>,
    /// Rows left out because they do not fit.
    pub too_long: Vec<usize>,
    /// Rows left out because an answer is empty.
    pub empty: Vec<usize>,
}

impl LeftOut {
    /// The rows that row `row` of the dataset gives; `None` where it is left out. Keeps count.
    ///
    /// # Errors
    /// The row does not fit, and that is to fail.
    pub fn keep(&mut self, room: Room, row: usize, fit: RowFit) -> Result<Option<Vec<Example>>> {
        match fit {
            RowFit::Whole(rows) => return Ok(Some(rows)),
            RowFit::Cut(rows) => {
                self.cut.push(row);
                return Ok(Some(rows));
            }
            RowFit::Empty => self.empty.push(row),
            RowFit::TooLong => {
                room.refuse(row)?;
                self.too_long.push(row);
            }
        }
        Ok(None)
    }

    /// Number of rows that are left out.
    pub fn rows(&self) -> usize {
        self.too_long.len() + self.empty.len()
    }

    /// One line about it; `None` when nothing was done.
    pub fn warning(&self, context: usize) -> Option<String> {
        let parts = [
            (&self.cut, "lost the beginning"),
            (&self.too_long, "left out"),
            (&self.empty, "with an empty answer left out"),
        ];
        let parts = parts.into_iter().filter(|(rows, _)| !rows.is_empty());
        let parts: Vec<String> =
            parts.map(|(rows, what)| format!("{} {what}", named_rows(rows))).collect();
        let fit = match self.cut.len() + self.too_long.len() {
            0 => String::new(),
            _ => format!(" (rows have room for {context} tokens; see `too_long`)"),
        };
        (!parts.is_empty()).then(|| parts.join("; ") + &fit)
    }
}

/// How many rows, and the first of them by their numbers, which count from 1.
pub fn named_rows(rows: &[usize]) -> String {
    const NAMED: usize = 3;
    let numbers: Vec<String> = rows.iter().take(NAMED).map(|row| (row + 1).to_string()).collect();
    let more = if rows.len() > NAMED { ", …" } else { "" };
    let word = if rows.len() == 1 { "row" } else { "rows" };
    format!("{} {word} ({}{more})", rows.len(), numbers.join(", "))
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
            let fit = room.rows(vocabulary, prompt, &[(completion, finished)])?;
            let Some(rows) = out.left.keep(room, source, fit)? else { continue };
            out.rows.extend(rows);
            out.sources.push(source);
        }
        if out.rows.is_empty() {
            bail!("no row is left: all {} completions are empty or too long", out.left.rows());
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
    let h = hash(format!("{salt}\0{prompt}").bytes());
    ((h >> 11) as f64 / (1u64 << 53) as f64) < fraction
}
