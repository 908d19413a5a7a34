//! The tree of a pipeline file: values, where they stand and where they come from.
//! Does not know YAML, nor what any key means.

use std::sync::Arc;

use crate::diagnostic::Span;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: NodeValue,
    /// Where it is used. For a value that a param put there, the place of the `$name`.
    pub span: Span,
    /// Set when a param put it there.
    pub via: Option<Arc<Via>>,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map, or any other name that a file gives, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    pub span: Span,
}

/// The param behind a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Via {
    pub param: String,
    pub origin: Origin,
}

/// Who gave a param its value.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The `params` of the file.
    File(Span),
    /// A profile of the file.
    Profile { name: String, span: Span },
    /// The command line: `name=value`.
    Set(String),
    /// A trial of a sweep.
    Sweep(Span),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(span) => write!(f, "{}", place(span)),
            Self::Profile { name, span } => write!(f, "profile {name}, {}", place(span)),
            Self::Sweep(span) => write!(f, "{}", place(span)),
            Self::Set(given) => write!(f, "--set {given}"),
        }
    }
}

/// `file:line`.
#[must_use]
pub fn place(span: &Span) -> String {
    format!("{}:{}", span.source.name, span.line_column().0)
}

impl Node {
    /// A value without a history.
    #[must_use]
    pub fn new(value: NodeValue, span: Span) -> Self {
        Self { value, span, via: None }
    }

    /// What it is, for messages.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.value {
            NodeValue::Null => "nothing",
            NodeValue::Bool(_) => "true or false",
            NodeValue::Int(_) => "a whole number",
            NodeValue::Float(_) => "a number",
            NodeValue::String(_) => "text",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a map",
        }
    }

    /// The text, when it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::String(s) => Some(s),
            _ => None,
        }
    }

    /// The entries, when it is a map.
    #[must_use]
    pub fn as_map(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            NodeValue::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// What `$name` and `${name}` cost when this value is inserted: values and bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        1 + match &self.value {
            NodeValue::String(s) => s.len(),
            NodeValue::List(items) => items.iter().map(Self::weight).sum(),
            NodeValue::Map(entries) => entries.iter().map(|(k, v)| k.name.len() + v.weight()).sum(),
            _ => 0,
        }
    }

    /// Levels of lists and maps.
    #[must_use]
    pub fn depth(&self) -> usize {
        1 + match &self.value {
            NodeValue::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            NodeValue::Map(entries) => entries.iter().map(|(_, v)| v.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}
