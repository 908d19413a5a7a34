//! What all sections of a file share: names, keys that are not known, values of the wrong shape.
//! Does not know the sections.

use super::node::Node;
use crate::diagnostic::{Diagnostic, Span, did_you_mean, named};

/// Names become file names in the store: nothing in them may lead anywhere else.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || c == '_' || c == '-')
}

/// Adds a problem unless `name` is a good one.
pub fn check_name(name: &str, what: &str, span: &Span, problems: &mut Vec<Diagnostic>) {
    if !is_name(name) {
        problems.push(
            Diagnostic::new(format!("`{}` cannot name a {what}", named(name)), Some(span.clone()))
                .help(
                    "lowercase letters, digits, `_` and `-`, at most 64, a letter or digit first",
                ),
        );
    }
}

/// A key that a map of a file may not have.
#[must_use]
pub fn unknown_key(key: &str, place: &str, span: &Span, known: &[&str]) -> Diagnostic {
    let problem =
        Diagnostic::new(format!("unknown key `{}` in {place}", named(key)), Some(span.clone()));
    problem.naming(key, did_you_mean(key, known.iter().copied()))
}

/// A value of the wrong shape. `what`: the key, or words with the key in backticks.
#[must_use]
pub fn expected(what: &str, wanted: &str, node: &Node) -> Diagnostic {
    let what = if what.contains('`') { what.to_owned() } else { format!("`{what}`") };
    Diagnostic::new(format!("{what} must be {wanted}"), Some(node.span.clone()))
        .label(format!("found {}", node.describe()))
}
