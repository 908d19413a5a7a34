//! Rows that are nearly the same as others: earlier rows, or prompts that a policy is judged by.
//! Knows nothing of what else chooses rows.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::data::{NearTexts, Table};
use crate::kind::Summary;

/// What becomes of rows that are nearly the same as others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Similar {
    #[default]
    Ignore,
    Count,
    Drop,
}

/// Which likenesses are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Likeness {
    /// To earlier rows.
    pub near_duplicates: Similar,
    /// To prompts of port `unseen`.
    pub overlap: Similar,
    /// Share of its runs of three words that makes a text nearly the same.
    pub share: f64,
}

/// The rows that are not left out for their likeness, and how many there are of each. `keys` are
/// the texts of a table that are compared, column by column, the prompts first.
///
/// # Errors
/// A prompt of port `unseen` is not understood.
pub fn without_similar(
    cx: &mut Context,
    likeness: Likeness,
    mut table: Table,
    keys: &dyn Fn(&Table) -> Result<Vec<Vec<String>>>,
) -> Result<(Table, Summary)> {
    let mut figures = Summary::new();
    let mut found = |name: &str, near: &[bool]| {
        figures.insert(name.into(), near.iter().filter(|near| **near).count() as f64);
    };
    if likeness.near_duplicates != Similar::Ignore {
        let near = near_rows(&keys(&table)?, likeness.share);
        found("rows/near_duplicates", &near);
        let what = "are nearly the same as an earlier one";
        table = count_or_drop(cx, table, &near, likeness.near_duplicates, what)?;
    }
    if likeness.overlap != Similar::Ignore && !cx.inputs("unseen").is_empty() {
        let mut unseen = NearTexts::new(likeness.share);
        cx.table("unseen")?.keys("prompt")?.iter().for_each(|prompt| unseen.add(prompt));
        let near: Vec<bool> =
            keys(&table)?[0].iter().map(|prompt| unseen.find(prompt).is_some()).collect();
        found("rows/overlap", &near);
        let what = "have a prompt that is nearly one of `unseen`";
        table = count_or_drop(cx, table, &near, likeness.overlap, what)?;
    }
    Ok((table, figures))
}

/// Rows that are near an earlier one that stays; of a row all columns count.
fn near_rows(columns: &[Vec<String>], share: f64) -> Vec<bool> {
    let mut near = NearTexts::new(share);
    let rows = columns.first().map_or(0, Vec::len);
    let text = |row: usize| {
        columns.iter().map(|column| column[row].as_str()).collect::<Vec<_>>().join("\n")
    };
    (0..rows).map(|row| near.find_or_add(&text(row)).is_some()).collect()
}

/// Tells how many rows are `near` others, and takes them away where that is said.
fn count_or_drop(
    cx: &mut Context,
    table: Table,
    near: &[bool],
    what: Similar,
    why: &str,
) -> Result<Table> {
    let found = near.iter().filter(|near| **near).count();
    if found == 0 {
        return Ok(table);
    }
    if what == Similar::Drop {
        cx.note(format!("{found} rows {why}, and are left out"))?;
        let rows: Vec<usize> = (0..table.rows()).filter(|row| !near[*row]).collect();
        return Ok(table.take(&rows));
    }
    cx.warn(format!("{found} of {} rows {why}", table.rows()))?;
    Ok(table)
}
