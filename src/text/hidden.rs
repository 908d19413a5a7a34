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

/// Whether a hidden character is part of an emoji: the choice of its colour picture, or the joint
/// between two of them.
pub(super) fn belongs(before: char, c: char, after: Option<char>) -> bool {
    let emoji = |c: char| matches!(c as u32, 0x203C..=0x3299 | 0x1F000..=0x1FAFF);
    match c {
        '\u{FE0F}' => emoji(before),
        '\u{200D}' => (emoji(before) || before == '\u{FE0F}') && after.is_some_and(emoji),
        _ => false,
    }
}
