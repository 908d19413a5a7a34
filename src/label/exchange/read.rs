//! Reads the preferences in a file of another tool, whatever its form.
//! Knows nothing of pairs that are asked about.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::ExchangeError;
use super::forms::{Heard, PreferenceRow};
use super::opinions::{BadRow, Form, Opinion, Opinions, Wanted};
use super::{forms, rows, tools};
use crate::votes::Choice;

/// Reads the opinions in a file. Rows that say nothing readable go to `bad`; those that say that
/// somebody has no opinion are counted.
///
/// # Errors
/// The file cannot be read at all, or its choices are numbers of which nobody knows the meaning.
pub fn read(
    path: &Path,
    wanted: &Wanted,
    bad: &mut Vec<BadRow>,
) -> Result<Opinions, ExchangeError> {
    let Wanted { form, encoding, names } = wanted;
    let rows::Rows { rows, unread } = rows::read(path, *encoding, bad)?;
    let form = form.unwrap_or_else(|| forms::guess(&rows));
    let mut given = Vec::new();
    let mut unanswered = 0;
    for (row, value) in rows {
        let found = match form {
            Form::Columns => forms::columns(&value, names),
            Form::HelpfulHarmless => forms::helpful_harmless(&value, names),
            Form::Arena => forms::arena(&value, names),
            Form::Argilla => tools::argilla(&value, names),
            Form::LabelStudio => tools::label_studio(&value, names),
        };
        let found = found.and_then(|given| {
            match given.iter().any(|g| g.opinion.answers[0] == g.opinion.answers[1]) {
                true => Err("both answers are the same".to_owned()),
                false => Ok(given),
            }
        });
        match found {
            Ok(found) => {
                unanswered += usize::from(found.is_empty());
                given.extend(found);
            }
            Err(mut reason) => {
                for (column, why) in &unread {
                    reason.push_str(&format!("; `{column}` cannot be read: {why}"));
                }
                bad.push(BadRow { path: path.to_owned(), row, reason });
            }
        }
    }
    let opinions = given.iter().map(|g| g.heard).collect::<Vec<_>>();
    let first = counted_from(&opinions).map_err(|numbers| {
        let numbers = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        ExchangeError::Numbers { path: path.to_owned(), numbers }
    })?;
    let opinions = given.into_iter().map(|g| settled(g, first)).collect();
    Ok(Opinions { opinions, unanswered })
}

/// The number of the first answer: 1 where there are two kinds of numbers, 1 and 2. Whoever writes
/// 0 and 1 may count from zero, or mean that 1 is for the first.
fn counted_from(heard: &[Heard]) -> Result<i64, BTreeSet<i64>> {
    let numbers: BTreeSet<i64> = heard
        .iter()
        .filter_map(|h| match h {
            Heard::Number(n) => Some(*n),
            Heard::Said(_) => None,
        })
        .collect();
    let clear = numbers.is_empty() || numbers.contains(&2);
    if clear && numbers.iter().all(|n| [1, 2].contains(n)) { Ok(1) } else { Err(numbers) }
}

fn settled(PreferenceRow { mut opinion, heard, strong }: PreferenceRow, first: i64) -> Opinion {
    let choice = match heard {
        Heard::Said(choice) => choice,
        Heard::Number(n) if n == first => Choice::A,
        Heard::Number(_) => Choice::B,
    };
    opinion.choice = match choice {
        Choice::A if strong => Choice::AMuch,
        Choice::B if strong => Choice::BMuch,
        same => same,
    };
    opinion
}
