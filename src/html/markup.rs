//! Text of models as parts of a page, made harmless and visible.
//! Does not know where they appear.

use maud::{Markup, PreEscaped, Render, html};

use crate::text::{marked, picture};

/// Longest text of a model that is shown in full.
const LONGEST: usize = 4000;

/// Text that someone else wrote: escaped, with characters that hide or reorder made visible.
#[must_use]
pub fn visible(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for (i, (_, c, hidden)) in marked(text).enumerate() {
        if i == LONGEST {
            run.push_str(" […]");
            break;
        }
        if hidden {
            run.as_str().render_to(&mut out);
            run.clear();
            let name = format!("U+{:04X}", c as u32);
            html! { span.hidden title=(name) { (picture(c)) } }.render_to(&mut out);
        } else {
            run.push(c);
        }
    }
    run.as_str().render_to(&mut out);
    PreEscaped(out)
}

/// What somebody said, as a paragraph; nothing says so.
#[must_use]
pub fn said(text: &str) -> Markup {
    html! {
        @if text.trim().is_empty() { p.said.dim { "(nothing)" } }
        @else { p.said dir="auto" { (visible(text)) } }
    }
}

/// The same where no markup can be: a title, an SVG description.
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
    fn nothing_hides_in_a_text() {
        let shown = visible("a<b>&\"\u{202e}x\u{0}\u{1b}[31m\u{200b}\u{e0041}\nb").into_string();
        assert!(shown.starts_with("a&lt;b&gt;&amp;&quot;"), "{shown}");
        for part in ["⟨202E⟩", "␀", "␛", "⟨200B⟩", "⟨E0041⟩", "title=\"U+202E\"", "\nb"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains(['\u{202e}', '\u{0}', '\u{1b}', '\u{200b}']));
        let emoji = "👩\u{200d}👧 ❤\u{fe0f}";
        assert_eq!((visible(emoji).into_string().as_str(), plain(emoji).as_str()), (emoji, emoji));
        assert!(visible(&"x".repeat(9999)).into_string().len() < 4100);
    }
}
