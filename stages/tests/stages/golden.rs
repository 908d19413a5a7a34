//! Each kind once, tiny, on one thread; its figures are pinned. A change under one version means
//! that equal identities would give other results.

use std::collections::BTreeMap;

use preflow_stages::data::Column;
use serde_json::{Value, json};

use crate::harness::*;

/// How far a figure may move between processors: their products round differently.
const TOLERANCE: f64 = 0.02;

/// A world of eight colours in which `good` answers name the colour asked for.
pub fn world(shop: &Workshop) {
    let colours = ["red", "blue", "green", "black", "white", "pink", "grey", "brown"];
    let (mut text, mut demos, mut prompts) = (String::new(), String::new(), String::new());
    for i in 0..400 {
        let colour = colours[i % 8];
        let reply = ["yes , {c} .", "no .", "go away ."][(i * 7 / 8) % 3].replace("{c}", colour);
        text += &format!("{}\n", json!({"text": format!("<user>is it {colour} ?<bot>{reply}")}));
    }
    for (i, colour) in colours.iter().enumerate() {
        let prompt = format!("is it {colour} ?");
        if i < 6 {
            demos += &format!(
                "{}\n",
                json!({"prompt": prompt, "completion": format!("yes , {colour} .")})
            );
        }
        let bucket = if i < 6 { "seen" } else { "new" };
        prompts += &format!("{}\n", json!({"prompt": prompt, "colour": colour, "bucket": bucket}));
    }
    shop.write("text.jsonl", text);
    shop.write("demos.jsonl", demos);
    shop.write("prompts.jsonl", prompts);
}

pub fn rules() -> Value {
    json!([
        {"name": "good", "score": 1.0, "match": "{colour}"},
        {"name": "rude", "score": -1.0, "match": "go away"},
        {"name": "no_end", "score": -0.5, "no_eos": true},
    ])
}

type Inputs = Vec<(&'static str, Vec<&'static str>)>;
type Step = (&'static str, &'static str, Value, Inputs);

/// Name, kind, params and inputs of each stage of the tiny pipeline.
pub fn stages() -> Vec<Step> {
    let model = json!({"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "context": 48});
    vec![
        (
            "ready",
            "prepare",
            json!({"as": "text", "dedupe": false}),
            vec![("data", vec!["text.jsonl"])],
        ),
        (
            "tok",
            "tokenizer",
            json!({"vocab_size": 300}),
            vec![("text", vec!["ready.data.parquet"])],
        ),
        (
            "base",
            "pretrain",
            json!({"model": model, "train": {"tokens": 12_000, "batch_tokens": 192, "lr": 5e-3}, "seed": 1}),
            vec![("text", vec!["ready.data.parquet"]), ("tokenizer", vec!["tok.tokenizer.json"])],
        ),
        (
            "sft",
            "sft",
            json!({"train": {"epochs": 2, "batch": 4, "lr": 1e-3}, "seed": 1}),
            vec![("model", vec!["base.model"]), ("demos", vec!["demos.jsonl"])],
        ),
        (
            "pairs",
            "sample_pairs",
            json!({"pairs": 96, "max_tokens": 10, "seed": 1}),
            vec![("policy", vec!["sft.model"]), ("prompts", vec!["prompts.jsonl"])],
        ),
        (
            "labels",
            "collect_labels",
            json!({"labeler": {"simulated": {"rules": rules(), "temperature": 0.25, "flip": 0.05, "tie_below": 0.05}}, "seed": 1}),
            vec![("pairs", vec!["pairs.pairs.parquet"])],
        ),
        (
            "reward",
            "train_reward",
            json!({"epochs": 3, "batch": 8, "lr": 1e-3, "eval_fraction": 0.3, "seed": 1}),
            vec![("base", vec!["sft.model"]), ("labels", vec!["labels.labels.parquet"])],
        ),
        (
            "ppo",
            "ppo",
            json!({"updates": 3, "batch": 16, "minibatch": 8, "max_tokens": 10, "seed": 1}),
            vec![
                ("policy", vec!["sft.model"]),
                ("reward", vec!["reward.reward"]),
                ("prompts", vec!["prompts.jsonl"]),
            ],
        ),
        (
            "rloo",
            "rloo",
            json!({"updates": 3, "batch": 16, "minibatch": 8, "max_tokens": 10, "seed": 1,
                   "rewards": {"rules": rules(), "rules_weight": 0.5}}),
            vec![
                ("policy", vec!["sft.model"]),
                ("reward", vec!["reward.reward"]),
                ("prompts", vec!["prompts.jsonl"]),
            ],
        ),
        (
            "grpo",
            "grpo",
            json!({"updates": 3, "batch": 16, "minibatch": 8, "group": 4, "max_tokens": 10, "seed": 1,
                   "dynamic_sampling": 2, "lora": {"rank": 4}, "lr": 3e-3,
                   "compute": {"micro_batch": 3, "checkpoint_activations": true}, "eval_fraction": 0.3, "keep_best": true, "eval_every": 1,
                   "rewards": {"rules": rules()}}),
            vec![("policy", vec!["sft.model"]), ("prompts", vec!["prompts.jsonl"])],
        ),
        (
            "reinforce",
            "reinforce",
            json!({"updates": 3, "batch": 16, "minibatch": 8, "max_tokens": 10, "seed": 1}),
            vec![("policy", vec!["sft.model"]), ("verdicts", vec!["labels.labels.parquet"])],
        ),
        (
            "dpo",
            "dpo",
            json!({"epochs": 2, "batch": 8, "eval_fraction": 0.3, "seed": 1}),
            vec![("policy", vec!["sft.model"]), ("labels", vec!["labels.labels.parquet"])],
        ),
        (
            "kto",
            "kto",
            json!({"epochs": 2, "batch": 8, "eval_fraction": 0.3, "seed": 1}),
            vec![("policy", vec!["sft.model"]), ("verdicts", vec!["labels.labels.parquet"])],
        ),
        (
            "best",
            "best_of_n",
            json!({"n": 4, "samples": 2, "max_tokens": 10, "seed": 1}),
            vec![
                ("policy", vec!["sft.model"]),
                ("reward", vec!["reward.reward"]),
                ("prompts", vec!["prompts.jsonl"]),
            ],
        ),
        (
            "eval",
            "evaluate",
            json!({"rules": rules(), "samples": 2, "max_tokens": 10, "bootstrap": 50, "seed": 1}),
            vec![
                ("policies", vec!["base.model", "sft.model", "ppo.model"]),
                ("reward", vec!["reward.reward"]),
                ("prompts", vec!["prompts.jsonl"]),
            ],
        ),
        (
            "mixed",
            "mix",
            json!({"as": "prompt", "weights": {"demos": 1, "prompts": 2}, "seed": 1}),
            vec![("datasets", vec!["demos.jsonl", "prompts.jsonl"])],
        ),
        (
            "online",
            "online_dpo",
            json!({"updates": 3, "batch": 16, "minibatch": 8, "group": 4, "max_tokens": 10, "seed": 1,
                   "compute": {"micro_batch": 2}, "eval_fraction": 0.3}),
            vec![
                ("policy", vec!["sft.model"]),
                ("reward", vec!["reward.reward"]),
                ("prompts", vec!["prompts.jsonl"]),
            ],
        ),
    ]
}

pub fn run_all(shop: &Workshop) -> BTreeMap<String, BTreeMap<String, f64>> {
    world(shop);
    let mut out = BTreeMap::new();
    for (name, kind, params, inputs) in stages() {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        let ran = shop.run(name, kind, params, &inputs);
        assert_eq!(ran.code, Some(0), "{name}: {:?}", ran.events.last());
        out.insert(kind.to_owned(), ran.summary());
    }
    out
}

#[test]
fn golden_runs_of_every_kind() {
    let shop = Workshop::new();
    let found = run_all(&shop);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/figures.json");
    if std::env::var_os("PREFLOW_WRITE_GOLDEN").is_some() {
        fs_err::write(&path, serde_json::to_string_pretty(&found).expect("JSON") + "\n")
            .expect("written");
    }
    let text = fs_err::read_to_string(&path).expect("the golden figures");
    let expected: BTreeMap<String, BTreeMap<String, f64>> =
        serde_json::from_str(&text).expect("JSON");
    for (kind, figures) in &expected {
        let names: Vec<_> = found[kind].keys().collect();
        assert_eq!(
            names,
            figures.keys().collect::<Vec<_>>(),
            "{kind}: results changed: bump VERSION"
        );
        for (name, value) in figures {
            let now = found[kind][name];
            let near = (now - value).abs() <= TOLERANCE * value.abs().max(1.0);
            assert!(
                near,
                "{kind}: `{name}` is {now}, was {value}; results changed: bump VERSION of the kind and run \
                 the tests with PREFLOW_WRITE_GOLDEN=1"
            );
        }
    }
    what_the_tiny_pipeline_leaves(&shop);
}

/// Column conventions and the links between the stages.
fn what_the_tiny_pipeline_leaves(shop: &Workshop) {
    let labels = shop.table("labels.labels.parquet");
    let first = ["prompt", "chosen", "rejected", "tie", "strength", "votes", "annotators", "pair"];
    assert_eq!(labels.names()[..8], first);
    assert!(labels.names().contains(&"colour"), "further columns travel along");
    assert!(labels.bools("simulated", false).expect("a column").iter().all(|s| *s));
    assert_eq!(
        shop.table("eval.evaluation.parquet").names(),
        ["policy", "bucket", "name", "value", "low", "high", "n"]
    );
    for samples in ["eval.samples.parquet", "ppo.samples.parquet"] {
        assert_eq!(
            shop.table(samples).names(),
            ["step", "source", "bucket", "prompt", "response", "score"]
        );
    }
    let metrics = shop.table("ppo.metrics.parquet");
    let Some(Column::Text(names)) = metrics.column("name") else { panic!("names") };
    assert!(names.iter().flatten().all(|n| !n.starts_with("time/")), "no seconds in an artifact");
    let tokenizers =
        ["tok.tokenizer.json", "base.model/tokenizer.json", "reward.reward/tokenizer.json"];
    let bytes = tokenizers.map(|t| fs_err::read(shop.path(t)).expect("a tokenizer"));
    assert!(bytes[0] == bytes[1] && bytes[1] == bytes[2]);
}

/// Every file of a folder tree, by relative path.
fn tree(shop: &Workshop) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut folders = vec![shop.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().ends_with(".task.json") {
                let name = path
                    .strip_prefix(shop.dir.path())
                    .expect("inside")
                    .to_string_lossy()
                    .into_owned();
                out.insert(name, fs_err::read(&path).expect("bytes"));
            }
        }
    }
    out
}

#[test]
fn invariant_19_20_two_runs_in_two_places_give_equal_bytes() {
    let (one, other) = (Workshop::new(), Workshop::new());
    run_all(&one);
    // Interrupt a stage of the second run before it is performed in full.
    world(&other);
    for (name, kind, params, inputs) in stages() {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        if name == "base" {
            interrupted(&other, &other.task(name, kind, params.clone(), &inputs));
        }
        other.run(name, kind, params, &inputs).summary();
    }
    let (a, b) = (tree(&one), tree(&other));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{name} differs between two runs");
    }
    assert!(a.len() > 20);
}

/// Starts a task and ends it after its first metric.
fn interrupted(shop: &Workshop, task: &preflow::protocol::TaskSpec) {
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};
    let path = shop.write("cut.task.json", serde_json::to_string(task).expect("JSON"));
    let mut child = Command::new(WORKER)
        .args(["run".as_ref(), path.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    for line in lines {
        if line.expect("a line").contains("\"metric\"") {
            break;
        }
    }
    child.kill().expect("ended");
    assert!(!child.wait().expect("waited").success());
    assert!(!std::path::Path::new(&task.outputs["model"]).exists(), "no half-made artifact");
}
