//! Kinds as data: what the workers offer, and the types of ports and params.
//! Does not know files, time or processes, nor what any kind does.

mod alias;
mod coerce;
mod coercion;
pub mod editor;
pub mod execution;
mod params;
#[cfg(test)]
mod tests;
pub mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Key, Node, NodeValue};
use crate::protocol::{CatalogDoc, KindDoc, PROTOCOL};

/// All kinds that pipelines may use.
#[derive(Debug, Default)]
pub struct Catalog {
    kinds: BTreeMap<String, Kind>,
    /// Why there may be kinds that are not known here: workers that may not be asked.
    unasked: Option<String>,
}

/// One kind with its compiled schema.
#[derive(Debug)]
pub struct Kind {
    pub doc: KindDoc,
    /// Command of the worker that offers it; `None`: the built-in one.
    pub worker: Option<Vec<String>>,
    /// That worker can be asked what is wrong with stages before they run.
    pub validates: bool,
    /// Compiled when first needed: most runs use few kinds.
    validator: OnceLock<jsonschema::Validator>,
}

/// The params of one stage, fitted.
#[derive(Debug, Clone, Default)]
pub struct Params {
    /// Typed, defaulted, canonical.
    pub values: Map<String, Value>,
    pub files: Vec<ParamFile>,
}

/// A param that names a file (schema keyword `x-source: { port, type }`): an artifact nobody makes,
/// at an input port of its own. Its content decides the result, its path does not.
#[derive(Debug, Clone)]
pub struct ParamFile {
    /// JSON pointer of the param.
    pub pointer: String,
    pub port: String,
    pub port_type: String,
    pub path: String,
    pub span: Span,
}

/// A catalog that cannot be used: the worker is to blame, not the pipeline.
#[derive(Debug, Error)]
pub enum CatalogError {
    #[error("the catalog is not readable: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the catalog speaks protocol {found}, this preflow speaks {PROTOCOL}")]
    Protocol { found: u32 },
    #[error("two workers offer a kind `{0}`")]
    Twice(String),
    #[error("kind `{kind}` cannot be used: {problem}")]
    Broken { kind: String, problem: String },
}

impl Catalog {
    /// The kinds of the worker that comes with preflow.
    ///
    /// # Panics
    /// When the embedded catalog is broken, which a test rules out.
    #[must_use]
    pub fn builtin() -> Self {
        let doc = serde_json::from_str(BUILTIN).map_err(CatalogError::from);
        let mut catalog = Self::default();
        // Checking its schemas again would take most of the time of a run with nothing to do.
        doc.and_then(|doc| catalog.insert(doc, None, |_| Ok(())))
            .expect("invariant: the embedded catalog is checked by a test");
        catalog
    }

    /// Reads what a worker's `describe` prints.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        catalog.add(serde_json::from_str(text)?)?;
        Ok(catalog)
    }

    /// Adds the kinds of one more worker.
    pub fn add(&mut self, doc: CatalogDoc) -> Result<(), CatalogError> {
        self.insert(doc, None, check_kind)
    }

    /// Adds what a team's own worker describes itself as.
    ///
    /// # Errors
    /// It is no catalog, or a kind of it cannot be used.
    pub fn add_worker(&mut self, text: &str, command: &[String]) -> Result<(), CatalogError> {
        self.insert(serde_json::from_str(text)?, Some(command), check_kind)
    }

    /// Notes that some workers could not be asked, and what is to be done about it.
    pub fn set_unasked(&mut self, why: String) {
        self.unasked = Some(why);
    }

    /// Why there may be kinds that are not known here.
    #[must_use]
    pub fn unasked(&self) -> Option<&str> {
        self.unasked.as_deref()
    }

    fn insert(
        &mut self,
        doc: CatalogDoc,
        worker: Option<&[String]>,
        check: impl Fn(&KindDoc) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        if doc.protocol != PROTOCOL {
            return Err(CatalogError::Protocol { found: doc.protocol });
        }
        let validates = doc.validates;
        for doc in doc.kinds {
            check(&doc)?;
            let name = doc.name.clone();
            let (worker, validator) = (worker.map(<[_]>::to_vec), OnceLock::new());
            let kind = Kind { doc, worker, validates, validator };
            if self.kinds.insert(name.clone(), kind).is_some() {
                return Err(CatalogError::Twice(name));
            }
        }
        Ok(())
    }

    /// The kind of that name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name)
    }

    /// All kinds, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }

    /// The port type that a word means: one of the types here, in full or by its last part.
    #[must_use]
    pub fn port_type(&self, word: &str) -> Option<&str> {
        let types = self.port_types();
        let short = |t: &&str| t.split_once('/').is_some_and(|(_, s)| s == word);
        types.get(word).copied().or_else(|| types.iter().copied().find(short))
    }

    /// Words for the port types that are nearest to how people write them.
    #[must_use]
    pub fn short_types(&self) -> Vec<&str> {
        self.port_types().iter().map(|t| t.split_once('/').map_or(*t, |(_, s)| s)).collect()
    }

    /// Every port type that some kind takes or makes, without templates and `*`.
    #[must_use]
    pub fn port_types(&self) -> BTreeSet<&str> {
        let inputs = self.kinds().flat_map(|k| &k.doc.inputs).flat_map(|i| &i.accepts);
        let outputs = self.kinds().flat_map(|k| &k.doc.outputs).map(|o| &o.port_type);
        inputs
            .chain(outputs)
            .map(String::as_str)
            .filter(|t| *t != "*" && !t.contains('{'))
            .chain([FILE])
            .collect()
    }
}

const BUILTIN: &str = include_str!("../../stages/catalog.json");

/// The port type of a source that does not say what it is.
pub const FILE: &str = "file";

impl Kind {
    /// Fits the params of one stage to the schema: typed, defaulted, canonical.
    /// `owner` names the stage and `at` is its place, for what is missing.
    pub fn params(
        &self,
        fields: &[(&Key, &Node)],
        owner: &str,
        at: &Span,
    ) -> Result<Params, Vec<Diagnostic>> {
        let short: Vec<Option<Node>> =
            fields.iter().map(|(key, node)| self.short_type(&key.name, node)).collect();
        let fields = fields.iter().zip(&short);
        let fields: Vec<(&Key, &Node)> =
            fields.map(|((key, node), short)| (*key, short.as_ref().unwrap_or(node))).collect();
        params::typed(self, &fields, owner, at)
    }

    /// A port type written in full where the kind asks for its last part: an output of type
    /// `dataset/{as}` makes `dataset/text` mean `text` in the param `as`.
    fn short_type(&self, param: &str, node: &Node) -> Option<Node> {
        let text = node.as_str()?;
        let ending = format!("{{{param}}}");
        let short = self.doc.outputs.iter().find_map(|output| {
            let before = output.port_type.strip_suffix(&ending)?;
            text.strip_prefix(before).filter(|_| !before.is_empty())
        })?;
        Some(Node { value: NodeValue::String(short.to_owned()), ..node.clone() })
    }

    /// Names of all params.
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        let properties = self.doc.params.get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(|p| p.keys()).map(String::as_str)
    }

    fn validator(&self) -> &jsonschema::Validator {
        self.validator.get_or_init(|| {
            compile(&self.doc.params).expect("invariant: schemas are checked when they are added")
        })
    }
}

/// Compiles a schema. Formats and remote references are not followed.
fn compile(schema: &Value) -> Result<jsonschema::Validator, String> {
    jsonschema::draft7::new(schema).map_err(|e| e.to_string())
}

fn check_kind(doc: &KindDoc) -> Result<(), CatalogError> {
    let broken = |problem: String| CatalogError::Broken { kind: doc.name.clone(), problem };
    if let Err(error) = jsonschema::draft7::meta::validate(&doc.params) {
        return Err(broken(format!("its schema is invalid: {error}")));
    }
    if doc.outputs.is_empty() && doc.open_ports.is_none() {
        return Err(broken("it has no output".to_owned()));
    }
    let params = doc.params.get("properties").and_then(Value::as_object);
    let open = doc.open_ports.iter().flat_map(|o| [&o.inputs, &o.outputs]);
    let names = doc.inputs.iter().map(|i| &i.name).chain(open);
    let mut seen = BTreeSet::from(["kind", "run", "gate"]);
    for name in names
        .map(String::as_str)
        .chain(params.into_iter().flat_map(|p| p.keys()).map(String::as_str))
    {
        if !seen.insert(name) {
            return Err(broken(format!("`{name}` names two of its fields")));
        }
    }
    Ok(())
}
