//! A prompt or an answer on a page: its text, or the turns of a conversation with their roles, as
//! Markdown or as it is written. Does not know who compares it with what.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};

use super::block::CODE;
use super::markdown::{markdown, raw};
use super::visible::{nothing, visible, write};
use crate::conversation::{Content, Message};
use crate::text::changes;

/// Longest saying that is shown where there is no page for all of it.
const LONGEST: usize = 4000;

/// Parts of messages of so few letters stand behind their name.
const SHORT: usize = 60;

/// What a text of ours says, where there is room for the beginning.
#[must_use]
pub fn rendered(written: &str) -> Markup {
    let saying = RenderedText::of(written, LONGEST);
    html! {
        div.said {
            (saying.page(TextForm::Markdown))
            @if saying.cut { p { "[…]" } }
        }
    }
}

/// How text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    Markdown,
    /// As it is stored.
    Raw,
}

/// A prompt or an answer, ready for a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenderedText {
    turns: Vec<Turn>,
    /// There is more of it.
    pub cut: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Turn {
    /// Whose it is; nothing where that is plain: a text, or the one message that an answer is.
    role: String,
    /// `None`: it says nothing, it only has parts.
    text: Option<String>,
    /// Words that the other answer does not have, in bytes of the text.
    changed: Vec<Range<usize>>,
    /// What else a message holds: a name and a value, such as the tools that it calls.
    parts: Vec<(String, String)>,
}

impl RenderedText {
    /// What a text of ours says, a conversation where it is one; its first `longest` characters.
    #[must_use]
    pub fn of(written: &str, longest: usize) -> Self {
        let mut turns = match Content::of_written(written) {
            Content::Text(text) => vec![Turn { text: Some(text), ..Turn::default() }],
            Content::Messages(list) => {
                let alone = list.len() == 1;
                list.iter().map(|message| Turn::of(message, alone)).collect()
            }
        };
        let mut left = longest;
        let mut cut = false;
        turns.retain_mut(|turn| {
            let began = left > 0;
            for text in turn.text.iter_mut().chain(turn.parts.iter_mut().map(|(_, value)| value)) {
                match text.char_indices().nth(left) {
                    Some((end, _)) => {
                        text.truncate(end);
                        (left, cut) = (0, true);
                    }
                    None => left -= text.chars().count(),
                }
            }
            cut |= !began;
            began
        });
        Self { turns, cut }
    }

    /// As a part of a page.
    #[must_use]
    pub fn page(&self, reading: TextForm) -> Markup {
        html! {
            @for turn in &self.turns { (turn.page(reading)) }
            @if self.turns.is_empty() { (nothing()) }
        }
    }
}

impl Turn {
    fn of(message: &Message, alone: bool) -> Self {
        let mut letters = message.role.chars();
        let name = letters.next().map(|first| first.to_uppercase().chain(letters));
        let name: String = name.into_iter().flatten().collect();
        let plain = alone && message.is_answer() && message.more.is_empty();
        Self {
            role: if plain { String::new() } else { name },
            text: message.content.clone(),
            changed: Vec::new(),
            parts: message.more.iter().flat_map(|(name, value)| parts(name, value)).collect(),
        }
    }

    fn page(&self, reading: TextForm) -> Markup {
        let said = html! {
            @match self.text.as_deref() {
                Some(text) if text.trim().is_empty() => { p { (nothing()) } }
                Some(text) => {
                    @match reading {
                        TextForm::Markdown => { (markdown(text, &self.changed)) }
                        TextForm::Raw => { (raw(text, &self.changed)) }
                    }
                }
                None => { @if self.parts.is_empty() { p { (nothing()) } } }
            }
            @for (name, value) in &self.parts {
                @if value.len() <= SHORT && !value.contains('\n') {
                    p.part { (visible(name)) " " code { (visible(value)) } }
                } @else {
                    p.part { (visible(name)) }
                    (code(value))
                }
            }
        };
        if self.role.is_empty() {
            return said;
        }
        html! { div.turn { p.role { (self.role) } (said) } }
    }
}

/// A field of a message beside what it says: each tool that it calls by itself, others as they are.
fn parts(name: &str, json: &str) -> Vec<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let calls = value.as_array().filter(|_| name == "tool_calls");
    let call = |call: &serde_json::Value| {
        let function = call.get("function").unwrap_or(call);
        let what = function.get("name")?.as_str()?;
        let arguments = function.get("arguments").map(plain).unwrap_or_default();
        let id = call.get("id").map(|id| format!(" ({})", plain(id))).unwrap_or_default();
        Some((format!("calls {what}{id}"), arguments))
    };
    let calls = calls.and_then(|calls| calls.iter().map(call).collect::<Option<Vec<_>>>());
    calls.filter(|calls| !calls.is_empty()).unwrap_or_else(|| {
        let text = value.as_str().map_or_else(|| json.to_owned(), str::to_owned);
        vec![(name.to_owned(), text)]
    })
}

/// A text as it is, other values as JSON.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn code(text: &str) -> Markup {
    let mut out = CODE.to_owned();
    write(&mut out, text, true);
    out.push_str("</code></pre>");
    PreEscaped(out)
}

/// Marks the words that only one of two answers has, turn by turn.
pub fn mark_changes(one: &mut RenderedText, other: &mut RenderedText) {
    let all = |text: &Option<String>| {
        let whole = 0..text.as_deref().map_or(0, str::len);
        std::iter::once(whole).collect()
    };
    let turns = one.turns.len().max(other.turns.len());
    for i in 0..turns {
        match (one.turns.get_mut(i), other.turns.get_mut(i)) {
            (Some(a), Some(b)) => {
                let texts = [&a.text, &b.text].map(|text| text.as_deref().unwrap_or_default());
                [a.changed, b.changed] = changes(texts[0], texts[1]);
            }
            (Some(turn), None) | (None, Some(turn)) => turn.changed = all(&turn.text),
            (None, None) => {}
        }
    }
}
