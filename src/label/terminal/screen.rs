//! What the terminal labeller shows: one question laid out in so many columns and rows.
//! Pure: knows neither the terminal nor the label session.

use std::ops::Range;

use textwrap::{Options, WordSplitter, wrap};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::Shows;
use crate::label::Pick;
use crate::text::Shown;

/// Two answers stand side by side from here on.
const WIDE: usize = 72;

/// How a piece of a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emphasis {
    Plain,
    Strong,
    Dim,
    Changed,
}

/// One row: pieces from left to right.
pub type ScreenRow = Vec<(Emphasis, String)>;

/// What may stand in place of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    Keys,
    Guidelines,
}

/// Everything that is on the screen.
#[derive(Debug, Default)]
pub struct ScreenView<'a> {
    pub question: &'a str,
    pub progress: String,
    pub item: Option<&'a Shows>,
    pub was: Option<Pick>,
    pub diff: bool,
    pub aside: Option<Aside>,
    pub guidelines: &'a str,
    /// Reasons that are offered, and those of them that are marked.
    pub reasons: &'a [String],
    pub marked: &'a [String],
    pub scroll: usize,
    pub status: &'a str,
    /// A note that is being written.
    pub note: Option<&'a str>,
    /// Where nothing is left: why, and how many pairs were skipped that could be asked again.
    pub why: Option<&'a str>,
    pub skipped: usize,
}

/// Keys, and what they do.
const KEYS: [(&str, &str); 13] = [
    ("← or 1", "answer 1 is better"),
    ("→ or 2", "answer 2 is better"),
    ("shift with ← →, ! or @", "much better"),
    ("=", "a tie"),
    ("x", "both are bad"),
    ("s", "skip: somebody else decides"),
    ("3 to 9", "mark a reason, where some are offered"),
    ("u", "take the last vote back, as often as you like"),
    ("d", "mark the words that differ"),
    ("/", "write a note"),
    ("g", "the guidelines, where there are some"),
    ("↑ ↓ page up, page down", "scroll"),
    ("q", "end; every vote is saved already"),
];

/// What was chosen, in words.
#[must_use]
pub fn words(pick: Pick) -> &'static str {
    match pick {
        Pick::LeftMuch => "1 is much better",
        Pick::Left => "1 is better",
        Pick::Tie => "a tie",
        Pick::Right => "2 is better",
        Pick::RightMuch => "2 is much better",
        Pick::BothBad => "both are bad",
        Pick::Skip => "skipped",
    }
}

/// The rows of a screen, exactly `height` of them, none wider than `width`; and how far the middle
/// can be scrolled.
#[must_use]
pub fn frame(view: &ScreenView<'_>, width: usize, height: usize) -> (Vec<ScreenRow>, usize) {
    let width = width.max(10);
    let mut rows = vec![head(view, width), vec![(Emphasis::Dim, "─".repeat(width))]];
    let body = body(view, width);
    let reasons = reasons(view, width);
    let room = height.saturating_sub(5 + reasons.len()).max(1);
    let furthest = body.len().saturating_sub(room);
    let scroll = view.scroll.min(furthest);
    let shown = body.len().min(scroll + room);
    rows.extend(body[scroll..shown].iter().cloned());
    rows.resize(2 + room, ScreenRow::new());
    rows.extend(reasons);
    rows.push(vec![(Emphasis::Dim, "─".repeat(width))]);
    let more = match furthest {
        0 => String::new(),
        _ => format!("lines {}–{shown} of {}", scroll + 1, body.len()),
    };
    rows.push(match view.note {
        Some(note) => {
            vec![(Emphasis::Strong, "note: ".into()), (Emphasis::Plain, tail(note, width - 7))]
        }
        None => ends(&plain(view.status), Emphasis::Strong, &more, width),
    });
    let keys = [
        "1 2 better · ⇧ much · = tie · x both bad · s skip · u undo · ? keys · q end",
        "1 2 = x s skip u undo d / ? keys q end",
        "1 2 = x s u d / ? q",
    ];
    let keys = match view.note {
        Some(_) => "enter keeps it · esc drops it",
        None => keys.into_iter().find(|k| k.width() <= width).unwrap_or("? keys"),
    };
    rows.push(vec![(Emphasis::Dim, cut(keys, width))]);
    rows.truncate(height);
    (rows, furthest)
}

fn head(view: &ScreenView<'_>, width: usize) -> ScreenRow {
    ends(&plain(view.question), Emphasis::Strong, &view.progress, width)
}

/// The reasons that are offered, with their keys; those that are marked stand out.
fn reasons(view: &ScreenView<'_>, width: usize) -> Vec<ScreenRow> {
    if view.item.is_none() || view.aside.is_some() {
        return Vec::new();
    }
    let mut rows: Vec<ScreenRow> = Vec::new();
    let mut used = width;
    for (key, reason) in (3..).zip(view.reasons) {
        let marked = view.marked.contains(reason);
        let look = if marked { Emphasis::Strong } else { Emphasis::Dim };
        let mark = if marked { '●' } else { '○' };
        let text = cut(&format!("{key} {mark} {}   ", plain(reason)), width);
        if used + text.width() > width {
            rows.push(ScreenRow::new());
            used = 0;
        }
        used += text.width();
        rows.last_mut().expect("invariant: a row was begun").push((look, text));
    }
    rows
}

/// One line of somebody else's words.
fn plain(text: &str) -> String {
    visible(&Shown::of(text, 500).text).replace('\n', " ")
}

/// Words on the left, words on the right; what is on the right is never cut.
fn ends(left: &str, look: Emphasis, right: &str, width: usize) -> ScreenRow {
    let right = cut(right, width);
    let left = cut(left, width.saturating_sub(right.width() + 1));
    let gap = width.saturating_sub(left.width() + right.width());
    vec![(look, left), (Emphasis::Plain, " ".repeat(gap)), (Emphasis::Dim, right)]
}

fn body(view: &ScreenView<'_>, width: usize) -> Vec<ScreenRow> {
    if view.aside == Some(Aside::Guidelines) {
        return lay(&Shown::of(view.guidelines, usize::MAX), width, Emphasis::Plain, false);
    }
    if view.aside == Some(Aside::Keys) {
        let rows = KEYS.iter().flat_map(|(key, does)| {
            if width < WIDE {
                let does = wrap(does, width - 4);
                let does = does.into_iter().map(|l| vec![(Emphasis::Plain, format!("    {l}"))]);
                return [vec![vec![(Emphasis::Strong, cut(key, width))]], does.collect()].concat();
            }
            vec![vec![
                (Emphasis::Strong, format!("  {key:<26}")),
                (Emphasis::Plain, (*does).to_owned()),
            ]]
        });
        return rows.collect();
    }
    let Some(item) = view.item else {
        let mut lines = vec![String::new(), "Nothing is left for you.".to_owned(), String::new()];
        if let Some(why) = view.why {
            lines.extend(wrap(&format!("Why: {why}."), width).into_iter().map(Into::into));
            lines.push(String::new());
        }
        lines.push(match view.skipped {
            0 => "New pairs appear here by themselves.".to_owned(),
            1 => "One pair was skipped: a asks it again.".to_owned(),
            n => format!("{n} pairs were skipped: a asks them again."),
        });
        return lines.iter().map(|l| vec![(Emphasis::Plain, cut(l, width))]).collect();
    };
    let mut rows = lay(&item.prompt, width, Emphasis::Strong, false);
    rows.push(ScreenRow::new());
    let title = |n: &str, picks: [Pick; 2]| {
        let was = view.was.filter(|pick| picks.contains(pick));
        let was = was.map_or(String::new(), |pick| format!("  (was: {})", words(pick)));
        (Emphasis::Dim, format!("── {n} ──{was}"))
    };
    let one = title("1", [Pick::Left, Pick::LeftMuch]);
    let other = title("2", [Pick::Right, Pick::RightMuch]);
    if width < WIDE {
        rows.push(vec![one]);
        rows.extend(lay(&item.one, width, Emphasis::Plain, view.diff));
        rows.extend([ScreenRow::new(), vec![other]]);
        rows.extend(lay(&item.other, width, Emphasis::Plain, view.diff));
        return rows;
    }
    let column = (width - 3) / 2;
    let mut left = vec![vec![one]];
    left.extend(lay(&item.one, column, Emphasis::Plain, view.diff));
    let mut right = vec![vec![other]];
    right.extend(lay(&item.other, column, Emphasis::Plain, view.diff));
    for i in 0..left.len().max(right.len()) {
        let mut row = left.get(i).cloned().unwrap_or_default();
        let used: usize = row.iter().map(|(_, text)| text.width()).sum();
        row.push((Emphasis::Dim, format!("{} │ ", " ".repeat(column.saturating_sub(used)))));
        row.extend(right.get(i).cloned().unwrap_or_default());
        rows.push(row);
    }
    rows
}

/// Text in rows of at most `width` columns; with `diff`, what changed is marked.
fn lay(shown: &Shown, width: usize, look: Emphasis, diff: bool) -> Vec<ScreenRow> {
    let text = &shown.text;
    let changed = if diff { shown.changed.as_slice() } else { &[] };
    let options = Options::new(width).word_splitter(WordSplitter::NoHyphenation);
    let mut rows: Vec<ScreenRow> = Vec::new();
    let mut start = 0;
    for line in text.split('\n') {
        for part in wrap(line, &options) {
            // Wrapping without hyphens only cuts: every part lies in the line.
            let from = start + (part.as_ptr() as usize - line.as_ptr() as usize);
            rows.push(pieces(text, from..from + part.len(), changed, look));
        }
        start += line.len() + 1;
    }
    if text.trim().is_empty() {
        return vec![vec![(Emphasis::Dim, cut("(nothing)", width))]];
    }
    if shown.cut {
        rows.push(vec![(Emphasis::Dim, cut("[there is more: see it on the label page]", width))]);
    }
    rows
}

fn pieces(text: &str, at: Range<usize>, changed: &[Range<usize>], look: Emphasis) -> ScreenRow {
    let mut row = ScreenRow::new();
    let mut from = at.start;
    for range in changed.iter().filter(|r| r.start < at.end && r.end > at.start) {
        let (start, end) = (range.start.max(at.start), range.end.min(at.end));
        row.push((look, visible(&text[from..start])));
        row.push((Emphasis::Changed, visible(&text[start..end])));
        from = end;
    }
    row.push((look, visible(&text[from..at.end])));
    row.retain(|(_, text)| !text.is_empty());
    row
}

/// Joints of emoji are left out: terminals disagree on how wide the joined ones are.
fn visible(text: &str) -> String {
    text.chars().filter(|c| !['\u{200d}', '\u{fe0f}'].contains(c)).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    if width == 0 {
        return String::new();
    }
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The end of what is being written.
fn tail(text: &str, width: usize) -> String {
    let skip = text.chars().count().saturating_sub(width / 2);
    let all = visible(&Shown::of(text, usize::MAX).text);
    if all.width() <= width { all } else { text.chars().skip(skip).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(one: &str, other: &str) -> Shows {
        Shows::of("What is it?\n  indented", one, other)
    }

    fn text(rows: &[ScreenRow]) -> Vec<String> {
        let row = |row: &ScreenRow| row.iter().map(|(_, text)| text.as_str()).collect::<String>();
        rows.iter().map(|r| row(r).trim_end().to_owned()).collect()
    }

    #[test]
    fn rows_fill_the_screen_and_none_is_wider() {
        let long = "word ".repeat(300) + &"x".repeat(500) + " 日本語".repeat(100).as_str();
        let hostile = "\u{1b}[2J\u{202e}a\u{200b}\tb\r\u{9b}31m 👩\u{200d}👧 ❤\u{fe0f}";
        let reasons: Vec<String> =
            ["wrong facts", "rude", hostile, "日本語"].map(Into::into).into();
        for (width, height) in [(80, 24), (40, 20), (10, 6), (200, 60), (72, 5)] {
            for (one, other) in [("a", "b"), (long.as_str(), hostile), ("", "\n\n\n")] {
                let item = item(one, other);
                for (diff, aside, note) in [
                    (false, None, None),
                    (true, None, Some(long.as_str())),
                    (false, Some(Aside::Keys), None),
                    (true, Some(Aside::Guidelines), None),
                ] {
                    let view = ScreenView {
                        question: &long,
                        progress: "1 of 9".into(),
                        item: Some(&item),
                        diff,
                        aside,
                        guidelines: &long,
                        reasons: &reasons,
                        marked: &reasons[1..],
                        note,
                        status: hostile,
                        scroll: 3,
                        ..ScreenView::default()
                    };
                    let (rows, _) = frame(&view, width, height);
                    assert_eq!(rows.len(), height);
                    for row in text(&rows) {
                        assert!(row.width() <= width, "{width}: {row}");
                        assert!(!row.chars().any(crate::text::hides), "{row:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn side_by_side_where_there_is_room_and_below_each_other_elsewhere() {
        let item = item("the red cat", "the blue cat");
        let view = ScreenView {
            question: "Which?",
            progress: "3 of 9 votes".into(),
            item: Some(&item),
            was: Some(Pick::RightMuch),
            diff: true,
            status: "saved",
            ..ScreenView::default()
        };
        let (rows, furthest) = frame(&view, 80, 12);
        assert_eq!(furthest, 0);
        let wide = text(&rows);
        assert!(wide[0].starts_with("Which?") && wide[0].ends_with("3 of 9 votes"));
        assert_eq!(wide[3], "  indented");
        assert!(wide[6].starts_with("the red cat"), "{wide:?}");
        assert!(wide[6].ends_with("│ the blue cat"));
        assert!(wide[5].ends_with("── 2 ──  (was: 2 is much better)"));
        assert!(rows[6].contains(&(Emphasis::Changed, "red".into())));
        assert!(rows[6].contains(&(Emphasis::Changed, "blue".into())));
        let narrow = text(&frame(&view, 40, 20).0);
        assert_eq!(narrow[6], "the red cat");
        assert_eq!(narrow[9], "the blue cat");
    }

    #[test]
    fn every_line_of_a_long_text_can_be_reached() {
        let numbers: String = (0..100).map(|i| format!("line {i}\n")).collect();
        let item = item(&numbers, "short");
        let mut seen = String::new();
        let mut view = ScreenView { item: Some(&item), ..ScreenView::default() };
        let furthest = frame(&view, 40, 12).1;
        for scroll in 0..=furthest {
            view.scroll = scroll;
            seen += &text(&frame(&view, 40, 12).0).join("\n");
        }
        assert!((0..100).all(|i| seen.contains(&format!("line {i}\n"))));
        assert!(seen.contains("short"));
    }
}
