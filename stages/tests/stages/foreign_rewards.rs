//! Reward models of others: imported, used, exported; against transformers. See
//! `fixtures/models/make.py`.

use std::path::{Path, PathBuf};

use preflow_stages::data::Row;
use preflow_stages::model::{Packed, RewardModel};
use serde_json::{Value, json};
use tch::Device;

use crate::harness::{Ran, Workshop, close, numbers};

const MODELS: [&str; 4] = ["llama_reward", "qwen2_reward", "gemma2_reward", "gpt2_reward"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).expect("a file")).expect("JSON")
}

/// A copy of a fixture, with a tokenizer, to spoil.
fn copy(shop: &Workshop, model: &str, name: &str) -> PathBuf {
    let to = shop.path(name);
    fs_err::create_dir_all(&to).expect("a folder");
    for (from, file) in [
        (format!("bare/{model}"), "config.json"),
        (format!("bare/{model}"), "model.safetensors"),
        ("qwen2".into(), "tokenizer.json"),
        ("qwen2".into(), "tokenizer_config.json"),
    ] {
        fs_err::copy(fixtures().join(from).join(file), to.join(file)).expect("copied");
    }
    to
}

fn import(shop: &Workshop, name: &str, from: &Path) -> Ran {
    let from = from.to_str().expect("UTF-8");
    shop.run(name, "import_reward", json!({}), &[("source", &[from])])
}

#[test]
fn invariant_25_scores_of_imported_reward_models_are_those_of_transformers() {
    let (shop, all) = (Workshop::new(), read(&fixtures().join("bare/expected.json")));
    tch::set_num_threads(1);
    for model in MODELS {
        import(&shop, model, &copy(&shop, model, &format!("{model}_there"))).summary();
        let opened = RewardModel::open(&shop.path(&format!("{model}.reward"))).expect("a model");
        let rows: Vec<Vec<i64>> = serde_json::from_value(all[model]["rows"].clone()).expect("rows");
        let known: Vec<f64> = serde_json::from_value(all[model]["scores"].clone()).expect("scores");
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|tokens| Row { mask: vec![false; tokens.len()], tokens })
            .collect();
        let refs: Vec<&Row> = rows.iter().collect();
        close(&numbers(&opened.rewards(&Packed::rows(&refs, Device::Cpu))), &known, 1e-4);
        let packed = Packed::dense_rows(&refs, 64, Device::Cpu);
        close(&numbers(&opened.rewards(&packed)), &known, 1e-4);
        // What `export` wrote is the same model again.
        let name = format!("{model}_out");
        shop.run(&name, "export", json!({}), &[("model", &[&format!("{model}.reward")])]).summary();
        import(&shop, "again", &shop.path(&format!("{name}.folder"))).summary();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let bytes = |name: &str| fs_err::read(shop.path(name).join(file)).expect("bytes");
            assert!(bytes("again.reward") == bytes(&format!("{model}.reward")), "{model}/{file}");
        }
        fs_err::remove_dir_all(shop.path("again.reward")).expect("removed");
    }
}

#[test]
fn an_imported_reward_model_scores_and_chooses() {
    let shop = Workshop::new();
    let published = fixtures().join("bare/qwen2_reward");
    import(&shop, "judge", &published).summary();
    let policy = fixtures().join("qwen2");
    let policy = policy.to_str().expect("UTF-8");
    shop.run("policy", "import_model", json!({}), &[("source", &[policy])]).summary();
    shop.write(
        "prompts.jsonl",
        "{\"prompt\": \"is the red fish in the net ?\"}\n{\"prompt\": \"go away .\"}\n",
    );
    let params = json!({"n": 4, "samples": 1, "max_tokens": 6});
    let inputs: [(&str, &[&str]); 3] = [
        ("policy", &["policy.model"]),
        ("reward", &["judge.reward"]),
        ("prompts", &["prompts.jsonl"]),
    ];
    shop.run("best", "best_of_n", params, &inputs).summary();
    let params = json!({"updates": 1, "batch": 4, "minibatch": 4, "group": 2, "max_tokens": 6,
                        "eval_fraction": 0.0});
    shop.run("grpo", "grpo", params, &inputs).summary();
}

#[test]
fn what_is_no_reward_model_is_refused_with_a_remedy() {
    let shop = Workshop::new();
    let change = |name: &str, model: &str, change: &dyn Fn(&mut Value)| {
        let folder = copy(&shop, model, name);
        let mut config = read(&folder.join("config.json"));
        change(&mut config);
        fs_err::write(folder.join("config.json"), config.to_string()).expect("written");
        import(&shop, &format!("{name}_in"), &folder)
    };
    let labels = change("labels", "llama_reward", &|c| {
        c["id2label"] = json!({"0": "bad", "1": "good"});
    });
    assert!(labels.failure().contains("has 2 labels; a reward model has one"), "{labels:?}");
    let unsaid = change("unsaid", "llama_reward", &|c| {
        c.as_object_mut().expect("a map").remove("id2label");
    });
    assert!(unsaid.failure().contains("has 2 labels"), "{unsaid:?}");
    let language = import(&shop, "language", &fixtures().join("qwen2"));
    assert!(language.failure().contains("`kind: import_model` imports"), "{language:?}");
    let end = change("end", "llama_reward", &|c| c["pad_token_id"] = json!(2));
    assert!(end.failure().contains("at the token before the end"), "{end:?}");
    assert!(end.failure().contains("pad_token: "), "{end:?}");
    let quantised = change("quantised", "llama_reward", &|c| {
        c["quantization_config"] = json!({"bits": 4});
    });
    assert!(quantised.failure().contains("`quantization_config`"), "{quantised:?}");
    // A language model's import says where reward models go.
    let folder = copy(&shop, "llama_reward", "other");
    let folder = folder.to_str().expect("UTF-8");
    let ran = shop.run("wrong", "import_model", json!({}), &[("source", &[folder])]);
    assert!(ran.failure().contains("`kind: import_reward` imports"), "{ran:?}");
}
