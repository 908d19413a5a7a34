//! The list of kinds and the committed catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use preflow_stages::catalog::catalog_json;
use preflow_stages::kinds::KINDS;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

#[test]
fn the_committed_catalog_is_what_the_worker_says() {
    let path = root().join("stages/catalog.json");
    let committed = fs_err::read_to_string(path).unwrap_or_default();
    assert!(committed == catalog_json(), "stages/catalog.json is out of date: run `make catalog`");
    let out =
        std::process::Command::new(crate::harness::WORKER).arg("describe").output().expect("runs");
    assert!(out.stdout == catalog_json().as_bytes());
}

#[test]
fn names_are_unique_and_ports_are_not_params() {
    let mut names = BTreeSet::new();
    for kind in KINDS {
        assert!(names.insert(kind.name), "two kinds are named {}", kind.name);
        let doc = kind.describe();
        let mut ports = BTreeSet::new();
        for port in doc.inputs.iter().map(|i| &i.name) {
            assert!(
                ports.insert(port) && doc.params["properties"].get(port).is_none(),
                "{}.{port}",
                kind.name
            );
        }
        let mut outputs = BTreeSet::new();
        assert!(doc.outputs.iter().all(|o| outputs.insert(&o.name)), "{}", kind.name);
        assert!(!doc.summary.is_empty() && !doc.summary.ends_with('.'));
    }
}

/// Every property, at any depth, is documented and either required or defaulted.
fn check(schema: &Value, place: &str) {
    assert!(schema.get("$ref").is_none(), "{place} has a $ref");
    for some in schema["oneOf"].as_array().into_iter().flatten() {
        check(some, place);
    }
    if let Some(items) = schema.get("items") {
        check(items, place);
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    assert_eq!(schema["additionalProperties"], false, "{place} takes unknown params");
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|r| r.iter().any(|x| x == name));
    for (name, property) in properties {
        let place = format!("{place}.{name}");
        assert!(property["description"].is_string(), "{place} is not documented");
        assert!(
            required(name) != property.get("default").is_some(),
            "{place}: default xor required"
        );
        check(property, &place);
    }
}

#[test]
fn every_param_is_documented_and_defaulted_or_required() {
    for kind in KINDS {
        check(&kind.describe().params, kind.name);
    }
}

/// The defaults of the schema, put in by hand at every depth, are those of serde: a nested schema
/// gives the same object as its parent's default.
fn nested_defaults_agree(schema: &Value, place: &str) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        if property.get("properties").is_some() {
            let filled = crate::harness::complete(serde_json::Map::new(), property);
            if let Some(default) = property.get("default") {
                // `required` in a nested object would leave a gap here.
                assert_eq!(&Value::Object(filled), default, "{place}");
            }
            nested_defaults_agree(property, &place);
        }
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_code() {
    for kind in KINDS {
        nested_defaults_agree(&kind.describe().params, kind.name);
    }
}

#[test]
fn every_kind_but_the_general_ones_is_used_by_a_committed_pipeline() {
    let read = |name: &str| fs_err::read_to_string(root().join(name)).expect("a pipeline");
    let pipelines = ["workshop", "smoke", "algorithms", "import"];
    let text: String = pipelines.map(|name| read(&format!("pipelines/{name}.yaml"))).concat();
    for kind in KINDS.iter().filter(|k| !["prepare", "command"].contains(&k.name)) {
        assert!(text.contains(&format!("kind: {}", kind.name)), "no pipeline uses {}", kind.name);
    }
}

/// Numbers without a least or a largest value, at any depth.
fn unbounded(schema: &Value, place: &str, found: &mut Vec<String>) {
    let is = |name: &str| match &schema["type"] {
        Value::Array(types) => types.iter().any(|t| t == name),
        one => one == name,
    };
    let has = |ends: [&str; 2]| ends.iter().any(|end| schema[*end].is_number());
    if (is("integer") || is("number"))
        && !(has(["minimum", "exclusiveMinimum"]) && has(["maximum", "exclusiveMaximum"]))
    {
        found.push(place.to_owned());
    }
    for key in ["oneOf", "anyOf"] {
        for some in schema[key].as_array().into_iter().flatten() {
            unbounded(some, place, found);
        }
    }
    if let Some(items) = schema.get("items") {
        unbounded(items, place, found);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        unbounded(property, &format!("{place}.{name}"), found);
    }
}

#[test]
fn every_number_has_a_least_and_a_largest_value() {
    let mut found = Vec::new();
    for kind in KINDS {
        unbounded(&kind.describe().params, kind.name, &mut found);
    }
    assert!(found.is_empty(), "{found:?}");
}

/// Every param of a schema, by its dotted path.
fn params<'a>(schema: &'a Value, prefix: &str, found: &mut BTreeMap<String, &'a Value>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        params(property, &path, found);
        found.insert(path, property);
    }
}

#[test]
fn names_and_words_of_other_tools_stand_for_ours() {
    let mut all = BTreeSet::new();
    for kind in KINDS {
        let doc = kind.describe();
        let mut found = BTreeMap::new();
        params(&doc.params, "", &mut found);
        for (path, property) in &found {
            for alias in property["x-alias"].as_array().into_iter().flatten() {
                let name = alias["name"].as_str().expect("a name");
                assert!(!found.contains_key(name), "{} has `{name}` itself", kind.name);
                all.insert((name.to_owned(), path.clone()));
            }
            let schema = if property["items"].is_object() { &property["items"] } else { property };
            for word in schema["x-words"].as_object().into_iter().flat_map(|words| words.values()) {
                let known = match &schema["enum"] {
                    Value::Array(words) => words.contains(word),
                    _ => word.is_boolean() && schema["type"] == "boolean",
                };
                assert!(known, "{}.{path} has no {word}", kind.name);
            }
        }
    }
    for (theirs, ours) in [
        ("learning_rate", "train.lr"),
        ("learning_rate", "lr"),
        ("epsilon", "clip"),
        ("beta", "kl_coef"),
        ("loss_type", "aggregation"),
        ("loss_type", "loss"),
        ("target_modules", "lora.targets"),
        ("max_new_tokens", "max_tokens"),
        ("gradient_checkpointing", "train.compute.checkpoint_activations"),
        ("reward_weights", "rewards.named"),
        ("center_rewards_coefficient", "center_coef"),
        ("cliprange_value", "vf_clip"),
        ("rloo_k", "group"),
    ] {
        assert!(all.contains(&(theirs.into(), ours.into())), "{theirs} is not {ours}: {all:?}");
    }
}
