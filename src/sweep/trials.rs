//! From what a sweep file says to its trials: product, zip, list, random, include, exclude, labels.
//! Does not know which params the pipeline has.

use std::collections::{HashMap, HashSet};

use super::{Axis, Sweep, Values, sample};
use crate::diagnostic::{Diagnostic, did_you_mean, listed};
use crate::pipeline::{Key, Node, NodeValue};

/// One setting of the params.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Unique; good as a file name.
    pub label: String,
    pub values: Values,
}

impl Trial {
    /// The value of a param, as a person would write it; `None` where the trial leaves it alone.
    #[must_use]
    pub fn value(&self, param: &str) -> Option<String> {
        self.values.iter().find(|(key, _)| key.name == param).map(|(_, node)| shown(node))
    }
}

impl Sweep {
    /// How many trials there are at most, before exclusion.
    #[must_use]
    pub fn count(&self) -> u64 {
        let matrix = self.matrix.iter().map(|a| a.values.len() as u64);
        let product = matrix.fold(1_u64, u64::saturating_mul);
        let factors = [
            self.zip.first().map(|a| a.values.len() as u64),
            (!self.list.is_empty()).then_some(self.list.len() as u64),
            self.random.as_ref().map(|r| r.trials),
        ];
        let any = !self.matrix.is_empty() || factors.iter().any(Option::is_some);
        let product = factors.into_iter().flatten().fold(product, u64::saturating_mul);
        if any { product } else { 0 }.saturating_add(self.include.len() as u64)
    }

    /// Names of the params that trials set, in the order of the file.
    #[must_use]
    pub fn params(&self) -> Vec<&str> {
        let axes = self.matrix.iter().chain(&self.zip).map(|a| &a.param);
        let lists = self.list.iter().chain(&self.include).flatten().map(|(key, _)| key);
        let random = self.random.iter().flat_map(|r| &r.space).map(|(key, _)| key);
        let budget = self.halving.iter().map(|h| &h.param);
        let mut names: Vec<&str> = Vec::new();
        for key in axes.chain(lists).chain(random).chain(budget) {
            if !names.contains(&key.name.as_str()) {
                names.push(&key.name);
            }
        }
        names
    }

    /// All trials, in the order of the file: the last axis of the matrix changes fastest.
    ///
    /// # Errors
    /// Labels that two trials share, a label, `over` or `baseline` that names another param, an
    /// exclusion that leaves nothing.
    pub fn trials(&self) -> Result<Vec<Trial>, Vec<Diagnostic>> {
        let mut problems = self.check_names();
        let mut all: Vec<Values> = Vec::new();
        if self.count() > self.include.len() as u64 {
            all.push(Vec::new());
            all = times(all, &self.list);
            let random = self.random.as_ref().map_or_else(Vec::new, sample::trials);
            all = times(all, &random);
            all = times(all, &zipped(&self.zip));
            for axis in &self.matrix {
                let options: Vec<Values> =
                    axis.values.iter().map(|v| vec![(axis.param.clone(), v.clone())]).collect();
                all = times(all, &options);
            }
        }
        all.retain(|values| !self.exclude.iter().any(|out| agrees(values, out)));
        all.extend(self.include.iter().cloned());
        let mut seen = HashSet::new();
        all.retain(|values| seen.insert(key_of(values)));
        if all.is_empty() && problems.is_empty() {
            let problem = Diagnostic::new("`exclude` leaves no trial", Some(self.span.clone()));
            problems.push(problem.help("leave some combination in"));
        }
        let mut trials = Vec::with_capacity(all.len());
        for values in all {
            match self.label_of(&values) {
                Ok(label) => trials.push(Trial { label, values }),
                // Every other trial would say the same.
                Err(problem) => {
                    problems.push(problem);
                    break;
                }
            }
        }
        let mut labels: HashMap<&str, usize> = HashMap::new();
        for (i, trial) in trials.iter().enumerate() {
            if let Some(first) = labels.insert(&trial.label, i).filter(|_| problems.is_empty()) {
                let (one, other) = (describe(&trials[first].values), describe(&trial.values));
                let place = self.label.as_ref().map_or(&self.span, |l| &l.span).clone();
                let message = format!("two trials are labelled `{}`", trial.label);
                problems.push(
                    Diagnostic::new(message, Some(place))
                        .label(format!("{{{one}}} and {{{other}}}"))
                        .help("name every param that differs: label: \"lr{lr}-s{seed}\""),
                );
            }
        }
        if problems.is_empty() { Ok(trials) } else { Err(problems) }
    }

    /// Params that `over` and `baseline` name.
    fn check_names(&self) -> Vec<Diagnostic> {
        let params = self.params();
        let over = self.over.iter().map(|w| ("over", &w.text, &w.span));
        let baseline = self.baseline.iter().flatten().map(|(k, _)| ("baseline", &k.name, &k.span));
        let unknown = over.chain(baseline).filter(|(_, name, _)| !params.contains(&name.as_str()));
        let said = unknown.map(|(key, name, span)| {
            let message = format!("`{key}` names `{name}`, which no trial sets");
            let problem = Diagnostic::new(message, Some(span.clone()));
            match did_you_mean(name, params.iter().copied()) {
                Some(near) => problem.label(format!("did you mean `{near}`?")),
                None => problem.help(format!("trials set {}", listed(&params))),
            }
        });
        said.collect()
    }

    /// The label of a trial, by the file's template or else from its values.
    fn label_of(&self, values: &Values) -> Result<String, Diagnostic> {
        let Some(template) = &self.label else {
            let parts: Vec<String> =
                values.iter().map(|(k, v)| format!("{}={}", k.name, shown(v))).collect();
            return Ok(safe(&parts.join(",")));
        };
        let mut text = String::new();
        let mut rest = template.text.as_str();
        while let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(b, r)| r.split_once('}').map(|r| (b, r)))
        {
            text.push_str(before);
            match values.iter().find(|(key, _)| key.name == name) {
                Some((_, value)) => text.push_str(&shown(value)),
                None => {
                    let message = format!("the label names `{name}`, which a trial does not set");
                    return Err(Diagnostic::new(message, Some(template.span.clone()))
                        .label(format!("the trial sets {{{}}}", describe(values))));
                }
            }
            rest = after;
        }
        Ok(safe(&(text + rest)))
    }
}

/// Every value of a factor with every trial so far; a factor that is absent changes nothing.
fn times(all: Vec<Values>, options: &[Values]) -> Vec<Values> {
    if options.is_empty() {
        return all;
    }
    let with = |values: &Values, option: &Values| {
        let mut values: Values = values
            .iter()
            .filter(|(k, _)| option.iter().all(|(o, _)| o.name != k.name))
            .cloned()
            .collect();
        values.extend(option.iter().cloned());
        values
    };
    all.iter().flat_map(|values| options.iter().map(move |option| with(values, option))).collect()
}

fn zipped(axes: &[Axis]) -> Vec<Values> {
    let length = axes.iter().map(|a| a.values.len()).min().unwrap_or(0);
    let row = |i: usize| axes.iter().map(|a| (a.param.clone(), a.values[i].clone())).collect();
    (0..length).map(row).collect()
}

/// The trial has all these values.
pub fn agrees(values: &Values, wanted: &[(Key, Node)]) -> bool {
    wanted.iter().all(|(key, node)| {
        values.iter().any(|(k, v)| k.name == key.name && shown(v) == shown(node))
    })
}

fn key_of(values: &Values) -> Vec<(String, String)> {
    let mut key: Vec<_> = values.iter().map(|(k, v)| (k.name.clone(), shown(v))).collect();
    key.sort();
    key
}

fn describe(values: &Values) -> String {
    let parts = values.iter().map(|(k, v)| format!("{}: {}", k.name, shown(v)));
    parts.collect::<Vec<_>>().join(", ")
}

/// A value as a person would write it; `1` and `1.0` are written alike.
pub fn shown(node: &Node) -> String {
    match &node.value {
        NodeValue::Null => "null".to_owned(),
        NodeValue::Bool(b) => b.to_string(),
        NodeValue::Int(i) => i.to_string(),
        NodeValue::Float(x) if *x != 0.0 && !(1e-3..1e6).contains(&x.abs()) => format!("{x:e}"),
        NodeValue::Float(x) => x.to_string(),
        NodeValue::String(text) => text.clone(),
        NodeValue::List(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        NodeValue::Map(entries) => format!("{{{}}}", describe(entries)),
    }
}

/// Labels become names of folders.
fn safe(label: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._=+-,".contains(c);
    let mut text: String = label.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if text.len() > 96 {
        // What was cut off may be what differs.
        let digest = crate::identity::Digest::of(label.as_bytes());
        text.truncate(87);
        text = format!("{text}-{}", digest.short());
    }
    match text.trim_start_matches('.') {
        "" => "trial".to_owned(),
        rest => rest.to_owned(),
    }
}

/// How a trial is called together with a stage: `train@lr0.1-s1`.
#[must_use]
pub fn label(stage: &str, trial: &Trial) -> String {
    format!("{stage}@{}", trial.label)
}
