//! Words and numbers for the page; text of models made harmless and visible.
//! Does not know where they appear.

use maud::{Markup, PreEscaped, Render, html};

use crate::label::text::{hides, picture};

/// Longest text of a model that is shown in full.
const LONGEST: usize = 4000;

/// Text that someone else wrote: escaped, with characters that hide or reorder made visible.
#[must_use]
pub fn visible(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            run.push_str(" […]");
            break;
        }
        if hides(c) {
            run.as_str().render_to(&mut out);
            run.clear();
            let name = format!("U+{:04X}", c as u32);
            html! { span.hidden title=(name) { (picture(c)) } }.render_to(&mut out);
        } else {
            run.push(c);
        }
    }
    run.as_str().render_to(&mut out);
    PreEscaped(out)
}

/// What somebody said, as a paragraph; nothing says so.
#[must_use]
pub fn said(text: &str) -> Markup {
    html! {
        @if text.trim().is_empty() { p.said.dim { "(nothing)" } }
        @else { p.said dir="auto" { (visible(text)) } }
    }
}

/// The same where no markup can be: a title, an SVG description.
#[must_use]
pub fn plain(text: &str) -> String {
    let shown = |c: char| if hides(c) { picture(c) } else { c.to_string() };
    text.chars().take(LONGEST).map(shown).collect()
}

/// Four figures or fewer: `0.8214`, `12.3`, `4.2k`, `1.5e-5`.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if !value.is_finite() => return "–".to_owned(),
        0.0 => return "0".to_owned(),
        s if !(0.001..1e7).contains(&s) => return scientific(value),
        s if s < 1.0 => format!("{value:.3}"),
        s if s < 10.0 => format!("{value:.2}"),
        s if s < 1000.0 => format!("{value:.1}"),
        s if s < 10_000.0 => format!("{value:.0}"),
        s if s < 1e6 => return format!("{}k", trimmed(&format!("{:.1}", value / 1e3))),
        _ => return format!("{}M", trimmed(&format!("{:.1}", value / 1e6))),
    };
    trimmed(&text).replace('-', "−")
}

/// On an axis: exact enough that neighbours differ.
#[must_use]
pub fn tick(value: f64) -> String {
    match value.abs() {
        s if s < 1e-12 => "0".to_owned(),
        s if s < 1e-4 => scientific(value),
        s if s < 1.0 => trimmed(&format!("{value:.4}")).replace('-', "−"),
        s if s < 100.0 => trimmed(&format!("{value:.2}")).replace('-', "−"),
        _ => number(value),
    }
}

fn scientific(value: f64) -> String {
    format!("{value:.1e}").replace(".0e", "e").replace('-', "−")
}

/// A figure among others: two places behind the point, so that they line up.
#[must_use]
pub fn figure(value: f64) -> String {
    if value.is_finite() && value.abs() < 100.0 {
        let text = format!("{value:.2}");
        if text == "-0.00" { "0.00".to_owned() } else { text.replace('-', "−") }
    } else {
        number(value)
    }
}

/// Without places behind the point.
#[must_use]
pub fn figure_whole(value: f64) -> String {
    let text = format!("{value:.0}");
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}

fn trimmed(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

/// `71 %`, `99.4 %`, with a space that does not break.
#[must_use]
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value > 99.0 && value < 100.0 || value > 0.0 && value < 1.0 {
        format!("{value:.1}\u{202f}%")
    } else {
        format!("{value:.0}\u{202f}%")
    }
}

/// `0.4 s`, `34 s`, `1 m 10 s`, `2 h 05 m`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if !seconds.is_finite() || seconds < 0.0 => "–".to_owned(),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..=99 => format!("{whole} s"),
        100..=3599 => format!("{} m {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} m", whole / 3600, whole % 3600 / 60),
    }
}

/// `1 stage`, `8 stages`.
#[must_use]
pub fn counted(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

/// `win_rate` → `win rate`.
#[must_use]
pub fn spaced(name: &str) -> String {
    plain(name).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_in_a_text() {
        let shown = visible("a<b>&\"\u{202e}x\u{0}\u{1b}[31m\u{200b}\u{e0041}\nb").into_string();
        assert!(shown.starts_with("a&lt;b&gt;&amp;&quot;"), "{shown}");
        for part in ["⟨202E⟩", "␀", "␛", "⟨200B⟩", "⟨E0041⟩", "title=\"U+202E\"", "\nb"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains(['\u{202e}', '\u{0}', '\u{1b}', '\u{200b}']));
        assert!(visible(&"x".repeat(9999)).into_string().len() < 4100);
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.82141, -0.5, 1.0, 12.34, 123.0, 1234.0, 12_345.0, 1.5e-5, 3e9, -0.0];
        let shown: Vec<String> = numbers.iter().map(|n| number(*n)).collect();
        insta::assert_snapshot!(shown.join(" "), @"0 0.821 −0.5 1 12.3 123 1234 12.3k 1.5e−5 3e9 0");
        let times = [0.04, 9.0, 34.2, 99.4, 130.0, 7500.0].map(duration);
        insta::assert_snapshot!(times.join(" | "), @"0.0 s | 9.0 s | 34 s | 99 s | 2 m 10 s | 2 h 05 m");
        insta::assert_snapshot!([0.0, 0.004, 0.5, 0.714, 0.996, 1.0].map(percent).join("|").replace('\u{202f}', "_"), @"0_%|0.4_%|50_%|71_%|99.6_%|100_%");
    }
}
