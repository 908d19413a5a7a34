//! Diagnostics as data: what is wrong, where, and what to do about it.
//! Knows nothing of terminals or colour.

use std::ops::Range;
use std::sync::Arc;

/// A text that spans point into: a pipeline file or one that it includes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SourceText {
    /// As shown to people: relative to the working directory where possible.
    pub name: String,
    pub text: String,
}

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
        let start = self.range.start.min(self.source.text.len());
        let before = &self.source.text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        (line, column)
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
}

impl Diagnostic {
    #[must_use]
    pub fn new(message: impl Into<String>, span: Option<Span>) -> Self {
        Self { message: message.into(), span, label: String::new(), help: None }
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// In file order; what has no place comes first.
pub fn sort(problems: &mut [Diagnostic]) {
    problems
        .sort_by_cached_key(|d| d.span.as_ref().map(|s| (s.source.name.clone(), s.range.start)));
}

/// The candidate nearest to what was typed, when it is near enough to be a typing error.
#[must_use]
pub fn did_you_mean<'a>(
    typed: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(typed, c), c))
        .filter(|(d, c)| *d <= 1 + c.chars().count().max(typed.chars().count()) / 4)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
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
