//! The knobs of a pipeline: file, profile and command line give them values, `$name` uses them.
//! Does not know what the values are for.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::{Key, Node, NodeValue, Origin, Via};
use super::yaml;
use crate::diagnostic::{Diagnostic, SourceText, Span, did_you_mean, listed, named};

/// What all `$name` together may insert, in values and bytes.
const INSERT_LIMIT: usize = 16 * 1024 * 1024;
/// Params that do not exist are compared with all that do; after so many no more.
const SUGGESTED: usize = 40;
/// Deepest value that a param may hold.
const DEPTH_LIMIT: usize = 48;

/// Who may give params other values than the file: each overrides those before it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides<'a> {
    /// Name of a profile of the file.
    pub profile: Option<&'a str>,
    /// Params of one trial of a sweep.
    pub trial: &'a [(Key, Node)],
    /// Of the command line: `name=value`, the value in YAML.
    pub sets: &'a [String],
}

/// A param with the value it has after every override.
#[derive(Debug, Clone)]
pub struct Param {
    pub name: Key,
    pub value: Node,
    pub origin: Origin,
}

/// All params of a pipeline, in file order, and what is left of the budget for inserting them.
#[derive(Debug)]
pub struct PipelineParams {
    pub all: Vec<Param>,
    /// Where each is.
    places: HashMap<String, usize>,
    /// How often a param that does not exist was named.
    missed: usize,
    budget: usize,
    /// The params that may be used now: those above, while params themselves are filled in.
    visible: usize,
}

impl PipelineParams {
    /// `params` of the file, overridden by a profile, by a trial, and by the command line.
    pub fn resolve(
        declared: &[(Key, Node)],
        profiles: &[(Key, Node)],
        overrides: &Overrides,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let all = declared.iter().map(|(name, value)| Param {
            name: name.clone(),
            value: value.clone(),
            origin: Origin::File(value.span.clone()),
        });
        let all: Vec<Param> = all.collect();
        let places = all.iter().enumerate().map(|(i, p)| (p.name.name.clone(), i)).collect();
        let mut params = Self { all, places, missed: 0, budget: INSERT_LIMIT, visible: 0 };
        params.apply_profiles(profiles, overrides.profile, problems);
        for (key, value) in overrides.trial {
            params.apply_trial(key, value, problems);
        }
        for set in overrides.sets {
            params.apply_set(set, problems);
        }
        for i in 0..params.all.len() {
            params.visible = i;
            let mut value = params.all[i].value.clone();
            params.expand(&mut value, problems);
            params.all[i].value = value;
        }
        params.visible = params.all.len();
        params
    }

    fn apply_profiles(
        &mut self,
        profiles: &[(Key, Node)],
        chosen: Option<&str>,
        problems: &mut Vec<Diagnostic>,
    ) {
        if let Some(chosen) = chosen
            && !profiles.iter().any(|(name, _)| name.name == chosen)
        {
            let names: Vec<&str> = profiles.iter().map(|(n, _)| n.name.as_str()).collect();
            let message = format!("unknown profile `{chosen}`");
            problems.push(Diagnostic::new(message, None).help(suggest(chosen, &names, "profiles")));
        }
        for (profile, values) in profiles {
            let Some(values) = values.as_map() else {
                let problem = format!("profile `{}` must be a map of params", named(&profile.name));
                problems.push(
                    Diagnostic::new(problem, Some(values.span.clone()))
                        .label(format!("found {}", values.describe())),
                );
                continue;
            };
            for (key, value) in values {
                let Some(i) = self.find(&key.name) else {
                    problems.push(self.unknown(
                        &key.name,
                        format!(
                            "profile `{}` sets unknown param `{}`",
                            named(&profile.name),
                            named(&key.name)
                        ),
                        Some(key.span.clone()),
                    ));
                    continue;
                };
                if chosen == Some(profile.name.as_str()) {
                    self.all[i].value = value.clone();
                    self.all[i].origin =
                        Origin::Profile { name: profile.name.clone(), span: value.span.clone() };
                }
            }
        }
    }

    fn apply_trial(&mut self, key: &Key, value: &Node, problems: &mut Vec<Diagnostic>) {
        match self.find(&key.name) {
            Some(i) => {
                self.all[i].value = value.clone();
                self.all[i].origin = Origin::Sweep(value.span.clone());
            }
            None => problems.push(self.unknown(
                &key.name,
                format!("the sweep sets unknown param `{}`", named(&key.name)),
                Some(key.span.clone()),
            )),
        }
    }

    fn apply_set(&mut self, set: &str, problems: &mut Vec<Diagnostic>) {
        let text = Arc::new(SourceText::new("--set", set));
        let span = |range| Some(Span { source: Arc::clone(&text), range });
        let Some((name, _)) = set.split_once('=') else {
            let problem = Diagnostic::new("`--set` takes name=value", span(0..set.len()));
            problems.push(problem.label("no `=`"));
            return;
        };
        let Some(i) = self.find(name) else {
            let message = format!("`--set` names unknown param `{}`", named(name));
            problems.push(self.unknown(name, message, span(0..name.len())));
            return;
        };
        match yaml::parse_from(&text, name.len() + 1, None) {
            Ok(value) => {
                self.all[i].value = value.root;
                self.all[i].origin = Origin::Set(set.to_owned());
            }
            Err(found) => problems.extend(found),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    fn unknown(&mut self, name: &str, message: String, span: Option<Span>) -> Diagnostic {
        self.missed += 1;
        if self.missed > SUGGESTED {
            return Diagnostic::new(message, span);
        }
        let names: Vec<&str> = self.all.iter().map(|p| p.name.name.as_str()).collect();
        Diagnostic::new(message, span).help(suggest(name, &names, "params"))
    }

    /// Replaces every `$name` and `${name}` under `node`.
    pub fn expand(&mut self, node: &mut Node, problems: &mut Vec<Diagnostic>) {
        match &mut node.value {
            NodeValue::List(items) => {
                for item in items {
                    self.expand(item, problems);
                }
            }
            NodeValue::Map(entries) => {
                for (_, value) in entries {
                    self.expand(value, problems);
                }
            }
            NodeValue::String(text) if text.contains('$') => {
                if let Some(name) = whole(text) {
                    let name = name.to_owned();
                    self.insert(node, &name, problems);
                } else {
                    let (text, span) = (std::mem::take(text), node.span.clone());
                    let (expanded, via) = self.expand_text(&text, &span, problems);
                    node.value = NodeValue::String(expanded);
                    node.via = via.or_else(|| node.via.take());
                }
            }
            _ => {}
        }
    }

    /// A whole scalar `$name`: the value with its type.
    fn insert(&mut self, node: &mut Node, name: &str, problems: &mut Vec<Diagnostic>) {
        let Some(i) = self.usable(name, &node.span, problems) else { return };
        if !self.spend(self.all[i].value.weight(), &node.span, problems) {
            return;
        }
        let param = &self.all[i];
        if param.value.depth() > DEPTH_LIMIT {
            let message = format!("param `{}` is nested too deeply", named(name));
            problems.push(Diagnostic::new(message, Some(node.span.clone())));
            return;
        }
        node.value = param.value.value.clone();
        node.via = Some(via(param));
    }

    /// Inside a longer text only `${name}` counts, and `$$` is a dollar.
    fn expand_text(
        &mut self,
        text: &str,
        span: &Span,
        problems: &mut Vec<Diagnostic>,
    ) -> (String, Option<Arc<Via>>) {
        let mut out = String::with_capacity(text.len());
        let mut used = None;
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) = braced(rest) {
                rest = after;
                let Some(i) = self.usable(name, span, problems) else { continue };
                let Some(scalar) = scalar_text(&self.all[i].value) else {
                    let message = format!("param `{}` does not fit inside text", named(name));
                    let found = self.all[i].value.describe();
                    problems.push(
                        Diagnostic::new(message, Some(span.clone()))
                            .label(format!("`${{{}}}` is {found}", named(name))),
                    );
                    continue;
                };
                if !self.spend(scalar.len(), span, problems) {
                    break;
                }
                out.push_str(&scalar);
                used = Some(via(&self.all[i]));
            } else {
                out.push('$');
            }
        }
        out.push_str(rest);
        (out, used)
    }

    fn usable(&mut self, name: &str, span: &Span, problems: &mut Vec<Diagnostic>) -> Option<usize> {
        match self.find(name) {
            Some(i) if i < self.visible => Some(i),
            Some(_) => {
                let message = format!("param `{}` is used above its own line", named(name));
                problems.push(
                    Diagnostic::new(message, Some(span.clone()))
                        .help("a param may use the params above it"),
                );
                None
            }
            None => {
                let message = format!("unknown param `{}`", named(name));
                let problem = self.unknown(name, message, Some(span.clone()));
                problems.push(problem.label(format!("`params` has no `{}`", named(name))));
                None
            }
        }
    }

    fn spend(&mut self, cost: usize, span: &Span, problems: &mut Vec<Diagnostic>) -> bool {
        if cost <= self.budget {
            self.budget -= cost;
            return true;
        }
        if self.budget > 0 {
            self.budget = 0;
            problems.push(
                Diagnostic::new("params expand to too much", Some(span.clone()))
                    .label(format!("more than {} MiB in all", INSERT_LIMIT >> 20)),
            );
        }
        false
    }
}

fn via(param: &Param) -> Arc<Via> {
    Arc::new(Via { param: param.name.name.clone(), origin: param.origin.clone() })
}

/// The name when the text is one `$name` or `${name}` and nothing else.
fn whole(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('$')?;
    match braced(rest) {
        Some((name, "")) => Some(name),
        _ if is_word(rest) => Some(rest),
        _ => None,
    }
}

fn braced(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix('{')?.split_once('}')?;
    is_word(name).then_some((name, rest))
}

/// Names of params: a letter or `_`, then letters, digits, `_` and `-`.
pub fn is_word(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn scalar_text(node: &Node) -> Option<String> {
    match &node.value {
        NodeValue::Bool(b) => Some(b.to_string()),
        NodeValue::Int(i) => Some(i.to_string()),
        NodeValue::Float(f) => Some(f.to_string()),
        NodeValue::String(s) => Some(s.clone()),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
    }
}

/// "did you mean", or all that there is.
pub fn suggest(typed: &str, names: &[&str], plural: &str) -> String {
    match did_you_mean(typed, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("the file has no {plural}"),
        None => format!("{plural}: {}", listed(names)),
    }
}
