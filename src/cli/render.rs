//! Diagnostics for people: snippet, caret, remedy.
//! Does not decide what is wrong.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::cli::failure::Failure;
use crate::diagnostic::Diagnostic;
use crate::report::{Look, clean};

/// Longer than this and a line is shown in part.
const WIDTH: usize = 140;

/// All problems, one block each, a blank line between them.
#[must_use]
pub fn diagnostics(problems: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(WIDTH);
    let mut out = String::new();
    for problem in problems {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&renderer.render(&[group(problem)]));
        out.push('\n');
    }
    out
}

fn group(problem: &Diagnostic) -> Group<'_> {
    let mut group = Level::ERROR.primary_title(problem.message.as_str()).elements(
        problem.span.iter().map(|span| {
            let text = span.source.text.as_str();
            let start = span.range.start.min(text.len());
            let end = span.range.end.clamp(start, text.len());
            Snippet::source(text)
                .path(span.source.name.as_str())
                .annotation(AnnotationKind::Primary.span(start..end).label(problem.label.as_str()))
        }),
    );
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// Why a verb could not do its work, with the remedy.
#[must_use]
pub fn failure(failure: &Failure, look: Look) -> String {
    let message = match failure {
        Failure::Diagnostics(problems) => return diagnostics(problems, look.colour),
        Failure::Usage { message, .. } | Failure::System { message, .. } => message.clone(),
        Failure::Store(error) => error.to_string(),
        Failure::Remote(error) => error.to_string(),
    };
    let mut text = format!("{} {}\n", look.paint("1;31", "error:"), clean(&message));
    if let Some(help) = failure.remedy() {
        text.push_str(&format!("  = help: {help}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{SourceText, Span};

    fn problem(text: &str, at: &str) -> Diagnostic {
        let start = text.find(at).unwrap();
        let source =
            SourceText { name: "pipelines/workshop.yaml".to_owned(), text: text.to_owned() };
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
    fn colour_only_when_told_and_nothing_of_the_file_reaches_the_terminal_raw() {
        let text = "a: \u{1b}[31mred patern\n";
        let plain = diagnostics(&[problem(text, "patern")], false);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        assert!(diagnostics(&[problem(text, "patern")], true).contains('\u{1b}'));
    }
}
