//! Where two artifacts differ first, in words.

use super::words;
use crate::columns::RowDifference;
use crate::compare::{ArrayDifference, FirstDifference, TreeSide};

/// A difference in one line.
#[must_use]
pub fn sentence(difference: &FirstDifference) -> String {
    match difference {
        FirstDifference::Kind { before, now } => format!("{before} → {now}"),
        FirstDifference::File { file, only_in: TreeSide::Before } => {
            format!("no file `{file}` any longer")
        }
        FirstDifference::File { file, only_in: TreeSide::Now } => format!("file `{file}` is new"),
        FirstDifference::Inside { file, first } => format!("{file}: {}", sentence(first)),
        FirstDifference::Table { first } => row(first),
        FirstDifference::Arrays { first } => array(first),
        FirstDifference::Bytes { offset, before, now, same } => {
            let same = same.map_or_else(String::new, |what| format!("the same {what}, but "));
            let sizes = match before == now {
                true => format!("of {before}"),
                false => format!("on; {before} bytes → {now} bytes"),
            };
            format!("{same}other bytes from byte {offset} {sizes}")
        }
    }
}

fn row(difference: &RowDifference) -> String {
    match difference {
        RowDifference::Columns { before, now } => {
            format!("columns {} → {}", before.join(", "), now.join(", "))
        }
        RowDifference::Value { row, column, before, now } => {
            let (before, now) = words::differing(before, now);
            format!("row {row}, column `{column}`: {before} → {now}")
        }
        RowDifference::Rows { before, now } => {
            format!("the first {} rows agree; {before} rows → {now} rows", before.min(now))
        }
    }
}

fn array(difference: &ArrayDifference) -> String {
    let ArrayDifference { array, before, now, values, arrays } = difference;
    let (differing, all) = arrays;
    let first = match (before, now, values) {
        (Some(form), Some(_), Some(values)) => {
            let by = match (values.largest, values.not_finite) {
                (Some(by), 0) => format!(" by up to {by:.3e}"),
                (Some(by), n) => format!(" by up to {by:.3e}, {n} of them not finite"),
                (None, 0) => String::new(),
                (None, n) => format!(", {n} of them not finite"),
            };
            format!("{form}: {} of {} values differ{by}", values.differing, values.of)
        }
        (Some(before), Some(now), None) => format!("{before} → {now}"),
        (Some(_), None, _) => "is gone".to_owned(),
        _ => "is new".to_owned(),
    };
    format!("array `{array}` {first}; {differing} of {all} arrays differ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::ValueDifference;

    #[test]
    fn differences_are_told_in_words() {
        let values = ValueDifference {
            differing: 12,
            of: 512,
            first: 3,
            largest: Some(3.1e-7),
            not_finite: 0,
        };
        let form = Some("F32 [64, 8]".to_owned());
        let first = ArrayDifference {
            array: "wte".into(),
            before: form.clone(),
            now: form.clone(),
            values: Some(values),
            arrays: (3, 24),
        };
        let gone = ArrayDifference { now: None, values: None, ..first.clone() };
        let file = "model.safetensors".to_owned();
        let inside =
            FirstDifference::Inside { file, first: Box::new(FirstDifference::Arrays { first }) };
        assert_eq!(
            sentence(&inside),
            "model.safetensors: array `wte` F32 [64, 8]: 12 of 512 values differ by up to \
             3.100e-7; 3 of 24 arrays differ"
        );
        assert_eq!(array(&gone), "array `wte` is gone; 3 of 24 arrays differ");
        let value = RowDifference::Value {
            row: 3,
            column: "text".into(),
            before: format!("{} good {}", "x".repeat(90), "y".repeat(90)),
            now: format!("{} bad {}", "x".repeat(90), "y".repeat(90)),
        };
        assert_eq!(row(&value), "row 3, column `text`: …xxxxx good yyyy… → …xxxxx bad yyyy…");
        let bytes = |before, now, same| FirstDifference::Bytes { offset: 7, before, now, same };
        assert_eq!(sentence(&bytes(9, 9, None)), "other bytes from byte 7 of 9");
        assert_eq!(
            sentence(&bytes(9, 7, Some("rows"))),
            "the same rows, but other bytes from byte 7 on; 9 bytes → 7 bytes"
        );
    }
}
