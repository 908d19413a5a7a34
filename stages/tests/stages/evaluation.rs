//! What an evaluation says: curves, copies, the reference, who wins.

use std::collections::BTreeMap;

use preflow_stages::data::Table;
use preflow_stages::stats::best_of_kl;
use serde_json::{Value, json};

use crate::golden;
use crate::harness::*;

/// The tiny world with its base, a fine-tuned policy and a reward model.
fn world(shop: &Workshop) {
    golden::world(shop);
    for (name, kind, params, inputs) in golden::stages().into_iter().take(7) {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        shop.run(name, kind, params, &inputs).summary();
    }
}

/// Figures by (policy, bucket, name).
type Figures = BTreeMap<(String, String, String), (f64, f64, f64)>;

fn figures(table: &Table) -> Figures {
    let text = |name: &str| {
        let column = table.texts(name).expect("text");
        column.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (policies, buckets, names) = (text("policy"), text("bucket"), text("name"));
    let number = |name: &str| table.floats(name, f64::NAN).expect("a column");
    let (values, lows, highs) = (number("value"), number("low"), number("high"));
    (0..table.rows())
        .map(|i| {
            let key = (policies[i].clone(), buckets[i].clone(), names[i].clone());
            (key, (values[i], lows[i], highs[i]))
        })
        .collect()
}

fn get(figures: &Figures, policy: &str, bucket: &str, name: &str) -> (f64, f64, f64) {
    let key = (policy.to_owned(), bucket.to_owned(), name.to_owned());
    *figures.get(&key).unwrap_or_else(|| panic!("no {key:?} among {:?}", figures.keys()))
}

#[test]
fn curves_copies_and_distances_are_in_the_table() {
    let shop = Workshop::new();
    world(&shop);
    let params = json!({
        "rules": golden::rules(), "samples": 2, "max_tokens": 10, "bootstrap": 100, "seed": 1,
        "reference": "sft", "best_of": {"n": 8}, "judge_by": "reward",
    });
    let inputs: &[(&str, &[&str])] = &[
        ("policies", &["base.model", "sft.model"]),
        ("reward", &["reward.reward"]),
        ("prompts", &["prompts.jsonl"]),
        ("train", &["demos.jsonl"]),
    ];
    shop.run("eval", "evaluate", params, inputs).summary();
    let all = figures(&shop.table("eval.evaluation.parquet"));
    // The reference is no distance from itself, and nobody else is at no distance from it.
    assert_eq!(get(&all, "sft", "all", "kl"), (0.0, 0.0, 0.0));
    assert!(get(&all, "base", "all", "kl").0 > 0.0);
    let (kl, root) = (get(&all, "base", "all", "kl").0, get(&all, "base", "all", "sqrt_kl").0);
    assert!((root * root - kl).abs() < 1e-12);
    // Without a baseline of its own, what is gained is gained on the reference.
    let gold = |policy: &str| get(&all, policy, "all", "gold").0;
    let gain = get(&all, "base", "all", "gold_gain").0;
    assert!((gain - (gold("base") - gold("sft"))).abs() < 1e-9, "{gain}");
    assert!(!all.contains_key(&("sft".into(), "all".into(), "gold_gain".into())));
    // The more to choose from, the higher the reward; and its bound of KL.
    let curve: Vec<f64> =
        [1, 2, 4, 8].map(|k| get(&all, "sft", "all", &format!("best_of_{k}/reward")).0).into();
    assert!(curve.is_sorted() && curve[0] < curve[3], "{curve:?}");
    assert_eq!(get(&all, "sft", "all", "best_of_4/kl_at_most").0, best_of_kl(4));
    let best = "sft, best of 8";
    assert!((get(&all, best, "all", "reward").0 - curve[3]).abs() < 1e-9);
    assert!(
        (get(&all, best, "all", "gold").0 - get(&all, "sft", "all", "best_of_8/gold").0).abs()
            < 1e-9
    );
    assert!(get(&all, best, "all", "win_rate").0 > 0.5, "picked answers win by their judge");
    for name in ["alpha", "beta"] {
        assert!(get(&all, "sft", "all", &format!("best_of_fit/reward/{name}")).0.is_finite());
    }
    // Prompts of the demonstrations are a bucket of their own, without rules.
    for policy in ["base", "sft"] {
        let (copied, _, high) = get(&all, policy, "train", "copied");
        let words = get(&all, policy, "train", "copied_words").0;
        assert!(
            (0.0..=1.0).contains(&copied) && copied <= words && high <= 1.0,
            "{copied} {words}"
        );
        assert!(get(&all, policy, "train", "perplexity").0 > 1.0);
    }
    assert!(!all.contains_key(&("sft".into(), "train".into(), "good".into())));
    for name in ["distinct", "distinct_1", "distinct_2", "self_overlap", "length_p90"] {
        assert!(get(&all, "sft", "all", name).0.is_finite(), "{name}");
    }
}

#[test]
fn a_policy_that_repeats_its_training_data_is_seen() {
    let shop = Workshop::new();
    world(&shop);
    let train = json!({"train": {"epochs": 300, "batch": 6, "lr": 1e-2, "eval_fraction": 0.0}});
    let inputs: &[(&str, &[&str])] = &[("model", &["base.model"]), ("demos", &["demos.jsonl"])];
    shop.run("over", "sft", train, inputs).summary();
    let run = |name: &str, more: Value| {
        let mut params = json!({"samples": 2, "max_tokens": 10, "bootstrap": 20});
        params.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let inputs: &[(&str, &[&str])] = &[
            ("policies", &["base.model", "over.model"]),
            ("prompts", &["prompts.jsonl"]),
            ("train", &["demos.jsonl"]),
        ];
        shop.run(name, "evaluate", params, inputs)
    };
    run("eval", json!({})).summary();
    let all = figures(&shop.table("eval.evaluation.parquet"));
    let copied = |policy: &str| get(&all, policy, "train", "copied").0;
    assert!(copied("over") > 0.9 && copied("base") < 0.7, "{} {}", copied("over"), copied("base"));
    let (seen, unseen) =
        (get(&all, "over", "train", "copied").0, get(&all, "over", "new", "copied").0);
    assert!(unseen <= seen, "{seen} {unseen}");
    // What cannot be done is said.
    let failure = |more: Value| run("bad", more).failure();
    assert!(failure(json!({"best_of": {"n": 4}})).contains("need a reward model"));
    assert!(failure(json!({"judge_by": "gold"})).contains("needs rules"));
    assert!(failure(json!({"reference": "x"})).contains("reference `x` is not one of"));
}
