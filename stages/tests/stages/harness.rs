//! Runs the real worker on hand-made tasks, and makes small models and worlds.
//! Knows nothing of what the tests expect.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use preflow::protocol::{Event, Execution, InputSpec, PROTOCOL, TaskSpec};
use preflow_stages::context::{Context, Events};
use preflow_stages::data::{
    Column, Content, Example, Message, Table, Vocabulary, Wanted, read_tables,
};
use preflow_stages::kinds::KINDS;
use preflow_stages::model::{ModelConfig, Packed, Policy, RewardModel, Trunk};
use preflow_stages::on_policy::{Candidate, Scorer};
use preflow_stages::prompts::Prompts;
use preflow_stages::rng::Stream;
use serde_json::{Map, Value};
use tempfile::TempDir;

pub const WORKER: &str = env!("CARGO_BIN_EXE_preflow-worker");

/// What a reader of rows looks for.
pub fn rows() -> Wanted<'static> {
    Wanted { columns: vec!["prompt", "text"], plain: true, named: true }
}

/// A folder in which stages leave their outputs under their names.
pub struct Workshop {
    pub dir: TempDir,
}

/// What one run of the worker said.
#[derive(Debug)]
pub struct Ran {
    pub events: Vec<Event>,
    pub code: Option<i32>,
}

impl Ran {
    pub fn summary(&self) -> BTreeMap<String, f64> {
        match self.events.last() {
            Some(Event::Done { summary }) => {
                summary.iter().map(|(k, v)| (k.clone(), v.unwrap_or(f64::NAN))).collect()
            }
            other => panic!("not done: {other:?}"),
        }
    }

    /// Message, causes and help of the failure in one line.
    pub fn failure(&self) -> String {
        match self.events.last() {
            Some(Event::Failed { message, chain, help }) => {
                format!("{message}: {} ({})", chain.join(": "), help.as_deref().unwrap_or("-"))
            }
            other => panic!("not failed: {other:?}"),
        }
    }

    pub fn notes(&self) -> String {
        let text = |e: &Event| match e {
            Event::Note { level, text } => Some(format!("{level}: {text}\n")),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }
}

impl Workshop {
    pub fn new() -> Self {
        Self { dir: TempDir::new().expect("a folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().expect("a parent")).expect("folder");
        fs_err::write(&path, text).expect("written");
        path
    }

    /// The task of stage `name`; inputs are (port, names of artifacts), a name being that of a file
    /// or `stage.port`.
    pub fn task(
        &self,
        name: &str,
        kind: &str,
        params: Value,
        inputs: &[(&str, &[&str])],
    ) -> TaskSpec {
        let entry = KINDS.iter().find(|k| k.name == kind).expect("a kind");
        let doc = entry.describe();
        let file = |port: &str, extension: &str| match extension {
            "" => format!("{name}.{port}"),
            _ => format!("{name}.{port}.{extension}"),
        };
        let text = |p: PathBuf| p.to_str().expect("UTF-8").to_owned();
        let outputs = doc
            .outputs
            .iter()
            .map(|o| (o.name.clone(), text(self.path(&file(&o.name, &o.extension)))))
            .collect();
        let input = |n: &&str| InputSpec {
            name: n.split('.').next().unwrap_or(n).into(),
            port_type: "any".into(),
            paths: vec![text(self.path(n))],
            source: true,
        };
        let inputs = inputs
            .iter()
            .map(|(p, names)| ((*p).into(), names.iter().map(input).collect()))
            .collect();
        let Value::Object(params) = params else { panic!("params are an object") };
        TaskSpec {
            protocol: PROTOCOL,
            stage: name.into(),
            kind: kind.into(),
            version: entry.version,
            params: complete(params, &doc.params),
            inputs,
            outputs,
            scratch: text(self.path(&format!("{name}.scratch"))),
            answers: Some(text(self.path("answers"))),
            execution: Execution { threads: Some(1), ..Execution::default() },
        }
    }

    /// Performs a stage by the real worker, from its beginning.
    pub fn run(&self, name: &str, kind: &str, params: Value, inputs: &[(&str, &[&str])]) -> Ran {
        let _ = std::fs::remove_dir_all(self.path(&format!("{name}.scratch")));
        self.perform(&serde_json::to_value(self.task(name, kind, params, inputs)).expect("a task"))
    }

    pub fn perform(&self, task: &Value) -> Ran {
        let name = task["stage"].as_str().unwrap_or("task");
        let path = self.write(&format!("{name}.task.json"), task.to_string());
        run_file(&path)
    }

    pub fn table(&self, name: &str) -> Table {
        read_tables(&[self.path(name).to_str().expect("UTF-8").to_owned()], &rows())
            .expect("a table")
    }
}

pub fn run_file(path: &Path) -> Ran {
    run_file_with(path, &[])
}

/// The worker on a task, silent, with further variables in its environment. Its standard input must
/// stay open: it ends when that does.
fn worker(path: &Path, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(WORKER);
    command.envs(env.iter().copied()).args(["run".as_ref(), path.as_os_str()]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// With further variables in the worker's environment.
pub fn run_file_with(path: &Path, env: &[(&str, &str)]) -> Ran {
    let mut child = worker(path, env).stdout(Stdio::piped()).spawn().expect("the worker starts");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
    let code = child.wait().expect("ended").code();
    let events = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    Ran { events, code }
}

/// What the worker writes on standard error, with further variables in its environment.
pub fn log_of(path: &Path, env: &[(&str, &str)]) -> String {
    let mut child = worker(path, env).stderr(Stdio::piped()).spawn().expect("the worker starts");
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
    assert_eq!(child.wait().expect("ended").code(), Some(0), "{text}");
    text
}

/// Fills in defaults, as the orchestrator does.
pub fn complete(mut given: Map<String, Value>, schema: &Value) -> Map<String, Value> {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        match given.get_mut(name) {
            None => {
                if let Some(default) = property.get("default") {
                    given.insert(name.clone(), default.clone());
                }
            }
            Some(Value::Object(inner)) if property.get("properties").is_some() => {
                *inner = complete(std::mem::take(inner), property);
            }
            Some(_) => {}
        }
    }
    given
}

/// A model of 32 tokens, 16 wide, 2 layers deep, with shared key-value heads.
pub fn tiny_config() -> ModelConfig {
    ModelConfig {
        vocab: 32,
        hidden: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        intermediate: 24,
        head_dim: 4,
        context: 48,
        tie_embeddings: true,
        ..ModelConfig::default()
    }
}

/// Random weights, larger than those training starts with so that differences show.
pub fn tiny_policy(seed: u64) -> Policy {
    tch::set_num_threads(1);
    let policy = Policy { trunk: Trunk::init(tiny_config(), false, seed) };
    tch::no_grad(|| {
        let n = policy.trunk.params.decaying();
        let _ = policy.trunk.params.flat.narrow(0, 0, n).g_mul_scalar_(10.0);
    });
    policy
}

pub fn tiny_reward(seed: u64) -> RewardModel {
    RewardModel::from_policy(&tiny_policy(seed), seed)
}

/// Rows of unequal length with tokens from 5 on, the last of every other one the end token.
pub fn tiny_rows(n: usize, seed: u64) -> Vec<Example> {
    let mut stream = Stream::new(seed, "rows", 0, 0);
    let tokens = |stream: &mut Stream, n: usize| -> Vec<i64> {
        (0..n).map(|_| 5 + stream.below(27) as i64).collect()
    };
    (0..n)
        .map(|i| {
            let (p, c) = (2 + stream.below(6), 1 + stream.below(8));
            let (prompt, mut completion) = (tokens(&mut stream, p), tokens(&mut stream, c));
            if i % 2 == 0 {
                completion.push(2);
            }
            Example { prompt, completion }
        })
        .collect()
}

pub fn refs(rows: &[Example]) -> Vec<&Example> {
    rows.iter().collect()
}

pub fn numbers(x: &tch::Tensor) -> Vec<f64> {
    let x = x.to_kind(tch::Kind::Double).contiguous().reshape([-1]);
    Vec::<f64>::try_from(x).expect("a list")
}

pub fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance, "at {i}: {x} against {y}, tolerance {tolerance}");
    }
}

/// A vocabulary of single bytes, made once a test.
pub fn byte_vocabulary(shop: &Workshop) -> Vocabulary {
    shop.write("bytes.jsonl", "{\"text\": \"abc\"}\n");
    let ran = shop.run(
        "bytes",
        "tokenizer",
        serde_json::json!({"algorithm": "byte"}),
        &[("text", &["bytes.jsonl"])],
    );
    ran.summary();
    Vocabulary::open(&shop.path("bytes.tokenizer.json")).expect("a tokenizer")
}

/// A reward model as judge.
pub struct ByModel(pub RewardModel);

impl Scorer for ByModel {
    fn scores(&mut self, _: &Prompts, responses: &[Candidate]) -> anyhow::Result<Vec<f64>> {
        let rows: Vec<&Example> = responses.iter().map(|r| r.example).collect();
        let packed = Packed::new(&rows, tch::Device::Cpu);
        Ok(tch::no_grad(|| numbers(&self.0.rewards(&packed))))
    }

    fn fingerprint(&self) -> u64 {
        self.0.trunk.params.fingerprint()
    }
}

/// The messages of a JSON list.
pub fn messages(list: &serde_json::Value) -> Vec<Message> {
    match Content::from_json(&list.to_string()) {
        Ok(Content::Messages(list)) => list,
        other => panic!("{list}: {other:?}"),
    }
}

/// Prompts of these tokens; their texts are their numbers.
pub fn prompts_of(tokens: Vec<Vec<i64>>) -> Prompts {
    let names = (0..tokens.len()).map(|i| i.to_string());
    let table = Table::new(vec![("prompt", Column::text(names))]).expect("a table");
    Prompts { all: table.prompts().expect("texts"), table, tokens }
}

/// A context for calling a loop without a worker; its events go nowhere.
pub fn context(shop: &Workshop, name: &str, kind: &str) -> Context {
    let task = shop.task(name, kind, serde_json::json!({}), &[]);
    Context::new(task, Events::new(std::io::sink())).expect("a context")
}
