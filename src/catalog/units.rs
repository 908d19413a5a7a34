//! Typed units: `400k`, `2%`, `30s`, `4GiB` to numbers.
//! Does not know where in a file they stand.

use thiserror::Error;

/// What a number counts: the values of the schema keyword `x-unit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Fraction,
    Seconds,
    Bytes,
}

/// One suffix: a shift of the decimal point, or a whole factor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    Ten(i32),
    Times(u64),
}

const COUNT: &[(&str, Scale)] =
    &[("k", Scale::Ten(3)), ("M", Scale::Ten(6)), ("G", Scale::Ten(9)), ("T", Scale::Ten(12))];
const FRACTION: &[(&str, Scale)] = &[("%", Scale::Ten(-2))];
const SECONDS: &[(&str, Scale)] = &[
    ("ms", Scale::Ten(-3)),
    ("s", Scale::Ten(0)),
    ("m", Scale::Times(60)),
    ("h", Scale::Times(3600)),
    ("d", Scale::Times(86_400)),
];
const BYTES: &[(&str, Scale)] = &[
    ("B", Scale::Ten(0)),
    ("kB", Scale::Ten(3)),
    ("MB", Scale::Ten(6)),
    ("GB", Scale::Ten(9)),
    ("TB", Scale::Ten(12)),
    ("KiB", Scale::Times(1 << 10)),
    ("MiB", Scale::Times(1 << 20)),
    ("GiB", Scale::Times(1 << 30)),
    ("TiB", Scale::Times(1 << 40)),
];

/// Why a text is not a number with a unit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("not a number")]
    NotANumber,
    #[error("unit `{0}` does not fit")]
    Misfit(String),
}

impl Unit {
    /// The unit that a schema names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "count" => Some(Self::Count),
            "fraction" => Some(Self::Fraction),
            "seconds" => Some(Self::Seconds),
            "bytes" => Some(Self::Bytes),
            _ => None,
        }
    }

    /// Which units fit, for messages.
    #[must_use]
    pub fn fitting(self) -> &'static str {
        match self {
            Self::Count => "counts take k, M, G or T, as in `400k`",
            Self::Fraction => "fractions take %, as in `2%`",
            Self::Seconds => "durations take ms, s, m, h or d, as in `30s`",
            Self::Bytes => "sizes take KiB, MiB, GiB, TiB, kB, MB, GB or TB, as in `4GiB`",
        }
    }

    /// What such a text looks like, as a regular expression.
    #[must_use]
    pub fn pattern(self) -> String {
        let suffixes: Vec<&str> = self.suffixes().iter().map(|(s, _)| *s).collect();
        format!(r"^[+-]?[0-9]+(\.[0-9]+)?({})$", suffixes.join("|"))
    }

    fn suffixes(self) -> &'static [(&'static str, Scale)] {
        match self {
            Self::Count => COUNT,
            Self::Fraction => FRACTION,
            Self::Seconds => SECONDS,
            Self::Bytes => BYTES,
        }
    }

    /// The number behind `text`. Exact: decimal units move the point in the text itself.
    pub fn parse(self, text: &str) -> Result<f64, UnitError> {
        let (digits, suffix) = split(text).ok_or(UnitError::NotANumber)?;
        let scale = self
            .suffixes()
            .iter()
            .find(|(s, _)| *s == suffix)
            .ok_or_else(|| UnitError::Misfit(suffix.to_owned()))?;
        let number = match scale.1 {
            Scale::Ten(power) => format!("{digits}e{power}").parse::<f64>(),
            Scale::Times(factor) => digits.parse::<f64>().map(|n| n * factor as f64),
        };
        number.ok().filter(|n| n.is_finite()).ok_or(UnitError::NotANumber)
    }
}

/// Digits and suffix of a text that is a number with letters behind it.
#[must_use]
pub fn split(text: &str) -> Option<(&str, &str)> {
    let end = text
        .char_indices()
        .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && "+-".contains(*c))))
        .map(|(i, _)| i)?;
    let (digits, suffix) = text.split_at(end);
    let plain = digits.trim_start_matches(['+', '-']);
    let shaped = plain.starts_with(|c: char| c.is_ascii_digit())
        && plain.ends_with(|c: char| c.is_ascii_digit())
        && plain.matches('.').count() <= 1;
    let letters = suffix == "%" || suffix.chars().all(|c| c.is_ascii_alphabetic());
    (shaped && letters && suffix.len() <= 4).then_some((digits, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_exact() {
        for (unit, text, number) in [
            (Unit::Count, "400k", 400_000.0),
            (Unit::Count, "1.5M", 1_500_000.0),
            (Unit::Count, "3G", 3e9),
            (Unit::Fraction, "2%", 0.02),
            (Unit::Fraction, "0.1%", 0.001),
            (Unit::Fraction, "33.3%", 0.333),
            (Unit::Seconds, "250ms", 0.25),
            (Unit::Seconds, "30s", 30.0),
            (Unit::Seconds, "1.5h", 5400.0),
            (Unit::Bytes, "4GiB", 4_294_967_296.0),
            (Unit::Bytes, "2kB", 2000.0),
        ] {
            assert_eq!(unit.parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn misfits_are_named() {
        assert_eq!(Unit::Count.parse("5s"), Err(UnitError::Misfit("s".into())));
        assert_eq!(Unit::Seconds.parse("5M"), Err(UnitError::Misfit("M".into())));
        for text in ["", "k", "5 k", "1.2.3k", "five", "5", "1e5k", "-", "٣k"] {
            assert_eq!(Unit::Count.parse(text), Err(UnitError::NotANumber), "{text}");
        }
    }
}
