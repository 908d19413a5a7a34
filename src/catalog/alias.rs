//! Names that other tools have for our fields (`x-alias`), told with the value converted.
//! Knows no tool: names, words and how values turn are in the schema.

use serde_json::{Number, Value};

use super::coercion::{Coercion, Unknown};

/// Says of every unknown name, where the schema knows it as another tool's or as a field that
/// stands elsewhere, what to write instead.
pub fn explain(coercion: &mut Coercion, schema: &Value) {
    for unknown in std::mem::take(&mut coercion.unknown) {
        let Some((instead, note)) = instead(schema, &unknown) else { continue };
        let problem = &mut coercion.problems[unknown.problem];
        problem.label = instead;
        // It is no field, no port and no typing error.
        problem.naming = None;
        if let Some(note) = note {
            problem.help = Some(note.to_owned());
        }
    }
}

/// A field of the schema: its dotted path, and its own schema.
type Field<'a> = (String, &'a Value);

fn instead<'a>(schema: &'a Value, unknown: &Unknown) -> Option<(String, Option<&'a str>)> {
    let mut fields = Vec::new();
    gather(schema, "", &mut fields);
    let alias_in = |property: &'a Value| -> Option<&'a Value> {
        property.get("x-alias")?.as_array()?.iter().find(|a| a["name"] == *unknown.name)
    };
    let named = fields.iter().find_map(|(path, p)| Some((path, *p, Some(alias_in(p)?))));
    let elsewhere = || {
        let same = |(path, _): &&Field| path.rsplit('.').next() == Some(&unknown.name);
        let mut found = fields.iter().filter(same);
        let (path, property) = found.next().filter(|_| found.next().is_none())?;
        Some((path, *property, None))
    };
    let (path, property, alias) = named.or_else(elsewhere)?;
    let inside = unknown.pointer.trim_start_matches('/').replace('/', ".");
    // From the map that the unknown name stands in, where the field is in there too.
    let path = match path.strip_prefix(&inside) {
        Some(rest) if !inside.is_empty() => rest.trim_start_matches('.'),
        _ => path,
    };
    let note = alias.and_then(|alias| alias["note"].as_str());
    let value = match note {
        Some(_) => None,
        None => converted(property, alias, unknown),
    };
    Some((format!("here it is `{}`", written(path, value.as_ref())), note))
}

/// All fields of a schema, those of maps in it included.
fn gather<'a>(schema: &'a Value, prefix: &str, fields: &mut Vec<Field<'a>>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        gather(property, &path, fields);
        fields.push((path, property));
    }
}

/// The value in our terms; `None` where it has none.
fn converted(property: &Value, alias: Option<&Value>, unknown: &Unknown) -> Option<Value> {
    let of = |name: &str| unknown.beside.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    let value = of(&unknown.name)?;
    let alias = alias.unwrap_or(&Value::Null);
    if let Some(other) = alias["times"].as_str() {
        let times = of(other).map_or(Some(1), Value::as_u64)?;
        return value.as_u64()?.checked_mul(times).map(Value::from);
    }
    if alias["negative"] == true {
        return Number::from_f64(-value.as_f64()?).map(Value::Number);
    }
    match value {
        Value::Array(items) => {
            let item = |value| word_of(&property["items"], value);
            items.iter().map(item).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        value => word_of(property, value),
    }
}

/// A value as a schema takes it: its words for words of others.
fn word_of(schema: &Value, value: &Value) -> Option<Value> {
    let key = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(word) = schema["x-words"].get(&key) {
        return Some(word.clone());
    }
    let fits = match (&schema["enum"], schema["type"].as_str()) {
        (Value::Array(words), _) => words.contains(value),
        (_, Some("integer")) => value.is_u64() || value.is_i64(),
        (_, Some("number")) => value.is_number(),
        (_, Some("boolean")) => value.is_boolean(),
        (_, Some("string")) => value.is_string(),
        _ => false,
    };
    fits.then(|| value.clone())
}

/// A field with its value as YAML in one line.
fn written(path: &str, value: Option<&Value>) -> String {
    let (maps, name) = path.rsplit_once('.').unwrap_or(("", path));
    let value = value.map_or_else(|| "…".to_owned(), yaml);
    let open: String = maps.split_terminator('.').map(|map| format!("{map}: {{ ")).collect();
    let close = " }".repeat(maps.split_terminator('.').count());
    format!("{open}{name}: {value}{close}")
}

fn yaml(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(yaml).collect::<Vec<_>>().join(", "))
        }
        // As people write learning rates.
        Value::Number(n) if n.as_f64().is_some_and(|x| x != 0.0 && x.abs() < 1e-3) => {
            format!("{:e}", n.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}
