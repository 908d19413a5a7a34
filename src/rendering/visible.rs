//! Text of others inside of an element: escaped, hidden characters as signs, changed words marked.
//! Knows nothing of Markdown.

use std::ops::Range;

use maud::{Markup, PreEscaped, Render as _, html};

use crate::text::{marked, picture};

/// Longest text that is shown where there is no page for all of it.
const LONGEST: usize = 4000;

/// Text that someone else wrote, in a line or a cell.
#[must_use]
pub fn visible(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len());
    match text.char_indices().nth(LONGEST) {
        None => write(&mut out, text, false),
        Some((end, _)) => {
            write(&mut out, &text[..end], false);
            out.push_str(" […]");
        }
    }
    PreEscaped(out)
}

/// Stands where nothing was said.
#[must_use]
pub fn nothing() -> Markup {
    html! { span.nothing { "(nothing)" } }
}

/// Appends text. `code`: tabs stay what they are.
pub fn write(out: &mut String, text: &str, code: bool) {
    let mut plain = 0;
    let mut signs = String::new();
    for (at, c, hidden) in marked(text) {
        if hidden && !(code && c == '\t') {
            text[plain..at].render_to(out);
            signs.push_str(&picture(c));
            plain = at + c.len_utf8();
            let more = text[plain..].chars().next();
            if more.is_none_or(|next| !crate::text::hides(next)) {
                sign(out, &mut signs);
            }
        } else if !signs.is_empty() {
            // What hides elsewhere holds an emoji together here.
            sign(out, &mut signs);
        }
    }
    text[plain..].render_to(out);
}

fn sign(out: &mut String, signs: &mut String) {
    html! { span.sign { (signs.as_str()) } }.render_to(out);
    signs.clear();
}

/// Appends text with the words marked that lie in `changed`, in bytes of the text and in order.
pub fn write_marked(out: &mut String, text: &str, changed: &[Range<usize>], code: bool) {
    let mut at = 0;
    for range in changed {
        let (from, to) = (range.start.clamp(at, text.len()), range.end.clamp(at, text.len()));
        if from == to || !text.is_char_boundary(from) || !text.is_char_boundary(to) {
            continue;
        }
        write(out, &text[at..from], code);
        out.push_str("<span class=\"changed\">");
        write(out, &text[from..to], code);
        out.push_str("</span>");
        at = to;
    }
    write(out, &text[at..], code);
}
