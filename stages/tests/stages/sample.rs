//! Answers and scores on their own: what `preflow sample` runs.

use preflow_stages::data::{Example, Prompt, Vocabulary};
use preflow_stages::model::{ModelConfig, Packed, Policy, RewardModel, Trunk};
use serde_json::json;

use crate::harness::*;

/// A policy in `policy` and a reward model in `reward`, both of bytes and with random weights.
fn models(shop: &Workshop) -> Vocabulary {
    let vocabulary = byte_vocabulary(shop);
    let config = ModelConfig { vocab: vocabulary.size() as i64, ..tiny_config() };
    let policy = Policy { trunk: Trunk::init(config, false, 3) };
    policy.save(&shop.path("policy"), &vocabulary).expect("saved");
    let reward = RewardModel::from_policy(&policy, 3);
    reward.save(&shop.path("reward"), &vocabulary).expect("saved");
    vocabulary
}

#[test]
fn answers_depend_on_the_seed_and_the_place_alone() {
    let shop = Workshop::new();
    models(&shop);
    let row = |prompt: &str, id: i64| json!({"prompt": prompt, "id": id}).to_string() + "\n";
    shop.write("two.jsonl", row("ab", 1) + &row("a longer one", 2));
    shop.write("one.jsonl", row("ab", 1));
    let answers = |name: &str, params: serde_json::Value, prompts: &str| {
        let inputs: &[(&str, &[&str])] = &[("model", &["policy"]), ("prompts", &[prompts])];
        shop.run(name, "sample", params, inputs).summary();
        shop.table(&format!("{name}.answers.parquet"))
    };
    let params = json!({"n": 3, "max_tokens": 12, "seed": 5});
    let two = answers("two", params.clone(), "two.jsonl");
    assert_eq!(two.rows(), 6);
    assert_eq!(
        two.floats("id", 0.0).expect("a column"),
        [1.0, 1.0, 1.0, 2.0, 2.0, 2.0],
        "columns travel along"
    );
    let one = answers("one", params, "one.jsonl");
    let texts = two.texts("completion").expect("text");
    assert_eq!(one.texts("completion").expect("text"), texts[..3]);
    assert!(texts[0] != texts[1], "three draws are not one: {texts:?}");
    let other = answers("other", json!({"n": 3, "max_tokens": 12, "seed": 6}), "two.jsonl");
    assert_ne!(other.texts("completion").expect("text"), texts);
    let greedy =
        answers("greedy", json!({"n": 2, "temperature": 0.0, "max_tokens": 5}), "two.jsonl");
    let greedy = greedy.texts("completion").expect("text");
    assert!(greedy[0] == greedy[1] && greedy[2] == greedy[3], "{greedy:?}");
}

#[test]
fn scores_are_those_of_the_model_and_ends_count() {
    let shop = Workshop::new();
    let vocabulary = models(&shop);
    let rows = [("ab", "yes", true), ("ab", "yes", false), ("c", "no .", true)];
    let row = |(p, c, f): &(&str, &str, bool)| {
        json!({"prompt": p, "completion": c, "finished": f}).to_string() + "\n"
    };
    let too_long = json!({"prompt": "x", "completion": "word ".repeat(40), "finished": true});
    let text: String = rows.iter().map(row).collect();
    shop.write("answers.jsonl", format!("{text}{too_long}\n"));
    let inputs: &[(&str, &[&str])] = &[("model", &["reward"]), ("answers", &["answers.jsonl"])];
    let ran = shop.run("scores", "score", json!({"batch": 2}), inputs);
    assert!(ran.notes().contains("1 row (4) left out"), "{}", ran.notes());
    assert_eq!(ran.summary()["answers"], 3.0);
    let scores = shop.table("scores.answers.parquet").floats("score", f64::NAN).expect("a column");
    let model = RewardModel::open(&shop.path("reward")).expect("opens");
    for ((prompt, answer, finished), score) in rows.iter().zip(&scores) {
        let example = Example {
            prompt: vocabulary.prompt(&Prompt::text(prompt)).expect("ids"),
            completion: vocabulary.completion(answer, *finished).expect("ids"),
        };
        let packed = Packed::new(&[&example], tch::Device::Cpu);
        let alone = tch::no_grad(|| model.rewards(&packed).double_value(&[0]));
        assert!((alone - score).abs() < 1e-5, "{alone} against {score}");
    }
    assert!((scores[0] - scores[1]).abs() > 1e-6, "an answer without its end is another one");
}
