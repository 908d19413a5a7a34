//! What a kind may know of a stage before it runs: params, what is connected, and the first rows
//! of inputs that exist. Nothing is changed.
//! Knows nothing of what any kind looks for.

mod usual;

use std::path::Path;

use anyhow::Result;
use preflow::protocol::{ConnectionSpec, ProblemDoc, StageSpec, ValidateSpec};
use serde_json::Value;

use crate::advice::Advised;
use crate::data::{
    Answer, LEAST_PROMPT, Rule, RuleBook, Table, Wanted, parquet_rows, read_head, settle,
};

pub use usual::Lesson;

/// Looks at one stage before it runs, and notes what cannot work.
pub struct Preflight<'a> {
    spec: &'a ValidateSpec,
    place: usize,
    pub problems: Vec<ProblemDoc>,
    /// Figures that the stage may report.
    pub figures: Vec<String>,
}

/// Kinds whose output model or pairs have the shape of what they start from.
const GO_ON: [&str; 10] = [
    "sft",
    "dpo",
    "kto",
    "ppo",
    "rloo",
    "grpo",
    "reinforce",
    "train_reward",
    "sample_pairs",
    "collect_labels",
];

/// Columns that rows of a type must have; empty where nothing is known of the type.
fn columns_of(port_type: &str) -> &'static [&'static str] {
    match port_type {
        "dataset/text" => &["text"],
        "dataset/prompt" => &["prompt"],
        "dataset/prompt_completion" => &["prompt", "completion"],
        "dataset/pairs" => &["prompt", "response_a", "response_b"],
        "dataset/labels" => &["prompt", "chosen", "rejected"],
        "dataset/messages" => &["messages"],
        _ => &[],
    }
}

impl<'a> Preflight<'a> {
    /// A look at stage `place` of `spec`.
    pub fn new(spec: &'a ValidateSpec, place: usize) -> Self {
        Self { spec, place, problems: Vec::new(), figures: Vec::new() }
    }

    fn stage(&self) -> &'a StageSpec {
        &self.spec.stages[self.place]
    }

    /// Notes a problem with a param or an input, `train.lr`; empty: with the stage as a whole.
    pub fn refuse(&mut self, field: &str, message: impl Into<String>, help: Option<String>) {
        let (field, message) = (field.to_owned(), message.into());
        self.problems.push(ProblemDoc { stage: self.place, field, message, help, warning: false });
    }

    /// Notes what may work, but seldom does.
    pub fn warn(&mut self, field: &str, message: impl Into<String>, help: Option<String>) {
        let (field, message) = (field.to_owned(), message.into());
        self.problems.push(ProblemDoc { stage: self.place, field, message, help, warning: true });
    }

    /// Unwraps a result; an error is noted as a problem with `field`.
    pub fn tell<T>(&mut self, field: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let help = error.downcast_ref::<Advised>().map(|a| a.help.clone());
                self.refuse(field, format!("{error:#}"), help);
                None
            }
        }
    }

    /// Whether inputs are looked at too.
    pub fn sees_inputs(&self) -> bool {
        self.spec.inputs
    }

    /// What is connected to a port.
    pub fn inputs(&self, port: &str) -> &'a [ConnectionSpec] {
        self.stage().inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// The first rows of what is connected to a port, where it exists and can be read.
    pub fn head(&self, port: &str) -> Option<Table> {
        let [input] = self.inputs(port) else { return None };
        if !self.sees_inputs() {
            return None;
        }
        head_of(input).ok().flatten()
    }

    /// Checks the first rows of every input that exists: are the columns of its type there, and do
    /// they hold text?
    pub fn at_inputs(&mut self) {
        let stage = self.stage();
        // It says itself which columns it reads.
        if stage.kind == "prepare" || !self.sees_inputs() {
            return;
        }
        for (port, connected) in &stage.inputs {
            for input in connected {
                // What another stage made was looked at when it was made.
                if input.stage.is_none() {
                    self.at_rows(port, input);
                }
            }
        }
    }

    fn at_rows(&mut self, port: &str, input: &ConnectionSpec) {
        let columns = columns_of(&input.port_type);
        if columns.is_empty() || input.paths.is_empty() {
            return;
        }
        let name = &input.name;
        let head = match head_of(input) {
            Ok(head) => head,
            Err(e) => return self.refuse(port, format!("source `{name}`: {e:#}"), None),
        };
        let Some(head) = head.filter(|h| !h.names().is_empty()) else { return };
        if head.rows() == 0 && one_file(input) {
            let message = format!("source `{name}`: {} has no rows", input.paths[0]);
            return self.refuse(port, message, None);
        }
        for column in columns {
            let wrong = match head.require(column) {
                Err(e) => Some(e),
                Ok(_) if *column == "messages" => None,
                Ok(_) if *column == "text" => head.texts(column).err(),
                Ok(_) => head.contents(column).err(),
            };
            if let Some(error) = wrong {
                let help = match input.port_type.as_str() {
                    "dataset/labels" => {
                        "`preflow label import FILE --votes DIR` reads transcripts, \
                         conversations and the files of other tools"
                            .to_owned()
                    }
                    _ => format!(
                        "a stage of kind `prepare` maps columns: `columns: {{ {column}: … }}`"
                    ),
                };
                self.refuse(port, format!("source `{name}`: {error:#}"), Some(help));
                return;
            }
        }
    }

    /// Applies `check` to the first rows of what is connected to a port, where it exists.
    pub fn rows_of<T>(&mut self, port: &str, check: impl FnOnce(&Table) -> Result<T>) {
        // A column that is not there was told of already.
        let told = self.problems.iter().any(|p| p.field == port && !p.warning);
        if let Some(head) = self.head(port).filter(|head| head.rows() > 0 && !told) {
            self.tell(port, check(&head));
        }
    }

    /// Number of rows of what is connected to a port, where it exists and says so.
    pub fn rows(&self, port: &str) -> Option<u64> {
        let [input] = self.inputs(port) else { return None };
        if !self.sees_inputs() {
            return None;
        }
        let rows = |path: &String| parquet_rows(Path::new(path));
        input.paths.iter().map(rows).sum::<Option<u64>>().filter(|_| !input.paths.is_empty())
    }

    /// Refuses answers so long that a model at `port` has no room for a prompt.
    pub fn room_to_answer(&mut self, port: &str, max_tokens: u64) {
        for model in self.inputs(port) {
            let context = self.of_origin(model, "pretrain", "/model/context");
            let Some(context) = context.and_then(|value| value.as_u64()) else { continue };
            if max_tokens + LEAST_PROMPT as u64 > context {
                let message = format!(
                    "max_tokens {max_tokens} leaves no room for a prompt in a context of \
                     {context} tokens (`{}`)",
                    model.name
                );
                let help = "give the model a longer context, or answer in fewer tokens";
                return self.refuse("max_tokens", message, Some(help.into()));
            }
        }
    }

    /// Refuses rules that cannot be used, or that name columns which the rows of `port` lack.
    pub fn rules(&mut self, field: &str, rules: &[Rule], port: &str) {
        let Some(mut book) = self.tell(field, RuleBook::new(rules)) else { return };
        let Some(head) = self.head(port).filter(|head| head.rows() > 0) else { return };
        let answer = Answer { text: "", finished: true };
        self.tell(field, book.judge(answer, &head, 0));
    }

    /// A param of the stage of kind `kind` that what is connected started from, by its JSON
    /// pointer.
    pub fn of_origin(&self, input: &ConnectionSpec, kind: &str, pointer: &str) -> Option<Value> {
        let stage = self.origin(input, kind)?;
        Value::Object(stage.params.clone()).pointer(pointer).cloned()
    }

    /// The stage of kind `kind` that what is connected started from; stages that go on from another
    /// model are followed. Stages of which nothing is known, such as programs and those of other
    /// workers, end the way.
    fn origin(&self, input: &ConnectionSpec, kind: &str) -> Option<&'a StageSpec> {
        let mut at = input.stage?;
        // An origin lies further up; a chain has no more steps than there are stages.
        for _ in 0..=self.spec.stages.len() {
            let stage = &self.spec.stages[at];
            // Pretraining goes on where a model is connected.
            let further = stage.kind == "pretrain" && stage.inputs.contains_key("base");
            if stage.kind == kind && !further {
                return Some(stage);
            }
            if !further && !GO_ON.contains(&stage.kind.as_str()) {
                return None;
            }
            let from = ["model", "policy", "base", "pairs"];
            let next = from.iter().find_map(|port| stage.inputs.get(*port)?.first());
            at = next?.stage?;
        }
        None
    }
}

/// Whether an input is one file, of which the first rows say whether there are any.
pub fn one_file(input: &ConnectionSpec) -> bool {
    matches!(input.paths.as_slice(), [path] if Path::new(path).is_file())
}

fn head_of(input: &ConnectionSpec) -> Result<Option<Table>> {
    let plain = input.port_type == "dataset/text";
    let columns = columns_of(&input.port_type).to_vec();
    let wanted = Wanted { columns, plain, named: input.stage.is_none() };
    let Some(first) = input.paths.first() else { return Ok(None) };
    settle(read_head(Path::new(first), &wanted)?, &input.port_type).map(Some)
}
