//! What a stage kind is: a name, a version, ports, a schema of params and a function.
//! Knows nothing of what any kind does.

mod aliases;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use preflow::protocol::{InputDoc, KindDoc, OpenPorts, OutputDoc, ProgramDoc};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::preflight::Preflight;

/// Metrics at the end of a stage, kept with its entry.
pub type Summary = BTreeMap<String, f64>;

/// A stage kind. The implementing type holds the params: every field documented, and with a
/// default unless it must be given.
pub trait Stage: DeserializeOwned + JsonSchema {
    const NAME: &'static str;
    /// Bumped whenever equal inputs and params would give other bytes.
    const VERSION: u32;
    /// One line, no period.
    const SUMMARY: &'static str;
    /// CPU threads when `run.threads` is absent; 0: all.
    const THREADS: u32 = 0;
    /// Metrics worth watching while it runs, the most telling first.
    const LIVE: &'static [&'static str] = &[];

    /// Figures that it may report at its end; `*` at the end of a name stands for anything.
    const FIGURES: &'static [&'static str];

    fn inputs() -> Vec<InputDoc>;
    fn outputs() -> Vec<OutputDoc>;
    /// Set when the pipeline file names the ports.
    fn open_ports() -> Option<OpenPorts> {
        None
    }
    /// Set when the stage is a plain program.
    fn program() -> Option<ProgramDoc> {
        None
    }

    /// Looks for what cannot work, before anything runs.
    fn check(&self, look: &mut Preflight) {
        let _ = look;
    }

    /// The figures that a stage with these params may report.
    fn figures(&self, look: &Preflight) -> Vec<String> {
        let _ = look;
        Self::FIGURES.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Performs the stage.
    ///
    /// # Errors
    /// A message for the person who wrote the pipeline, with the causes below it.
    fn run(self, cx: &mut Context) -> Result<Summary>;
}

/// A [`Stage`] as an entry of the list of kinds: its name, and its functions by pointer.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub version: u32,
    describe: fn() -> KindDoc,
    run: fn(Map<String, Value>, &mut Context) -> Result<Summary>,
    check: fn(Map<String, Value>, &mut Preflight),
}

impl Kind {
    /// The entry of `S` in the list of kinds.
    pub const fn of<S: Stage>() -> Self {
        Self {
            name: S::NAME,
            version: S::VERSION,
            describe: describe::<S>,
            run: run::<S>,
            check: check::<S>,
        }
    }

    /// What the catalog says about it.
    pub fn describe(&self) -> KindDoc {
        (self.describe)()
    }

    /// Looks for what cannot work in a stage with these params.
    pub fn check(&self, params: Map<String, Value>, look: &mut Preflight) {
        (self.check)(params, look);
    }

    /// Performs a stage with these params.
    ///
    /// # Errors
    /// When the params do not fit, or the stage fails.
    pub fn run(&self, params: Map<String, Value>, cx: &mut Context) -> Result<Summary> {
        (self.run)(params, cx)
    }
}

/// An input port that takes one artifact.
pub fn input(name: &str, accepts: &[&str], doc: &str) -> InputDoc {
    InputDoc {
        name: name.into(),
        accepts: accepts.iter().map(|s| (*s).into()).collect(),
        many: false,
        optional: false,
        doc: doc.into(),
    }
}

/// An input port that may be left open.
pub fn optional(name: &str, accepts: &[&str], doc: &str) -> InputDoc {
    InputDoc { optional: true, ..input(name, accepts, doc) }
}

/// An input port that takes a list.
pub fn many(name: &str, accepts: &[&str], doc: &str) -> InputDoc {
    InputDoc { many: true, ..input(name, accepts, doc) }
}

/// An output port; `extension` is empty for a folder.
pub fn output(name: &str, port_type: &str, extension: &str, doc: &str) -> OutputDoc {
    OutputDoc {
        name: name.into(),
        port_type: port_type.into(),
        extension: extension.into(),
        doc: doc.into(),
    }
}

/// Checks that a number lies in a range.
///
/// # Errors
/// Names the param.
pub fn check_range(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if !(low..=high).contains(&value) {
        bail!("`{name}` must lie between {low} and {high}, not {value}");
    }
    Ok(())
}

fn describe<S: Stage>() -> KindDoc {
    let settings = SchemaSettings::draft07().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut params = settings.into_generator().into_root_schema_for::<S>().to_value();
    if let Some(schema) = params.as_object_mut() {
        schema.remove("title");
        schema.insert("additionalProperties".into(), false.into());
    }
    bound(&mut params);
    aliases::annotate(S::NAME, &mut params);
    KindDoc {
        name: S::NAME.into(),
        version: S::VERSION,
        summary: S::SUMMARY.into(),
        inputs: S::inputs(),
        outputs: S::outputs(),
        params,
        open_ports: S::open_ports(),
        program: S::program(),
        threads: S::THREADS,
        live: S::LIVE.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// Gives whole numbers the largest value that their type holds, where none is given. Beyond 2^53 a
/// number is not exact in every reader of JSON.
fn bound(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let largest = match map.get("format").and_then(Value::as_str) {
                Some("uint32") => Some(u64::from(u32::MAX)),
                Some("uint64") => Some(1 << 53),
                _ => None,
            };
            if let Some(largest) = largest.filter(|_| !map.contains_key("maximum")) {
                map.insert("maximum".into(), largest.into());
            }
            map.values_mut().for_each(bound);
        }
        Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}

fn check<S: Stage>(params: Map<String, Value>, look: &mut Preflight) {
    if let Some(stage) = look.tell("", read::<S>(params)) {
        stage.check(look);
        look.figures = stage.figures(look);
    }
}

fn run<S: Stage>(params: Map<String, Value>, cx: &mut Context) -> Result<Summary> {
    read::<S>(params)?.run(cx)
}

/// Reads params into the type of the kind; refuses names that it does not have.
fn read<S: Stage>(params: Map<String, Value>) -> Result<S> {
    // Not by serde: params that several kinds share are flattened, which takes any field.
    let known = describe::<S>().params;
    if let Some(unknown) = params.keys().find(|name| known["properties"].get(*name).is_none()) {
        bail!("unknown field `{unknown}` in the params of kind `{}`", S::NAME);
    }
    serde_json::from_value(Value::Object(params))
        .with_context(|| format!("the params do not fit kind `{}`", S::NAME))
}
