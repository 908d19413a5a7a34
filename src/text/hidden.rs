//! The one table of characters that a reader cannot see, or that move others about, and what stands
//! for them. Does not know where the text is shown.

/// Characters that a reader cannot see, or that move others about.
#[must_use]
pub fn hides(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c as u32,
            0x00AD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F
            | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F
            | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// What stands for such a character.
#[must_use]
pub fn picture(c: char) -> String {
    match c as u32 {
        code @ 0..=0x1F => char::from_u32(0x2400 + code).unwrap_or('␀').to_string(),
        0x7F => "␡".to_owned(),
        code => format!("⟨{code:04X}⟩"),
    }
}

/// Each character of a text with its place in bytes, and whether it must be shown as a picture:
/// what hides must, but for what holds an emoji together.
pub fn marked(text: &str) -> impl Iterator<Item = (usize, char, bool)> {
    let mut before = '\n';
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (at, c) = rest.next()?;
        let after = rest.peek().map(|(_, c)| *c);
        let hidden = hides(c) && !belongs(before, c, after);
        before = c;
        Some((at, c, hidden))
    })
}

/// Text of others on one line of a terminal: nothing in it hides, moves text or drives the
/// terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (_, c, hidden) in marked(text) {
        match c {
            '\t' => out.push(' '),
            c if hidden || c == '\n' => out.push_str(&picture(c)),
            c => out.push(c),
        }
    }
    out
}

/// Whether a hidden character is part of an emoji: the choice of its colour picture, or the joint
/// between two of them.
fn belongs(before: char, c: char, after: Option<char>) -> bool {
    let emoji = |c: char| matches!(c as u32, 0x203C..=0x3299 | 0x1F000..=0x1FAFF);
    match c {
        '\u{FE0F}' => emoji(before),
        '\u{200D}' => (emoji(before) || before == '\u{FE0F}') && after.is_some_and(emoji),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_in_a_line_and_emoji_stay_whole() {
        for (text, shown) in [
            ("a\tb\nc\x1b[2J\u{9b}m", "a b␊c␛[2J⟨009B⟩m"),
            ("pass\u{200b}word \u{feff}x\u{ad}y", "pass⟨200B⟩word ⟨FEFF⟩x⟨00AD⟩y"),
            ("\u{202e}tac\u{2066}x\u{200f}", "⟨202E⟩tac⟨2066⟩x⟨200F⟩"),
            ("hi\u{e0068}\u{e0069}", "hi⟨E0068⟩⟨E0069⟩"),
            ("👩\u{200d}👧 ❤\u{fe0f} עברית 日本語", "👩\u{200d}👧 ❤\u{fe0f} עברית 日本語"),
            ("a\u{200d}b\u{fe0f}", "a⟨200D⟩b⟨FE0F⟩"),
        ] {
            assert_eq!(clean(text), shown);
        }
    }
}
