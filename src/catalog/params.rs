//! One stage's params: fitted to the schema of its kind, then checked against all of it.
//! Does not know ports, nor what any param means.

use std::collections::HashMap;

use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::alias;
use super::coerce::coerce_object;
use super::coercion::Coercion;
use super::{Kind, Params};
use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Key, Node};

/// See [`Kind::params`].
pub fn typed(
    kind: &Kind,
    fields: &[(&Key, &Node)],
    owner: &str,
    at: &Span,
) -> Result<Params, Vec<Diagnostic>> {
    let mut coercion = Coercion::new(format!("`preflow kinds {}` lists all fields", kind.doc.name));
    let params = coerce_object(&mut coercion, &kind.doc.params, fields, owner, at);
    if !coercion.problems.is_empty() {
        alias::explain(&mut coercion, &kind.doc.params);
        return Err(coercion.problems);
    }
    let value = Value::Object(params);
    let problems = validate(kind.validator(), &value, &coercion.spans, at);
    match value {
        Value::Object(values) if problems.is_empty() => {
            Ok(Params { values, files: coercion.files })
        }
        _ => Err(problems),
    }
}

/// What the schema says beyond types: ranges, patterns, lengths.
pub fn validate(
    validator: &jsonschema::Validator,
    value: &Value,
    spans: &HashMap<String, Span>,
    at: &Span,
) -> Vec<Diagnostic> {
    if validator.is_valid(value) {
        return Vec::new();
    }
    let errors: Vec<_> = validator.iter_errors(value).collect();
    errors.iter().flat_map(inside).map(|error| broken_rule(error, spans, at)).collect()
}

/// What is wrong inside a value that may have one of several forms: the rules that it breaks in the
/// form that it is meant to have. Of other errors, themselves.
fn inside<'e, 'i>(
    error: &'e jsonschema::ValidationError<'i>,
) -> Vec<&'e jsonschema::ValidationError<'i>> {
    let forms = match error.kind() {
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            context
        }
        _ => return vec![error],
    };
    // A form that does not fit at all says so of the value itself, not of something in it.
    let own = error.instance_path().as_str().len();
    let deeper = |form: &&Vec<jsonschema::ValidationError<'i>>| {
        form.iter().all(|e| e.instance_path().as_str().len() > own)
    };
    match forms.iter().find(deeper) {
        Some(form) => form.iter().flat_map(inside).collect(),
        None => vec![error],
    }
}

fn broken_rule(
    error: &jsonschema::ValidationError<'_>,
    spans: &HashMap<String, Span>,
    at: &Span,
) -> Diagnostic {
    let mut path = error.instance_path().as_str();
    let name = path.trim_start_matches('/').replace('/', ".");
    let span = loop {
        if let Some(span) = spans.get(path) {
            break span;
        }
        match path.rfind('/') {
            Some(end) => path = &path[..end],
            None => break at,
        }
    };
    let wanted = match error.kind() {
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        ValidationErrorKind::MultipleOf { multiple_of } => {
            format!("must be a multiple of {multiple_of}")
        }
        ValidationErrorKind::MinItems { limit } => format!("needs at least {limit} items"),
        ValidationErrorKind::MaxItems { limit } => format!("takes at most {limit} items"),
        ValidationErrorKind::MinLength { limit: 1 } => "must not be empty".to_owned(),
        ValidationErrorKind::MinLength { limit } => format!("needs at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("takes at most {limit} characters"),
        ValidationErrorKind::MinProperties { limit } => format!("needs at least {limit} entries"),
        ValidationErrorKind::Pattern { pattern } => format!("must match `{pattern}`"),
        ValidationErrorKind::UniqueItems => "must not repeat an item".to_owned(),
        _ => error.to_string(),
    };
    let subject = if name.is_empty() { String::new() } else { format!("`{name}` ") };
    Diagnostic::new(format!("{subject}{wanted}"), Some(span.clone()))
        .label(format!("found {}", shown(error.instance())))
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(60).chain(['…']).collect() } else { text }
}
