//! A node × a schema: types, units, defaults, one canonical spelling of every value.
//! Leaves ranges and patterns to the schema validator.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::ParamFile;
use super::choice::coerce_choice;
use super::units::{self, Unit, UnitError};
use crate::diagnostic::{Diagnostic, Span, did_you_mean, named};
use crate::pipeline::{Key, Node, NodeValue};

/// What fitting gathers beside the value.
pub struct Coercion {
    pub problems: Vec<Diagnostic>,
    /// JSON pointer → place, for what the validator finds later.
    pub spans: HashMap<String, Span>,
    /// Params that name files.
    pub files: Vec<ParamFile>,
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

/// Fits the entries of a map. `owner` and `at` are for what is unknown or missing.
pub fn coerce_object(
    coercion: &mut Coercion,
    schema: &Value,
    fields: &[(&Key, &Node)],
    owner: &str,
    at: &Span,
) -> Map<String, Value> {
    let nothing = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
    let rest = schema.get("additionalProperties");
    let closed = rest == Some(&Value::Bool(false)) || (rest.is_none() && !properties.is_empty());
    let mut out = Map::new();
    let mut meant = Vec::new();
    for (key, node) in fields {
        let property = properties.get(&key.name).or(rest.filter(|_| !closed));
        if property.is_none() && closed {
            let near = did_you_mean(&key.name, properties.keys().map(String::as_str));
            meant.extend(near);
            let problem = unknown_field(key, owner, &coercion.all_fields);
            coercion.problems.push(match coercion.pointer.is_empty() {
                // At the top the name may be meant for something else than a param.
                true => problem.naming(&key.name, near),
                false => problem.near(near),
            });
            continue;
        }
        let any = Value::Bool(true);
        let fitted = coercion.under(&key.name, &node.span, |coercion| {
            coerce_value(coercion, property.unwrap_or(&any), node)
        });
        let fitted = fitted.filter(|value| !is_later_default(property.unwrap_or(&any), value));
        out.extend(fitted.map(|value| (key.name.clone(), value)));
    }
    let required = schema.get("required").and_then(Value::as_array);
    let required = |name: &str| required.is_some_and(|r| r.iter().any(|v| v == name));
    for (name, property) in properties {
        if fields.iter().any(|(key, _)| key.name == *name) {
            continue;
        }
        if is_later(property) {
            continue;
        }
        if let Some(default) = property.get("default") {
            let node = node_of(default, at);
            let fitted =
                coercion.under(name, at, |coercion| coerce_value(coercion, property, &node));
            out.extend(fitted.map(|value| (name.clone(), value)));
        } else if required(name) && !meant.contains(&name.as_str()) {
            let problem = format!("{owner} needs `{name}`");
            let doc = property.get("description").and_then(Value::as_str);
            let problem = Diagnostic::new(problem, Some(at.clone()));
            coercion.problems.push(match doc.and_then(|d| d.lines().next()) {
                Some(doc) => problem.help(format!("{name}: {doc}")),
                None => problem.help(coercion.all_fields.clone()),
            });
        }
    }
    out.sort_keys();
    out
}

/// Whether a field came to its kind later: at its default it is left out, so that what was made
/// before it came is still what the file says.
fn is_later(schema: &Value) -> bool {
    schema.get("x-later") == Some(&Value::Bool(true))
}

fn is_later_default(schema: &Value, value: &Value) -> bool {
    is_later(schema) && schema.get("default") == Some(value)
}

fn unknown_field(key: &Key, owner: &str, all_fields: &str) -> Diagnostic {
    let message = format!("unknown field `{}` in {owner}", named(&key.name));
    Diagnostic::new(message, Some(key.span.clone())).help(all_fields)
}

/// Fits one value; `None` after a problem was noted.
pub(super) fn coerce_value(coercion: &mut Coercion, schema: &Value, node: &Node) -> Option<Value> {
    for (keyword, one) in [("oneOf", true), ("anyOf", false)] {
        if let Some(options) = schema.get(keyword).and_then(Value::as_array) {
            return coerce_choice(coercion, options, one, node);
        }
    }
    if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        return coerce_value(coercion, only, node);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return coerce_enum(coercion, words, node);
    }
    if let Some(word) = schema.get("const") {
        return coerce_enum(coercion, std::slice::from_ref(word), node);
    }
    match schema.get("type") {
        Some(Value::String(name)) => coerce_type(coercion, schema, name, node),
        Some(Value::Array(names)) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            let name = names
                .iter()
                .find(|n| type_fits(n, node))
                .or(names.iter().find(|n| **n != "null"))?;
            coerce_type(coercion, schema, name, node)
        }
        _ => Some(plain(node)),
    }
}

pub(super) fn type_fits(name: &str, node: &Node) -> bool {
    match &node.value {
        NodeValue::Null => name == "null",
        NodeValue::Bool(_) => name == "boolean",
        NodeValue::Int(_) => matches!(name, "integer" | "number"),
        NodeValue::Float(f) => name == "number" || (name == "integer" && f.fract() == 0.0),
        NodeValue::String(s) => {
            name == "string" || (matches!(name, "integer" | "number") && units::split(s).is_some())
        }
        NodeValue::List(_) => name == "array",
        NodeValue::Map(_) => name == "object",
    }
}

fn coerce_type(coercion: &mut Coercion, schema: &Value, name: &str, node: &Node) -> Option<Value> {
    match (name, &node.value) {
        ("null", NodeValue::Null) => Some(Value::Null),
        ("boolean", NodeValue::Bool(b)) => Some(Value::Bool(*b)),
        ("boolean", NodeValue::String(s)) if ["yes", "no", "on", "off"].contains(&s.as_str()) => {
            coercion.mismatch("true or false", node);
            let last = coercion.problems.pop()?;
            coercion.problems.push(last.help("in YAML 1.2 only `true` and `false` are"));
            None
        }
        ("boolean", _) => mismatch(coercion, "true or false", node),
        ("string", NodeValue::String(s)) => {
            if let Some(source) = schema.get("x-source").filter(|_| !s.is_empty()) {
                let word = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
                coercion.files.push(ParamFile {
                    pointer: coercion.pointer.clone(),
                    port: word("port").to_owned(),
                    port_type: word("type").to_owned(),
                    path: s.clone(),
                    span: node.span.clone(),
                });
            }
            Some(Value::String(s.clone()))
        }
        ("string", NodeValue::Int(_) | NodeValue::Float(_) | NodeValue::Bool(_)) => {
            coercion.mismatch("text", node);
            let last = coercion.problems.pop()?;
            coercion.problems.push(last.help("put it in quotes if it is text"));
            None
        }
        ("string", _) => mismatch(coercion, "text", node),
        ("integer" | "number", _) => coerce_number(coercion, schema, name == "integer", node),
        ("array", NodeValue::List(items)) => {
            let any = Value::Bool(true);
            let item = schema.get("items").filter(|s| !s.is_array()).unwrap_or(&any);
            let fitted: Vec<Option<Value>> = items
                .iter()
                .enumerate()
                .map(|(i, n)| {
                    coercion
                        .under(&i.to_string(), &n.span, |coercion| coerce_value(coercion, item, n))
                })
                .collect();
            fitted.into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
        }
        ("array", _) => mismatch(coercion, "a list", node),
        ("object", NodeValue::Map(entries)) => {
            let fields: Vec<(&Key, &Node)> = entries.iter().map(|(k, n)| (k, n)).collect();
            let owner = format!("`{}`", coercion.field());
            Some(Value::Object(coerce_object(coercion, schema, &fields, &owner, &node.span)))
        }
        ("object", _) => mismatch(coercion, "a map", node),
        _ => mismatch(coercion, "nothing", node),
    }
}

fn mismatch(coercion: &mut Coercion, wanted: &str, node: &Node) -> Option<Value> {
    coercion.mismatch(wanted, node);
    None
}

fn coerce_number(
    coercion: &mut Coercion,
    schema: &Value,
    whole: bool,
    node: &Node,
) -> Option<Value> {
    let wanted = if whole { "a whole number" } else { "a number" };
    let unit = schema.get("x-unit").and_then(Value::as_str).and_then(Unit::named);
    let number = match &node.value {
        NodeValue::Int(i) if whole => {
            let number = i64::try_from(*i).map(Number::from);
            let number = number.or_else(|_| u64::try_from(*i).map(Number::from));
            return number
                .map(Value::Number)
                .ok()
                .or_else(|| mismatch(coercion, "a 64-bit number", node));
        }
        NodeValue::Int(i) => *i as f64,
        NodeValue::Float(f) => *f,
        NodeValue::String(text) => match (unit, units::split(text)) {
            (Some(unit), Some(_)) => match unit.parse(text) {
                Ok(number) => number,
                Err(error) => return misfit(coercion, &error, unit.fitting(), node),
            },
            (None, Some((_, suffix))) => {
                let error = UnitError::Misfit(suffix.to_owned());
                return misfit(coercion, &error, "it takes a plain number", node);
            }
            (_, None) => return mismatch(coercion, wanted, node),
        },
        _ => return mismatch(coercion, wanted, node),
    };
    canonical(number, whole).or_else(|| mismatch(coercion, wanted, node))
}

/// `1` and `1.0` are one value in a number field; `2.0` is whole, `2.5` is not.
fn canonical(number: f64, whole: bool) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !whole {
        let number = if number == 0.0 { 0.0 } else { number };
        return Number::from_f64(number).map(Value::Number);
    }
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| Value::from(number as i64))
}

fn misfit(coercion: &mut Coercion, error: &UnitError, fitting: &str, node: &Node) -> Option<Value> {
    let message = format!("`{}`: {error}", coercion.field());
    coercion.problem(message, fitting.to_owned(), node);
    None
}

pub(super) fn coerce_enum(coercion: &mut Coercion, words: &[Value], node: &Node) -> Option<Value> {
    let value = plain(node);
    if words.contains(&value) {
        return Some(value);
    }
    let names: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let label = node.as_str().and_then(|s| did_you_mean(s, names.iter().copied()));
    let label =
        label.map_or_else(|| format!("found {}", found(node)), |n| format!("did you mean `{n}`?"));
    let list: Vec<String> = words.iter().map(word).collect();
    let message = format!("`{}` must be {}", coercion.field(), one_of(&list));
    coercion.problem(message, label, node);
    None
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
fn node_of(value: &Value, at: &Span) -> Node {
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
