//! Win rates from labels: whoever compared the answers of two policies decides.
//! Knows nothing of policies or rewards.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::measures::Figure;
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Chosen, Table, choices};
use crate::stats::{Estimate, wilson};

/// `win_rate_people` of each policy that `people` names, in `bucket`: the share of labels in which
/// its answer, the first of the pair, was preferred; ties count half.
///
/// # Errors
/// When a policy or a dataset of labels is unknown, or the labels do not say what was chosen.
pub fn people_figures(
    cx: &Context,
    people: &BTreeMap<String, String>,
    policies: &[(String, std::path::PathBuf)],
    bucket: &str,
) -> Result<Vec<Figure>> {
    let inputs = cx.inputs("labels");
    let names: Vec<&str> = policies.iter().map(|(name, _)| name.as_str()).collect();
    check_people(people, &names, &inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>())?;
    let mut figures = Vec::new();
    for (policy, labels) in people {
        let Some(input) = inputs.iter().find(|i| i.name == *labels) else { continue };
        let context = || format!("input `labels` ({labels})");
        let table = cx.table_of(input).with_context(context)?;
        let estimate = first_wins(&table).with_context(context)?;
        let (policy, bucket) = (policy.clone(), bucket.to_owned());
        figures.push(Figure { policy, bucket, name: "win_rate_people".into(), estimate });
    }
    Ok(figures)
}

/// Refuses names that stand for nothing: `people` goes from policies to what is connected to port
/// `labels`.
///
/// # Errors
/// Names the first, and those there are.
pub fn check_people(
    people: &BTreeMap<String, String>,
    policies: &[&str],
    connected: &[&str],
) -> Result<()> {
    for (policy, labels) in people {
        if !policies.contains(&policy.as_str()) {
            let help = format!("the policies are {}", policies.join(", "));
            return Err(error_with_help(
                format!("`people` names the unknown policy `{policy}`"),
                help,
            ));
        }
        if !connected.contains(&labels.as_str()) {
            let help = format!("connected to port `labels`: {}", connected.join(", "));
            return Err(error_with_help(
                format!("`people` names the unknown labels `{labels}`"),
                help,
            ));
        }
    }
    Ok(())
}

/// Share of labels that chose the first answer.
fn first_wins(labels: &Table) -> Result<Estimate> {
    labels.require("choice")?;
    let choices = choices(labels)?;
    let points = choices.iter().map(|chosen| match chosen {
        Chosen::First => 1.0,
        Chosen::Second => 0.0,
        Chosen::Neither => 0.5,
    });
    Ok(wilson(points.sum(), choices.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Column;

    #[test]
    fn ties_count_half_and_an_odd_choice_is_named() {
        let table = |choices: &[&str]| {
            Table::new(vec![("choice", Column::text(choices.iter().copied()))]).expect("a table")
        };
        let found = first_wins(&table(&["a", "a", "b", "tie"])).expect("a share");
        assert_eq!((found.value, found.n), (0.625, 4));
        let odd = first_wins(&table(&["a", "left"])).expect_err("refused");
        assert!(format!("{odd:#}").contains("row 2"), "{odd:#}");
    }
}
