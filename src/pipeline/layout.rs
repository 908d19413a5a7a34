//! What is wrong with the layout of a document that the YAML parser refuses: the usual slips, in
//! words. Does not know what the document is for; guesses nothing that it does not see.

use std::ops::Range;

/// A slip, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slip {
    pub message: String,
    /// Bytes of the document.
    pub range: Range<usize>,
    pub help: String,
}

/// The slip behind an error of the parser at byte `at`; `None`: it is none of the usual ones.
pub fn slip(text: &str, at: usize) -> Option<Slip> {
    let at = at.min(text.len());
    let row = text[..at].matches('\n').count();
    let lines = Lines::of(text);
    tab(&lines, row)
        .or_else(|| bad_start(text, at))
        .or_else(|| in_brackets(text, at))
        .or_else(|| second_colon(&lines, row, at))
        .or_else(|| no_colon(&lines, row))
        .or_else(|| indentation(&lines, row))
}

/// Lines, each with the byte that it begins at.
struct Lines<'a>(Vec<(usize, &'a str)>);

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let mut start = 0;
        let lines = text.split('\n').map(|line| {
            let at = start;
            start += line.len() + 1;
            (at, line.trim_end_matches('\r'))
        });
        Self(lines.collect())
    }

    fn get(&self, row: usize) -> Option<(usize, &'a str)> {
        self.0.get(row).copied()
    }

    /// Lines before a row that hold something, the nearest first.
    fn before(&self, row: usize) -> impl Iterator<Item = (usize, &'a str)> {
        let filled = |line: &&(usize, &str)| {
            let line = line.1.trim_start();
            !line.is_empty() && !line.starts_with('#')
        };
        self.0[..row.min(self.0.len())].iter().rev().filter(filled).copied()
    }
}

fn blanks(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Quoted, as one would type it.
fn quoted(text: &str) -> String {
    let text = text.trim();
    match text.contains('"') {
        true => format!("'{}'", text.replace('\'', "''")),
        false => format!("\"{text}\""),
    }
}

fn tab(lines: &Lines, row: usize) -> Option<Slip> {
    [row, row + 1].into_iter().find_map(|row| {
        let (start, line) = lines.get(row)?;
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        let tab = start + line[..indent].find('\t')?;
        Some(Slip {
            message: "a tab in the indentation".to_owned(),
            range: tab..tab + 1,
            help: "indent with spaces".to_owned(),
        })
    })
}

/// A value that begins with a sign that YAML keeps for itself.
fn bad_start(text: &str, at: usize) -> Option<Slip> {
    let sign = text[at..].chars().next().filter(|c| "@`%".contains(*c))?;
    let end = text[at..].find([',', '}', ']', '\n']).map_or(text.len(), |n| at + n);
    Some(Slip {
        message: format!("a value cannot begin with `{sign}`"),
        range: at..at + 1,
        help: format!("quote it: {}", quoted(&text[at..end])),
    })
}

/// The innermost bracket that is open at byte `at`.
fn open_bracket(text: &str, at: usize) -> Option<usize> {
    let (mut open, mut quote, mut last) = (Vec::new(), None, '\n');
    let mut chars = text[..at].char_indices();
    while let Some((i, c)) = chars.next() {
        match (quote, c) {
            (Some('"'), '\\') => drop(chars.next()),
            (Some(sign), _) if sign == c => quote = None,
            (Some(_), _) => {}
            (None, '#') if last.is_whitespace() => {
                // A comment holds no brackets.
                for (_, c) in chars.by_ref() {
                    if c == '\n' {
                        break;
                    }
                }
                last = '\n';
                continue;
            }
            (None, '"' | '\'') if !last.is_alphanumeric() => quote = Some(c),
            (None, '{' | '[') if !open.is_empty() || " \t\n:-".contains(last) => open.push(i),
            (None, '}' | ']') => drop(open.pop()),
            _ => {}
        }
        last = c;
    }
    open.pop()
}

fn in_brackets(text: &str, at: usize) -> Option<Slip> {
    let open = open_bracket(text, at)?;
    if text[open..at].contains('\n') {
        let (sign, end) = if text[open..].starts_with('{') { ('{', '}') } else { ('[', ']') };
        return Some(Slip {
            message: format!("`{sign}` is not closed"),
            range: open..open + 1,
            help: format!("it ends with `{end}`; a text that holds a bracket or `: ` is quoted"),
        });
    }
    let colon = text[at..].starts_with(": ") || text[at..].starts_with(":\n");
    let start = text[..at].rfind([',', '{', '[']).map_or(0, |n| n + 1);
    let end = text[at..].find([',', '}', ']', '\n']).map_or(text.len(), |n| at + n);
    let (name, value) = text[start..end].split_once(": ").filter(|_| colon)?;
    Some(holds_a_colon(at, name, value))
}

fn holds_a_colon(at: usize, name: &str, value: &str) -> Slip {
    Slip {
        message: "a value that is not quoted holds `: `".to_owned(),
        range: at..at + 1,
        help: format!("quote it: {}: {}", name.trim().trim_start_matches("- "), quoted(value)),
    }
}

/// `name: a: b`.
fn second_colon(lines: &Lines, row: usize, at: usize) -> Option<Slip> {
    let (start, line) = lines.get(row)?;
    let here = at.checked_sub(start)?;
    if !line.get(here..)?.starts_with(':') {
        return None;
    }
    let (name, _) = line[..here].split_once(": ")?;
    Some(holds_a_colon(at, name, &line[name.len() + 2..]))
}

/// The line before is a name without a colon.
fn no_colon(lines: &Lines, row: usize) -> Option<Slip> {
    let (start, line) = lines.before(row).next()?;
    let (_, now) = lines.get(row)?;
    let said = line.trim();
    let is_value =
        said.contains(':') || said.starts_with(['-', '"', '\'', '|', '>', '?', '&', '*', '!']);
    if is_value || blanks(line) != blanks(now) || !now.contains(':') {
        return None;
    }
    let begin = start + blanks(line);
    let (name, value) = said.split_once(' ').unwrap_or((said, "…"));
    Some(Slip {
        message: "no colon after a name".to_owned(),
        range: begin..begin + name.len(),
        help: format!("`{name}: {value}`: a value follows `: `"),
    })
}

/// A line that stands between the columns in which the lines before it begin.
fn indentation(lines: &Lines, row: usize) -> Option<Slip> {
    let (start, line) = lines.get(row)?;
    if line.trim().is_empty() {
        return None;
    }
    let own = blanks(line);
    let mut columns: Vec<usize> = Vec::new();
    let before: Vec<(usize, &str)> = lines.before(row).collect();
    for (_, line) in before.iter().rev() {
        let mut column = blanks(line);
        columns.retain(|c| *c <= column);
        columns.push(column);
        // What follows a dash begins a column of its own.
        let mut rest = &line[column..];
        while let Some(inner) = rest.strip_prefix("- ") {
            column += 2 + blanks(inner);
            rest = inner.trim_start_matches(' ');
            columns.push(column);
        }
    }
    columns.sort_unstable();
    columns.dedup();
    // Deeper than a line that has its value already.
    let last = before.first().map(|(_, line)| line.trim_end())?;
    let is_whole = last.contains(": ") && !last.ends_with(['|', '>', ':']);
    let is_between = !columns.contains(&own) && columns.last().is_some_and(|c| *c > own);
    let is_deeper = is_whole && columns.last().is_some_and(|c| own > *c);
    if !is_between && !is_deeper {
        return None;
    }
    let below = columns.iter().rev().find(|c| **c < own);
    let above = columns.iter().find(|c| **c > own);
    let near: Vec<String> = below.into_iter().chain(above).map(ToString::to_string).collect();
    Some(Slip {
        message: format!("indented by {own}, its neighbours by {}", near.join(" and ")),
        range: start + own..start + line.len(),
        help: "names of one map begin in one column".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slip at the place that `^` marks in the document, which the parser does not see.
    fn told(marked: &str) -> Option<(String, String)> {
        let at = marked.find('^').expect("a mark");
        let text = marked.replacen('^', "", 1);
        slip(&text, at).map(|slip| {
            assert!(text.get(slip.range.clone()).is_some(), "{slip:?}");
            (slip.message, slip.help)
        })
    }

    #[test]
    fn the_usual_slips_are_told_in_words() {
        for (marked, message, help) in [
            (
                "stages:\n  a:\n    kind: tokenizer\n   ^text: b\n",
                "indented by 3, its neighbours by 2 and 4",
                "names of one map begin in one column",
            ),
            (
                "stages:\n  a:\n    kind: tokenizer\n     text^: b\n",
                "indented by 5, its neighbours by 4",
                "names of one map begin in one column",
            ),
            ("stages:\n  a:^\n\tkind: sft\n", "a tab in the indentation", "indent with spaces"),
            (
                "name: tiny^: x\n",
                "a value that is not quoted holds `: `",
                "quote it: name: \"tiny: x\"",
            ),
            (
                "a: { kind: command, note: see^: \"this\" }\n",
                "a value that is not quoted holds `: `",
                "quote it: note: 'see: \"this\"'",
            ),
            (
                "a: { kind: sft, # }\n  model: b\n^c: { kind: sft }\n",
                "`{` is not closed",
                "it ends with `}`; a text that holds a bracket or `: ` is quoted",
            ),
            ("params: { seed: ^@x }\n", "a value cannot begin with `@`", "quote it: \"@x\""),
            (
                "params:\n  seed 3\n  b^: 2\n",
                "no colon after a name",
                "`seed: 3`: a value follows `: `",
            ),
        ] {
            let right = Some((message.to_owned(), help.to_owned()));
            assert_eq!(told(marked), right, "{marked}");
        }
    }

    #[test]
    fn what_is_no_usual_slip_is_left_to_the_parser() {
        for marked in ["a: \"x\n^b: 1\n", "a: b\n^? c\n", "^", "a:\n  - b\n^c: 1\n", "é: ü\n  ^"]
        {
            assert_eq!(told(marked), None, "{marked}");
        }
    }
}
