//! Numbers as people read them: in terminals and logs with plain signs, on pages with a true minus
//! and spaces that do not break. Does not know what they measure.

/// A figure in a terminal or a log, with the digits that count: `4`, `0.821`, `1.50e-5`.
#[must_use]
pub fn figure(x: f64) -> String {
    let size = x.abs();
    if x.fract() == 0.0 && size < 1e7 {
        format!("{x:.0}")
    } else if !(1e-3..1e5).contains(&size) {
        format!("{x:.2e}")
    } else if size >= 100.0 {
        format!("{x:.1}")
    } else {
        format!("{x:.3}")
    }
}

/// A figure on a page, in four digits or fewer: `0.821`, `12.3`, `4.2k`, `1.5e−5`.
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

/// A number on an axis, exact enough that neighbours differ.
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

/// A figure among others on a page: two places behind the point, so that they line up.
#[must_use]
pub fn two_places(value: f64) -> String {
    if value.is_finite() && value.abs() < 100.0 {
        let text = format!("{value:.2}");
        if text == "-0.00" { "0.00".to_owned() } else { text.replace('-', "−") }
    } else {
        number(value)
    }
}

/// A figure on a page without places behind the point.
#[must_use]
pub fn rounded(value: f64) -> String {
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

/// A share on a page: `71 %`, `99.4 %`, with a space that does not break.
#[must_use]
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value > 99.0 && value < 100.0 || value > 0.0 && value < 1.0 {
        format!("{value:.1}\u{202f}%")
    } else {
        format!("{value:.0}\u{202f}%")
    }
}

/// A whole number with its thousands apart: `1,954`.
#[must_use]
pub fn whole(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 stage`, `2 stages`.
#[must_use]
pub fn counted<N: PartialEq + From<u8> + std::fmt::Display>(n: N, what: &str) -> String {
    if n == N::from(1) { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.82141, -0.5, 1.0, 12.34, 123.0, 1234.0, 12_345.0, 1.5e-5, 3e9, -0.0];
        let shown: Vec<String> = numbers.iter().map(|n| number(*n)).collect();
        insta::assert_snapshot!(shown.join(" "), @"0 0.821 −0.5 1 12.3 123 1234 12.3k 1.5e−5 3e9 0");
        insta::assert_snapshot!([0.0, 0.004, 0.5, 0.714, 0.996, 1.0].map(percent).join("|").replace('\u{202f}', "_"), @"0_%|0.4_%|50_%|71_%|99.6_%|100_%");
        assert_eq!([7, 954, 1100, 1_234_567].map(whole), ["7", "954", "1,100", "1,234,567"]);
        assert_eq!([counted(1_u64, "pair"), counted(0_usize, "pair")], ["1 pair", "0 pairs"]);
    }
}
