//! Answers that somebody judged alone, as tokens, for the kinds that learn from verdicts.
//! Knows nothing of losses or of who judged.

use anyhow::Result;

use super::preferences;
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Example, Examples, Room, Table, Vocabulary, check_labels, verdicts_of};

/// A judged answer, as tokens.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Row of the table.
    pub row: usize,
    pub example: Example,
    pub good: bool,
}

/// The judged answers of a `dataset/prompt_completion` with a verdict a row, or of a
/// `dataset/labels`: its chosen answers are good, the rejected ones bad, ties are left out. Rows
/// that are empty or too long are left out, with a warning.
///
/// # Errors
/// When a column is missing, a cell is not understood, or nothing is left.
pub fn verdicts(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    room: Room,
    table: &Table,
) -> Result<Vec<Verdict>> {
    let mut out = Vec::new();
    let mut add = |row, example, good| out.push(Verdict { row, example, good });
    if table.column("chosen").is_some() {
        for pair in preferences(cx, vocabulary, room, table)? {
            if !pair.tie {
                add(pair.row, pair.chosen, true);
                add(pair.row, pair.rejected, false);
            }
        }
    } else {
        let (prompts, texts) = (table.prompts()?, table.contents("completion")?);
        let ends = table.bools("finished", true)?;
        let all = verdicts_of(table)?;
        let triples = (0..table.rows()).map(|i| (&prompts[i], &texts[i], ends[i]));
        let found = Examples::new(vocabulary, room, triples)?;
        cx.warn_if(found.warning(room.context))?;
        for (example, source) in found.rows.into_iter().zip(found.sources) {
            add(source, example, all[source]);
        }
    }
    if out.is_empty() {
        let help = "collect labels that are no ties, or verdicts on single answers";
        return Err(error_with_help("there is no verdict to learn from", help));
    }
    Ok(out)
}

/// Refuses rows that [`verdicts`] would refuse, whatever the model.
///
/// # Errors
/// Names file, row and column.
pub fn check_verdicts(rows: &Table) -> Result<()> {
    match rows.column("chosen") {
        Some(_) => check_labels(rows),
        None => verdicts_of(rows).map(|_| ()),
    }
}
