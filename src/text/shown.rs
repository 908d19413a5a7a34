//! A text of a model made fit for people: hidden characters as symbols, long answers cut, two
//! answers compared word by word. Does not know what draws it.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use similar::{Algorithm, ChangeTag, TextDiff};

use super::hidden::{marked, picture};

/// Longer texts are not compared word by word.
const DIFF_TIME: Duration = Duration::from_millis(50);

/// Text as it is shown. Ranges count UTF-16 units, as browsers do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub text: String,
    /// Symbols that stand for characters that hide or move others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<[usize; 2]>,
    /// Words that the other answer does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<[usize; 2]>,
    /// There is more of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

impl Shown {
    /// The first `longest` characters of a text, made visible.
    #[must_use]
    pub fn of(text: &str, longest: usize) -> Self {
        let mut shown = Self::default();
        let mut length = 0;
        for (count, (_, c, hidden)) in marked(text).enumerate() {
            if count == longest {
                shown.cut = true;
                break;
            }
            if hidden {
                let picture = picture(c);
                let end = length + picture.encode_utf16().count();
                match shown.marks.last_mut().filter(|m| m[1] == length) {
                    Some(mark) => mark[1] = end,
                    None => shown.marks.push([length, end]),
                }
                shown.text.push_str(&picture);
                length = end;
            } else {
                shown.text.push(c);
                length += c.len_utf16();
            }
        }
        shown
    }

    /// Byte ranges of `marks` or `changed`, for whoever counts in UTF-8.
    #[must_use]
    pub fn bytes(&self, ranges: &[[usize; 2]]) -> Vec<Range<usize>> {
        let mut found = Vec::with_capacity(ranges.len());
        let mut at = (0, 0);
        let mut chars = self.text.chars();
        let mut byte_at = |unit: usize| {
            while at.0 < unit {
                let Some(c) = chars.next() else { break };
                at = (at.0 + c.len_utf16(), at.1 + c.len_utf8());
            }
            at.1
        };
        for [from, to] in ranges {
            let from = byte_at(*from);
            found.push(from..byte_at(*to));
        }
        found
    }
}

/// Marks the words that only one of two answers has. Very long ones are compared roughly.
pub fn mark_changes(one: &mut Shown, other: &mut Shown) {
    let (old, new) = (one.text.clone(), other.text.clone());
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Myers)
        .timeout(DIFF_TIME)
        .diff_words(old.as_str(), new.as_str());
    let (mut left, mut right) = (0, 0);
    for change in diff.iter_all_changes() {
        let length = change.value().encode_utf16().count();
        let (side, at) = match change.tag() {
            ChangeTag::Equal => {
                left += length;
                right += length;
                continue;
            }
            ChangeTag::Delete => (&mut one.changed, &mut left),
            ChangeTag::Insert => (&mut other.changed, &mut right),
        };
        match side.last_mut().filter(|r| r[1] == *at) {
            Some(range) => range[1] += length,
            None => side.push([*at, *at + length]),
        }
        *at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::hides;

    #[test]
    fn nothing_that_hides_or_moves_text_is_left() {
        let hostile = "a\u{202e}b\u{1b}[31mc\u{200b}\u{9b}d\r\ne\u{e0041}\u{0}f\tg";
        let shown = Shown::of(hostile, 100);
        assert_eq!(shown.text, "a⟨202E⟩b␛[31mc⟨200B⟩⟨009B⟩d␍\ne⟨E0041⟩␀f␉g");
        assert!(!shown.text.chars().any(hides));
        let units: Vec<u16> = shown.text.encode_utf16().collect();
        let marked: Vec<String> =
            shown.marks.iter().map(|[a, b]| String::from_utf16_lossy(&units[*a..*b])).collect();
        assert_eq!(marked, ["⟨202E⟩", "␛", "⟨200B⟩⟨009B⟩", "␍", "⟨E0041⟩␀", "␉"]);
        let bytes = shown.bytes(&shown.marks);
        assert_eq!(&shown.text[bytes[4].clone()], "⟨E0041⟩␀");
    }

    #[test]
    fn emoji_stay_whole_and_joiners_elsewhere_are_shown() {
        let family = "👩\u{200d}👧 ❤\u{fe0f}";
        assert_eq!(Shown::of(family, 100).text, family);
        assert_eq!(Shown::of("a\u{200d}b\u{fe0f}", 100).text, "a⟨200D⟩b⟨FE0F⟩");
        assert_eq!(Shown::of("👩\u{200d}x", 100).text, "👩⟨200D⟩x");
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        let text = "ä".repeat(30);
        assert_eq!(Shown::of(&text, 30), Shown { text: text.clone(), ..Shown::default() });
        let cut = Shown::of(&text, 29);
        assert!(cut.cut);
        assert_eq!(cut.text.chars().count(), 29);
    }

    #[test]
    fn changed_words_are_marked_on_both_sides() {
        let mut one = Shown::of("the 🐈 red cat sat", 100);
        let mut other = Shown::of("the 🐈 blue cat sat down", 100);
        mark_changes(&mut one, &mut other);
        let words = |s: &Shown| -> Vec<String> {
            s.bytes(&s.changed).into_iter().map(|r| s.text[r].to_owned()).collect()
        };
        assert_eq!(words(&one), ["red"]);
        assert_eq!(words(&other), ["blue", " down"]);
    }
}
