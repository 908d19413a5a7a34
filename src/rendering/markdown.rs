//! Markdown as a page shows it: block by block, each as its elements or, where Markdown would leave
//! words out, as it is written. Never HTML, nothing to follow, nothing that is fetched.
//! Does not know which element stands for what.

use std::ops::Range;

use maud::{Markup, PreEscaped};
use pulldown_cmark::{Event, Options, Parser};

use super::block::{Changed, PlacedEvent, block};
use super::visible::write_marked;

/// Longer texts are shown as they are written.
const LARGEST: usize = 4 << 20;

/// The blocks of a text. `changed`: the words to mark, in bytes of the text and in order.
#[must_use]
pub fn markdown(text: &str, changed: &[Range<usize>]) -> Markup {
    let mut out = String::with_capacity(text.len() * 5 / 4);
    if text.len() > LARGEST {
        written(&mut out, text, 0..text.len(), changed);
        return PreEscaped(out);
    }
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let mut changes = Changed::new(changed);
    let (mut depth, mut shown) = (0_usize, 0);
    let mut events: Vec<PlacedEvent> = Vec::new();
    for (event, at) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        events.push((event, at));
        if depth > 0 {
            continue;
        }
        let first = events.iter().map(|(_, at)| at.start).min().unwrap_or(shown);
        let last = events.iter().map(|(_, at)| at.end).max().unwrap_or(shown);
        let whole = first..last;
        // Between blocks stand definitions of links, which Markdown itself shows nowhere.
        written(&mut out, text, shown..whole.start.max(shown), changed);
        match block(text, &events, &mut changes) {
            Some(html) => out.push_str(&html),
            None => written(&mut out, text, whole.clone(), changed),
        }
        shown = whole.end.max(shown);
        events.clear();
    }
    written(&mut out, text, shown..text.len(), changed);
    PreEscaped(out)
}

/// A part of the text as it is written, if anything stands there.
fn written(out: &mut String, text: &str, at: Range<usize>, changed: &[Range<usize>]) {
    let part = text[at.clone()].trim_matches(['\n', '\r']);
    if part.trim().is_empty() {
        return;
    }
    let start = at.start + (part.as_ptr() as usize - text[at].as_ptr() as usize);
    as_written(out, part, start, changed);
}

/// `part`, which begins at `start` of the text that `changed` counts in.
fn as_written(out: &mut String, part: &str, start: usize, changed: &[Range<usize>]) {
    let end = start + part.len();
    let first = changed.partition_point(|range| range.end <= start);
    let inside = changed[first..].iter().take_while(|range| range.start < end);
    let inside: Vec<Range<usize>> =
        inside.map(|range| range.start.max(start) - start..range.end.min(end) - start).collect();
    out.push_str("<div class=\"written\" dir=\"auto\">");
    write_marked(out, part, &inside, false);
    out.push_str("</div>");
}

/// All of a text as it is written, blanks and lines kept.
pub fn raw(text: &str, changed: &[Range<usize>]) -> Markup {
    let mut out = String::with_capacity(text.len() * 5 / 4);
    as_written(&mut out, text, 0, changed);
    PreEscaped(out)
}
