//! The JSON Schema of pipeline files: what editors need to complete and check them.
//! Knows the dialect of yaml-language-server (draft-07), and kinds only as data.

use serde_json::{Map, Value, json};

use super::units::Unit;
use super::{Catalog, execution};
use crate::protocol::KindDoc;

const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,63}$";
const REFERENCE: &str = r"^([a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)?|\$.+)$";

/// The JSON Schema of pipeline files with these kinds.
#[must_use]
pub fn schema(catalog: &Catalog) -> Value {
    let kinds: Vec<&KindDoc> = catalog.kinds().map(|k| &k.doc).collect();
    let mut definitions = Map::new();
    definitions.insert("run".to_owned(), editor(execution::schema()));
    definitions.insert("gate".to_owned(), gate());
    for kind in &kinds {
        definitions.insert(format!("kind-{}", kind.name), stage_of(kind));
    }
    let names: Vec<&str> = kinds.iter().map(|k| k.name.as_str()).collect();
    let docs: Vec<&str> = kinds.iter().map(|k| k.summary.as_str()).collect();
    let branches: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({ "if": { "properties": { "kind": { "const": name } }, "required": ["kind"] },
                    "then": { "$ref": format!("#/definitions/kind-{name}") } })
        })
        .collect();
    let names_of =
        |what: &str| json!({ "pattern": NAME, "description": format!("Name of a {what}") });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "preflow pipeline",
        "type": "object",
        "additionalProperties": false,
        "required": ["preflow", "stages"],
        "properties": {
            "preflow": { "const": 1, "description": "Version of the format; it fixes every default" },
            "name": { "type": "string", "pattern": NAME, "description": "Default: the file's name" },
            "params": { "type": "object",
                "description": "The knobs that --set, profiles and sweeps may turn; used as $name" },
            "profiles": { "type": "object", "description": "Named sets of other values for params",
                "additionalProperties": { "type": "object" } },
            "sources": {
                "type": "object", "description": "Artifacts that nobody makes",
                "propertyNames": names_of("source"),
                "additionalProperties": source(catalog)
            },
            "stages": {
                "type": "object", "description": "What is made, from what, and how",
                "propertyNames": names_of("stage"),
                "additionalProperties": {
                    "type": "object", "required": ["kind"],
                    "properties": { "kind": { "enum": names, "enumDescriptions": docs,
                        "description": "What the stage does" } },
                    "allOf": branches
                }
            }
        },
        "definitions": definitions
    })
}

fn source(catalog: &Catalog) -> Value {
    let mut types: Vec<&str> = Vec::new();
    for full in catalog.port_types() {
        types.extend(full.split_once('/').map(|(_, short)| short));
        types.push(full);
    }
    types.sort_unstable();
    types.dedup();
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object", "additionalProperties": false,
        "oneOf": [{ "required": ["path"] }, { "required": ["hub"] }, { "required": ["url", "sha256"] }],
        "properties": {
            "path": text("Relative to this file; may hold * and **"),
            "hub": text("A repository of a hub: ORG/NAME, or datasets/ORG/NAME"),
            "revision": text("Its branch, tag or commit; main where nothing is said"),
            "files": text("One of its files or a pattern; without it those that a model is read from"),
            "url": text("A file of the web: https://HOST/FILE"),
            "sha256": text("Its hash, 64 hexadecimal digits"),
            "as": with_param(json!({ "enum": types, "description": "What is in it" }))
        }
    })
}

/// All keys of a stage of one kind: ports and params side by side.
fn stage_of(kind: &KindDoc) -> Value {
    let params = editor(&kind.params);
    let mut properties =
        params.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut required: Vec<Value> = vec![json!("kind")];
    required
        .extend(kind.params.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    for input in &kind.inputs {
        let takes = input.accepts.join(" or ");
        let one = json!({ "type": "string", "pattern": REFERENCE });
        let mut port = if input.many {
            json!({ "anyOf": [one.clone(), { "type": "array", "items": one, "minItems": 1 }] })
        } else {
            one
        };
        port["description"] = json!(format!("{} ({takes})", input.doc));
        properties.insert(input.name.clone(), port);
        if !input.optional {
            required.push(json!(input.name));
        }
    }
    if let Some(open) = &kind.open_ports {
        let one = json!({ "type": "string", "pattern": REFERENCE });
        let many = json!({ "type": "array", "items": one.clone() });
        properties.insert(
            open.inputs.clone(),
            json!({ "type": "object", "description": "Port → source, stage or stage.port",
                    "additionalProperties": { "anyOf": [one, many] } }),
        );
        properties.insert(
            open.outputs.clone(),
            json!({ "type": "object", "description": "Port → type, as in dataset/metrics",
                    "additionalProperties": { "type": "string" } }),
        );
    }
    properties
        .insert("kind".to_owned(), json!({ "const": kind.name, "description": kind.summary }));
    properties.insert("run".to_owned(), json!({ "$ref": "#/definitions/run" }));
    properties.insert("gate".to_owned(), json!({ "$ref": "#/definitions/gate" }));
    json!({
        "type": "object", "description": kind.summary, "additionalProperties": false,
        "required": required, "properties": properties
    })
}

/// What the figures of a stage must be before anything that depends on it runs.
fn gate() -> Value {
    let one = json!({ "type": "string", "pattern": r"^\s*(>=|>|<=|<)\s*[-+.0-9$]" });
    let many = json!({ "type": "array", "items": one, "minItems": 1 });
    json!({
        "type": "object", "minProperties": 1,
        "description": "What its figures must be before anything that depends on it runs; never \
                        part of its identity.",
        "additionalProperties": { "anyOf": [one, many], "description": "As in `>= 0.62`" }
    })
}

/// A schema of params for editors: every value may also be `$name`, numbers may carry their unit.
fn editor(schema: &Value) -> Value {
    let Some(object) = schema.as_object() else { return schema.clone() };
    let mut out = object.clone();
    // What is for messages and identities says nothing to editors.
    for key in ["x-alias", "x-words", "x-later"] {
        out.remove(key);
    }
    let unit = out.remove("x-unit").and_then(|u| u.as_str().and_then(Unit::named));
    if let Some(Value::Object(properties)) = out.get_mut("properties") {
        for property in properties.values_mut() {
            *property = with_param(editor(property));
        }
    }
    for key in ["additionalProperties", "items"] {
        if let Some(inner) = out.get_mut(key).filter(|inner| inner.is_object()) {
            *inner = with_param(editor(inner));
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(Value::Array(branches)) = out.get_mut(key) {
            for branch in branches {
                *branch = editor(branch);
            }
        }
    }
    let schema = Value::Object(out);
    match unit {
        Some(unit) => either(schema, json!({ "type": "string", "pattern": unit.pattern() })),
        None => schema,
    }
}

/// The value, or a param in its place. An editor sees `!include FILE` as the name of the file.
fn with_param(schema: Value) -> Value {
    let texts = schema.get("type").is_some_and(|t| t == "string")
        && schema.get("enum").is_none()
        && schema.get("pattern").is_none();
    let plain = schema.get("type").is_some_and(|t| t != "array" && t != "object");
    let pattern = if plain { r"^\$" } else { r"^\$|\.ya?ml$" };
    if texts { schema } else { either(schema, json!({ "type": "string", "pattern": pattern })) }
}

/// One more alternative. What editors show stays on top.
fn either(schema: Value, other: Value) -> Value {
    let Value::Object(mut inner) = schema else { return schema };
    let mut out = Map::new();
    for key in ["description", "default", "title"] {
        out.extend(inner.remove(key).map(|value| (key.to_owned(), value)));
    }
    let grows = inner.len() == 1 && inner.get("anyOf").is_some_and(Value::is_array);
    let mut branches = match inner.remove("anyOf") {
        Some(Value::Array(branches)) if grows => branches,
        Some(kept) => {
            inner.insert("anyOf".to_owned(), kept);
            vec![Value::Object(inner)]
        }
        None => vec![Value::Object(inner)],
    };
    branches.push(other);
    out.insert("anyOf".to_owned(), Value::Array(branches));
    Value::Object(out)
}
