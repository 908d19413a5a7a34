//! Where scores come from, and that each algorithm follows them: tiny models, rules as gold.

use preflow::protocol::Event;
use serde_json::{Value, json};

use crate::golden;
use crate::harness::*;

/// A small world with a base model that babbles and `sft.model` that knows a little.
fn world() -> Workshop {
    let shop = Workshop::new();
    golden::world(&shop);
    for (name, kind, params, inputs) in golden::stages().into_iter().take(7) {
        let inputs: Vec<(&str, &[&str])> = inputs.iter().map(|(p, n)| (*p, n.as_slice())).collect();
        shop.run(name, kind, params, &inputs).summary();
    }
    shop
}

fn metric(ran: &Ran, name: &str) -> Vec<f64> {
    let of = |e: &Event| match e {
        Event::Metric { values, .. } => values.get(name).copied().flatten(),
        _ => None,
    };
    ran.events.iter().filter_map(of).collect()
}

const PROMPTS: (&str, &[&str]) = ("prompts", &["prompts.jsonl"]);
const POLICY: (&str, &[&str]) = ("policy", &["sft.model"]);
const REWARD: (&str, &[&str]) = ("reward", &["reward.reward"]);

#[test]
fn scores_come_from_a_model_rules_a_command_or_a_mix() {
    let shop = world();
    let run = |name: &str, rewards: Value, inputs: &[(&str, &[&str])]| {
        let params = json!({"updates": 1, "batch": 16, "max_tokens": 8, "rewards": rewards,
                            "eos": {"mode": "keep"}, "seed": 4});
        shop.run(name, "rloo", params, inputs)
    };
    let score = |ran: &Ran| {
        ran.summary();
        metric(ran, "reward/mean")[0]
    };
    let model = score(&run("model", json!({}), &[POLICY, PROMPTS, REWARD]));
    let only_rules = json!({"rules": golden::rules()});
    let rules = score(&run("rules", only_rules, &[POLICY, PROMPTS]));
    // The same rule once more, by a program of the user's: the share of answers with the colour.
    let script = "import sys, json\nfor line in sys.stdin:\n    row = json.loads(line)\n    good = row['colour'] in row['response']\n    rude = 'go away' in row['response']\n    print(good * 1.0 - rude - (not row['finished']) * 0.5)\n";
    shop.write("score.py", script);
    let command = json!({"command": "python3 \"$IN_score\"", "command_weight": 2.0});
    let files: (&str, &[&str]) = ("files", &["score.py"]);
    let by_command = score(&run("command", command, &[POLICY, PROMPTS, files]));
    assert!((by_command - 2.0 * rules).abs() < 1e-9, "{by_command} against {rules}");
    let mix = json!({"model": 0.5, "rules": golden::rules(), "rules_weight": 3.0});
    let mixed = score(&run("mix", mix, &[POLICY, PROMPTS, REWARD]));
    assert!((mixed - (0.5 * model + 3.0 * rules)).abs() < 1e-6, "{mixed}, {model}, {rules}");
}

#[test]
fn rewards_by_name_add_up_and_have_a_curve_each() {
    let shop = world();
    let run = |kind: &str, rewards: Value, more: Value| {
        let mut params = json!({"updates": 2, "batch": 16, "group": 4, "max_tokens": 8,
                                "rewards": rewards, "eos": {"mode": "keep"}, "seed": 4});
        for (name, value) in more.as_object().expect("params") {
            params[name] = value.clone();
        }
        shop.run("named", kind, params, &[POLICY, PROMPTS, REWARD])
    };
    let first = |ran: &Ran, name: &str| metric(ran, name)[0];
    let mix = json!({"model": 0.5, "rules": golden::rules(), "rules_weight": 3.0});
    let mixed = run("rloo", mix, json!({}));
    assert!(metric(&mixed, "reward/model/mean").is_empty(), "names are the user's own");
    let named = json!([
        {"name": "helpful", "weight": 0.5, "model": true},
        {"name": "manners", "weight": 3.0, "rules": golden::rules()},
        {"name": "nothing", "weight": 0.0, "command": "while read -r _; do echo 7; done"},
    ]);
    let ran = run("rloo", json!({"named": named}), json!({}));
    let (helpful, manners) =
        (first(&ran, "reward/helpful/mean"), first(&ran, "reward/manners/mean"));
    close(&[first(&ran, "reward/mean")], &[0.5 * helpful + 3.0 * manners], 1e-9);
    close(&[first(&ran, "reward/mean")], &[first(&mixed, "reward/mean")], 1e-9);
    assert_eq!([first(&ran, "reward/nothing/mean"), first(&ran, "reward/nothing/std")], [7.0, 0.0]);
    assert_eq!(ran.summary()["reward/manners/mean"], metric(&ran, "reward/manners/mean")[1]);

    let scaled = json!({"named": named, "combine": "normalize_then_sum"});
    for dynamic_sampling in [0, 2] {
        let ran = run("grpo", scaled.clone(), json!({"dynamic_sampling": dynamic_sampling}));
        assert!(first(&ran, "reward/helpful/std") > 0.0 && first(&ran, "policy/grad_norm") > 0.0);
    }
    let named = |first: Value| json!({"named": [first]});
    let by_model = json!({"name": "a", "model": true});
    for (kind, rewards, more, expect) in [
        ("rloo", scaled.clone(), json!({}), "within a group"),
        ("grpo", scaled, json!({"scale_by_std": false}), "by its spread"),
        ("rloo", json!({"named": [by_model, by_model]}), json!({}), "two rewards are named `a`"),
        ("rloo", named(json!({"name": "a"})), json!({}), "reward `a` has 0 sources"),
        ("rloo", named(json!({"name": "a", "command": "x"})), json!({}), "no reward is that of"),
        (
            "rloo",
            json!({"named": [by_model], "rules": golden::rules()}),
            json!({}),
            "stands in place of",
        ),
    ] {
        let failure = run(kind, rewards, more).failure();
        assert!(failure.contains(expect), "{failure}");
    }
}

#[test]
fn several_reward_models_add_up_by_name() {
    let shop = world();
    // One more, with another seed and fewer epochs: it says otherwise.
    let inputs: &[(&str, &[&str])] =
        &[("base", &["sft.model"]), ("labels", &["labels.labels.parquet"])];
    let params = json!({"epochs": 1, "batch": 8, "lr": 1e-3, "eval_fraction": 0.3, "seed": 9});
    shop.run("second", "train_reward", params, inputs).summary();
    let run = |rewards: Value, inputs: &[(&str, &[&str])]| {
        let params = json!({"updates": 1, "batch": 16, "max_tokens": 8, "rewards": rewards,
                            "eos": {"mode": "keep"}, "seed": 4});
        shop.run("several", "rloo", params, &[&[POLICY, PROMPTS], inputs].concat())
    };
    let first = |ran: &Ran, name: &str| {
        ran.summary();
        metric(ran, name)[0]
    };
    let (reward, second) = (REWARD, ("reward_models", &["second.reward"][..]));
    let both = ("reward_models", &["reward.reward", "second.reward"][..]);
    let by = |name: &str, weight: f64, model: Value| json!({"name": name, "weight": weight, "model": model});
    // Each alone, at the old port and at the new one.
    let one = first(&run(json!({}), &[reward]), "reward/mean");
    let other = json!({"named": [by("polite", 1.0, json!("second"))]});
    let other = first(&run(other, &[second]), "reward/mean");
    assert!((one - other).abs() > 1e-3, "{one} {other}: two models that say the same");
    let named = [by("helpful", 0.5, json!("reward")), by("polite", -2.0, json!("second"))];
    let ran = run(json!({"named": named}), &[both]);
    let names = ["reward/helpful/mean", "reward/polite/mean", "reward/mean"];
    let found = names.map(|name| first(&ran, name));
    close(&found, &[one, other, 0.5 * one - 2.0 * other], 1e-6);
    // One at port `reward` and one more: the same numbers.
    let named = [by("helpful", 0.5, json!(true)), by("polite", -2.0, json!("second"))];
    let ran = run(json!({"named": named}), &[reward, second]);
    close(&names.map(|name| first(&ran, name)), &found, 1e-6);

    for (named, inputs, expect) in [
        (json!([by("a", 1.0, json!("thrid"))]), vec![both], "there are reward, second"),
        (json!([by("a", 1.0, json!("second"))]), vec![], "reward_models: [second]"),
        (json!([by("a", 1.0, json!("second"))]), vec![both], "no reward is that of `reward`"),
        (json!([]), vec![second], "named: [ { name: …, model: second } ]"),
        (json!([by("a", 1.0, json!(true))]), vec![second], "at port `reward`"),
        (
            json!([by("a", 1.0, json!("second"))]),
            vec![("reward_models", &["second.reward", "second.reward"][..])],
            "two models of the name",
        ),
    ] {
        let failure = run(json!({"named": named}), &inputs).failure();
        assert!(failure.contains(expect), "{failure}");
    }
}

#[test]
fn a_reward_model_with_another_tokenizer_is_refused_or_reads_the_text() {
    let shop = world();
    // A reward model that reads bytes.
    shop.run("bytes", "tokenizer", json!({"algorithm": "byte"}), &[("text", &["text.jsonl"])])
        .summary();
    let shape = json!({"layers": 1, "hidden": 32, "heads": 2, "context": 96});
    let params = json!({"model": shape, "train": {"tokens": 4000, "batch_tokens": 192}});
    let inputs: &[(&str, &[&str])] =
        &[("text", &["text.jsonl"]), ("tokenizer", &["bytes.tokenizer.json"])];
    shop.run("letters", "pretrain", params, inputs).summary();
    let inputs: &[(&str, &[&str])] =
        &[("base", &["letters.model"]), ("labels", &["labels.labels.parquet"])];
    shop.run("judge", "train_reward", json!({"epochs": 1, "eval_fraction": 0.3}), inputs).summary();
    let run = |retokenize: bool| {
        let params = json!({"updates": 1, "batch": 8, "max_tokens": 8, "eos": {"mode": "keep"},
                            "rewards": {"retokenize": retokenize}});
        let judge: (&str, &[&str]) = ("reward", &["judge.reward"]);
        shop.run("mixed", "ppo", params, &[POLICY, PROMPTS, judge])
    };
    let failure = run(false).failure();
    assert!(failure.contains("retokenize") && failure.contains("differ"), "{failure}");
    let ran = run(true);
    ran.summary();
    assert!(metric(&ran, "reward/std")[0] > 0.0);
}

#[test]
fn a_reward_model_starts_at_ln_2() {
    let shop = world();
    let params =
        json!({"epochs": 1, "batch": 96, "lr": 1e-6, "ties": "drop", "eval_fraction": 0.3});
    let inputs: &[(&str, &[&str])] =
        &[("base", &["sft.model"]), ("labels", &["labels.labels.parquet"])];
    let ran = shop.run("start", "train_reward", params, inputs);
    let (loss, accuracy) = (metric(&ran, "train/loss")[0], ran.summary()["eval/accuracy"]);
    assert!((loss - 2.0_f64.ln()).abs() < 0.1, "{loss}");
    assert!((0.2..=0.8).contains(&accuracy), "{accuracy}");
}

#[test]
fn rewards_that_cannot_be_are_named() {
    let shop = world();
    let fails = |params: Value, inputs: &[(&str, &[&str])], expect: &str| {
        let mut params = params;
        for (key, value) in [("updates", json!(2)), ("batch", json!(8)), ("max_tokens", json!(8))] {
            if params.get(key).is_none() {
                params[key] = value;
            }
        }
        let failure = shop.run("bad", "ppo", params, inputs).failure();
        assert!(failure.contains(expect), "{failure}");
    };
    let rewards = |command: &str| json!({"rewards": {"command": command}});
    fails(json!({}), &[POLICY, PROMPTS], "nothing says what a response is worth");
    fails(rewards("exit 7"), &[POLICY, PROMPTS], "exit status: 7");
    fails(rewards("cat > /dev/null; echo 1"), &[POLICY, PROMPTS], "wrote 1 lines for");
    fails(rewards("sed s/.*/many/"), &[POLICY, PROMPTS], "is no number: many");
    fails(rewards("sed s/.*/nan/"), &[POLICY, PROMPTS], "is no number: nan");
    let inputs = &[POLICY, PROMPTS, REWARD];
    fails(json!({"keep_best": true}), inputs, "keep_best needs held-out prompts");
    fails(json!({"dual_clip": 0.5}), inputs, "dual_clip");
    fails(json!({"temperature": 0.0}), inputs, "`temperature` must lie between");
    fails(json!({"max_tokens": 400}), inputs, "leaves no room for a prompt");
    let failure = shop.run("bad", "grpo", json!({"batch": 12, "group": 8}), inputs).failure();
    assert!(failure.contains("batch 12 must be a multiple of group 8"), "{failure}");
    let none = shop.run("bad", "reinforce", json!({}), &[POLICY, REWARD]).failure();
    assert!(none.contains("nothing to learn from"), "{none}");
}

#[test]
fn a_gradient_that_is_no_number_stops_the_stage_and_keeps_the_last_checkpoint() {
    let shop = world();
    let params = json!({"updates": 40, "batch": 16, "max_tokens": 8, "lr": 1e30, "schedule": "constant",
                        "optimizer": {"grad_clip": 0.0}, "warmup": 0.2});
    let mut task = shop.task("nan", "rloo", params, &[POLICY, PROMPTS, REWARD]);
    task.execution.checkpoint_every = Some(0.0);
    let ran = shop.perform(&serde_json::to_value(&task).expect("JSON"));
    let failure = ran.failure();
    assert!(failure.contains("is NaN") || failure.contains("is inf"), "{failure}");
    assert!(!std::path::Path::new(&task.outputs["model"]).exists(), "nothing is passed on");
}

#[test]
fn the_best_weights_on_held_out_prompts_are_kept() {
    let shop = world();
    let run = |name: &str, updates: usize, keep_best: bool| {
        let params = json!({"updates": updates, "batch": 32, "max_tokens": 8, "lr": 3e-3,
                            "schedule": "constant", "kl_coef": 0.01, "eval_fraction": 0.5,
                            "eval_every": 1, "keep_best": keep_best,
                            "rewards": {"rules": [{"name": "yes", "score": 1.0, "match": "^yes"}]}});
        let base: (&str, &[&str]) = ("policy", &["base.model"]);
        let ran = shop.run(name, "rloo", params, &[base, PROMPTS]);
        ran.summary();
        metric(&ran, "eval/rlhf_reward")
    };
    let rewards = run("best", 12, true);
    let top = rewards.iter().copied().fold(f64::MIN, f64::max);
    let best = rewards.iter().position(|r| *r == top).expect("one of them");
    assert!((1..11).contains(&best), "neither the first nor the last: {rewards:?}");
    run("until", best + 1, false);
    let weights =
        |name: &str| fs_err::read(shop.path(name).join("model.safetensors")).expect("there");
    assert!(weights("best.model") == weights("until.model"));
}

#[test]
fn invariant_23_each_algorithm_raises_the_gold_score() {
    let shop = world();
    // Gold: the share of answers that are polite, of which the start has about a third.
    let rules = json!([{"name": "yes", "score": 1.0, "match": "^yes"}]);
    let online = |group: Option<u32>| {
        let mut params = json!({"updates": 25, "batch": 32, "minibatch": 32, "max_tokens": 8, "lr": 3e-3,
                                "kl_coef": 0.01, "eos": {"mode": "keep"}, "rewards": {"rules": rules}});
        if let Some(group) = group {
            params["group"] = json!(group);
        }
        params
    };
    let base: (&str, &[&str]) = ("policy", &["base.model"]);
    for (kind, params) in [
        ("ppo", online(None)),
        ("rloo", online(Some(4))),
        ("grpo", online(Some(8))),
        ("reinforce", online(None)),
        ("online_dpo", online(Some(4))),
    ] {
        let ran = shop.run(kind, kind, params, &[base, PROMPTS]);
        ran.summary();
        let scores = metric(&ran, "objective/scores");
        let (first, last) = (scores[0], scores[scores.len() - 3..].iter().sum::<f64>() / 3.0);
        assert!(last - first >= 0.3, "{kind}: {first} to {last}");
    }
}

#[test]
fn invariant_23_dpo_raises_the_gold_score() {
    let shop = world();
    let rules = json!([{"name": "yes", "score": 1.0, "match": "^yes"}]);
    let base: (&str, &[&str]) = ("policy", &["base.model"]);
    let params = json!({"pairs": 1600, "max_tokens": 8});
    shop.run("drawn", "sample_pairs", params, &[base, PROMPTS]).summary();
    let labeler =
        json!({"simulated": {"rules": rules, "temperature": 0.0, "flip": 0.0, "tie_below": 0.05}});
    let pairs: (&str, &[&str]) = ("pairs", &["drawn.pairs.parquet"]);
    shop.run("judged", "collect_labels", json!({"labeler": labeler}), &[pairs]).summary();
    let params = json!({"epochs": 8, "batch": 16, "lr": 1e-3, "eval_fraction": 0.0});
    let inputs: &[(&str, &[&str])] = &[base, ("labels", &["judged.labels.parquet"])];
    let summary = shop.run("dpo", "dpo", params, inputs).summary();
    assert!(summary["train/accuracy"] > 0.95, "{summary:?}");
    let params = json!({"rules": rules, "samples": 16, "max_tokens": 8, "bootstrap": 0});
    let policies: (&str, &[&str]) = ("policies", &["base.model", "dpo.model"]);
    let eval = shop.run("eval", "evaluate", params, &[policies, PROMPTS]).summary();
    assert!(eval["eval/yes/dpo"] - eval["eval/yes/base"] >= 0.3, "{eval:?}");
}
