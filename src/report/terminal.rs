//! The last step before a terminal: whatever would drive it is made visible there, whoever wrote
//! it. Does not know what the text says.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::sync::{Mutex, OnceLock};

use indicatif::MultiProgress;

use crate::text::{hides, marked, picture};

/// Styles of our own: colours and weights, none that hides text or moves anything.
const STYLES: [&str; 24] = [
    "", "0", "1", "2", "4", "7", "22", "24", "31", "32", "33", "34", "35", "36", "39", "90", "91",
    "92", "93", "94", "95", "96", "97", "1;31",
];

/// Text for people or programs, with nothing in it that drives a terminal but our own styles, where
/// colour is `on`, and nothing that hides or turns text. JSON stays what it is: it has escapes of
/// its own for the same characters.
#[must_use]
pub fn safe(text: &str, on: bool) -> Cow<'_, str> {
    if !text.chars().any(is_foreign) {
        return Cow::Borrowed(text);
    }
    let json = text.starts_with(['{', '[']);
    let mut out = String::with_capacity(text.len() + 16);
    // Where one of our own styles ends: all before it stands in `out`.
    let mut styled = 0;
    for (at, c, hidden) in marked(text) {
        if at < styled {
            continue;
        }
        match c {
            '\x1b' if on && let Some(style) = style(&text[at..]) => {
                out.push_str(style);
                styled = at + style.len();
            }
            c if !hidden || !is_foreign(c) => out.push(c),
            c if json => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push_str(&picture(c)),
        }
    }
    Cow::Owned(out)
}

/// Colour is wanted: standard error is a terminal, and the user has nothing against it
/// (<https://no-color.org>).
#[must_use]
pub fn has_colour() -> bool {
    static COLOUR: OnceLock<bool> = OnceLock::new();
    *COLOUR.get_or_init(|| {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let able = std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        wanted && able && std::io::stderr().is_terminal()
    })
}

/// Bars that are on standard error now.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Bars on standard error, until this is dropped: what is written beside them comes above them.
#[derive(Debug)]
pub struct BarsShown(());

impl BarsShown {
    #[must_use]
    pub fn begin(bars: &MultiProgress) -> Self {
        if let Ok(mut shown) = BARS.lock() {
            *shown = Some(bars.clone());
        }
        Self(())
    }
}

impl Drop for BarsShown {
    fn drop(&mut self) {
        if let Ok(mut shown) = BARS.lock() {
            *shown = None;
        }
    }
}

/// Writes to standard error, above the bars that stand there.
pub fn above_bars<T>(write: impl FnOnce() -> T) -> T {
    // Where bars are being drawn or written above right now, waiting could be for ever.
    match BARS.try_lock().as_deref() {
        Ok(Some(bars)) => bars.suspend(write),
        _ => write(),
    }
}

/// Whatever hides has no place in a terminal, but for tabs.
fn is_foreign(c: char) -> bool {
    c != '\t' && hides(c)
}

/// One of our own styles at the start of a text.
fn style(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("\x1b[")?;
    let end = rest.find('m').filter(|end| *end <= 4)?;
    STYLES.contains(&&rest[..end]).then(|| &text[..end + 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal_but_our_own_styles() {
        let own = "\x1b[31merror:\x1b[0m plain\ttext\n";
        assert_eq!(safe(own, true), own);
        assert_eq!(safe(own, false), "␛[31merror:␛[0m plain\ttext\n");
        for (text, shown) in [
            ("\x1b]0;title\x07", "␛]0;title␇"),
            ("\x1b[2J\x1b[H", "␛[2J␛[H"),
            ("\x1b[8mhidden", "␛[8mhidden"),
            ("\x1b[38;5;0m", "␛[38;5;0m"),
            ("\u{9b}31m\u{9d}0;x\u{9c}", "⟨009B⟩31m⟨009D⟩0;x⟨009C⟩"),
            ("a\rb\x08c\x7f", "a␍b␈c␡"),
            ("\u{202e}tac\u{2066}x", "⟨202E⟩tac⟨2066⟩x"),
            ("a\u{200b}b\u{ad}c\u{e0041}", "a⟨200B⟩b⟨00AD⟩c⟨E0041⟩"),
            ("עברית 日本語 👩\u{200d}👧", "עברית 日本語 👩\u{200d}👧"),
        ] {
            assert_eq!(safe(text, true), shown);
        }
        let value = serde_json::json!({ "text": "\x1b[2J\u{9b}31m\u{202e}\x7f\u{200b}\u{e0041}" });
        for printed in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let out = safe(&printed, false);
            assert!(!out.chars().any(is_foreign), "{out}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value);
        }
    }
}
