//! Names and texts as parts of the report. Words of models are made harmless elsewhere.
//! Does not know where they appear.

pub use crate::rendering::{rendered, visible};
use crate::text::{marked, picture};

/// Longest text of a model that is shown where no markup can be.
const LONGEST: usize = 4000;

/// Text of others where no markup can be: a title, an SVG description.
#[must_use]
pub fn plain(text: &str) -> String {
    let shown = |(_, c, hidden)| if hidden { picture(c) } else { String::from(c) };
    marked(text).take(LONGEST).map(shown).collect()
}

/// `win_rate` → `win rate`.
#[must_use]
pub fn spaced(name: &str) -> String {
    plain(name).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_in_a_title() {
        assert_eq!(plain("a\u{202e}x\u{0}"), "a⟨202E⟩x␀");
        let emoji = "👩\u{200d}👧 ❤\u{fe0f}";
        assert_eq!(plain(emoji), emoji);
        assert_eq!(plain(&"x".repeat(9999)).len(), 4000);
    }
}
