//! Words for reasons and changes, and which figures are told first: the same in every screen.
//! Decides nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::identity::{Change, MemberChange};
use crate::plan::{Reason, StageChange};
use crate::text::figure;
use crate::votes::{ChangedVotes, VoteChange};

/// Why a stage runs, in a few words.
#[must_use]
pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::NeverRun => "never run".into(),
        Reason::Changed { changes } => {
            changes.iter().map(stage_change).collect::<Vec<_>>().join(", ")
        }
        Reason::Collected => "its entry was removed".into(),
        Reason::ObjectMissing { port } => format!("object of `{port}` missing"),
        Reason::ObjectDamaged { port } => format!("object of `{port}` damaged"),
        Reason::EntryUnreadable { .. } => "its entry is unreadable".into(),
        Reason::Forced => "forced".into(),
    }
}

/// The same of a stage that starts or runs already.
#[must_use]
pub fn cause(cause: &Reason) -> String {
    match cause {
        Reason::NeverRun => "first run".into(),
        other => reason(other),
    }
}

/// One difference between what a stage was and what it would be.
#[must_use]
pub fn stage_change(change: &StageChange) -> String {
    match change {
        StageChange::Votes(changed) => votes(changed),
        StageChange::Identity(change) => self::change(change),
    }
}

/// One difference: `lr 1e-5 → 3e-6`.
#[must_use]
pub fn change(change: &Change) -> String {
    match change {
        Change::Param { name, old, new } => {
            let (old, new) = match (old, new) {
                (Some(Value::String(old)), Some(Value::String(new))) => differing(old, new),
                (old, new) => (value(old.as_ref()), value(new.as_ref())),
            };
            format!("{name} {old} → {new}")
        }
        Change::Kind { old, new } => format!("{old} → {new}"),
        Change::Input { port, old: Some(_), new: Some(_), members } if members.is_empty() => {
            format!("input {port} changed")
        }
        Change::Input { port, old: Some(_), new: Some(_), members } => {
            format!("input {port}: {}", self::members(members))
        }
        Change::Input { port, old: None, .. } => format!("input {port} is new"),
        Change::Input { port, .. } => format!("input {port} is gone"),
        Change::Output { port, .. } => format!("output {port} changed"),
    }
}

/// Votes that differ: `+3 votes, 1 revised (used pairs 4 → 6)`.
#[must_use]
pub fn votes(changed: &ChangedVotes) -> String {
    let VoteChange { added, revised, removed } = changed.counts;
    let counted = [
        ("+", added, if added == 1 { "vote" } else { "votes" }),
        ("", revised, "revised"),
        ("", removed, "taken back"),
    ];
    let counted = counted.iter().filter(|(_, n, _)| *n > 0);
    let parts: Vec<String> = counted.map(|(sign, n, what)| format!("{sign}{n} {what}")).collect();
    let said = match parts.is_empty() {
        true => format!("{}: other sides or texts", changed.port),
        false => parts.join(", "),
    };
    match changed.used {
        Some((old, new)) => format!("{said} (used pairs {old} → {new})"),
        None => said,
    }
}

/// Files of a folder or pattern that differ: `a.txt, b.txt changed, c.txt is new`.
#[must_use]
pub fn members(members: &[(String, MemberChange)]) -> String {
    let words = [
        (MemberChange::Changed, "changed", "changed"),
        (MemberChange::New, "is new", "are new"),
        (MemberChange::Gone, "is gone", "are gone"),
    ];
    let parts = words.into_iter().filter_map(|(what, one, many)| {
        let names: Vec<&str> =
            members.iter().filter(|(_, w)| *w == what).map(|(name, _)| name.as_str()).collect();
        let more = names.len().saturating_sub(MOST_NAMES);
        let shown = names[..names.len() - more].join(", ");
        match (names.len(), more) {
            (0, _) => None,
            (1, _) => Some(format!("{shown} {one}")),
            (_, 0) => Some(format!("{shown} {many}")),
            (_, more) => Some(format!("{shown} and {more} more {many}")),
        }
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Files that are named of those that changed in the same way.
const MOST_NAMES: usize = 3;

/// A param's value, short.
#[must_use]
pub fn value(value: Option<&Value>) -> String {
    let text = match value {
        None => return "(none)".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(n)) => match n.as_f64() {
            Some(x) if n.is_f64() && x != 0.0 && x.abs() < 1e-3 => format!("{x:e}"),
            _ => n.to_string(),
        },
        Some(other) => other.to_string(),
    };
    match text.char_indices().nth(40) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// A commit as entries keep it, and whether it says all: `+` at its end says that it does not.
#[must_use]
pub fn commit(made: &str) -> String {
    match made.strip_suffix('+') {
        Some(commit) => format!("{commit} and changes that were not committed"),
        None => made.to_owned(),
    }
}

/// The parts of two long texts that differ, with a few characters around them.
#[must_use]
pub fn differing(old: &str, new: &str) -> (String, String) {
    let (a, b): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    if a.len().max(b.len()) <= 40 {
        return (old.to_owned(), new.to_owned());
    }
    let shorter = a.len().min(b.len());
    let front = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let back = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let back = back.min(shorter - front);
    let cut = |text: &[char]| {
        let from = front.saturating_sub(6);
        let to = (text.len() - back + 6).min(text.len()).min(from + 40);
        let middle: String = text[from..to].iter().collect();
        let before = if from > 0 { "…" } else { "" };
        let after = if to < text.len() { "…" } else { "" };
        format!("{before}{middle}{after}")
    };
    (cut(&a), cut(&b))
}

/// The most telling figures on one line; see [`ranked`].
#[must_use]
pub fn figures(values: &BTreeMap<String, Option<f64>>, first: &[String], most: usize) -> String {
    let shown = ranked(values, first).into_iter().take(most);
    shown.map(|(name, x)| format!("{name} {}", figure(x))).collect::<Vec<_>>().join("  ")
}

/// Figures in the order in which people look at them: those named `first`, then those with the
/// fewest parts in their names. No bounds of intervals.
#[must_use]
pub fn ranked<'a>(
    values: &'a BTreeMap<String, Option<f64>>,
    first: &[String],
) -> Vec<(&'a String, f64)> {
    let mut named: Vec<(&String, f64)> = values
        .iter()
        .filter(|(name, _)| !name.ends_with("_low") && !name.ends_with("_high"))
        .filter_map(|(name, x)| Some((name, (*x)?)))
        .collect();
    let rank = |name: &String| first.iter().position(|f| f == name).unwrap_or(first.len());
    named.sort_by_key(|(name, _)| (rank(name), name.matches('/').count()));
    named
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_names_the_exact_fields() {
        let changes = vec![
            Change::Param {
                name: "train.lr".into(),
                old: Some(json!(1e-5)),
                new: Some(json!(3e-6)),
            },
            Change::Input {
                port: "model".to_owned().into(),
                old: Some("a".into()),
                new: Some("b".into()),
                members: Vec::new(),
            },
            Change::Kind { old: "sft@1".into(), new: "sft@2".into() },
        ];
        let changes = changes.into_iter().map(StageChange::Identity).collect();
        assert_eq!(
            reason(&Reason::Changed { changes }),
            "train.lr 1e-5 → 3e-6, input model changed, sft@1 → sft@2"
        );
        let named = |names: &[&str], what| names.iter().map(|n| ((*n).to_owned(), what)).collect();
        let all: [Vec<_>; 3] = [
            named(&["d/b.txt"], MemberChange::Changed),
            named(&["c", "d"], MemberChange::New),
            named(&["1", "2", "3", "4", "5"], MemberChange::Gone),
        ];
        assert_eq!(
            members(&all.concat()),
            "d/b.txt changed, c, d are new, 1, 2, 3 and 2 more are gone"
        );
    }
}
