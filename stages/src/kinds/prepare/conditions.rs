//! Conditions that rows must meet to stay: `where` of `prepare`.
//! Knows nothing of files or of what else chooses rows.

use std::borrow::Cow;

use anyhow::{Result, bail};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Column, Content, Message, Table, Vocabulary};

/// Beyond this no number is bounded.
const NO_BOUND: f64 = 1e300;

/// A condition: a column, and exactly one test of its cells. A cell without a value meets none.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// The column that is looked at. Of a conversation its messages count, one a line.
    #[schemars(length(min = 1))]
    column: String,
    /// Test: this regular expression matches somewhere in the text. Empty: not used.
    #[serde(rename = "match")]
    pattern: String,
    /// Test: the cell is one of these values, written as text. Empty: not used.
    is: Vec<String>,
    /// Test: its length in characters. Both 0: not used.
    chars: Lengths,
    /// Test: its length in tokens, of the tokenizer at port `tokenizer`. Both 0: not used.
    tokens: Lengths,
    /// Test: the number lies between these bounds. No bound: not used.
    number: Numbers,
    /// Turns the test round: what does not meet it stays.
    not: bool,
}

/// Bounds of a length, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Lengths {
    /// The shortest.
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64), extend("x-unit" = "count"))]
    min: u64,
    /// The longest; 0: no bound.
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64), extend("x-unit" = "count"))]
    max: u64,
}

/// Bounds of a number, both included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Numbers {
    /// The least.
    #[schemars(range(min = -1e300, max = 1e300))]
    min: f64,
    /// The largest.
    #[schemars(range(min = -1e300, max = 1e300))]
    max: f64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { min: -NO_BOUND, max: NO_BOUND }
    }
}

impl Lengths {
    fn is_used(self) -> bool {
        self != Self::default()
    }

    fn holds(self, length: usize) -> bool {
        length as u64 >= self.min && (self.max == 0 || length as u64 <= self.max)
    }
}

/// Checks the conditions without looking at rows; `tokenizer`: one is connected.
///
/// # Errors
/// A condition has no column, not exactly one test, a bad expression, or no tokenizer.
pub fn check(conditions: &[Condition], tokenizer: bool) -> Result<()> {
    for (i, condition) in conditions.iter().enumerate() {
        let name = format!("condition {} of `where`", i + 1);
        if condition.column.is_empty() {
            bail!("{name} names no column");
        }
        let tests = [
            !condition.pattern.is_empty(),
            !condition.is.is_empty(),
            condition.chars.is_used(),
            condition.tokens.is_used(),
            condition.number != Numbers::default(),
        ];
        let tests = tests.into_iter().filter(|used| *used).count();
        if tests != 1 {
            bail!("{name} has {tests} tests; give exactly one of match, is, chars, tokens, number");
        }
        if !condition.pattern.is_empty()
            && let Err(e) = Regex::new(&condition.pattern)
        {
            bail!("{name}: `match` is no regular expression: {e}");
        }
        if condition.tokens.is_used() && !tokenizer {
            return Err(error_with_help(
                format!("{name} counts tokens, and no tokenizer is connected"),
                "connect one: `tokenizer: STAGE`, a tokenizer or a model",
            ));
        }
    }
    Ok(())
}

/// The rows that meet all conditions; tells how many each of them takes away.
///
/// # Errors
/// As [`check`], and when a column is not there or a cell is none of its kind.
pub fn meeting(cx: &mut Context, conditions: &[Condition], mut table: Table) -> Result<Table> {
    let connected = !cx.inputs("tokenizer").is_empty();
    check(conditions, connected)?;
    let vocabulary = if connected { Some(cx.vocabulary_at("tokenizer")?) } else { None };
    for condition in conditions {
        let met = condition.rows(&table, vocabulary.as_ref())?;
        let rows: Vec<usize> = (0..table.rows()).filter(|row| met[*row]).collect();
        let without = table.rows() - rows.len();
        if without > 0 {
            cx.note(format!("{without} rows do not meet: {}", condition.name()))?;
            table = table.take(&rows);
        }
    }
    Ok(table)
}

impl Condition {
    /// Which rows meet it.
    ///
    /// # Errors
    /// The column is not there, or a cell is none of its kind: names file, row and column.
    fn rows(&self, table: &Table, vocabulary: Option<&Vocabulary>) -> Result<Vec<bool>> {
        let column = table.require(&self.column)?;
        let pattern = match self.pattern.as_str() {
            "" => None,
            pattern => Some(Regex::new(pattern)?),
        };
        let holds = |row: usize| -> Result<bool> {
            if column.is_gap(row) {
                return Ok(false);
            }
            if self.number != Numbers::default() {
                let wrong = |found| {
                    table.bad_cell(row, &self.column, &format!("holds {found}, not a number"))
                };
                let value = column.float_at(row).map_err(wrong)?;
                let inside = |x: f64| (self.number.min..=self.number.max).contains(&x);
                return Ok(value.is_some_and(inside) != self.not);
            }
            if !self.is.is_empty() {
                let shown = column.display(row).unwrap_or_default();
                return Ok(self.is.contains(&shown) != self.not);
            }
            let text = said(column, row).map_err(|found| {
                table.bad_cell(row, &self.column, &format!("holds {found}, not text"))
            })?;
            let met = match (&pattern, vocabulary) {
                (Some(pattern), _) => pattern.is_match(&text),
                (None, Some(vocabulary)) if self.tokens.is_used() => {
                    self.tokens.holds(vocabulary.encode(&text)?.len())
                }
                _ => self.chars.holds(text.chars().count()),
            };
            Ok(met != self.not)
        };
        (0..table.rows()).map(holds).collect()
    }

    /// What it asks for, in few words.
    fn name(&self) -> String {
        let not = if self.not { "not " } else { "" };
        let test = if !self.pattern.is_empty() {
            "match"
        } else if !self.is.is_empty() {
            "is"
        } else if self.chars.is_used() {
            "chars"
        } else if self.tokens.is_used() {
            "tokens"
        } else {
            "number"
        };
        format!("{not}{test} of `{}`", self.column)
    }
}

/// The text of a cell; of a conversation what its messages say, one a line.
///
/// # Errors
/// What the cell holds instead.
fn said(column: &Column, row: usize) -> Result<String, String> {
    let text = column.text_at(row);
    let written = match &text {
        Ok(text) => text.as_deref().map(Cow::Borrowed),
        Err(_) => column.json(row).map(Cow::Owned),
    };
    let written = written.unwrap_or_default();
    if written.starts_with("[{")
        && let Ok(content) = Content::from_json(&written)
    {
        let messages = content.messages("user");
        return Ok(messages.iter().map(Message::text).collect::<Vec<_>>().join("\n"));
    }
    text.map(|text| text.unwrap_or_default().into_owned())
}
