//! The tree of a sweep file to a [`Sweep`]. Whatever is wrong is named with its place.
//! Does not know which params the pipeline has.

use std::path::Path;

use super::{Axis, Goal, Halving, Objective, Random, Space, Sweep, Values};
use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Document, Key, Node, NodeValue, Spanned, unknown_key};

const KEYS: [&str; 14] = [
    "preflow-sweep",
    "pipeline",
    "question",
    "matrix",
    "zip",
    "trials",
    "random",
    "halving",
    "include",
    "exclude",
    "label",
    "over",
    "baseline",
    "metric",
];

type Problems = Vec<Diagnostic>;

/// Reads a sweep file.
///
/// # Errors
/// Every problem that was found.
pub fn read(document: &Document) -> Result<Sweep, Problems> {
    let mut problems = Vec::new();
    let Some(entries) = document.tree.as_map() else {
        let problem = Diagnostic::new("a sweep file is a map", Some(document.tree.span.clone()));
        return Err(vec![problem.label(format!("found {}", document.tree.describe()))]);
    };
    for (key, _) in entries.iter().filter(|(k, _)| !KEYS.contains(&k.name.as_str())) {
        problems.push(unknown_key(&key.name, "a sweep file", &key.span, &KEYS));
    }
    let mut file = File { entries, problems };
    let span = file.version(&document.tree.span);
    let folder = Path::new(&document.path).parent().unwrap_or(Path::new(""));
    let stem = Path::new(&document.path).file_stem().unwrap_or_default();
    let pipeline = file.word("pipeline");
    if pipeline.is_none() && file.get("pipeline").is_none() {
        let problem = Diagnostic::new("the sweep names no pipeline", Some(span.clone()));
        file.problems.push(problem.help("pipeline: FILE, relative to the sweep file"));
    }
    let pipeline = pipeline.map_or_else(String::new, |w| w.text);
    let sweep = Sweep {
        name: stem.to_string_lossy().into_owned(),
        pipeline: folder.join(pipeline).to_string_lossy().into_owned(),
        question: file.word("question").map_or_else(String::new, |w| w.text),
        matrix: file.axes("matrix"),
        zip: file.axes("zip"),
        list: file.list("trials"),
        random: file.random(),
        halving: file.halving(),
        include: file.list("include"),
        exclude: file.list("exclude"),
        label: file.word("label"),
        over: file.words("over"),
        baseline: file.get("baseline").and_then(|node| file.values(node, "`baseline`")),
        metric: file.metric(),
        span,
    };
    file.check_zip(&sweep);
    let made = [sweep.matrix.len(), sweep.zip.len(), sweep.list.len(), sweep.include.len()];
    if made.iter().all(|n| *n == 0) && sweep.random.is_none() && file.problems.is_empty() {
        let problem = Diagnostic::new("the sweep has no trials", Some(sweep.span.clone()));
        file.problems.push(problem.help("matrix: { PARAM: [VALUE, …] }"));
    }
    if let (Some(halving), None) = (&sweep.halving, &sweep.metric) {
        let place = Some(halving.param.span.clone());
        let problem = Diagnostic::new("halving needs a metric to choose by", place);
        file.problems.push(problem.help("metric: { name: STAGE/FIGURE, goal: maximize }"));
    }
    if file.problems.is_empty() {
        return Ok(sweep);
    }
    crate::diagnostic::sort(&mut file.problems);
    Err(file.problems)
}

/// A file while it is read.
struct File<'a> {
    entries: &'a [(Key, Node)],
    problems: Problems,
}

impl<'a> File<'a> {
    fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    fn wrong(&mut self, message: String, node: &Node) {
        self.problems.push(
            Diagnostic::new(message, Some(node.span.clone()))
                .label(format!("found {}", node.describe())),
        );
    }

    fn version(&mut self, start: &Span) -> Span {
        match self.entries.iter().find(|(key, _)| key.name == "preflow-sweep") {
            Some((key, Node { value: NodeValue::Int(1), .. })) => key.span.clone(),
            Some((key, node)) => {
                self.wrong("this `preflow` reads sweeps of format 1 only".to_owned(), node);
                key.span.clone()
            }
            None => {
                let message = "the file does not say `preflow-sweep: 1`";
                let problem = Diagnostic::new(message, Some(start.clone()));
                self.problems.push(problem.help("the first line of a sweep is `preflow-sweep: 1`"));
                start.clone()
            }
        }
    }

    fn word(&mut self, name: &str) -> Option<Spanned> {
        let node = self.get(name)?;
        match node.as_str() {
            Some(text) => Some(Spanned { text: text.to_owned(), span: node.span.clone() }),
            None => {
                self.wrong(format!("`{name}` must be text"), node);
                None
            }
        }
    }

    fn words(&mut self, name: &str) -> Vec<Spanned> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let items = match &node.value {
            NodeValue::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut words = Vec::with_capacity(items.len());
        for item in items {
            match item.as_str() {
                Some(text) => {
                    words.push(Spanned { text: text.to_owned(), span: item.span.clone() })
                }
                None => self.wrong(format!("`{name}` lists names of params"), item),
            }
        }
        words
    }

    fn map(&mut self, node: &'a Node, what: &str) -> &'a [(Key, Node)] {
        node.as_map().unwrap_or_else(|| {
            self.wrong(format!("{what} must be a map of params"), node);
            &[]
        })
    }

    fn axes(&mut self, name: &str) -> Vec<Axis> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let entries = self.map(node, &format!("`{name}`"));
        if entries.is_empty() && node.as_map().is_some() {
            let problem = Diagnostic::new(format!("`{name}` is empty"), Some(node.span.clone()));
            self.problems.push(problem.help(format!("{name}: {{ PARAM: [VALUE, …] }}")));
        }
        let mut axes = Vec::with_capacity(entries.len());
        for (param, node) in entries {
            match &node.value {
                NodeValue::List(values) if !values.is_empty() => {
                    axes.push(Axis { param: param.clone(), values: values.clone() });
                }
                NodeValue::List(_) => {
                    let message = format!("`{}` has no values", param.name);
                    self.problems.push(
                        Diagnostic::new(message, Some(node.span.clone())).label("an empty list"),
                    );
                }
                _ => self.wrong(format!("`{}` needs a list of values", param.name), node),
            }
        }
        axes
    }

    fn check_zip(&mut self, sweep: &Sweep) {
        let Some(first) = sweep.zip.first() else { return };
        for axis in sweep.zip.iter().filter(|a| a.values.len() != first.values.len()) {
            let message = format!(
                "`zip` pairs values: `{}` has {}, `{}` has {}",
                first.param.name,
                first.values.len(),
                axis.param.name,
                axis.values.len()
            );
            let problem = Diagnostic::new(message, Some(axis.param.span.clone()));
            self.problems.push(problem.help("lists of a zip are equally long"));
        }
        for axis in &sweep.zip {
            if sweep.matrix.iter().any(|a| a.param.name == axis.param.name) {
                let message = format!("`{}` stands in both matrix and zip", axis.param.name);
                self.problems.push(Diagnostic::new(message, Some(axis.param.span.clone())));
            }
        }
    }

    fn values(&mut self, node: &'a Node, what: &str) -> Option<Values> {
        let entries = self.map(node, what);
        (!entries.is_empty()).then(|| entries.to_vec())
    }

    fn list(&mut self, name: &str) -> Vec<Values> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let NodeValue::List(items) = &node.value else {
            self.wrong(format!("`{name}` must be a list of maps of params"), node);
            return Vec::new();
        };
        items.iter().filter_map(|i| self.values(i, &format!("an item of `{name}`"))).collect()
    }

    fn metric(&mut self) -> Option<Objective> {
        let node = self.get("metric")?;
        if let Some(text) = node.as_str() {
            let name = Spanned { text: text.to_owned(), span: node.span.clone() };
            return Some(Objective { name, goal: Goal::Maximize });
        }
        let entries = self.map(node, "`metric`");
        let (mut name, mut goal) = (None, Goal::Maximize);
        for (key, value) in entries {
            match (key.name.as_str(), value.as_str()) {
                ("name", Some(text)) => {
                    name = Some(Spanned { text: text.to_owned(), span: value.span.clone() });
                }
                ("goal", Some("maximize")) => goal = Goal::Maximize,
                ("goal", Some("minimize")) => goal = Goal::Minimize,
                ("goal", _) => self.wrong("`goal` must be maximize or minimize".into(), value),
                ("name", None) => self.wrong("`name` of the metric must be text".into(), value),
                _ => self.problems.push(unknown_key(
                    &key.name,
                    "`metric`",
                    &key.span,
                    &["name", "goal"],
                )),
            }
        }
        if name.is_none() && !entries.is_empty() {
            let problem = Diagnostic::new("the metric has no name", Some(node.span.clone()));
            self.problems.push(problem.help("metric: { name: STAGE/FIGURE, goal: maximize }"));
        }
        name.map(|name| Objective { name, goal })
    }

    fn random(&mut self) -> Option<Random> {
        let node = self.get("random")?;
        let before = self.problems.len();
        let (mut trials, mut seed, mut space) = (None, 0, Vec::new());
        for (key, value) in self.map(node, "`random`") {
            match (key.name.as_str(), &value.value) {
                ("trials", NodeValue::Int(n)) if *n > 0 => trials = u64::try_from(*n).ok(),
                ("seed", NodeValue::Int(n)) if *n >= 0 => seed = u64::try_from(*n).unwrap_or(0),
                ("trials" | "seed", _) => {
                    self.wrong(format!("`{}` must be a whole number", key.name), value);
                }
                ("space", _) => {
                    for (param, node) in self.map(value, "`space`") {
                        if let Some(one) = self.space(node) {
                            space.push((param.clone(), one));
                        }
                    }
                }
                _ => self.problems.push(unknown_key(
                    &key.name,
                    "`random`",
                    &key.span,
                    &["trials", "seed", "space"],
                )),
            }
        }
        let (Some(trials), false) = (trials, space.is_empty()) else {
            if self.problems.len() > before {
                return None;
            }
            let problem = Diagnostic::new(
                "`random` needs how many trials, and a space",
                Some(node.span.clone()),
            );
            let help = "random: { trials: 20, seed: 1, space: { lr: { log: [1e-5, 1e-3] } } }";
            self.problems.push(problem.help(help));
            return None;
        };
        Some(Random { trials, seed, space })
    }

    fn space(&mut self, node: &Node) -> Option<Space> {
        let entry = node.as_map().and_then(|entries| match entries {
            [(key, Node { value: NodeValue::List(items), .. })] => Some((key, items.as_slice())),
            _ => None,
        });
        let number = |node: &Node| match node.value {
            #[expect(clippy::cast_precision_loss, reason = "bounds that people write")]
            NodeValue::Int(i) => Some(i as f64),
            NodeValue::Float(x) if x.is_finite() => Some(x),
            _ => None,
        };
        let space = entry.and_then(|(key, items)| match (key.name.as_str(), items) {
            ("choice", items) if !items.is_empty() => Some(Space::Choice(items.to_vec())),
            (word, [low, high]) => match (word, number(low)?, number(high)?) {
                ("uniform", low, high) if low < high => Some(Space::Uniform(low, high)),
                ("log", low, high) if 0.0 < low && low < high => Some(Space::Log(low, high)),
                ("int", low, high) if low <= high && low.fract() + high.fract() == 0.0 =>
                {
                    #[expect(clippy::cast_possible_truncation, reason = "whole numbers")]
                    Some(Space::Int(low as i64, high as i64))
                }
                _ => None,
            },
            _ => None,
        });
        if space.is_none() {
            self.wrong("not a space to draw from".to_owned(), node);
            let last = self.problems.pop().expect("invariant: just pushed");
            let help = "{ uniform: [low, high] }, { log: [low, high] }, { int: [low, high] } or { choice: [value, …] }";
            self.problems.push(last.help(help));
        }
        space
    }

    fn halving(&mut self) -> Option<Halving> {
        let node = self.get("halving")?;
        let (mut param, mut keep) = (None, 0.5);
        for (key, value) in self.map(node, "`halving`") {
            match (key.name.as_str(), &value.value) {
                ("keep", NodeValue::Float(x)) if *x > 0.0 && *x < 1.0 => keep = *x,
                ("keep", _) => self.wrong("`keep` must lie between 0 and 1".into(), value),
                (_, NodeValue::List(budgets)) if budgets.len() > 1 && param.is_none() => {
                    param = Some((key.clone(), budgets.clone()));
                }
                _ => self.wrong(
                    "halving names one param with its budgets, smallest first, and `keep`".into(),
                    value,
                ),
            }
        }
        let Some((param, budgets)) = param else {
            let problem = Diagnostic::new("halving has no budget", Some(node.span.clone()));
            self.problems.push(problem.help("halving: { updates: [5, 10, 20], keep: 0.5 }"));
            return None;
        };
        Some(Halving { param, budgets, keep })
    }
}
