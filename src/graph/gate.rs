//! Gates: what a stage's figures must be before anything that depends on it runs.
//! Never part of an identity; does not know when a stage has run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Span, named};
use crate::pipeline::{Node, NodeValue};

/// Figures that a stage reports when it is done; `None`: not a finite number.
pub type Figures = BTreeMap<String, Option<f64>>;

/// How a figure is compared with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = ">")]
    Above,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = "<")]
    Below,
}

/// One condition of a gate: `figure: ">= 0.62"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Name of the figure in the stage's summary.
    pub figure: String,
    pub comparison: Comparison,
    pub bound: f64,
}

/// A condition that is not met, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unmet {
    pub condition: Condition,
    pub found: Found,
}

/// What the stage reported in place of what the gate wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    Value(f64),
    /// The figure is not a finite number.
    NotFinite,
    /// The stage reports no such figure, but these: the gate itself is wrong.
    Unknown(Vec<String>),
}

const COMPARISONS: [(&str, Comparison); 4] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

const HELP: &str = "gate: { FIGURE: \">= NUMBER\" }, with >=, >, <= or <";

impl Comparison {
    fn text(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::Above => ">",
            Self::AtMost => "<=",
            Self::Below => "<",
        }
    }

    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::AtLeast => value >= bound,
            Self::Above => value > bound,
            Self::AtMost => value <= bound,
            Self::Below => value < bound,
        }
    }
}

impl Condition {
    /// As a pipeline file writes it behind the figure: `>= 0.62`.
    #[must_use]
    pub fn test(&self) -> String {
        format!("{} {}", self.comparison.text(), self.bound)
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.figure, self.test())
    }
}

impl std::fmt::Display for Unmet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Condition { figure, comparison, bound } = &self.condition;
        let wanted = comparison.text();
        match &self.found {
            Found::Value(value) => {
                let shown = short(*value, |x| comparison.holds(x, *bound));
                write!(f, "{figure} is {shown}, must be {wanted} {bound}")
            }
            Found::NotFinite => write!(f, "{figure} is not a number, must be {wanted} {bound}"),
            Found::Unknown(known) if known.is_empty() => {
                write!(f, "it reports no `{figure}`, nor any other figure")
            }
            Found::Unknown(known) => {
                write!(f, "it reports no `{figure}`; it reports {}", known.join(", "))
            }
        }
    }
}

impl Unmet {
    /// The pipeline file is to blame, not what was made.
    #[must_use]
    pub fn is_mistake(&self) -> bool {
        matches!(self.found, Found::Unknown(_))
    }
}

/// Few digits, but as many as it takes to be seen on the wrong side of the bound.
fn short(value: f64, fits: impl Fn(f64) -> bool) -> String {
    for digits in 3..=8 {
        let text = format!("{value:.digits$}");
        if text.parse().is_ok_and(|shown| shown != 0.0 && !fits(shown)) {
            let kept = text.trim_end_matches('0');
            return kept.strip_suffix('.').unwrap_or(kept).to_owned();
        }
    }
    value.to_string()
}

/// The conditions that these figures do not meet.
#[must_use]
pub fn unmet(gate: &[Condition], figures: &Figures) -> Vec<Unmet> {
    let found = |condition: &Condition| match figures.get(&condition.figure) {
        Some(Some(x)) if condition.comparison.holds(*x, condition.bound) => None,
        Some(Some(x)) => Some(Found::Value(*x)),
        Some(None) => Some(Found::NotFinite),
        None => Some(Found::Unknown(figures.keys().cloned().collect())),
    };
    gate.iter().filter_map(|c| Some(Unmet { condition: c.clone(), found: found(c)? })).collect()
}

/// All that is not met, in one line.
#[must_use]
pub fn sentence(unmet: &[Unmet]) -> String {
    unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads `gate:` of the stage that `owner` names.
pub fn read(node: &Node, owner: &str, problems: &mut Vec<Diagnostic>) -> Vec<Condition> {
    let Some(entries) = node.as_map().filter(|entries| !entries.is_empty()) else {
        let found = if node.as_map().is_some() { "an empty map" } else { node.describe() };
        problems.push(
            Diagnostic::new(
                format!("`gate` of {owner} maps figures to conditions"),
                Some(node.span.clone()),
            )
            .label(format!("found {found}"))
            .help(HELP),
        );
        return Vec::new();
    };
    let mut conditions = Vec::new();
    for (key, value) in entries {
        let one = std::slice::from_ref(value);
        let texts = if let NodeValue::List(items) = &value.value { items } else { one };
        if texts.is_empty() {
            problems.push(refuse(&key.name, &value.span, "the list is empty"));
        }
        for text in texts {
            match condition(&key.name, text) {
                Ok(condition) => conditions.push(condition),
                Err(problem) => problems.push(*problem),
            }
        }
    }
    conditions
}

fn refuse(figure: &str, span: &Span, label: impl Into<String>) -> Diagnostic {
    let shown = named(figure);
    Diagnostic::new(format!("`{shown}` needs a condition"), Some(span.clone()))
        .label(label)
        .help(HELP)
}

fn condition(figure: &str, node: &Node) -> Result<Condition, Box<Diagnostic>> {
    let wrong = |label: String| Box::new(refuse(figure, &node.span, label));
    let Some(text) = node.as_str() else {
        let label = match node.value {
            NodeValue::Int(_) | NodeValue::Float(_) => "a number alone: at least, or at most?",
            _ => "not a text such as \">= 0.62\"",
        };
        return Err(wrong(label.into()));
    };
    let text = text.trim();
    let split = COMPARISONS
        .iter()
        .find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?.trim())));
    let Some((comparison, number)) = split else {
        let sign: String = text.chars().take_while(|c| "=!<>~≥≤".contains(*c)).collect();
        let label = match sign.as_str() {
            "" => "no comparison in front of the number".to_owned(),
            sign => format!("`{sign}` is none of >=, >, <=, <"),
        };
        return Err(wrong(label));
    };
    match number.parse::<f64>() {
        Ok(bound) if bound.is_finite() => {
            Ok(Condition { figure: figure.to_owned(), comparison, bound })
        }
        _ => Err(wrong(format!("`{}` is not a number", named(number)))),
    }
}
