//! Losses and advantages against TRL's own trainers; see `fixtures/losses.py`.

use std::time::Instant;

use preflow_stages::data::Example;
use preflow_stages::kinds::dpo::Dpo;
use preflow_stages::kinds::kto::Kto;
use preflow_stages::model::Policy;
use preflow_stages::on_policy::{
    LogProbs, OnPolicy, Responses, Rollout, Scores, StepLoss, Terms, policy_gradient,
};
use preflow_stages::rl::{grpo_advantages, grpo_advantages_of_many};
use preflow_stages::sampling::Response;
use preflow_stages::training::{Preference, Verdict};
use serde_json::{Value, json};
use tch::{Device, no_grad};

use crate::harness::*;
use crate::parity::{list, model_by_rule};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/losses.json")).expect("JSON")
}

fn tokens(value: &Value) -> Vec<i64> {
    list(value).into_iter().map(|x| x as i64).collect()
}

fn example(prompt: &Value, completion: &Value) -> Example {
    Example { prompt: tokens(prompt), completion: tokens(completion) }
}

fn pairs(fixture: &Value) -> Vec<Preference> {
    let pair = |p: &Value| {
        let (chosen, rejected) = (example(&p[0], &p[1]), example(&p[0], &p[2]));
        Preference { row: 0, chosen, rejected, tie: false }
    };
    fixture["pairs"].as_array().expect("pairs").iter().map(pair).collect()
}

/// The loss of the fixture's pairs under the model by rule.
fn dpo_loss(fixture: &Value, params: Value) -> f64 {
    let mut with = json!({"beta": fixture["beta"], "epochs": 0});
    for (name, value) in params.as_object().expect("params") {
        with[name] = value.clone();
    }
    let bare = ["orpo", "simpo"].iter().any(|loss| with["loss"] == *loss);
    let dpo: Dpo = serde_json::from_value(with).expect("params");
    let (shop, policy) = (Workshop::new(), model_by_rule(0.3));
    let mut pairs = dpo.pairs(&model_by_rule(0.28), pairs(fixture));
    if bare {
        pairs.iter_mut().for_each(|pair| pair.reference = [0.0; 2]);
    }
    let mut cx = context(&shop, "loss", "dpo");
    dpo.optimize(&mut cx, &policy, &pairs, &[]).expect("looked at")["train/loss"]
}

#[test]
fn losses_of_pairs_are_those_of_trl() {
    let fixture = fixture();
    let trl = |name: &str| fixture["dpo"][name].as_f64().expect("a number");
    let number = |name: &str| fixture[name].as_f64().expect("a number");
    for (params, expected) in [
        (json!({"loss": "sigmoid"}), trl("sigmoid")),
        (json!({"loss": "hinge"}), trl("hinge")),
        (json!({"loss": "robust", "label_smoothing": 0.2}), trl("robust")),
        (json!({"loss": "ipo"}), trl("ipo")),
        (json!({"loss": "sigmoid", "sft_coef": 0.7}), trl("sigmoid_and_sft")),
        (json!({"loss": "simpo", "beta": 2.5}), number("simpo")),
        // TRL's likelihood is that of the prompt too; the paper's is that of the answer.
        (json!({"loss": "orpo"}), number("orpo_odds") + trl("sft")),
    ] {
        let found = dpo_loss(&fixture, params.clone());
        assert!((found - expected).abs() < 1e-5, "{params}: {found} for {expected}");
    }
}

#[test]
fn the_loss_of_verdicts_is_that_of_trl() {
    let fixture = fixture();
    let labels = fixture["labels"].as_array().expect("labels");
    let verdict = |(i, pair): (usize, &Value)| {
        let good = labels[i] == true;
        let example = example(&pair[0], if good { &pair[1] } else { &pair[2] });
        Verdict { row: i, example, good }
    };
    let rows = fixture["pairs"].as_array().expect("pairs");
    let verdicts: Vec<Verdict> = rows.iter().enumerate().map(verdict).collect();
    for (name, policy, reference) in [("near", 0.3, 0.28), ("far", 0.28, 0.3)] {
        for micro_batch in [0, 3] {
            let params = json!({
                "beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8, "epochs": 0,
                "batch": 4, "compute": {"micro_batch": micro_batch},
            });
            let kto: Kto = serde_json::from_value(params).expect("params");
            let batches = kto.batches(&model_by_rule(reference), verdicts.clone());
            let shop = Workshop::new();
            let mut cx = context(&shop, "loss", "kto");
            let found =
                kto.optimize(&mut cx, &model_by_rule(policy), &batches, &[]).expect("looked at");
            for (figure, key) in [("train/loss", "loss"), ("train/kl", "kl")] {
                let expected = fixture["kto"][name][key].as_f64().expect("a number");
                assert!((found[figure] - expected).abs() < 1e-5, "{name} {figure}: {found:?}");
            }
        }
    }
}

/// The fixture's chosen answers, drawn from the reference.
fn rollout(fixture: &Value) -> Rollout {
    let rows: Vec<Example> = pairs(fixture).into_iter().map(|p| p.chosen).collect();
    let prompts = prompts_of(rows.iter().map(|r| r.prompt.clone()).collect());
    let response = |r: &Example| Response { tokens: r.completion.clone(), finished: true };
    let responses = rows.iter().map(response).collect();
    let responses = Responses::new(&prompts, (0..rows.len()).collect(), responses, Instant::now());
    let log_probs = || {
        let packed = preflow_stages::model::Packed::new(&refs(&rows), Device::Cpu);
        let found = no_grad(|| model_by_rule(0.28).predict(&packed, 1.0, false).log_probs);
        let tokens = numbers(&found).into_iter().map(|x| x as f32).collect();
        LogProbs { tokens, entropy: 0.0 }
    };
    let scores =
        Scores { raw: vec![0.0; rows.len()], counted: vec![0.0; rows.len()], parts: vec![] };
    Rollout::new(responses, log_probs(), log_probs(), scores)
}

#[test]
fn clipped_losses_of_tokens_and_of_sequences_are_those_of_trl() {
    let fixture = fixture();
    let (rollout, advantages) = (rollout(&fixture), list(&fixture["advantages"]));
    let per_token = rollout.spread(&advantages);
    let policy: Policy = model_by_rule(0.3);
    for (aggregation, trl) in
        [("seq_mean", "grpo"), ("token_mean", "bnpo"), ("seq_sum_const", "dr_grpo")]
    {
        for (level, terms, advantages) in
            [("token", Terms::Tokens, &per_token), ("sequence", Terms::Means, &advantages)]
        {
            let params = json!({
                "aggregation": aggregation, "max_tokens": 6, "clip": 0.02, "clip_high": 0.05,
                "compute": {"micro_batch": 3},
            });
            let settings: OnPolicy = serde_json::from_value(params).expect("params");
            let what = StepLoss { advantages, terms, kl: None };
            let found = policy_gradient(&settings, &policy, &rollout, &[0, 1, 2, 3], what).0;
            let expected = fixture["grpo"][format!("{level} {trl}")].as_f64().expect("a number");
            let found = numbers(&found.loss)[0];
            assert!((found - expected).abs() < 1e-5, "{level} {trl}: {found} for {expected}");
        }
    }
}

#[test]
fn advantages_by_several_rewards_are_those_of_trl() {
    let fixture = fixture();
    let rewards = &fixture["rewards"];
    let (first, second) = (list(&rewards["first"]), list(&rewards["second"]));
    let weights = list(&rewards["weights"]);
    let sum: Vec<f64> =
        first.iter().zip(&second).map(|(a, b)| weights[0] * a + weights[1] * b).collect();
    let summed: Vec<f64> = sum.chunks(2).flat_map(|group| grpo_advantages(group, true)).collect();
    close(&summed, &list(&rewards["sum_then_normalize"]), 1e-5);
    let scaled = grpo_advantages_of_many(&[(weights[0], &first), (weights[1], &second)], 2);
    close(&scaled, &list(&rewards["normalize_then_sum"]), 1e-5);
}
