//! `preflow kinds`: what stages can be.
//! Does not know any kind: it prints the catalog.

use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::exit::Exit;
use super::{Global, complain, print};
use crate::catalog::execution;
use crate::diagnostic::{did_you_mean, named};
use crate::project::{Failure, workers::catalog_of};
use crate::protocol::KindDoc;
use crate::report::OutputStyle;
use crate::report::table::{Table, hang};

#[derive(Debug, Args)]
pub struct KindsArgs {
    /// All fields of this kind
    #[arg(value_name = "KIND")]
    pub name: Option<String>,
    /// All fields of all kinds, as Markdown
    #[arg(long, conflicts_with = "name")]
    pub markdown: bool,
}

/// Prints the catalog, or one kind of it.
///
/// # Errors
/// The workspace file, or a worker it names, is wrong.
pub fn run(args: &KindsArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let catalog = catalog_of(Path::new("here.yaml"), &global.choices())?;
    if let Some(why) = catalog.unasked() {
        complain(&format!("note: {why}\n"));
    }
    if args.markdown {
        return Ok(print(&markdown(catalog.kinds().map(|k| &k.doc))));
    }
    let Some(name) = &args.name else {
        let docs: Vec<&KindDoc> = catalog.kinds().map(|k| &k.doc).collect();
        return Ok(print(&if global.json { json(&docs) } else { list(&docs, look) }));
    };
    let Some(kind) = catalog.kind(name) else {
        let near = did_you_mean(name, catalog.kinds().map(|k| k.doc.name.as_str()));
        let help = near
            .map_or("`preflow kinds` lists them".to_owned(), |n| format!("did you mean `{n}`?"));
        complain(&format!("error: unknown kind `{}`\n  = help: {help}\n", named(name)));
        return Ok(Exit::Usage);
    };
    Ok(print(&if global.json { json(&kind.doc) } else { describe(&kind.doc, look) }))
}

/// A page of reference: a section a kind.
fn markdown<'a>(docs: impl Iterator<Item = &'a KindDoc>) -> String {
    let mut page = "# All kinds and their fields\n\nWritten by `make catalog`.\n".to_owned();
    for doc in docs {
        let text = describe(doc, OutputStyle::default());
        // What every stage has stands in the help of `run:`, not here for each.
        let own = text.split("\nrun (how").next().unwrap_or(&text);
        page += &format!("\n## {}\n\n```text\n{}\n```\n", doc.name, own.trim_end());
    }
    page
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("invariant: the catalog came from JSON") + "\n"
}

fn list(docs: &[&KindDoc], look: OutputStyle) -> String {
    let mut table = Table::new(&[1, 2, 3]);
    table.row(["kind", "in", "out", "what it does"]);
    for doc in docs {
        let open = doc.open_ports.is_some();
        let inputs: Vec<&str> = doc.inputs.iter().map(|i| i.name.as_str()).collect();
        let outputs: Vec<&str> = doc.outputs.iter().map(|o| o.name.as_str()).collect();
        let ports = |names: Vec<&str>| {
            if open && names.is_empty() { "any".to_owned() } else { names.join(", ") }
        };
        table.row([doc.name.clone(), ports(inputs), ports(outputs), doc.summary.clone()]);
    }
    table.text(look)
}

fn describe(doc: &KindDoc, look: OutputStyle) -> String {
    let head = format!("{} (version {}): {}", doc.name, doc.version, doc.summary);
    let mut out = hang(&head, 2, look) + "\n";
    let mut ports = Table::new(&[1, 2]);
    for input in &doc.inputs {
        let mut words = vec![input.accepts.join(" or ")];
        words.extend(input.many.then(|| "one or a list".to_owned()));
        words.extend(input.optional.then(|| "optional".to_owned()));
        ports.row([format!("  {}", input.name), words.join(", "), input.doc.clone()]);
    }
    if let Some(open) = &doc.open_ports {
        let what = "NAME → source, stage or stage.port".to_owned();
        ports.row([format!("  {}", open.inputs), what, String::new()]);
    }
    if !ports.is_empty() {
        out.push_str(&format!("\ninputs\n{}", ports.text(look)));
    }
    let mut ports = Table::new(&[1, 2]);
    for output in &doc.outputs {
        ports.row([format!("  {}", output.name), output.port_type.clone(), output.doc.clone()]);
    }
    if let Some(open) = &doc.open_ports {
        ports.row([format!("  {}", open.outputs), "NAME → type".to_owned(), String::new()]);
    }
    out.push_str(&format!("\noutputs\n{}", ports.text(look)));
    for (title, schema) in [("params", &doc.params), ("run", execution::schema())] {
        let mut fields = Table::new(&[1, 2, 3]);
        rows(&mut fields, schema, 1, false);
        if !fields.is_empty() {
            let note =
                if title == "run" { " (how, never what: not part of the identity)" } else { "" };
            out.push_str(&format!("\n{title}{note}\n{}", fields.text(look)));
        }
    }
    out
}

/// One row a param; the params of maps and of alternatives below them.
/// `branch`: the schema is one alternative, its only property the tag.
fn rows(table: &mut Table, schema: &Value, depth: usize, branch: bool) {
    let required = schema.get("required").and_then(Value::as_array);
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let must = !branch && required.is_some_and(|r| r.iter().any(|v| v == name));
        let default = match property.get("default") {
            None if must => "required".to_owned(),
            None => String::new(),
            Some(Value::Object(_)) if property.get("properties").is_some() => String::new(),
            Some(Value::String(word)) if word.is_empty() => "\"\"".to_owned(),
            Some(Value::Null) => "none".to_owned(),
            Some(Value::String(word)) => word.clone(),
            Some(value) => value.to_string(),
        };
        let doc = property.get("description").and_then(Value::as_str).unwrap_or_default();
        let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let indent = "  ".repeat(depth);
        table.row([format!("{indent}{name}"), type_words(property), default, doc]);
        rows(table, property, depth + 1, false);
        if let Some(items) = property.get("items") {
            rows(table, items, depth + 1, false);
        }
        for alternative in branches(property) {
            rows(table, alternative, depth + 1, true);
        }
    }
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array);
    all.into_iter().flatten()
}

/// `number`, `a | b`, `count`, `list of text`: short, for a column.
fn type_words(schema: &Value) -> String {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<String> =
            words.iter().map(|w| w.as_str().map_or(w.to_string(), ToOwned::to_owned)).collect();
        return words.join(" | ");
    }
    if let Some(word) = schema.get("const") {
        return word.as_str().map_or(word.to_string(), ToOwned::to_owned);
    }
    let alternatives: Vec<String> = branches(schema)
        .filter(|b| b.get("type").is_none_or(|t| t != "null"))
        .map(|branch| match branch.get("properties").and_then(Value::as_object) {
            Some(tags) if tags.len() == 1 => tags.keys().cloned().collect(),
            _ => type_words(branch),
        })
        .collect();
    if !alternatives.is_empty() {
        return alternatives.join(" | ");
    }
    let unit = schema.get("x-unit").and_then(Value::as_str);
    let names: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec!["any"],
    };
    let words = names.iter().filter(|n| **n != "null").map(|name| match (*name, unit) {
        ("integer" | "number", Some(unit)) => unit.to_owned(),
        ("integer", None) => "whole number".to_owned(),
        ("string", _) if schema.get("x-source").is_some() => "path".to_owned(),
        ("string", _) => "text".to_owned(),
        ("boolean", _) => "true | false".to_owned(),
        ("array", _) => match schema.get("items") {
            Some(items) => format!("list of {}", type_words(items)),
            None => "list".to_owned(),
        },
        ("object", _) => "map".to_owned(),
        (other, _) => other.to_owned(),
    });
    words.collect::<Vec<_>>().join(" | ")
}
