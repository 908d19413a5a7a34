//! What fitting a node to a schema gathers, and values on their way from YAML to JSON.
//! Does not know schemas.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::ParamFile;
use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Key, Node, NodeValue};

/// What fitting gathers beside the value.
pub struct Coercion {
    pub problems: Vec<Diagnostic>,
    /// JSON pointer → place, for what the validator finds later.
    pub spans: HashMap<String, Span>,
    /// Params that name files.
    pub files: Vec<ParamFile>,
    /// Names that no field has.
    pub unknown: Vec<Unknown>,
    /// Said with every unknown key.
    pub(super) all_fields: String,
    pub(super) pointer: String,
}

impl Coercion {
    pub fn new(all_fields: String) -> Self {
        Self {
            problems: Vec::new(),
            spans: HashMap::new(),
            files: Vec::new(),
            unknown: Vec::new(),
            all_fields,
            pointer: String::new(),
        }
    }

    pub(super) fn under<T>(
        &mut self,
        name: &str,
        span: &Span,
        f: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        self.spans.insert(self.pointer.clone(), span.clone());
        let result = f(self);
        self.pointer.truncate(length);
        result
    }

    /// `lr`, `train.lr`: the field that is being fitted.
    pub(super) fn field(&self) -> String {
        self.pointer.trim_start_matches('/').replace('/', ".")
    }

    pub(super) fn problem(
        &mut self,
        message: String,
        label: String,
        node: &Node,
    ) -> &mut Diagnostic {
        let mut problem = Diagnostic::new(message, Some(node.span.clone())).label(label);
        if let Some(via) = &node.via {
            problem = problem.help(format!("`${}` comes from {}", via.param, via.origin));
        }
        self.problems.push(problem);
        self.problems.last_mut().expect("invariant: just pushed")
    }

    pub(super) fn mismatch(&mut self, wanted: &str, node: &Node) {
        let message = format!("`{}` must be {wanted}", self.field());
        self.problem(message, format!("found {}", found(node)), node);
    }
}

/// A name that no field has, with all that stands beside it.
pub struct Unknown {
    /// Its place among the problems.
    pub problem: usize,
    pub name: String,
    /// JSON pointer of the map that it stands in.
    pub pointer: String,
    pub beside: Vec<(String, Value)>,
}

/// What a person sees in the file, when it is short.
pub(super) fn found(node: &Node) -> String {
    match &node.value {
        NodeValue::String(s) if s.chars().count() <= 30 => format!("the text {s:?}"),
        NodeValue::Int(i) => i.to_string(),
        NodeValue::Float(f) => format!("{f:?}"),
        NodeValue::Bool(b) => b.to_string(),
        _ => node.describe().to_owned(),
    }
}

/// `1` and `1.0` are one value in a number field; `2.0` is whole, `2.5` is not.
pub(super) fn canonical(number: f64, whole: bool) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !whole {
        let number = if number == 0.0 { 0.0 } else { number };
        return Number::from_f64(number).map(Value::Number);
    }
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| Value::from(number as i64))
}

pub(super) fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

pub(super) fn one_of(list: &[String]) -> String {
    match list {
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => "nothing".to_owned(),
    }
}

/// A value that no schema constrains, in JSON.
pub fn plain(node: &Node) -> Value {
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(b) => Value::Bool(*b),
        NodeValue::Int(i) => i64::try_from(*i)
            .map(Value::from)
            .or_else(|_| u64::try_from(*i).map(Value::from))
            .unwrap_or_else(|_| Value::from(*i as f64)),
        NodeValue::Float(f) => {
            canonical(*f, true).or_else(|| canonical(*f, false)).unwrap_or(Value::Null)
        }
        NodeValue::String(s) => Value::String(s.clone()),
        NodeValue::List(items) => Value::Array(items.iter().map(plain).collect()),
        NodeValue::Map(entries) => {
            let mut map: Map<String, Value> =
                entries.iter().map(|(k, n)| (k.name.clone(), plain(n))).collect();
            map.sort_keys();
            Value::Object(map)
        }
    }
}

/// A default of the schema, as if it stood at `at`.
pub(super) fn node_of(value: &Value, at: &Span) -> Node {
    let value = match value {
        Value::Null => NodeValue::Null,
        Value::Bool(b) => NodeValue::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => NodeValue::Int(i.into()),
            (None, Some(u)) => NodeValue::Int(u.into()),
            (None, None) => NodeValue::Float(n.as_f64().unwrap_or_default()),
        },
        Value::String(s) => NodeValue::String(s.clone()),
        Value::Array(items) => NodeValue::List(items.iter().map(|v| node_of(v, at)).collect()),
        Value::Object(map) => NodeValue::Map(
            map.iter()
                .map(|(k, v)| (Key { name: k.clone(), span: at.clone() }, node_of(v, at)))
                .collect(),
        ),
    };
    Node::new(value, at.clone())
}
