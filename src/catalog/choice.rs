//! A node × a schema of alternatives.
//! Leaves what each alternative is to `coerce`.

use serde_json::{Map, Value};

use super::coerce::{Coercion, coerce_enum, coerce_value, found, one_of, plain, type_fits, word};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::pipeline::{Node, NodeValue};

/// Alternatives: words, externally tagged branches (of a `oneOf`), "or nothing", or else the first
/// that fits.
pub(super) fn coerce_choice(
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
        return coerce_enum(coercion, &all, node);
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
