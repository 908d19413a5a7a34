//! Adapters apart from their base: kept by stages, read by others, and exchanged with peft. See
//! `fixtures/models/make.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use preflow_stages::model::{Layout, LowRank, ModelConfig, Policy, Trunk, WeightFile};
use serde_json::{Value, json};
use tch::Tensor;

use crate::harness::{Ran, Workshop, byte_vocabulary, close, numbers, tiny_config};

const ADAPTERS: [&str; 4] = ["peft_llama", "peft_gpt2", "peft_pythia", "peft_phi3"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).expect("a file")).expect("JSON")
}

fn import(shop: &Workshop, name: &str, from: &Path, base: Option<&str>) -> Ran {
    let from = from.to_str().expect("UTF-8");
    let base = base.map(|base| [base]);
    let mut inputs: Vec<(&str, &[&str])> = Vec::new();
    let source = [from];
    inputs.push(("source", &source));
    if let Some(base) = &base {
        inputs.push(("base", base));
    }
    shop.run(name, "import_model", json!({}), &inputs)
}

/// A copy of files in a folder.
fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a folder");
    for entry in fs_err::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs_err::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

/// Imports the base of a fixture as `BASE`, once.
fn base_of(shop: &Workshop, known: &Value) -> String {
    let from = known["base"].as_str().expect("a folder");
    let name = from.replace('/', "_");
    if !shop.path(&format!("{name}.model")).exists() {
        let folder = shop.path(&format!("{name}_there"));
        copy(&fixtures().join(from), &folder);
        if !folder.join("tokenizer.json").exists() {
            for file in ["tokenizer.json", "tokenizer_config.json"] {
                fs_err::copy(fixtures().join("qwen2").join(file), folder.join(file))
                    .expect("copied");
            }
        }
        import(shop, &name, &folder, None).summary();
    }
    format!("{name}.model")
}

/// Logits at the last two places of a row.
fn logits(policy: &Policy, row: &[i64]) -> Vec<f64> {
    let ids = Tensor::from_slice(row).unsqueeze(0);
    let hidden = policy.trunk.hidden(&ids, &Layout::RightPadded);
    numbers(&policy.logits(&hidden.narrow(1, row.len() as i64 - 2, 2)))
}

fn names(file: &Path) -> Vec<String> {
    let file = WeightFile::open(file).expect("sound");
    let mut all: Vec<String> = file.tensors().map(|(name, _)| name.to_owned()).collect();
    all.sort();
    all
}

fn bytes(path: &Path) -> Vec<u8> {
    fs_err::read(path).expect("a file")
}

#[test]
fn invariant_25_adapters_of_peft_give_the_logits_of_the_merged_model() {
    let (shop, all) = (Workshop::new(), read(&fixtures().join("bare/expected.json")));
    tch::set_num_threads(1);
    for name in ADAPTERS {
        let known = &all[name];
        let base = base_of(&shop, known);
        import(&shop, name, &fixtures().join("bare").join(name), Some(&base)).summary();
        let folder = shop.path(&format!("{name}.model"));
        // The base's weights are there as they were: the store keeps them once.
        let weights = "model.safetensors";
        assert!(bytes(&folder.join(weights)) == bytes(&shop.path(&base).join(weights)), "{name}");
        let rows: Vec<Vec<i64>> = serde_json::from_value(known["rows"].clone()).expect("rows");
        let wanted: Vec<Vec<f64>> =
            serde_json::from_value(known["logits"].clone()).expect("logits");
        let policy = Policy::open(&folder).expect("a model");
        let plain = Policy::open(&shop.path(&base)).expect("a model");
        for (row, wanted) in rows.iter().zip(&wanted) {
            close(&logits(&policy, row), wanted, 1e-4);
            let apart = logits(&plain, row).iter().zip(wanted).any(|(a, b)| (a - b).abs() > 1e-2);
            assert!(apart, "{name}: the adapter does something");
        }
        // Written for peft, it names the same tensors, and is the same adapter again.
        let out = format!("{name}_out");
        let input = format!("{name}.model");
        shop.run(&out, "export", json!({"form": "peft"}), &[("model", &[&input])]).summary();
        let written = shop.path(&format!("{out}.folder"));
        let file = "adapter_model.safetensors";
        assert_eq!(
            names(&written.join(file)),
            names(&fixtures().join("bare").join(name).join(file))
        );
        assert!(!written.join(weights).exists());
        import(&shop, "again", &written, Some(&base)).summary();
        let again = Policy::open(&shop.path("again.model")).expect("a model");
        close(&logits(&again, &rows[0]), &logits(&policy, &rows[0]), 1e-5);
        fs_err::remove_dir_all(shop.path("again.model")).expect("removed");
        // A whole model has the adapter in its weights.
        shop.run("whole", "export", json!({}), &[("model", &[&input])]).summary();
        import(&shop, "whole_in", &shop.path("whole.folder"), None).summary();
        let whole = Policy::open(&shop.path("whole_in.model")).expect("a model");
        close(&logits(&whole, &rows[0]), &logits(&policy, &rows[0]), 1e-5);
        for name in ["whole_in.model", "whole.folder"] {
            fs_err::remove_dir_all(shop.path(name)).expect("removed");
        }
    }
}

/// Files below a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs_err::read_dir(folder).expect("a folder").map(|e| e.expect("an entry"));
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), bytes(&e.path()))).collect()
}

#[test]
fn a_chain_of_kept_adapters_takes_little_room_and_gives_the_same_model() {
    let shop = Workshop::new();
    tch::set_num_threads(1);
    let vocabulary = byte_vocabulary(&shop);
    let config = ModelConfig {
        vocab: vocabulary.size() as i64,
        hidden: 192,
        intermediate: 512,
        heads: 4,
        kv_heads: 4,
        head_dim: 48,
        ..tiny_config()
    };
    Policy { trunk: Trunk::init(config, false, 3) }
        .save(&shop.path("base"), &vocabulary)
        .expect("saved");
    let demos = ["ab", "bc", "ca", "abc"]
        .map(|x| format!("{}\n", json!({"prompt": format!("{x}?"), "completion": x})));
    shop.write("demos.jsonl", demos.concat().repeat(3));
    let labels = ["ab", "bc", "ca", "abc"].map(|x| {
        let row = json!({"prompt": format!("{x}?"), "chosen": x, "rejected": "no", "tie": false,
                         "strength": 1.0});
        format!("{row}\n")
    });
    shop.write("labels.jsonl", labels.concat());
    let lora = |keep: bool| json!({"rank": 1, "targets": ["q", "v"], "keep": keep});
    let rules = json!([{"name": "a", "score": 1.0, "match": "a"}]);
    let run = |kept: &str, keep: bool| {
        let at = |stage: &str| format!("{stage}_{kept}");
        let model = |stage: &str| format!("{}.model", at(stage));
        let params = json!({"train": {"epochs": 2, "batch": 4, "lr": 1e-2, "eval_fraction": 0.0},
                            "lora": lora(keep), "seed": 1});
        let inputs: [(&str, &[&str]); 2] = [("model", &["base"]), ("demos", &["demos.jsonl"])];
        shop.run(&at("sft"), "sft", params, &inputs).summary();
        let params = json!({"epochs": 2, "batch": 4, "lr": 1e-2, "lora": lora(keep), "seed": 1});
        let inputs: [(&str, &[&str]); 2] =
            [("policy", &[&model("sft")]), ("labels", &["labels.jsonl"])];
        shop.run(&at("dpo"), "dpo", params, &inputs).summary();
        let params = json!({"updates": 1, "batch": 4, "minibatch": 4, "group": 2, "max_tokens": 4,
                            "lr": 1e-2, "lora": lora(keep), "rewards": {"rules": rules}, "seed": 1,
                            "eval_fraction": 0.0});
        let inputs: [(&str, &[&str]); 2] =
            [("policy", &[&model("dpo")]), ("prompts", &["demos.jsonl"])];
        shop.run(&at("grpo"), "grpo", params, &inputs).summary();
        ["sft", "dpo", "grpo"].map(|stage| shop.path(&model(stage)))
    };
    let (merged, kept) = (run("merged", false), run("kept", true));
    for (merged, kept) in merged.iter().zip(&kept) {
        assert!(LowRank::is_in(kept) && !LowRank::is_in(merged));
        let [a, b] = [merged, kept].map(|folder| Policy::open(folder).expect("a model"));
        close(&logits(&a, &[5, 6, 7, 8]), &logits(&b, &[5, 6, 7, 8]), 1e-4);
    }
    // What is equal to the file of that name in the base is stored once.
    let base = files(&shop.path("base"));
    let new = |folders: &[PathBuf; 3]| {
        let all = folders.iter().flat_map(|folder| files(folder));
        let new = all.filter(|(name, content)| base.get(name) != Some(content));
        new.map(|(_, content)| content.len()).sum::<usize>() as f64
    };
    assert!(new(&kept) < 0.05 * new(&merged), "{} of {}", new(&kept), new(&merged));
    // Whoever writes a whole model writes it whole.
    let input = "grpo_kept.model";
    let inputs: [(&str, &[&str]); 2] = [("model", &[input]), ("demos", &["demos.jsonl"])];
    let params = json!({"train": {"epochs": 1, "batch": 4, "eval_fraction": 0.0}});
    shop.run("whole", "sft", params, &inputs).summary();
    assert!(!LowRank::is_in(&shop.path("whole.model")));
}

#[test]
fn adapters_that_do_not_fit_are_refused_by_name() {
    let (shop, all) = (Workshop::new(), read(&fixtures().join("bare/expected.json")));
    let base = base_of(&shop, &all["peft_llama"]);
    let spoiled = |name: &str, key: &str, value: Value| {
        let folder = shop.path(name);
        copy(&fixtures().join("bare/peft_llama"), &folder);
        let mut config = read(&folder.join("adapter_config.json"));
        config[key] = value;
        fs_err::write(folder.join("adapter_config.json"), config.to_string()).expect("written");
        import(&shop, &format!("{name}_in"), &folder, Some(&base)).failure()
    };
    for (i, (key, value, says)) in [
        ("peft_type", json!("IA3"), "`peft_type` is \"IA3\""),
        ("task_type", json!("SEQ_CLS"), "`task_type` is \"SEQ_CLS\""),
        ("use_dora", json!(true), "`use_dora` is true"),
        ("bias", json!("all"), "`bias` is \"all\""),
        ("init_lora_weights", json!("pissa"), "changes the base's weights too"),
        ("modules_to_save", json!(["lm_head"]), "`modules_to_save` is [\"lm_head\"]"),
        ("layer_replication", json!([[0, 1]]), "`layer_replication` is"),
        ("r", json!(4), "has factors of [3, 16]"),
        ("rank_pattern", json!({"down_.*": 2}), "`down_.*` is no plain name"),
    ]
    .into_iter()
    .enumerate()
    {
        let failure = spoiled(&format!("spoiled{i}"), key, value);
        assert!(failure.contains(says), "{key}: {failure}");
    }
    let adapter = fixtures().join("bare/peft_llama");
    let failure = import(&shop, "alone", &adapter, None).failure();
    assert!(failure.contains("no `base` is connected"), "{failure}");
    let failure = import(&shop, "both", &fixtures().join("llama"), Some(&base)).failure();
    assert!(failure.contains("the folder holds no adapter"), "{failure}");
    // The adapter of another shape.
    let other = fixtures().join("bare/peft_gpt2");
    let failure = import(&shop, "other", &other, Some(&base)).failure();
    assert!(failure.contains("is no LoRA of a matrix of this model"), "{failure}");
    let ran = shop.run("plain", "export", json!({"form": "peft"}), &[("model", &[&base])]);
    assert!(ran.failure().contains("has no adapters apart from its weights"), "{ran:?}");
    shop.write("demos.jsonl", "{\"prompt\": \"is the\", \"completion\": \"net .\"}\n");
    let inputs: [(&str, &[&str]); 2] = [("model", &[&base]), ("demos", &["demos.jsonl"])];
    let ran = shop.run("sft", "sft", json!({"lora": {"keep": true}}), &inputs);
    assert!(ran.failure().contains("without a rank there are none"), "{ran:?}");
}
