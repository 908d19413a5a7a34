//! Labels as tokens, for the kinds that learn from preferences.
//! Knows nothing of losses or of who compared.

use anyhow::{Result, bail};
use tch::Device;

use crate::context::Context;
use crate::data::{Example, Examples, Table, Vocabulary};
use crate::model::Packed;

/// One comparison as tokens. A tie keeps both answers in either order.
#[derive(Debug, Clone)]
pub struct Preference {
    /// Row of the labels.
    pub row: usize,
    pub chosen: Example,
    pub rejected: Example,
    pub tie: bool,
}

/// Chosen and rejected answers of some pairs in one batch: the chosen ones first.
pub fn both_sides<'a>(
    pairs: impl Iterator<Item = (&'a Example, &'a Example)>,
    device: Device,
) -> Packed {
    let (mut sides, rejected): (Vec<&Example>, Vec<&Example>) = pairs.unzip();
    sides.extend(rejected);
    Packed::new(&sides, device)
}

/// The comparisons of a `dataset/labels`; those of which an answer is empty or too long are left
/// out, with a warning.
///
/// # Errors
/// When a column is missing or nothing is left.
pub fn preferences(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    context: usize,
    labels: &Table,
) -> Result<Vec<Preference>> {
    let prompts = labels.texts("prompt")?;
    let (chosen, rejected) = (labels.texts("chosen")?, labels.texts("rejected")?);
    let choices = choices(labels)?;
    let ends = [labels.bools("finished_a", true)?, labels.bools("finished_b", true)?];
    let both = (0..labels.rows()).flat_map(|i| {
        // Which answer was chosen decides which of the two flags is whose.
        let (c, r) = if choices[i] == Chosen::Second { (1, 0) } else { (0, 1) };
        [(prompts[i], chosen[i], ends[c][i]), (prompts[i], rejected[i], ends[r][i])]
    });
    let examples = Examples::new(vocabulary, context, both)?;
    cx.warn_if(examples.warning(context))?;
    let mut by_source: Vec<Option<Example>> = vec![None; 2 * labels.rows()];
    for (row, source) in examples.rows.into_iter().zip(examples.sources) {
        by_source[source] = Some(row);
    }
    let mut out = Vec::new();
    for row in 0..labels.rows() {
        let (chosen, rejected) = (by_source[2 * row].take(), by_source[2 * row + 1].take());
        if let (Some(chosen), Some(rejected)) = (chosen, rejected) {
            out.push(Preference { row, chosen, rejected, tie: choices[row] == Chosen::Neither });
        }
    }
    Ok(out)
}

/// Which answer of a pair was preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    First,
    Second,
    Neither,
}

/// What each row of a `dataset/labels` says: column `tie`, or else column `choice`. Rows that say
/// neither prefer the first answer.
///
/// # Errors
/// A cell is not understood, or the two columns contradict each other: names file, row and column.
pub fn choices(labels: &Table) -> Result<Vec<Chosen>> {
    let ties = labels.bools("tie", false)?;
    let Some(column) = labels.column("choice") else {
        let chosen = |tie| if tie { Chosen::Neither } else { Chosen::First };
        return Ok(ties.into_iter().map(chosen).collect());
    };
    let said_tie = labels.column("tie");
    let chosen = |row: usize| {
        let word = column.text_at(row).map_err(|found| {
            labels.bad_cell(row, "choice", &format!("holds {found}, not a word"))
        })?;
        let chosen = match word.as_deref() {
            None | Some("") => return Ok(if ties[row] { Chosen::Neither } else { Chosen::First }),
            Some("a" | "a_much") => Chosen::First,
            Some("b" | "b_much") => Chosen::Second,
            Some("tie" | "both_bad") => Chosen::Neither,
            Some(_) => {
                let what = format!(
                    "holds {}: a, b, a_much, b_much, tie and both_bad are understood",
                    column.describe(row)
                );
                return Err(labels.bad_cell(row, "choice", &what));
            }
        };
        let contradicts =
            said_tie.is_some_and(|c| !c.is_gap(row)) && ties[row] != (chosen == Chosen::Neither);
        if contradicts {
            bail!("{}: columns `tie` and `choice` contradict each other", labels.place(row));
        }
        Ok(chosen)
    };
    (0..labels.rows()).map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Column;

    fn table(columns: Vec<(&str, Column)>) -> Table {
        Table::new(columns).expect("a table")
    }

    #[test]
    fn ties_are_read_in_every_spelling() {
        let expected = [Chosen::Neither, Chosen::First];
        for ties in [
            Column::bools([true, false]),
            Column::ints([1, 0]),
            Column::floats([1.0, 0.0]),
            Column::text(["true", "False"]),
        ] {
            assert_eq!(choices(&table(vec![("tie", ties)])).expect("read"), expected);
        }
        let words = ["tie", "a", "b_much", "both_bad"];
        let said = choices(&table(vec![("choice", Column::text(words))])).expect("read");
        assert_eq!(said, [Chosen::Neither, Chosen::First, Chosen::Second, Chosen::Neither]);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_row_and_column() {
        let refused = |columns| format!("{:#}", choices(&table(columns)).expect_err("refused"));
        let error = refused(vec![("choice", Column::text(["a", "left"]))]);
        assert!(error.contains("row 2: column `choice` holds the text (`left`)"), "{error}");
        let error = refused(vec![("tie", Column::text(["true", "equal"]))]);
        assert!(error.contains("row 2: column `tie` holds the text (`equal`)"), "{error}");
        let error =
            refused(vec![("tie", Column::bools([false])), ("choice", Column::text(["tie"]))]);
        assert!(error.contains("contradict"), "{error}");
    }
}
