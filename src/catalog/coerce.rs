//! A node × a schema: types, units, defaults, one canonical spelling of every value.
//! Leaves ranges and patterns to the schema validator.

use serde_json::{Map, Number, Value};

use super::ParamFile;
use super::coercion::{Coercion, Unknown, canonical, found, node_of, one_of, plain, word};
use super::units::{self, Unit, UnitError};
use crate::diagnostic::{Diagnostic, Span, did_you_mean, named};
use crate::pipeline::{Key, Node, NodeValue};

/// Unknown names of one stage that are looked up among those of other tools.
const MOST_UNKNOWN: usize = 20;

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
            // A file with very many of them is told of by the first ones.
            if coercion.unknown.len() < MOST_UNKNOWN {
                coercion.unknown.push(Unknown {
                    problem: coercion.problems.len(),
                    name: key.name.clone(),
                    pointer: coercion.pointer.clone(),
                    beside: fields.iter().map(|(k, n)| (k.name.clone(), plain(n))).collect(),
                });
            }
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
fn coerce_value(coercion: &mut Coercion, schema: &Value, node: &Node) -> Option<Value> {
    for (keyword, one) in [("oneOf", true), ("anyOf", false)] {
        if let Some(options) = schema.get(keyword).and_then(Value::as_array) {
            return coerce_choice(coercion, options, one, node);
        }
    }
    if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        return coerce_value(coercion, only, node);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return coerce_enum(coercion, words, schema.get("x-words"), node);
    }
    if let Some(word) = schema.get("const") {
        return coerce_enum(coercion, std::slice::from_ref(word), None, node);
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

fn type_fits(name: &str, node: &Node) -> bool {
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

fn misfit(coercion: &mut Coercion, error: &UnitError, fitting: &str, node: &Node) -> Option<Value> {
    let message = format!("`{}`: {error}", coercion.field());
    coercion.problem(message, fitting.to_owned(), node);
    None
}

/// `theirs`: words of other tools for words of ours.
fn coerce_enum(
    coercion: &mut Coercion,
    words: &[Value],
    theirs: Option<&Value>,
    node: &Node,
) -> Option<Value> {
    let value = plain(node);
    if words.contains(&value) {
        return Some(value);
    }
    let names: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let same = theirs.and_then(|theirs| theirs.get(word(&value))?.as_str());
    let near = || node.as_str().and_then(|s| did_you_mean(s, names.iter().copied()));
    let label = same.or_else(near);
    let label =
        label.map_or_else(|| format!("found {}", found(node)), |n| format!("did you mean `{n}`?"));
    let list: Vec<String> = words.iter().map(word).collect();
    let message = format!("`{}` must be {}", coercion.field(), one_of(&list));
    coercion.problem(message, label, node);
    None
}

/// Alternatives: words, externally tagged branches (of a `oneOf`), "or nothing", or else the first
/// that fits.
fn coerce_choice(
    coercion: &mut Coercion,
    options: &[Value],
    one: bool,
    node: &Node,
) -> Option<Value> {
    let is_null = |s: &Value| s.get("type").is_some_and(|t| t == "null");
    if node.value == NodeValue::Null && options.iter().any(is_null) {
        return Some(Value::Null);
    }
    let options: Vec<&Value> = options.iter().filter(|s| !is_null(s)).collect();
    let tagged = one && options.iter().any(|o| tag(o).is_some());
    if tagged && options.iter().all(|o| tag(o).is_some() || !words(o).is_empty()) {
        return coerce_tagged(coercion, &options, node);
    }
    if let [only] = options[..] {
        return coerce_value(coercion, only, node);
    }
    if options.iter().all(|o| !words(o).is_empty()) {
        let all: Vec<Value> = options.iter().flat_map(|o| words(o)).collect();
        return coerce_enum(coercion, &all, None, node);
    }
    let mut shaped = None;
    for option in &options {
        let mut attempt = Coercion::new(coercion.all_fields.clone());
        attempt.pointer.clone_from(&coercion.pointer);
        if let Some(value) = coerce_value(&mut attempt, option, node)
            && attempt.problems.is_empty()
        {
            coercion.spans.extend(attempt.spans);
            coercion.files.extend(attempt.files);
            return Some(value);
        }
        let fits = option.get("type").and_then(Value::as_str).is_some_and(|t| type_fits(t, node));
        if fits && shaped.is_none() {
            shaped = Some(attempt.problems);
        }
    }
    match shaped {
        Some(problems) => coercion.problems.extend(problems),
        None => {
            let names: Vec<String> = options.iter().map(|o| type_words(o)).collect();
            coercion.mismatch(&one_of(&names), node);
        }
    }
    None
}

fn type_words(schema: &Value) -> String {
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("string") => "text",
        Some("boolean") => "true or false",
        Some("array") => "a list",
        Some("object") => "a map",
        _ => "another shape",
    }
    .to_owned()
}

/// The tag of an externally tagged branch: an object with exactly one property, required.
fn tag(schema: &Value) -> Option<(&str, &Value)> {
    let properties = schema.get("properties")?.as_object()?;
    let required = schema.get("required")?.as_array()?;
    let (name, inner) = properties.iter().next()?;
    (properties.len() == 1 && required.len() == 1 && required[0] == *name)
        .then_some((name.as_str(), inner))
}

/// The words of an `enum` or `const` branch.
fn words(schema: &Value) -> Vec<Value> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(words)), _) => words.clone(),
        (_, Some(word)) => vec![word.clone()],
        _ => Vec::new(),
    }
}

fn coerce_tagged(coercion: &mut Coercion, options: &[&Value], node: &Node) -> Option<Value> {
    let plain_words: Vec<Value> = options.iter().flat_map(|o| words(o)).collect();
    let tags: Vec<&str> = options.iter().filter_map(|o| tag(o)).map(|(t, _)| t).collect();
    let value = plain(node);
    if plain_words.contains(&value) {
        return Some(value);
    }
    let names: Vec<String> =
        plain_words.iter().map(word).chain(tags.iter().map(|t| (*t).to_owned())).collect();
    let wanted = |coercion: &Coercion| format!("`{}` must be {}", coercion.field(), one_of(&names));
    match &node.value {
        NodeValue::Map(entries) if entries.len() == 1 => {
            let (key, inner) = &entries[0];
            let branch = options.iter().filter_map(|o| tag(o)).find(|(t, _)| *t == key.name);
            let Some((_, schema)) = branch else {
                let problem = Diagnostic::new(wanted(coercion), Some(key.span.clone()));
                let near = did_you_mean(&key.name, names.iter().map(String::as_str));
                let label = near.map_or("unknown".to_owned(), |n| format!("did you mean `{n}`?"));
                coercion.problems.push(problem.label(label));
                return None;
            };
            let empty = Node::new(NodeValue::Map(Vec::new()), key.span.clone());
            let inner = if inner.value == NodeValue::Null { &empty } else { inner };
            let fitted = coercion
                .under(&key.name, &inner.span, |coercion| coerce_value(coercion, schema, inner))?;
            Some(Value::Object(Map::from_iter([(key.name.clone(), fitted)])))
        }
        NodeValue::String(text) if tags.contains(&text.as_str()) => {
            let message = format!("`{}: {text}` lacks its settings", coercion.field());
            coercion.problem(message, format!("write `{text}: {{ … }}`"), node);
            None
        }
        NodeValue::Map(entries) => {
            let message = wanted(coercion);
            coercion.problem(
                message,
                format!("exactly one of them, found {}", entries.len()),
                node,
            );
            None
        }
        _ => {
            let message = wanted(coercion);
            coercion.problem(message, format!("found {}", found(node)), node);
            None
        }
    }
}
