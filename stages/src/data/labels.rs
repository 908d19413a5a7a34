//! What the rows of a `dataset/labels` say: which answer of each pair was preferred.
//! Knows nothing of tokens or of who compared.

use anyhow::{Result, bail};

use super::Table;

/// Refuses rows of a `dataset/labels` that learning from them would refuse, whatever the model.
///
/// # Errors
/// Names file, row and column.
pub fn check_labels(labels: &Table) -> Result<()> {
    choices(labels)?;
    for name in ["finished_a", "finished_b"] {
        labels.bools(name, true)?;
    }
    labels.floats("strength", 1.0).map(|_| ())
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
        let [picked, other] = match chosen {
            Chosen::First => ["response_a", "response_b"],
            Chosen::Second => ["response_b", "response_a"],
            Chosen::Neither => return Ok(chosen),
        };
        let [picked, other, said] = [picked, other, "chosen"].map(|name| {
            let column = labels.column(name)?;
            column.text_at(row).ok().flatten()
        });
        if said.is_some() && said == other && said != picked {
            bail!(
                "{}: column `chosen` holds the answer that `choice` turns down",
                labels.place(row)
            );
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
        let answers = |chosen: &str, choice: &str| {
            let text = |name, cell: &str| (name, Column::text([cell]));
            vec![
                text("chosen", chosen),
                text("response_a", "x"),
                text("response_b", "y"),
                text("choice", choice),
            ]
        };
        assert!(refused(answers("x", "b")).contains("row 1: column `chosen` holds the answer"));
        assert!(refused(answers("y", "a")).contains("row 1: column `chosen` holds the answer"));
        for (chosen, choice) in [("x", "a"), ("y", "b"), ("x", "tie"), ("z", "a")] {
            assert!(choices(&table(answers(chosen, choice))).is_ok(), "{chosen} {choice}");
        }
        for name in ["strength", "finished_b"] {
            let odd = table(vec![("prompt", Column::text(["p"])), (name, Column::text(["much"]))]);
            let error = check_labels(&odd).expect_err("refused").to_string();
            assert!(error.contains(&format!("row 1: column `{name}` holds")), "{error}");
        }
    }
}
