//! Whether each algorithm converges to what its objective says: the softmax bandit.
//!
//! One prompt, four one-token responses, reference ρ and rewards r: the policy that maximises
//! E r − β·KL(π‖ρ) is π* ∝ ρ·exp(r/β).

use anyhow::Result;
use preflow_stages::data::{Example, Vocabulary};
use preflow_stages::kinds::dpo::Dpo;
use preflow_stages::kinds::grpo::Grpo;
use preflow_stages::kinds::kto::Kto;
use preflow_stages::kinds::online_dpo::OnlineDpo;
use preflow_stages::kinds::ppo::Ppo;
use preflow_stages::kinds::reinforce::Reinforce;
use preflow_stages::kinds::rloo::Rloo;
use preflow_stages::model::{Layout, ModelConfig, Policy, Trunk, ValueModel};
use preflow_stages::on_policy::{Candidate, Environment, Scorer};
use preflow_stages::prompts::Prompts;
use preflow_stages::rng::Stream;
use preflow_stages::training::{Preference, Verdict};
use serde_json::{Value, json};
use tch::{Tensor, no_grad};

use crate::harness::*;

const RHO: [f64; 4] = [0.5, 0.3, 0.15, 0.05];

/// Reward of a response: the number of its token, 0 to 3.
struct ByToken;

impl Scorer for ByToken {
    fn scores(&mut self, _: &Prompts, responses: &[Candidate]) -> Result<Vec<f64>> {
        Ok(responses.iter().map(|r| r.example.completion[0] as f64).collect())
    }
}

/// The same with fresh Gumbel noise, so that one response beats another as Bradley and Terry say.
struct ByNoisyToken(Stream);

impl Scorer for ByNoisyToken {
    fn scores(&mut self, prompts: &Prompts, responses: &[Candidate]) -> Result<Vec<f64>> {
        let plain = ByToken.scores(prompts, responses)?;
        Ok(plain.into_iter().map(|r| r - (-self.0.uniform().ln()).ln()).collect())
    }
}

/// A model of four tokens that answers the prompt `[1]` with the probabilities [`RHO`].
fn bandit() -> Policy {
    tch::set_num_threads(1);
    let config = ModelConfig {
        vocab: 4,
        hidden: 8,
        layers: 1,
        heads: 2,
        kv_heads: 2,
        intermediate: 8,
        tie_embeddings: false,
        ..tiny_config()
    };
    let policy = Policy { trunk: Trunk::init(config, false, 3) };
    no_grad(|| {
        let hidden =
            policy.trunk.hidden(&Tensor::from_slice(&[1_i64]).view([1, 1]), &Layout::RightPadded);
        let h = hidden.view([8]);
        let logits = Tensor::from_slice(&RHO.map(|p| p.ln() as f32));
        let head = logits.outer(&(&h / h.dot(&h)));
        let place =
            policy.trunk.params.specs.iter().position(|s| s.parts[0].name == "lm_head.weight");
        policy.trunk.params.tensors[place.expect("a head")].shallow_clone().copy_(&head);
    });
    close(&probabilities(&policy), &RHO, 1e-5);
    policy
}

fn probabilities(policy: &Policy) -> Vec<f64> {
    no_grad(|| {
        let hidden =
            policy.trunk.hidden(&Tensor::from_slice(&[1_i64]).view([1, 1]), &Layout::RightPadded);
        numbers(&policy.logits(&hidden).softmax(-1, tch::Kind::Double))
    })
}

/// π* of the rewards 0 to 3.
fn optimum(beta: f64) -> Vec<f64> {
    let weights: Vec<f64> =
        RHO.iter().enumerate().map(|(r, p)| p * (r as f64 / beta).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

fn with(more: Value) -> Value {
    let mut params = json!({
        "updates": 150, "batch": 512, "minibatch": 512, "epochs": 1, "lr": 0.02,
        "max_tokens": 1, "eos": {"mode": "keep"}, "kl_coef": 1.0,
    });
    for (key, value) in more.as_object().expect("params") {
        params[key] = value.clone();
    }
    params
}

/// Trains the bandit by `kind` and returns its probabilities.
fn train(kind: &str, more: Value) -> Vec<f64> {
    let shop = Workshop::new();
    let vocabulary: Vocabulary = byte_vocabulary(&shop);
    let mut cx = context(&shop, "bandit", kind);
    let policy = bandit();
    let prompts = prompts_of(vec![vec![1]]);
    let environment =
        Environment { vocabulary: &vocabulary, prompts: &prompts, scorer: &mut ByToken };
    let params = with(more);
    fn read<T: serde::de::DeserializeOwned>(params: Value) -> T {
        serde_json::from_value(params).expect("params")
    }
    match kind {
        "ppo" => {
            let critic = ValueModel::at_zero(&policy);
            let ppo: Ppo = read(params);
            ppo.optimize(&mut cx, &policy, &critic, environment)
        }
        "rloo" => {
            let rloo: Rloo = read(params);
            rloo.optimize(&mut cx, &policy, environment)
        }
        "grpo" => {
            let grpo: Grpo = read(params);
            grpo.optimize(&mut cx, &policy, environment)
        }
        _ => {
            let reinforce: Reinforce = read(params);
            reinforce.optimize(&mut cx, &policy, environment, None)
        }
    }
    .expect("trained");
    probabilities(&policy)
}

fn each() -> [(&'static str, Value); 5] {
    [
        (
            "ppo",
            json!({"critic_lr": 0.02, "vf_clip": 0.0, "whiten_advantages": false, "vf_coef": 1.0}),
        ),
        ("rloo", json!({"group": 4})),
        ("reinforce", json!({})),
        // A group's mean holds the response itself, which shrinks advantages by (G − 1)/G.
        ("grpo", json!({"group": 256, "scale_by_std": false, "kl_estimator": "k2"})),
        (
            "grpo",
            json!({"group": 256, "scale_by_std": false, "ratio": "sequence",
                   "aggregation": "seq_mean"}),
        ),
    ]
}

#[test]
fn invariant_21_the_softmax_bandit_converges_to_its_closed_form() {
    close(&optimum(1.0), &[0.1459, 0.2379, 0.3233, 0.2930], 1e-4);
    close(&optimum(0.5), &[0.0161, 0.0713, 0.2635, 0.6491], 1e-4);
    close(&[kl(&optimum(1.0), &RHO), kl(&optimum(0.5), &RHO)], &[0.5314, 1.6546], 1e-3);
    for (kind, params) in each() {
        for beta in [1.0, 0.5] {
            let mut params = params.clone();
            params["kl_coef"] = json!(beta);
            let found = train(kind, params);
            for (found, wanted) in found.iter().zip(optimum(beta)) {
                assert!((found - wanted).abs() < 0.02, "{kind}, β {beta}: {found} for {wanted}");
            }
        }
    }
}

#[test]
fn grpo_with_k3_in_the_loss_converges_elsewhere() {
    // Its stationary point: π·(E r − r + β) = β·ρ, with E r such that π sums to 1.
    let (mut low, mut high) = (2.0_f64, 3.0_f64);
    let at = |mean: f64| -> Vec<f64> {
        RHO.iter().enumerate().map(|(r, p)| p / (mean - r as f64 + 1.0)).collect()
    };
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if at(middle).iter().any(|p| *p < 0.0) || at(middle).iter().sum::<f64>() > 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let wanted = at(high);
    let params = json!({"group": 256, "scale_by_std": false, "kl_estimator": "k3"});
    let found = train("grpo", params);
    close(&found, &wanted, 0.02);
    assert!(kl(&found, &optimum(1.0)) > 0.01, "{found:?}");
}

#[test]
fn invariant_22_more_kl_weight_keeps_the_policy_nearer() {
    for (kind, params) in each() {
        let far: Vec<f64> = [0.0, 0.5, 2.0, 50.0]
            .iter()
            .map(|beta| {
                let mut params = params.clone();
                params["kl_coef"] = json!(beta);
                // A large weight makes large gradients: without smaller steps it only shakes.
                params["lr"] = json!(if *beta > 10.0 { 0.002 } else { 0.02 });
                let found = train(kind, params);
                if *beta == 0.0 {
                    assert!(found[3] > 0.9, "{kind}: without KL the best response wins: {found:?}");
                }
                kl(&found, &RHO)
            })
            .collect();
        assert!(far.windows(2).all(|w| w[0] > w[1]), "{kind}: {far:?}");
        assert!(far[3] < 0.01, "{kind}: {far:?}");
    }
}

#[test]
fn dpo_learns_the_rewards_that_the_preferences_came_from() {
    // Every pair of responses in the proportions of Bradley and Terry: then h·β is the difference
    // of rewards, and the policy is π* of that β.
    let mut all = Vec::new();
    for a in 0..4_i64 {
        for b in a + 1..4 {
            let wins = (1000.0 / (1.0 + (-(b - a) as f64).exp())).round() as usize;
            for i in 0..1000 {
                let (chosen, rejected) = if i < wins { (b, a) } else { (a, b) };
                let side = |t: i64| Example { prompt: vec![1], completion: vec![t] };
                let pair = Preference {
                    row: 0,
                    chosen: side(chosen),
                    rejected: side(rejected),
                    tie: false,
                };
                all.push(pair);
            }
        }
    }
    let shop = Workshop::new();
    for beta in [1.0, 0.5] {
        let mut cx = context(&shop, "bandit", "dpo");
        let policy = bandit();
        let params = json!({"beta": beta, "epochs": 30, "batch": 1000, "lr": 0.03});
        let dpo: Dpo = serde_json::from_value(params).expect("params");
        let pairs = dpo.pairs(&policy.reference(), all.clone());
        let _ = std::fs::remove_dir_all(cx.scratch());
        dpo.optimize(&mut cx, &policy, &pairs, &[]).expect("trained");
        close(&probabilities(&policy), &optimum(beta), 0.02);
    }
}

#[test]
fn online_dpo_learns_the_rewards_that_its_pairs_are_compared_by() {
    let shop = Workshop::new();
    let vocabulary: Vocabulary = byte_vocabulary(&shop);
    for beta in [1.0, 0.5] {
        let mut cx = context(&shop, "bandit", "online_dpo");
        let _ = std::fs::remove_dir_all(cx.scratch());
        let policy = bandit();
        let prompts = prompts_of(vec![vec![1]]);
        let mut scorer = ByNoisyToken(Stream::new(1, "noise", 0, 0));
        let environment =
            Environment { vocabulary: &vocabulary, prompts: &prompts, scorer: &mut scorer };
        let params = with(json!({"kl_coef": beta, "updates": 300, "lr": 0.03}));
        let online: OnlineDpo = serde_json::from_value(params).expect("params");
        online.optimize(&mut cx, &policy, environment).expect("trained");
        close(&probabilities(&policy), &optimum(beta), 0.03);
    }
}

/// Log-odds of answer 1 against answer 0 after training on 1000 comparisons of the two, of which
/// 1 won `wins`; less those of the reference where the loss has one.
fn duel(params: Value, wins: usize) -> f64 {
    let side = |t: i64| Example { prompt: vec![1], completion: vec![t] };
    let pair = |i| {
        let (chosen, rejected) = if i < wins { (1, 0) } else { (0, 1) };
        Preference { row: 0, chosen: side(chosen), rejected: side(rejected), tie: false }
    };
    let all: Vec<Preference> = (0..1000).map(pair).collect();
    let shop = Workshop::new();
    let mut cx = context(&shop, "duel", "dpo");
    let policy = bandit();
    let mut with = json!({"epochs": 150, "batch": 1000, "lr": 0.01, "warmup": 0.0});
    for (name, value) in params.as_object().expect("params") {
        with[name] = value.clone();
    }
    let bare = ["orpo", "simpo"].contains(&params["loss"].as_str().expect("a loss"));
    let dpo: Dpo = serde_json::from_value(with).expect("params");
    let mut pairs = dpo.pairs(&policy.reference(), all);
    if bare {
        pairs.iter_mut().for_each(|pair| pair.reference = [0.0; 2]);
    }
    dpo.optimize(&mut cx, &policy, &pairs, &[]).expect("trained");
    let found = probabilities(&policy);
    (found[1] / found[0]).ln() - if bare { 0.0 } else { (RHO[1] / RHO[0]).ln() }
}

#[test]
fn losses_of_pairs_end_where_their_formulas_are_smallest() {
    let logit = |p: f64| (p / (1.0 - p)).ln();
    // β·h = 1 wherever one of the two wins more often.
    close(&[duel(json!({"loss": "hinge", "beta": 0.5}), 700)], &[2.0], 0.05);
    // h = (2p − 1)/(2β).
    close(&[duel(json!({"loss": "ipo", "beta": 0.5}), 700)], &[0.4], 0.01);
    // Of labels of which a fifth are turned round the clean odds come out: .74 = .8·.9 + .2·.1.
    let robust = json!({"loss": "robust", "beta": 1.0, "label_smoothing": 0.2});
    close(&[duel(robust, 740)], &[logit(0.9)], 0.05);
    // p·σ(γ − s) = (1 − p)·σ(γ + s) of s = β·d, solved by halving.
    let (mut low, mut high) = (-5.0_f64, 5.0_f64);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for _ in 0..60 {
        let s = f64::midpoint(low, high);
        if 0.7 * sigmoid(0.5 - s) > 0.3 * sigmoid(0.5 + s) { low = s } else { high = s }
    }
    let simpo = json!({"loss": "simpo", "beta": 2.0, "simpo_gamma": 0.5});
    close(&[duel(simpo, 700)], &[low / 2.0], 0.02);
}

#[test]
fn kto_raises_what_is_mostly_good_and_lowers_what_is_mostly_bad() {
    // Answers 0 to 3 are good in 10, 40, 60 and 90 of a hundred verdicts. Each prompt token leads
    // to the same answers, so that rows of a batch have other prompts.
    let verdict = |i: usize| {
        let (answer, turn) = (i % 4, i / 4 % 100);
        let good = turn < [10, 40, 60, 90][answer];
        let example = Example { prompt: vec![1 + (i % 3) as i64], completion: vec![answer as i64] };
        Verdict { row: i, example, good }
    };
    let all: Vec<Verdict> = (0..1200).map(verdict).collect();
    let shop = Workshop::new();
    let mut cx = context(&shop, "bandit", "kto");
    let policy = bandit();
    let params = json!({"beta": 0.5, "epochs": 20, "batch": 100, "lr": 0.003, "warmup": 0.0});
    let kto: Kto = serde_json::from_value(params).expect("params");
    let batches = kto.batches(&policy.reference(), all);
    assert!(batches.len() == 12 && batches.iter().flatten().all(|row| !row.alone));
    let summary = kto.optimize(&mut cx, &policy, &batches, &[]).expect("trained");
    let ratios: Vec<f64> =
        probabilities(&policy).iter().zip(RHO).map(|(p, rho)| (p / rho).ln()).collect();
    assert!(ratios.windows(2).all(|w| w[0] < w[1]), "{ratios:?}");
    assert!(ratios[1] < 0.0 && ratios[2] > 0.0, "{ratios:?}");
    // At the start every loss is a half.
    assert!(summary["train/loss"] < 0.45 && summary["train/accuracy"] > 0.7, "{summary:?}");
}

#[test]
fn invariant_24_dpo_starts_at_ln_2_and_widens_the_margin() {
    let policy = tiny_policy(1);
    let rows = tiny_rows(8, 3);
    let all: Vec<Preference> = rows
        .chunks_exact(2)
        .map(|p| Preference {
            row: 0,
            chosen: p[0].clone(),
            rejected: Example { prompt: p[0].prompt.clone(), completion: p[1].completion.clone() },
            tie: false,
        })
        .collect();
    let shop = Workshop::new();
    let mut cx = context(&shop, "start", "dpo");
    for (epochs, starts) in [(0, true), (1, false)] {
        let params = json!({"epochs": epochs, "batch": 4, "lr": 1e-3, "warmup": 0.0});
        let dpo: Dpo = serde_json::from_value(params).expect("params");
        let pairs = dpo.pairs(&policy.reference(), all.clone());
        let summary = dpo.optimize(&mut cx, &policy, &pairs, &[]).expect("trained");
        let (loss, accuracy) = (summary["train/loss"], summary["train/accuracy"]);
        if starts {
            close(&[loss, accuracy], &[2.0_f64.ln(), 0.5], 1e-6);
        } else {
            assert!(loss < 2.0_f64.ln() - 1e-4 && accuracy == 1.0, "{loss} {accuracy}");
        }
    }
}

/// A reward model that learns on the side, which none may.
struct Moving(ByModel);

impl Scorer for Moving {
    fn scores(&mut self, prompts: &Prompts, responses: &[Candidate]) -> Result<Vec<f64>> {
        self.0.0.shift(0.01);
        self.0.scores(prompts, responses)
    }

    fn fingerprint(&self) -> u64 {
        self.0.fingerprint()
    }
}

#[test]
fn invariant_18_the_policy_and_the_critic_move_and_nothing_else() {
    let shop = Workshop::new();
    let vocabulary = byte_vocabulary(&shop);
    let prompts = prompts_of(tiny_rows(8, 1).into_iter().map(|r| r.prompt).collect());
    let params = json!({"updates": 2, "batch": 8, "max_tokens": 6});
    let ppo: Ppo = serde_json::from_value(params).expect("params");
    let train = |name: &str, scorer: &mut dyn Scorer| {
        let (policy, critic) = (tiny_policy(1), ValueModel::from_reward(&tiny_reward(2)));
        let prints = || [&policy.trunk, &critic.trunk].map(|t| t.params.fingerprint());
        let (before, judge_before) = (prints(), scorer.fingerprint());
        let mut cx = context(&shop, name, "ppo");
        let environment = Environment { vocabulary: &vocabulary, prompts: &prompts, scorer };
        let done = ppo.optimize(&mut cx, &policy, &critic, environment);
        let after = prints();
        assert!(before[0] != after[0] && before[1] != after[1]);
        (done, judge_before == scorer.fingerprint())
    };
    let (done, same) = train("still", &mut ByModel(tiny_reward(2)));
    assert!(done.is_ok() && same);
    let (done, same) = train("moving", &mut Moving(ByModel(tiny_reward(2))));
    let message = format!("{:#}", done.expect_err("noticed"));
    assert!(message.contains("moved") && !same, "{message}");
}
