//! What the rows of verdicts say: which completions are good. Columns `verdict` or `label`.
//! Knows nothing of tokens or of who judged.

use anyhow::Result;

use super::Table;
use crate::advice::error_with_help;

/// Whether the completion of each row is good: column `verdict` (truth values, or numbers above and
/// not above 0), or else `label`, as TRL calls it (truth values alone: numbers may be classes).
///
/// # Errors
/// When neither column is there, or a cell is not understood: names file, row and column.
pub fn verdicts_of(table: &Table) -> Result<Vec<bool>> {
    let signs = table.column("verdict");
    let name = if signs.is_some() { "verdict" } else { "label" };
    let Some(column) = signs.or_else(|| table.column("label")) else {
        let message = "the rows have neither `chosen` nor a column `verdict` or `label` that says \
                       which are good";
        let help = "a stage of kind `prepare` renames columns: `columns: { label: good }`";
        return Err(error_with_help(message, help));
    };
    let verdict = |row: usize| {
        let truth = column.bool_at(row);
        let sign = || column.float_at(row).map(|x| x.map(|x| x > 0.0));
        let found = if signs.is_some() { sign().or(truth) } else { truth };
        found
            .map_err(|found| {
                let what = match signs {
                    Some(_) => format!("holds {found}, neither a number nor true or false"),
                    None => format!("holds {found}, neither true nor false (nor 1 and 0)"),
                };
                table.bad_cell(row, name, &what)
            })?
            .ok_or_else(|| table.bad_cell(row, name, "is missing"))
    };
    (0..table.rows()).map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Column;

    fn read(columns: Vec<(&str, Column)>) -> Result<Vec<bool>> {
        verdicts_of(&Table::new(columns).expect("a table"))
    }

    #[test]
    fn verdicts_are_signs_in_every_spelling() {
        for column in [
            Column::bools([true, false]),
            Column::ints([1, -1]),
            Column::floats([0.5, 0.0]),
            Column::text(["1", "-1"]),
            Column::text(["true", "false"]),
        ] {
            assert_eq!(read(vec![("verdict", column)]).expect("signs"), [true, false]);
        }
        let odd = read(vec![("verdict", Column::text(["1", "good"]))]).expect_err("refused");
        let error = format!("{odd:#}");
        assert!(error.contains("row 2: column `verdict` holds the text (`good`)"), "{error}");
    }

    #[test]
    fn labels_are_truth_values_and_no_classes() {
        for column in
            [Column::bools([true, false]), Column::ints([1, 0]), Column::text(["True", "false"])]
        {
            assert_eq!(read(vec![("label", column)]).expect("truth"), [true, false]);
        }
        let odd = read(vec![("label", Column::ints([1, 3]))]).expect_err("refused");
        let error = format!("{odd:#}");
        assert!(error.contains("row 2: column `label` holds"), "{error}");
        let both = vec![("label", Column::ints([3])), ("verdict", Column::ints([-1]))];
        assert_eq!(read(both).expect("the verdict counts"), [false]);
        assert!(read(vec![("prompt", Column::text(["p"]))]).is_err());
    }
}
