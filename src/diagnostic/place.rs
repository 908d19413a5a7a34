//! Lines and columns of a text, found without reading it from the top for every question.
//! Does not know what is wrong there.

use std::sync::OnceLock;

/// Bytes between two places whose characters are counted ahead.
const STEP: usize = 1024;

/// A text that spans point into: a pipeline file or one that it includes.
#[derive(Debug, Default)]
pub struct SourceText {
    /// As shown to people: relative to the working directory where possible.
    pub name: String,
    pub text: String,
    /// Made when the first line is asked for.
    index: OnceLock<Index>,
}

/// What is counted once.
#[derive(Debug)]
struct Index {
    /// Where each line starts.
    lines: Vec<usize>,
    /// Characters that start before each multiple of [`STEP`] bytes.
    characters: Vec<usize>,
}

impl PartialEq for SourceText {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.text) == (&other.name, &other.text)
    }
}

impl Eq for SourceText {}

impl SourceText {
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), index: OnceLock::new() }
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    #[must_use]
    pub fn line_column(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.text.len());
        let (line, start) = self.line(at);
        (line, self.characters(at) - self.characters(start) + 1)
    }

    /// The line of a byte, from 1, and where it starts.
    #[must_use]
    pub fn line(&self, at: usize) -> (usize, usize) {
        let lines = &self.index().lines;
        let line = lines.partition_point(|start| *start <= at);
        (line, lines[line - 1])
    }

    /// Where the line of a byte ends, without its line feed.
    #[must_use]
    pub fn line_end(&self, at: usize) -> usize {
        let (line, _) = self.line(at);
        self.index().lines.get(line).map_or(self.text.len(), |next| next - 1)
    }

    /// Characters that start before a byte.
    fn characters(&self, at: usize) -> usize {
        let step = at / STEP;
        let rest = &self.text.as_bytes()[step * STEP..at];
        self.index().characters[step] + starts(rest)
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let bytes = self.text.as_bytes();
            let feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            let starts_after = feeds.map(|(at, _)| at + 1);
            let mut characters = vec![0];
            for part in bytes.chunks_exact(STEP) {
                characters.push(characters[characters.len() - 1] + starts(part));
            }
            Index { lines: std::iter::once(0).chain(starts_after).collect(), characters }
        })
    }
}

/// Characters that start in a piece of UTF-8.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_are_those_of_a_count_from_the_top() {
        let line = "a é 🦀 \u{7}\r\n\n";
        let texts = ["", "\n", "é", "a\n", &line.repeat(400), &format!("x{}", "é".repeat(2000))];
        for text in texts {
            let source = SourceText::new("", text);
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                let before = &text[..at];
                let line = before.matches('\n').count() + 1;
                let last = before.rsplit('\n').next().unwrap();
                assert_eq!(source.line_column(at), (line, last.chars().count() + 1), "{at}");
                assert_eq!(source.line(at), (line, at - last.len()), "{at}");
                let end = text[at..].find('\n').map_or(text.len(), |n| at + n);
                assert_eq!(source.line_end(at), end, "{at}");
            }
        }
    }
}
