//! The worker's contract, and what each kind says to bad input.

use std::io::Read as _;
use std::process::{Command, Stdio};

use preflow::protocol::Event;
use preflow_stages::kinds::KINDS;
use serde_json::{Value, json};

use crate::golden;
use crate::harness::*;

#[test]
fn a_task_that_does_not_fit_is_refused_with_a_reason() {
    let shop = Workshop::new();
    shop.write("t.jsonl", "{\"text\": \"a\"}\n");
    let task = shop.task("s", "tokenizer", json!({}), &[("text", &["t.jsonl"])]);
    let task = serde_json::to_value(task).expect("JSON");
    let refused = |change: &dyn Fn(&mut serde_json::Value), expect: &str| {
        let mut task = task.clone();
        change(&mut task);
        let ran = shop.perform(&task);
        assert!(matches!(ran.events[0], Event::Hello { .. }));
        assert_eq!(ran.code, Some(1));
        assert!(ran.failure().contains(expect), "{}", ran.failure());
    };
    refused(&|t| t["protocol"] = json!(99), "protocol 99");
    refused(&|t| t["kind"] = json!("juggle"), "unknown kind `juggle`");
    refused(&|t| t["version"] = json!(77), "version 77");
    refused(&|t| t["extra"] = json!(1), "unknown field `extra`");
    refused(&|t| t["params"]["extra"] = json!(1), "unknown field `extra`");
    refused(&|t| t["execution"]["device"] = json!("cuda:3"), "cuda:3");
    refused(&|t| t["execution"]["device"] = json!("abacus"), "unknown device");
    refused(&|t| t["params"]["vocab_size"] = json!(100), "too small");
    assert!(run_file(&shop.path("nowhere.json")).failure().contains("nowhere.json"));
}

#[test]
fn the_worker_leaves_when_its_standard_input_ends() {
    let shop = Workshop::new();
    shop.write("t.jsonl", "{\"text\": \"a b c a b c a b c d e f g\"}\n".repeat(50));
    let params = json!({"algorithm": "byte"});
    shop.run("tok", "tokenizer", params, &[("text", &["t.jsonl"])]).summary();
    let params = json!({"train": {"tokens": 1_000_000_000}, "model": {"context": 16}});
    let inputs: &[(&str, &[&str])] =
        &[("text", &["t.jsonl"]), ("tokenizer", &["tok.tokenizer.json"])];
    let task = shop.task("long", "pretrain", params, inputs);
    let path = shop.write("long.json", serde_json::to_string(&task).expect("JSON"));
    let mut child = Command::new(WORKER)
        .args(["run".as_ref(), path.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut out = child.stdout.take().expect("piped");
    let mut some = [0; 16];
    out.read_exact(&mut some).expect("hello");
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("ended").code(), Some(143));
}

#[test]
fn simulated_labels_say_so_loudly() {
    let shop = Workshop::new();
    golden::world(&shop);
    shop.write("pairs.jsonl", format!("{}\n", json!({"pair": "x", "prompt": "p", "colour": "red", "response_a": "red", "response_b": "no", "finished_a": true, "finished_b": true})));
    let labeler = json!({"simulated": {"rules": golden::rules(), "temperature": 0.0, "flip": 0.0, "tie_below": 0.0}});
    let ran = shop.run(
        "l",
        "collect_labels",
        json!({"labeler": labeler}),
        &[("pairs", &["pairs.jsonl"])],
    );
    assert!(ran.notes().contains("warn: SIMULATED LABELS"), "{}", ran.notes());
    assert_eq!(shop.table("l.labels.parquet").texts("chosen").expect("text"), ["red"]);
    let none = json!({"labeler": {"simulated": {"rules": [], "temperature": 0.0, "flip": 0.0, "tie_below": 0.0}}});
    assert!(
        shop.run("n", "collect_labels", none, &[("pairs", &["pairs.jsonl"])])
            .failure()
            .contains("without rules")
    );
}

/// A model of 300 bytes-level tokens in `base.model`.
fn base(shop: &Workshop) {
    golden::world(shop);
    for (name, kind, params, inputs) in golden::stages().into_iter().take(3) {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        shop.run(name, kind, params, &inputs).summary();
    }
}

#[test]
fn invariant_17_sft_learns_eight_rows_and_to_stop() {
    let shop = Workshop::new();
    base(&shop);
    let rows = (0..8).map(|i| json!({"prompt": format!("is it {i} ?"), "completion": format!("answer {} .", (i * 5) % 8)}));
    let demos: String = rows.map(|r| format!("{r}\n")).collect();
    shop.write("eight.jsonl", demos);
    let params = json!({"train": {"epochs": 500, "batch": 8, "lr": 1e-2, "eval_fraction": 0.0}});
    let ran =
        shop.run("sft", "sft", params, &[("model", &["base.model"]), ("demos", &["eight.jsonl"])]);
    assert!(ran.summary()["train/loss"] < 0.05, "{:?}", ran.summary());
    let rules = json!([{"name": "exact", "score": 1.0, "match": "^{completion}$"}]);
    let params =
        json!({"rules": rules, "samples": 1, "temperature": 0.0, "max_tokens": 16, "bootstrap": 0});
    let ran = shop.run(
        "eval",
        "evaluate",
        params,
        &[("policies", &["sft.model"]), ("prompts", &["eight.jsonl"])],
    );
    let summary = ran.summary();
    assert!(
        summary["eval/exact/sft"] >= 0.95 && summary["eval/eos_rate/sft"] >= 0.95,
        "{summary:?}"
    );
}

#[test]
fn bad_input_is_named() {
    let shop = Workshop::new();
    base(&shop);
    let label = |tie: bool| {
        json!({"prompt": "p", "chosen": "a", "rejected": "b", "tie": tie}).to_string() + "\n"
    };
    shop.write("ties.jsonl", label(true).repeat(4));
    shop.write("empty.jsonl", "");
    shop.write(
        "long.jsonl",
        format!("{}\n", json!({"prompt": "is it red ?".repeat(60), "completion": "yes ."})),
    );
    shop.write(
        "endless.jsonl",
        format!("{}\n", json!({"prompt": "p", "completion": "word ".repeat(400)})),
    );
    let fails =
        |kind: &str, params: serde_json::Value, inputs: &[(&str, &[&str])], expect: &str| {
            let failure = shop.run("bad", kind, params, inputs).failure();
            assert!(failure.contains(expect), "{failure}");
        };
    let reward = |labels: &'static str| [("base", vec!["base.model"]), ("labels", vec![labels])];
    for (labels, expect) in
        [("ties.jsonl", "all 4 labels are ties"), ("empty.jsonl", "the dataset is empty")]
    {
        let inputs = reward(labels);
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        fails("train_reward", json!({}), &inputs, expect);
    }
    fails(
        "sft",
        json!({}),
        &[("model", &["base.model"]), ("demos", &["endless.jsonl"])],
        "too long",
    );
    fails(
        "sft",
        json!({}),
        &[("model", &["base.model"]), ("demos", &["text.jsonl"])],
        "no column `prompt`; the columns are `text`",
    );
    let policy: &[(&str, &[&str])] =
        &[("policy", &["base.model"]), ("prompts", &["prompts.jsonl"])];
    fails("sample_pairs", json!({"max_tokens": 60}), policy, "leaves no room");
    fails("sample_pairs", json!({"temperature": 0.0}), policy, "`temperature` must lie between");
    let ran = shop.run(
        "cut",
        "sample_pairs",
        json!({"pairs": 2, "max_tokens": 8}),
        &[("policy", &["base.model"]), ("prompts", &["long.jsonl"])],
    );
    assert!(ran.notes().contains("lost the beginning of their prompt"), "{}", ran.notes());
    let rules = json!([{"name": "r", "score": 1.0, "match": "{nothing}"}]);
    let inputs: &[(&str, &[&str])] =
        &[("policies", &["base.model"]), ("prompts", &["prompts.jsonl"])];
    fails("evaluate", json!({"rules": rules}), inputs, "no column `nothing`");
    fails("evaluate", json!({"baseline": "x"}), inputs, "baseline `x` is not one of");
    let wide = json!({"model": {"hidden": 30, "heads": 4}});
    fails(
        "pretrain",
        wide,
        &[("text", &["text.jsonl"]), ("tokenizer", &["tok.tokenizer.json"])],
        "multiple of heads",
    );
}

#[test]
fn other_tokenizers_and_a_shared_pad_and_eos_are_refused() {
    let shop = Workshop::new();
    base(&shop);
    let sft = preflow_stages::model::Policy::open(&shop.path("base.model")).expect("a model");
    let vocabulary = byte_vocabulary(&shop);
    preflow_stages::model::RewardModel::from_policy(&sft, 1)
        .save(&shop.path("other"), &vocabulary)
        .expect("saved");
    let inputs: &[(&str, &[&str])] =
        &[("policy", &["base.model"]), ("reward", &["other"]), ("prompts", &["prompts.jsonl"])];
    let failure = shop.run("p", "ppo", json!({"updates": 1}), inputs).failure();
    assert!(failure.contains("tokenizers of `policy` and `reward` differ"), "{failure}");
    let text = String::from_utf8(vocabulary.bytes().to_vec()).expect("UTF-8");
    shop.write("same.json", text.replace("<eos>", "<end>"));
    let inputs: &[(&str, &[&str])] = &[("text", &["text.jsonl"]), ("tokenizer", &["same.json"])];
    let failure = shop.run("q", "pretrain", json!({}), inputs).failure();
    assert!(failure.contains("`<eos>` is missing"), "{failure}");
}

#[test]
fn a_command_finds_its_ports_in_the_environment() {
    let shop = Workshop::new();
    shop.write("in.txt", "three\ntwo\none\n");
    let mut task = shop.task(
        "c",
        "command",
        json!({"command": "sort \"$IN_data\" > \"$OUT_sorted\""}),
        &[("data", &["in.txt"])],
    );
    let out = shop.path("sorted.txt");
    task.outputs = [("sorted".into(), out.to_str().expect("UTF-8").into())].into();
    shop.perform(&serde_json::to_value(&task).expect("JSON")).summary();
    assert_eq!(fs_err::read_to_string(out).expect("text"), "one\nthree\ntwo\n");
    task.params = json!({"command": ["false"]}).as_object().expect("a map").clone();
    let failure = shop.perform(&serde_json::to_value(&task).expect("JSON")).failure();
    assert!(failure.contains("the command failed"), "{failure}");
    assert!(KINDS.iter().any(|k| k.name == "command"));
}

#[test]
fn pretraining_goes_on_from_a_model_and_says_what_does_not_fit() {
    let shop = Workshop::new();
    shop.write("t.jsonl", "{\"text\": \"a b c a b c a b c d e f g\"}\n".repeat(40));
    let params = json!({"algorithm": "byte"});
    shop.run("tok", "tokenizer", params, &[("text", &["t.jsonl"])]).summary();
    let text: (&str, &[&str]) = ("text", &["t.jsonl"]);
    let tokenizer: (&str, &[&str]) = ("tokenizer", &["tok.tokenizer.json"]);
    let base: (&str, &[&str]) = ("base", &["first.model"]);
    let train = json!({"tokens": 2000, "batch_tokens": 64, "lr": 1e-2});
    let shape = json!({"layers": 1, "hidden": 16, "heads": 2, "context": 16});
    let params = json!({"train": train, "model": shape});
    let first = shop.run("first", "pretrain", params.clone(), &[text, tokenizer]).summary();
    let more = shop.run("more", "pretrain", json!({"train": train}), &[text, base]).summary();
    assert!(more["eval/loss"] < first["eval/loss"], "{first:?} {more:?}");
    assert_eq!(more["model/parameters"], first["model/parameters"]);
    // Steps of no length leave the model as it was, tokenizer and all.
    let still = json!({"train": {"tokens": 64, "batch_tokens": 64, "lr": 0.0}});
    shop.run("still", "pretrain", still, &[text, base]).summary();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let bytes = |name: &str| fs_err::read(shop.path(name).join(file)).expect("bytes");
        assert!(bytes("still.model") == bytes("first.model"), "{file}");
    }
    let refused = |params: serde_json::Value, inputs: &[(&str, &[&str])], says: &str| {
        let ran = shop.run("refused", "pretrain", params, inputs);
        assert!(ran.failure().contains(says), "{}", ran.failure());
    };
    refused(params, &[text, base], "`base` has its own");
    refused(json!({}), &[text, base, tokenizer], "are both connected");
    refused(json!({}), &[text], "neither `tokenizer` nor `base`");
}

#[test]
fn short_stages_have_a_row_of_metrics_a_step_and_longer_ones_ten() {
    let shop = Workshop::new();
    golden::world(&shop);
    for (name, kind, params, inputs) in golden::stages().into_iter().take(6) {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        shop.run(name, kind, params, &inputs).summary();
    }
    let steps = |kind: &str, params: Value, inputs: &[(&str, &[&str])], name: &str| {
        let ran = shop.run("rows", kind, params, inputs);
        ran.summary();
        let of = |e: &Event| match e {
            Event::Metric { step, values } => values.contains_key(name).then_some(*step),
            _ => None,
        };
        ran.events.iter().filter_map(of).collect::<Vec<u64>>()
    };
    let demos: [(&str, &[&str]); 2] = [("model", &["sft.model"]), ("demos", &["demos.jsonl"])];
    let sft = |epochs: u32, batch: u32| {
        let train = json!({"epochs": epochs, "batch": batch, "lr": 1e-4, "eval_fraction": 0.0});
        steps("sft", json!({"train": train}), &demos, "train/loss")
    };
    // Six demonstrations: three steps, then thirty.
    assert_eq!(sft(1, 2), [1, 2, 3]);
    assert_eq!(sft(10, 2), (1..=10).map(|i| 3 * i).collect::<Vec<u64>>());
    let labels: [(&str, &[&str]); 2] =
        [("base", &["sft.model"]), ("labels", &["labels.labels.parquet"])];
    let reward = |name: &str, more: Value| {
        let mut params = json!({"epochs": 1, "batch": 16, "eval_fraction": 0.3});
        params.as_object_mut().expect("params").extend(more.as_object().expect("a map").clone());
        steps("train_reward", params, &labels, name)
    };
    let each = reward("train/loss", json!({}));
    assert!(each.len() < 10 && each == (1..=each.len() as u64).collect::<Vec<_>>(), "{each:?}");
    // Further members have rows of their own: else most of a stage would be silent.
    assert_eq!(reward("train/loss/member_2", json!({"members": 2})), each);
}
