//! The keys under `run:`: how a stage is run, never part of its identity.
//! Does not know stages, nor what the machine has.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::coerce::coerce_object;
use super::coercion::Coercion;
use super::{compile, params};
use crate::diagnostic::Diagnostic;
use crate::pipeline::{Key, Node, NodeValue};
use crate::protocol::Execution;

/// The schema of `run:`, in the same dialect as the params of kinds.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        json!({
            "type": "object",
            "description": "How the stage is run; never part of its identity.",
            "additionalProperties": false,
            "properties": {
                "threads": {
                    "type": "integer", "minimum": 1, "maximum": 4096,
                    "description": "CPU threads; also what the stage takes from the cpu pool"
                },
                "device": {
                    "type": "string", "pattern": "^(cpu|mps|cuda(:[0-9]{1,3})?)$",
                    "description": "cpu, cuda, cuda:N or mps"
                },
                "timeout": {
                    "type": "number", "x-unit": "seconds", "exclusiveMinimum": 0,
                    "description": "Ends an attempt that takes longer, as in `30m`"
                },
                "retries": {
                    "type": "integer", "minimum": 0, "maximum": 1000,
                    "description": "Further attempts after a failure"
                },
                "checkpoint_every": {
                    "type": "number", "x-unit": "seconds", "exclusiveMinimum": 0,
                    "description": "Time between checkpoints, as in `30s`"
                },
                "memory": {
                    "type": "integer", "x-unit": "bytes", "minimum": 1,
                    "description": "Taken from the memory pool, as in `4GiB`"
                },
                "gpus": {
                    "type": "integer", "minimum": 0, "maximum": 1024,
                    "description": "Devices taken from the gpu pool"
                },
                "env": {
                    "type": "array", "uniqueItems": true,
                    "items": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
                    "description": "Names of environment variables that are passed on"
                }
            }
        })
    })
}

/// Reads `run:` of the stage that `owner` names.
pub fn read(node: &Node, owner: &str) -> Result<Execution, Vec<Diagnostic>> {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    let place = format!("`run` of {owner}");
    let entries = match &node.value {
        NodeValue::Map(entries) => entries,
        NodeValue::Null => return Ok(Execution::default()),
        _ => {
            return Err(vec![
                Diagnostic::new(format!("{place} must be a map"), Some(node.span.clone()))
                    .label(format!("found {}", node.describe())),
            ]);
        }
    };
    let fields: Vec<(&Key, &Node)> = entries.iter().map(|(k, n)| (k, n)).collect();
    let names: Vec<&str> = schema()["properties"]
        .as_object()
        .into_iter()
        .flat_map(|p| p.keys().map(String::as_str))
        .collect();
    let mut coercion = Coercion::new(format!("`run` takes {}", names.join(", ")));
    let value = Value::Object(coerce_object(&mut coercion, schema(), &fields, &place, &node.span));
    if !coercion.problems.is_empty() {
        return Err(coercion.problems);
    }
    let validator =
        VALIDATOR.get_or_init(|| compile(schema()).expect("invariant: the schema above is valid"));
    let problems = params::validate(validator, &value, &coercion.spans, &node.span);
    if problems.is_empty() {
        Ok(serde_json::from_value(value).expect("invariant: the schema above describes Execution"))
    } else {
        Err(problems)
    }
}
