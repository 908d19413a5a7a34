//! Forecasts of memory are near what stages take.

use preflow::protocol::Event;
use preflow_stages::model::{ModelConfig, Policy, Trunk};
use serde_json::{Value, json};

use crate::harness::{Ran, Workshop, byte_vocabulary, tiny_config};

/// Forecast and measured peak of a stage, MiB, of the note at its end.
fn told(ran: &Ran) -> [f64; 2] {
    let text = ran.notes();
    let number = |before: &str| -> f64 {
        let at = text.find(before).unwrap_or_else(|| panic!("{ran:?}")) + before.len();
        text[at..].split(' ').next().expect("a word").parse().expect("a number")
    };
    let measured = number("took ");
    let figure = ran.events.iter().find_map(|e| match e {
        Event::Metric { values, .. } => *values.get("time/peak_mib")?,
        _ => None,
    });
    assert_eq!(figure.expect("a figure").round(), measured);
    [number("peak; "), measured]
}

#[test]
#[ignore = "models that outweigh the program take minutes: make slow"]
fn forecasts_for_adapters_rewards_and_policies_are_near_the_measured_peak() {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    // Large enough for tensors to outweigh the program, with many more ids than tokens.
    let config = ModelConfig {
        vocab: 8192,
        hidden: 512,
        intermediate: 1376,
        heads: 8,
        kv_heads: 8,
        head_dim: 64,
        layers: 4,
        context: 160,
        ..tiny_config()
    };
    let policy = Policy { trunk: Trunk::init(config, false, 3) };
    policy.save(&shop.path("base"), &vocabulary).expect("saved");
    let answer = "abcdef".repeat(10);
    let rows =
        |row: &dyn Fn(usize) -> Value| (0..32).map(|i| format!("{}\n", row(i))).collect::<String>();
    let demo = |i| json!({"prompt": format!("q{i} {answer}"), "completion": answer});
    shop.write("demos.jsonl", rows(&demo));
    let label = |i| {
        json!({"prompt": format!("q{i} {answer}"), "chosen": answer, "rejected": &answer[1..],
               "tie": false, "strength": 1.0})
    };
    shop.write("labels.jsonl", rows(&label));
    let demos: [(&str, &[&str]); 2] = [("model", &["base"]), ("demos", &["demos.jsonl"])];
    let labels: [(&str, &[&str]); 2] = [("base", &["base"]), ("labels", &["labels.jsonl"])];
    let pairs: [(&str, &[&str]); 2] = [("policy", &["base"]), ("labels", &["labels.jsonl"])];
    let prompts: [(&str, &[&str]); 2] = [("policy", &["base"]), ("prompts", &["demos.jsonl"])];
    let sft = json!({"train": {"epochs": 1, "batch": 16}});
    let pair = json!({"epochs": 1, "batch": 8, "eval_fraction": 0.4});
    let draws = json!({"updates": 1, "epochs": 1, "batch": 16, "minibatch": 16, "max_tokens": 32,
        "rewards": {"rules": [{"name": "a", "score": 1.0, "match": "a"}]}});
    let with = |params: &Value, more: Value| {
        let mut params = params.clone();
        params.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        params
    };
    let lora = || json!({"lora": {"rank": 8}});
    let mut far = Vec::new();
    for (name, kind, params, inputs) in [
        ("sft", "sft", sft.clone(), &demos),
        ("sft_lora", "sft", with(&sft, lora()), &demos),
        ("reward", "train_reward", pair.clone(), &labels),
        ("reward_lora", "train_reward", with(&pair, lora()), &labels),
        ("dpo", "dpo", pair.clone(), &pairs),
        ("dpo_lora", "dpo", with(&pair, lora()), &pairs),
        ("grpo", "grpo", with(&draws, json!({"group": 4})), &prompts),
        ("grpo_lora", "grpo", with(&draws, json!({"group": 4, "lora": {"rank": 8}})), &prompts),
        ("ppo", "ppo", draws.clone(), &prompts),
    ] {
        let [forecast, measured] = told(&shop.run(name, kind, params, inputs));
        println!("{name}: {forecast} MiB, measured {measured}: {:.2}", measured / forecast);
        if !(0.7..1.3).contains(&(measured / forecast)) {
            far.push(format!("{name}: {forecast} MiB, measured {measured}"));
        }
    }
    assert!(far.is_empty(), "{far:?}");
}
