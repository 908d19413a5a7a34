//! A text of a model made fit for people: hidden characters as symbols, long answers cut, two
//! answers compared word by word. Does not know what draws it.

use std::ops::Range;
use std::time::Duration;

use similar::{Algorithm, ChangeTag, TextDiff};

use super::hidden::{marked, picture};

/// Longer texts are not compared word by word.
const DIFF_TIME: Duration = Duration::from_millis(50);

/// Text as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    pub text: String,
    /// Words that the other answer does not have, in bytes of the text.
    pub changed: Vec<Range<usize>>,
    /// There is more of it.
    pub cut: bool,
}

impl Shown {
    /// The first `longest` characters of a text, made visible.
    #[must_use]
    pub fn of(text: &str, longest: usize) -> Self {
        let mut shown = Self::default();
        for (count, (_, c, hidden)) in marked(text).enumerate() {
            if count == longest {
                shown.cut = true;
                break;
            }
            if hidden {
                shown.text.push_str(&picture(c));
            } else {
                shown.text.push(c);
            }
        }
        shown
    }
}

/// The words that only one of two texts has, of each in bytes and in order. Very long texts are
/// compared roughly.
#[must_use]
pub fn changes(one: &str, other: &str) -> [Vec<Range<usize>>; 2] {
    let diff =
        TextDiff::configure().algorithm(Algorithm::Myers).timeout(DIFF_TIME).diff_words(one, other);
    let mut found = [Vec::<Range<usize>>::new(), Vec::new()];
    let mut at = [0, 0];
    for change in diff.iter_all_changes() {
        let length = change.value().len();
        let side = match change.tag() {
            ChangeTag::Equal => {
                at = at.map(|at| at + length);
                continue;
            }
            ChangeTag::Delete => 0,
            ChangeTag::Insert => 1,
        };
        let (ranges, at) = (&mut found[side], &mut at[side]);
        match ranges.last_mut().filter(|range| range.end == *at) {
            Some(range) => range.end += length,
            None => ranges.push(*at..*at + length),
        }
        *at += length;
    }
    found
}

/// Marks the words that only one of two answers has.
pub fn mark_changes(one: &mut Shown, other: &mut Shown) {
    [one.changed, other.changed] = changes(&one.text, &other.text);
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
            s.changed.iter().map(|r| s.text[r.clone()].to_owned()).collect()
        };
        assert_eq!(words(&one), ["red"]);
        assert_eq!(words(&other), ["blue", " down"]);
    }
}
