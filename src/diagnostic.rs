//! Diagnostics as data: what is wrong, where, and what to do about it.
//! Knows nothing of terminals or colour.

mod place;

use std::ops::Range;
use std::sync::Arc;

pub use place::SourceText;

/// Characters of a name that messages repeat.
const NAME: usize = 80;
/// Names that a list in a message repeats.
const LISTED: usize = 20;
/// Characters of a message, a label or a remedy, whatever is in it.
const TEXT: usize = 2000;
/// Longer names are no typing errors of anything.
const TYPED: usize = 100;

/// A place in a [`SourceText`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub source: Arc<SourceText>,
    /// Bytes.
    pub range: Range<usize>,
}

impl Span {
    /// Line and column, both from 1; the column counts characters.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        self.source.line_column(self.range.start)
    }
}

/// One problem in a pipeline, told to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Lowercase fragment, no period.
    pub message: String,
    /// Where it is; `None` when no file is to blame (a `--set` on the command line).
    pub span: Option<Span>,
    /// Said at the caret.
    pub label: String,
    /// The remedy, if one is known.
    pub help: Option<String>,
    /// Set where a name is the problem.
    pub naming: Option<Box<Naming>>,
}

/// A name that is not known, and the known one that it is close to: whoever reads a problem on may
/// know more names, or that another one is not missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    pub unknown: String,
    pub near: Option<String>,
}

impl Diagnostic {
    #[must_use]
    pub fn new(message: impl Into<String>, span: Option<Span>) -> Self {
        Self {
            message: bounded(message.into()),
            span,
            label: String::new(),
            help: None,
            naming: None,
        }
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = bounded(label.into());
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(bounded(help.into()));
        self
    }

    /// The problem is this name; `near` is suggested.
    #[must_use]
    pub fn naming(mut self, unknown: &str, near: Option<&str>) -> Self {
        let naming = Naming { unknown: unknown.to_owned(), near: near.map(str::to_owned) };
        self.naming = Some(Box::new(naming));
        self.near(near)
    }

    /// Suggests a name, where one is close to what was written.
    #[must_use]
    pub fn near(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.label(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// In file order; what has no place comes first.
pub fn sort(problems: &mut [Diagnostic]) {
    problems
        .sort_by_cached_key(|d| d.span.as_ref().map(|s| (s.source.name.clone(), s.range.start)));
}

/// A name that a file gives, for a message: control characters escaped, a long one cut.
#[must_use]
pub fn named(name: &str) -> String {
    let mut rest = name.chars();
    let shown: String = rest.by_ref().take(NAME).flat_map(char::escape_debug).collect();
    if rest.next().is_some() { shown + "…" } else { shown }
}

/// Names for a message, separated by commas: the first ones, and how many more there are.
#[must_use]
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED).map(|n| named(n.as_ref())).collect();
    match names.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT
        && let Some((end, _)) = text.char_indices().nth(TEXT)
    {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The candidate nearest to what was typed, when it is near enough to be a typing error.
#[must_use]
pub fn did_you_mean<'a>(
    typed: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = typed.chars().take(TYPED + 1).count();
    if length > TYPED {
        return None;
    }
    let near = |candidate: &'a str| {
        let other = candidate.chars().count();
        let far = 1 + other.max(length) / 4;
        // So many letters must be added or taken away.
        if other.abs_diff(length) > far {
            return None;
        }
        let distance = strsim::damerau_levenshtein(typed, candidate);
        (distance <= far).then_some((distance, candidate))
    };
    candidates.into_iter().filter_map(near).min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// For snapshots: `file:line:column message | label | help`, one problem a line.
#[cfg(test)]
pub fn lines(problems: &[Diagnostic]) -> String {
    let line = |d: &Diagnostic| {
        let place = d.span.as_ref().map_or_else(String::new, |span| {
            let (line, column) = span.line_column();
            format!("{}:{line}:{column} ", span.source.name)
        });
        let covered = d.span.as_ref().map_or("", |s| &s.source.text[s.range.clone()]);
        let parts = [d.label.clone(), d.help.clone().unwrap_or_default()];
        let parts: Vec<String> =
            parts.into_iter().filter(|p| !p.is_empty()).map(|p| format!(" | {p}")).collect();
        format!("{place}[{}] {}{}", covered.escape_debug(), d.message, parts.concat())
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_messages_repeat_is_short_and_visible() {
        assert_eq!(named("kl\u{1b}[31m"), "kl\\u{1b}[31m");
        assert_eq!(named(&"é".repeat(80)), "é".repeat(80));
        assert_eq!(named(&"é".repeat(81)), "é".repeat(80) + "…");
        assert_eq!(listed(&["a", "b"]), "a, b");
        let many: Vec<String> = (0..25).map(|i| i.to_string()).collect();
        assert!(listed(&many).ends_with("18, 19 and 5 more"), "{}", listed(&many));
        let long = Diagnostic::new("é".repeat(9999), None).label("x".repeat(9999));
        assert_eq!(long.message.chars().count(), TEXT + 1);
        assert_eq!(long.label.chars().count(), TEXT + 1);
    }

    #[test]
    fn typing_errors_are_near_and_no_longer_than_names() {
        assert_eq!(did_you_mean("kl_coeff", ["lr", "kl_coef"]), Some("kl_coef"));
        assert_eq!(did_you_mean("abcd", ["abcdefg", "a"]), None);
        let long = "x".repeat(TYPED);
        assert_eq!(did_you_mean(&long, [format!("{long}x").as_str()]), Some(&*format!("{long}x")));
        assert_eq!(did_you_mean(&format!("{long}x"), [long.as_str()]), None);
    }
}
