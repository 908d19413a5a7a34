//! What a reward model learns and what it must not: ends, sides, scales, ensembles, bad labels.

use preflow_stages::model::{ModelConfig, Policy, RewardModel, Trunk};
use preflow_stages::rng::Stream;
use preflow_stages::stats::{mean, std};
use serde_json::{Value, json};

use crate::harness::*;

/// Answers of four letters; the one with more of the letter x is better, always.
fn labels(pairs: usize, prompts: usize, seed: u64, shuffled: bool) -> Vec<Value> {
    let mut stream = Stream::new(seed, "labels", 0, 0);
    let mut out = Vec::new();
    while out.len() < pairs {
        let mut word = || (0..4).map(|_| *stream.choose(&['x', 'y', 'z'])).collect::<String>();
        let (a, b) = (word(), word());
        let count = |w: &str| w.matches('x').count();
        if count(&a) == count(&b) {
            continue;
        }
        let first = (count(&a) > count(&b)) != (shuffled && stream.uniform() < 0.5);
        let (chosen, rejected) = if first { (&a, &b) } else { (&b, &a) };
        out.push(json!({
            "prompt": format!("q{}", out.len() % prompts), "chosen": chosen, "rejected": rejected,
            "tie": false, "strength": 1.0, "response_a": a, "response_b": b,
            "choice": if first { "a" } else { "b" }, "finished_a": true, "finished_b": true,
        }));
    }
    out
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// A workshop with a byte-level policy of random weights in `base`.
fn workshop() -> Workshop {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    let config = ModelConfig { vocab: vocabulary.size() as i64, ..tiny_config() };
    Policy { trunk: Trunk::init(config, false, 3) }
        .save(&shop.path("base"), &vocabulary)
        .expect("saved");
    shop
}

fn train(shop: &Workshop, name: &str, more: Value, inputs: &[(&str, &[&str])]) -> Ran {
    let mut params = json!({"epochs": 4, "lr": 5e-3, "batch": 16, "eval_fraction": 0.3, "seed": 1});
    params.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    let all = [&[("base", &["base"] as &[&str])], inputs].concat();
    shop.run(name, "train_reward", params, &all)
}

fn bytes(shop: &Workshop, name: &str) -> Vec<u8> {
    fs_err::read(shop.path(&format!("{name}.reward/model.safetensors"))).expect("a model")
}

#[test]
fn invariant_11_a_rule_is_learned_and_shuffled_labels_are_not() {
    let shop = workshop();
    shop.write("good.jsonl", lines(&labels(500, 100, 1, false)));
    shop.write("none.jsonl", lines(&labels(500, 100, 1, true)));
    let summary = train(&shop, "good", json!({}), &[("labels", &["good.jsonl"])]).summary();
    assert!(summary["eval/accuracy"] >= 0.98, "{summary:?}");
    let summary = train(&shop, "none", json!({}), &[("labels", &["none.jsonl"])]).summary();
    assert!(
        summary["eval/accuracy_low"] < 0.5 && summary["eval/accuracy_high"] > 0.5,
        "a leak: {summary:?}"
    );
}

#[test]
fn adapters_learn_the_rule_and_leave_the_rest_of_the_model_alone() {
    let shop = workshop();
    shop.write("labels.jsonl", lines(&labels(500, 100, 1, false)));
    let inputs: &[(&str, &[&str])] = &[("labels", &["labels.jsonl"])];
    let some = json!({"lora": {"rank": 2, "targets": ["q", "down"]}, "lr": 2e-2, "members": 2,
                      "learning_curve": true});
    let ran = train(&shop, "some", some, inputs);
    let summary = ran.summary();
    assert!(summary["eval/accuracy"] >= 0.95, "{summary:?}");
    assert!(ran.notes().contains("needs about"), "{}", ran.notes());
    // Adapters are merged: each member is an ordinary reward model.
    let base = Policy::open(&shop.path("base")).expect("a policy");
    for member in ["some.reward", "some.reward/members/1"] {
        let reward = RewardModel::open(&shop.path(member)).expect("a reward model");
        for (spec, tensor) in reward.trunk.params.specs.iter().zip(&reward.trunk.params.tensors) {
            let before = base.trunk.params.specs.iter().position(|s| s.parts == spec.parts);
            let Some(before) = before.map(|i| &base.trunk.params.tensors[i]) else { continue };
            let apart = numbers(&(tensor - before));
            let name = &spec.parts[0].name;
            // Queries are the first rows of the three that lie together.
            let adapted = name.ends_with("q_proj.weight") || name.ends_with("down_proj.weight");
            assert_eq!(apart.iter().any(|x| *x != 0.0), adapted, "{member} {name}");
            if name.ends_with("q_proj.weight") {
                let [q, ..] = reward.trunk.config.qkv_widths();
                let rest = (q * reward.trunk.config.hidden) as usize;
                assert!(apart[rest..].iter().all(|x| *x == 0.0), "keys and values");
            }
        }
    }
    // The same seed gives the same adapters.
    let again = train(&shop, "again", json!({"lora": {"rank": 2}, "epochs": 1}), inputs);
    again.summary();
    let other = train(&shop, "other", json!({"lora": {"rank": 2}, "epochs": 1}), inputs);
    other.summary();
    assert!(bytes(&shop, "again") == bytes(&shop, "other"));
}

#[test]
fn how_steps_are_computed_changes_nothing_but_rounding() {
    let shop = workshop();
    shop.write("labels.jsonl", lines(&labels(90, 30, 5, false)));
    let inputs: &[(&str, &[&str])] = &[("labels", &["labels.jsonl"])];
    let run = |name: &str, compute: Value| {
        let params = json!({"epochs": 1, "lr": 1e-3, "center_coef": 0.01, "compute": compute});
        let ran = train(&shop, name, params, inputs);
        assert!(ran.notes().contains("needs about"), "{}", ran.notes());
        ran.summary()["eval/loss"]
    };
    let whole = run("whole", json!({}));
    let parts = run("parts", json!({"micro_batch": 3, "checkpoint_activations": true}));
    assert!((whole - parts).abs() < 1e-4, "{whole} and {parts}");
    let half = run("half", json!({"precision": "bf16"}));
    assert!(half != whole && (whole - half).abs() < 0.02, "{whole} and {half}");
}

#[test]
fn invariant_29_the_side_an_answer_was_shown_on_changes_nothing() {
    let shop = workshop();
    let rows = labels(60, 20, 2, false);
    let swapped: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut row = row.clone();
            let (a, b) = (row["response_a"].take(), row["response_b"].take());
            (row["response_a"], row["response_b"]) = (b, a);
            row["choice"] = json!(if row["choice"] == "a" { "b" } else { "a" });
            row
        })
        .collect();
    shop.write("one.jsonl", lines(&rows));
    shop.write("two.jsonl", lines(&swapped));
    train(&shop, "one", json!({"epochs": 1}), &[("labels", &["one.jsonl"])]).summary();
    train(&shop, "two", json!({"epochs": 1}), &[("labels", &["two.jsonl"])]).summary();
    assert!(bytes(&shop, "one") == bytes(&shop, "two"));
}

#[test]
fn references_lie_at_zero_and_the_scale_is_one() {
    let shop = workshop();
    let rows = labels(80, 20, 3, false);
    shop.write("labels.jsonl", lines(&rows));
    let reference = |i: usize| json!({"prompt": format!("q{i}"), "completion": "xxyy"});
    shop.write("references.jsonl", lines(&(0..10).map(reference).collect::<Vec<_>>()));
    // Everything is trained on but for two pairs.
    let held_out: Vec<Value> = labels(2, 2, 4, false)
        .into_iter()
        .enumerate()
        .map(|(i, mut row)| {
            row["prompt"] = json!(format!("new{i}"));
            row
        })
        .collect();
    shop.write("eval.jsonl", lines(&held_out));
    let inputs: &[(&str, &[&str])] = &[
        ("labels", &["labels.jsonl"]),
        ("eval_labels", &["eval.jsonl"]),
        ("references", &["references.jsonl"]),
    ];
    let summary = train(&shop, "scaled", json!({"scale": true}), inputs).summary();
    assert!((summary["reward/scale"] * summary["reward/std"] - 1.0).abs() < 1e-6, "{summary:?}");
    let plain = train(&shop, "plain", json!({}), inputs).summary();
    assert_eq!(plain["eval/loss"], summary["eval/loss"], "figures are those before scaling");
    let scores = |name: &str, answers: &str| {
        let inputs: &[(&str, &[&str])] = &[("model", &["scaled.reward"]), ("answers", &[answers])];
        shop.run(name, "score", json!({}), inputs).summary();
        shop.table(&format!("{name}.answers.parquet")).floats("score", f64::NAN).expect("a column")
    };
    assert!(mean(&scores("a", "references.jsonl")).abs() < 1e-5);
    let side = |row: &Value, side: &str| json!({"prompt": row["prompt"], "completion": row[side]});
    let answers = rows.iter().flat_map(|r| [side(r, "chosen"), side(r, "rejected")]);
    shop.write("answers.jsonl", lines(&answers.collect::<Vec<_>>()));
    assert!((std(&scores("b", "answers.jsonl")) - 1.0).abs() < 1e-4);
}

#[test]
fn an_ensemble_ranks_what_it_disputes_and_resumes_like_one_model() {
    let shop = workshop();
    shop.write("labels.jsonl", lines(&labels(120, 30, 5, false)));
    let pool = |a: &str, b: &str| json!({"prompt": "q", "response_a": a, "response_b": b});
    shop.write(
        "pool.jsonl",
        lines(&[pool("xxxx", "zzzz"), pool("yzyz", "zyzy"), pool("yy", "zz")]),
    );
    let inputs: &[(&str, &[&str])] = &[("labels", &["labels.jsonl"]), ("pool", &["pool.jsonl"])];
    let more = json!({"members": 3, "learning_curve": true, "epochs": 2});
    let summary = train(&shop, "many", more, inputs).summary();
    assert!(summary["eval/disagreement"] > 0.0 && summary["eval/accuracy_first"] > 0.5);
    let folders = ["many.reward", "many.reward/members/1", "many.reward/members/2"];
    let read = |f: &str| fs_err::read(shop.path(f).join("model.safetensors")).expect("a model");
    assert!(read(folders[0]) != read(folders[1]) && read(folders[1]) != read(folders[2]));
    for folder in folders {
        RewardModel::open(&shop.path(folder)).expect("a reward model like any other");
    }
    // The first member is what a single model would be.
    train(&shop, "alone", json!({"epochs": 2}), inputs).summary();
    assert!(bytes(&shop, "many") == bytes(&shop, "alone"));
    assert_eq!(shop.table("many.disagreement.parquet").rows(), 3);
    let disputed =
        shop.table("many.disagreement.parquet").floats("disagreement", f64::NAN).expect("a column");
    assert!(disputed.is_sorted_by(|a, b| a >= b), "{disputed:?}");
    // The curve: nested subsets, the whole at its end with the accuracy of the first member.
    let metrics = shop.table("many.metrics.parquet");
    let (names, steps) =
        (metrics.texts("name").expect("text"), metrics.floats("step", 0.0).expect("a column"));
    let values = metrics.floats("value", f64::NAN).expect("a column");
    let curve: Vec<(f64, f64)> = (0..metrics.rows())
        .filter(|i| names[*i] == "curve/accuracy")
        .map(|i| (steps[i], values[i]))
        .collect();
    assert!(curve.len() == 4 && curve.is_sorted_by(|a, b| a.0 < b.0), "{curve:?}");
    assert_eq!(curve[3].1, summary["eval/accuracy_first"]);

    let params = json!({"epochs": 2, "lr": 5e-3, "batch": 16, "eval_fraction": 0.3, "members": 2, "learning_curve": true});
    let inputs: &[(&str, &[&str])] = &[("base", &["base"]), ("labels", &["labels.jsonl"])];
    crate::resume::check(&shop, "train_reward", &params, inputs);
}

#[test]
fn invariant_30_prompts_on_both_sides_are_refused() {
    let shop = workshop();
    shop.write("labels.jsonl", lines(&labels(40, 20, 6, false)));
    shop.write("eval.jsonl", lines(&labels(10, 5, 7, false)));
    let inputs: &[(&str, &[&str])] =
        &[("labels", &["labels.jsonl"]), ("eval_labels", &["eval.jsonl"])];
    let failure = train(&shop, "bad", json!({}), inputs).failure();
    assert!(failure.contains("5 of the 5 prompts") && failure.contains("\"q0\""), "{failure}");
    assert!(failure.contains("allow_overlap"), "{failure}");
    train(&shop, "fine", json!({"allow_overlap": true, "epochs": 1}), inputs).summary();
}

#[test]
fn invariant_27_odd_labels_are_skipped_with_a_count_or_refused() {
    let shop = workshop();
    let good = labels(40, 20, 8, false);
    let odd = |prompt: &str, chosen: &str, rejected: &str, tie: bool| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected, "tie": tie});
    let run = |name: &str, rows: Vec<Value>| {
        shop.write("odd.jsonl", lines(&rows));
        train(&shop, name, json!({"epochs": 1}), &[("labels", &["odd.jsonl"])])
    };
    let with = |row: Value| [good.clone(), vec![row]].concat();
    let equal = run("equal", with(odd("p", "xx", "xx", false)));
    assert!(equal.notes().contains("1 pairs of two equal answers"), "{}", equal.notes());
    equal.summary();
    // An empty answer and one of a single token are answers; a long prompt loses its beginning.
    for (name, row) in [
        ("empty", odd("p", "x", "", false)),
        ("short", odd("p", "x", "y", false)),
        ("long", odd(&"p".repeat(45), "xx", "yy", false)),
        ("longer", odd(&"p".repeat(48), "xx", "yy", false)),
    ] {
        run(name, with(row)).summary();
    }
    let ran = run("endless", with(odd("p", &"x".repeat(60), "y", false)));
    assert!(ran.notes().contains("1 row (41) left out"), "{}", ran.notes());
    ran.summary();
    assert!(
        run("a", vec![odd("p", "x", "y", true); 4]).failure().contains("all 4 labels are ties")
    );
    assert!(run("b", vec![odd("p", "x", "x", false); 4]).failure().contains("equal answers"));
    shop.write("zero.jsonl", "");
    let zero = train(&shop, "c", json!({}), &[("labels", &["zero.jsonl"])]);
    assert!(zero.failure().contains("the dataset is empty"), "{}", zero.failure());
    let one = run("d", vec![odd("p", "x", "y", false)]);
    assert!(one.failure().contains("are not enough"), "{}", one.failure());
}
