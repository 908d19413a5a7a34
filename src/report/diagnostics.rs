//! Diagnostics for people: snippet, caret, remedy.
//! Does not decide what is wrong.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Span};
use crate::text;

/// Longer than this and a line is shown in part.
const WIDTH: usize = 140;
/// Bytes of the text around a problem that are looked at, at most.
const AROUND: usize = 4096;
/// Bytes before it, where its line is longer.
const BEFORE: usize = 400;
/// Bytes that carets may stand under, there.
const COVERED: usize = 200;
/// Problems that are shown; whoever mends a file begins with the first ones.
pub const SHOWN: usize = 20;

/// The first problems, one block each, a blank line between them, and how many more there are.
#[must_use]
pub fn diagnostics(problems: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(WIDTH);
    let mut out = String::new();
    for problem in problems.iter().take(SHOWN) {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&renderer.render(&[group(problem)]));
        out.push('\n');
    }
    if problems.len() > SHOWN {
        let more = text::whole((problems.len() - SHOWN) as u64);
        out.push_str(&format!("\n… and {more} more; `preflow check FILE --json` lists them\n"));
    }
    out
}

fn group(problem: &Diagnostic) -> Group<'_> {
    let mut group = Group::with_title(Level::ERROR.primary_title(problem.message.as_str()));
    if let Some(span) = &problem.span {
        let (line, column) = span.line_column();
        let (window, covered) = window(span);
        let name = span.source.name.as_str();
        let whole = window.start == span.source.line(window.start).1;
        let snippet = Snippet::source(&span.source.text[window]).line_start(line);
        let caret = AnnotationKind::Primary.span(covered).label(problem.label.as_str());
        // A snippet counts columns from where it starts.
        group = match whole {
            true => group.element(snippet.path(name).annotation(caret)),
            false => group
                .element(Origin::path(name).line(line).char_column(column))
                .element(snippet.annotation(caret)),
        };
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The lines around a problem, or where they are long a part of them, and what the problem covers
/// there: the renderer reads all of the text that it is given.
fn window(span: &Span) -> (Range<usize>, Range<usize>) {
    let text = span.source.text.as_str();
    let start = text.floor_char_boundary(span.range.start.min(text.len()));
    let end = text.floor_char_boundary(span.range.end.clamp(start, text.len()));
    let (_, first) = span.source.line(start);
    let last = span.source.line_end(end);
    if last - first <= AROUND {
        return (first..last, start - first..end - first);
    }
    let line_end = span.source.line_end(start);
    let first = first.max(text.floor_char_boundary(start.saturating_sub(BEFORE)));
    let end = text.floor_char_boundary(end.min(start + COVERED)).min(line_end);
    let last = text.floor_char_boundary(line_end.min(first + AROUND));
    (first..last, start - first..end - first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{SourceText, Span};

    fn problem(text: &str, at: &str) -> Diagnostic {
        let start = text.find(at).unwrap();
        let source = SourceText::new("pipelines/workshop.yaml", text);
        let span = Span { source: Arc::new(source), range: start..start + at.len() };
        Diagnostic::new("unknown field `patern` in stage `train`", Some(span))
            .label("did you mean `pattern`?")
            .help("`preflow kinds train` lists all fields")
    }

    #[test]
    fn a_caret_stands_under_what_is_wrong() {
        let text = "stages:\n  train:\n    patern: 5\n";
        insta::assert_snapshot!(diagnostics(&[problem(text, "patern")], false), @r#"
    error: unknown field `patern` in stage `train`
     --> pipelines/workshop.yaml:3:5
      |
    3 |     patern: 5
      |     ^^^^^^ did you mean `pattern`?
      |
      = help: `preflow kinds train` lists all fields
    "#);
    }

    #[test]
    fn wide_characters_do_not_move_the_caret() {
        let text = "a: { 名前: '日本🦀', patern: 1 } # ünïcode\n";
        insta::assert_snapshot!(diagnostics(&[problem(text, "patern")], false), @r#"
    error: unknown field `patern` in stage `train`
     --> pipelines/workshop.yaml:1:17
      |
    1 | a: { 名前: '日本🦀', patern: 1 } # ünïcode
      |                      ^^^^^^ did you mean `pattern`?
      |
      = help: `preflow kinds train` lists all fields
    "#);
    }

    #[test]
    fn a_problem_without_a_place_is_one_line() {
        let problem =
            Diagnostic::new("unknown profile `smoek`", None).help("did you mean `smoke`?");
        insta::assert_snapshot!(diagnostics(&[problem], false), @r#"
    error: unknown profile `smoek`
     |
     = help: did you mean `smoke`?
    "#);
    }

    #[test]
    fn the_first_problems_are_shown_and_the_others_counted() {
        let text = "a: { patern: 1 }\n".repeat(20_000);
        let source = Arc::new(SourceText::new("p.yaml", text.as_str()));
        let at = |n: usize| Span { source: Arc::clone(&source), range: n * 17 + 5..n * 17 + 11 };
        let all: Vec<_> = (0..20_000).map(|n| Diagnostic::new("unknown", Some(at(n)))).collect();
        let shown = diagnostics(&all, false);
        assert_eq!(shown.matches("error: unknown").count(), SHOWN);
        assert!(shown.contains("--> p.yaml:20:6"), "{shown}");
        let end = "… and 19,980 more; `preflow check FILE --json` lists them\n";
        assert!(shown.ends_with(end), "{shown}");
        assert!(!diagnostics(&all[..SHOWN], false).contains("more"));
    }

    #[test]
    fn of_a_long_line_a_part_is_shown_with_its_true_place() {
        let text =
            format!("x: 1\na: {{ b: '{}', patern: {} }}\n", "é".repeat(9000), "c".repeat(9000));
        let problem = problem(&text, "patern");
        let shown = diagnostics(&[problem], false);
        assert!(shown.contains("--> pipelines/workshop.yaml:2:9013\n"), "{shown}");
        assert!(shown.contains("patern"), "{shown}");
        assert!(shown.len() < 2000, "{}", shown.len());
    }

    #[test]
    fn what_covers_much_is_shown_by_its_first_line() {
        let list = format!("  kind:\n{}", "    - x\n".repeat(9000));
        let text = format!("stages:\n{list}");
        let shown = diagnostics(&[problem(&text, &list[2..])], false);
        assert!(shown.contains("--> pipelines/workshop.yaml:2:3\n"), "{shown}");
        assert!(shown.contains("2 |   kind:\n"), "{shown}");
        assert!(shown.len() < 2000, "{}", shown.len());
        for text in ["", "é", "é\n", "\n\n"] {
            let source = Arc::new(SourceText::new("p.yaml", text));
            for range in [0..0, 0..99, text.len()..text.len(), 1..1] {
                let span = Span { source: Arc::clone(&source), range };
                assert!(
                    diagnostics(&[Diagnostic::new("x", Some(span))], false).contains("p.yaml:")
                );
            }
        }
    }

    #[test]
    fn colour_only_when_told_and_nothing_of_the_file_reaches_the_terminal_raw() {
        let text = "a: \u{1b}[31mred patern\n";
        let plain = diagnostics(&[problem(text, "patern")], false);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        assert!(diagnostics(&[problem(text, "patern")], true).contains('\u{1b}'));
    }
}
