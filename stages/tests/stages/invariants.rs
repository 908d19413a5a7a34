//! What must hold of models, sampling and PPO, whatever the numbers.

use std::time::Instant;

use preflow_stages::data::{EOS, Example, PAD};
use preflow_stages::kinds::ppo::{CriticTrainer, Ppo};
use preflow_stages::model::{Cache, Layout, Packed, Params, Policy, RewardModel, ValueModel};
use preflow_stages::on_policy::{
    Actor, Environment, OnPolicy, Responses, Rollout, StepLoss, Terms, policy_gradient,
};
use preflow_stages::rl::{Aggregation, KlEstimator, value_loss};
use preflow_stages::rng::Stream;
use preflow_stages::sampling::{Response, SamplingConfig, generate, pick};
use preflow_stages::training::Computation;
use tch::{Device, Kind, Tensor, no_grad};

use crate::harness::*;

const SAMPLING: SamplingConfig =
    SamplingConfig { temperature: 1.0, top_k: 0, top_p: 1.0, max_tokens: 12, seed: 3, step: 0 };

/// Rows as if `policy` had drawn them, scored by `reward`.
fn rollout(policy: &Policy, reference: &Policy, reward: RewardModel) -> Rollout {
    let rows = tiny_rows(12, 5);
    let responses = rows.iter().map(|r| Response {
        tokens: r.completion.clone(),
        finished: r.completion.last() == Some(&EOS),
    });
    let prompts = prompts_of(rows.iter().map(|r| r.prompt.clone()).collect());
    let (shop, settings) = (Workshop::new(), OnPolicy::default());
    let vocabulary = &byte_vocabulary(&shop);
    let responses =
        Responses::new(&prompts, (0..12).collect(), responses.collect(), Instant::now());
    let environment = Environment { vocabulary, prompts: &prompts, scorer: &mut ByModel(reward) };
    let (settings, reference) = (&settings, reference.duplicate());
    Actor { settings, policy, reference, environment }.rollout_of(responses).expect("scores")
}

fn ppo() -> Ppo {
    Ppo::default()
}

#[test]
fn invariant_01_the_first_minibatch_has_ratio_one() {
    let policy = tiny_policy(1);
    let rollout = rollout(&policy, &policy.reference(), tiny_reward(2));
    let (ppo, critic) = (ppo(), ValueModel::from_reward(&tiny_reward(2)));
    let values = CriticTrainer::new(&ppo, &critic).values(&rollout);
    let targets = ppo.advantages(&rollout, &ppo.rewards(&rollout, 0.05), values);
    let what = StepLoss { advantages: &targets.advantages, terms: Terms::Tokens, kl: None };
    let all: Vec<usize> = (0..12).collect();
    for micro_batch in [0, 5] {
        let compute = Computation { micro_batch, ..Computation::default() };
        let settings = OnPolicy { compute, ..OnPolicy::default() };
        let (gradient, sums) = policy_gradient(&settings, &policy, &rollout, &all, what);
        assert!((sums.ratio_mean() - 1.0).abs() < 1e-6 && (sums.ratio_max - 1.0).abs() < 1e-5);
        assert!(sums.approx_kl() < 1e-10 && sums.clip_fraction() == 0.0);
        assert!(numbers(&gradient.loss)[0].abs() < 1e-5, "{:?}", gradient.loss);
    }
}

#[test]
fn invariant_02_no_kl_at_the_start() {
    let policy = tiny_policy(1);
    let rollout = rollout(&policy, &policy.reference(), tiny_reward(2));
    assert!(rollout.kl_per_token.iter().all(|k| *k == 0.0));
    assert_eq!(rollout.kl(), 0.0);
}

#[test]
fn invariant_06_parts_of_a_minibatch_add_up() {
    let policy = tiny_policy(1);
    let rollout = rollout(&tiny_policy(3), &policy, tiny_reward(2));
    let per_row: Vec<f64> = rollout.scores.clone();
    let per_token = rollout.spread(&per_row);
    let all: Vec<usize> = (0..12).rev().collect();
    for aggregation in [Aggregation::TokenMean, Aggregation::SeqMean, Aggregation::SeqSumConst] {
        for terms in [Terms::Tokens, Terms::Responses, Terms::Means] {
            let advantages = if terms == Terms::Tokens { &per_token } else { &per_row };
            let what = StepLoss { advantages, terms, kl: Some((0.1, KlEstimator::K2)) };
            let gradient = |micro_batch| {
                let ent_coef = 0.01;
                let compute = Computation { micro_batch, ..Computation::default() };
                let settings = OnPolicy { compute, aggregation, ent_coef, ..OnPolicy::default() };
                let found = policy_gradient(&settings, &policy, &rollout, &all, what).0;
                (numbers(&found.loss)[0], numbers(&found.flat))
            };
            let (loss, whole) = gradient(0);
            let size = whole.iter().map(|x| x * x).sum::<f64>().sqrt();
            for micro_batch in [1, 5, 8] {
                let (part_loss, parts) = gradient(micro_batch);
                let apart: f64 = whole.iter().zip(&parts).map(|(a, b)| (a - b).powi(2)).sum();
                assert!((loss - part_loss).abs() < 1e-6 * loss.abs().max(1.0));
                assert!(apart.sqrt() < 2e-6 * size, "{aggregation:?} {micro_batch}: {apart}");
            }
        }
    }
}

#[test]
fn invariant_03_cached_decoding_equals_the_full_pass() {
    let policy = tiny_policy(1);
    let rows = tiny_rows(6, 2);
    let width = rows.iter().map(|r| r.prompt.len()).max().expect("rows") as i64;
    let longest = rows.iter().map(|r| r.completion.len()).max().expect("rows");
    no_grad(|| {
        let (mut ids, mut starts) = (vec![PAD; rows.len() * width as usize], Vec::new());
        for (b, row) in rows.iter().enumerate() {
            let end = (b + 1) * width as usize;
            ids[end - row.prompt.len()..end].copy_from_slice(&row.prompt);
            starts.push(width - row.prompt.len() as i64);
        }
        let columns = width + longest as i64;
        let mut cache = Cache::new(&policy.trunk, Tensor::from_slice(&starts), columns);
        let mut input = Tensor::from_slice(&ids).view([-1, width]);
        let mut found: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
        for t in 0..longest {
            let hidden = policy.trunk.hidden_cached(&input, &mut cache);
            let last = hidden.select(1, hidden.size()[1] - 1);
            let log_probs = policy.logits(&last).log_softmax(-1, Kind::Float);
            let token = |row: &Example| row.completion.get(t).copied().unwrap_or(PAD);
            for (b, row) in rows.iter().enumerate().filter(|(_, r)| t < r.completion.len()) {
                found[b].push(log_probs.double_value(&[b as i64, token(row)]));
            }
            let next: Vec<i64> = rows.iter().map(token).collect();
            input = Tensor::from_slice(&next).view([-1, 1]);
        }
        let full = numbers(&Packed::new(&refs(&rows), Device::Cpu).log_probs(&policy, 1.0));
        close(&found.concat(), &full, 1e-4);
        let mean: f64 =
            found.concat().iter().zip(&full).map(|(a, b)| (a - b).abs().exp()).sum::<f64>()
                / full.len() as f64;
        assert!(mean <= 1.0001, "{mean}");
    });
}

#[test]
fn invariant_04_padding_batch_and_order_change_nothing() {
    let (policy, reward) = (tiny_policy(1), tiny_reward(2));
    let critic = ValueModel::from_reward(&reward);
    let rows = tiny_rows(7, 3);
    no_grad(|| {
        let all = Packed::new(&refs(&rows), Device::Cpu);
        let (together, rewards) =
            (numbers(&all.log_probs(&policy, 0.8)), numbers(&reward.rewards(&all)));
        let values = numbers(&critic.values(&all));
        for (b, row) in rows.iter().enumerate() {
            let one = Packed::new(&[row], Device::Cpu);
            let span = all.offsets[b]..all.offsets[b + 1];
            close(&numbers(&one.log_probs(&policy, 0.8)), &together[span.clone()], 1e-5);
            close(&numbers(&reward.rewards(&one)), &rewards[b..=b], 1e-5);
            close(&numbers(&critic.values(&one)), &values[span], 1e-5);
            // The same row with padding on the left.
            let filled = Tensor::cat(
                &[Tensor::full([1, 5], PAD, (Kind::Int64, Device::Cpu)), one.ids.shallow_clone()],
                1,
            );
            let left =
                policy.trunk.hidden(&filled, &Layout::LeftPadded(Tensor::from_slice(&[5_i64])));
            let right = policy.trunk.hidden(&one.ids, &Layout::RightPadded);
            close(&numbers(&left.narrow(1, 5, right.size()[1])), &numbers(&right), 1e-5);
        }
        let reversed: Vec<&Example> = rows.iter().rev().collect();
        let back = Packed::new(&reversed, Device::Cpu);
        let mut backwards = numbers(&reward.rewards(&back));
        backwards.reverse();
        close(&backwards, &rewards, 1e-5);
    });
}

#[test]
fn invariant_05_padding_is_never_seen() {
    let (policy, reward) = (tiny_policy(1), tiny_reward(2));
    let critic = ValueModel::from_reward(&reward);
    let rows = tiny_rows(5, 4);
    no_grad(|| {
        let mut packed = Packed::new(&refs(&rows), Device::Cpu);
        let before = [
            numbers(&packed.log_probs(&policy, 1.0)),
            numbers(&reward.rewards(&packed)),
            numbers(&critic.values(&packed)),
        ];
        let padding = Tensor::arange(packed.ids.size()[1], (Kind::Int64, Device::Cpu))
            .unsqueeze(0)
            .gt_tensor(&packed.last.unsqueeze(1));
        assert!(padding.any().int64_value(&[]) == 1, "the rows have unequal length");
        packed.ids = packed.ids.masked_fill(&padding, 17);
        let after = [
            numbers(&packed.log_probs(&policy, 1.0)),
            numbers(&reward.rewards(&packed)),
            numbers(&critic.values(&packed)),
        ];
        assert_eq!(before, after);
    });
}

#[test]
fn invariant_06_accumulation_is_token_exact() {
    let policy = tiny_policy(1);
    let rows = tiny_rows(8, 6);
    let tokens: usize = rows.iter().map(|r| r.completion.len()).sum();
    let gradient = |size: usize| {
        let parts = rows.chunks(size).map(|c| {
            let packed = Packed::new(&refs(c), Device::Cpu);
            let loss = -packed.log_probs(&policy, 1.0).sum(Kind::Float) / tokens as f64;
            policy.trunk.params.gradient(&loss)
        });
        parts.reduce(|a, b| a + b).expect("rows")
    };
    let whole = gradient(8);
    let scale = whole.norm().double_value(&[]);
    for size in [1, 2, 4] {
        let gap = (gradient(size) - &whole).norm().double_value(&[]);
        assert!(gap / scale < 1e-6, "{size} rows a time: {}", gap / scale);
    }
}

#[test]
fn invariant_09_each_token_is_predicted_by_the_place_before_it() {
    let rows = tiny_rows(5, 7);
    let packed = Packed::new(&refs(&rows), Device::Cpu);
    let (batch, time) = (packed.ids.size()[0], packed.ids.size()[1]);
    // Logits that are certain of the next token of each row.
    let next = packed.ids.roll([-1], [1]);
    let certain = (next.one_hot(32).to_kind(Kind::Float) * 1e4).reshape([batch * time, 32]);
    let sum = |places: &Tensor| {
        let chosen = certain.index_select(0, places);
        preflow_stages::model::token_log_probs(&chosen, &packed.targets, 1.0)
            .sum(Kind::Double)
            .double_value(&[])
    };
    let places = packed.places.expect("rows with prompts");
    assert_eq!(sum(&places), 0.0);
    assert!(sum(&(&places - 1)) < -1000.0, "shifting by one must show");
}

#[test]
fn invariant_11_a_reward_model_learns_what_is_there_and_nothing_else() {
    for (shuffled, low, high) in [(false, 0.97, 1.0), (true, 0.30, 0.70)] {
        let model = RewardModel::from_policy(&tiny_policy(4), 4);
        let accuracy = train_on_counts(&model, shuffled);
        assert!((low..=high).contains(&accuracy), "shuffled {shuffled}: {accuracy}");
    }
}

/// Trains on pairs in which the answer with more tokens 9 wins (or a coin decides) and returns
/// the accuracy on 100 held-out pairs.
fn train_on_counts(model: &RewardModel, shuffled: bool) -> f64 {
    use preflow_stages::optim::{AdamW, AdamWConfig, EpsForm};
    let mut stream = Stream::new(8, "toy", 0, 0);
    let mut side = |count: usize| Example {
        prompt: vec![1, 3],
        completion: (0..8)
            .map(|i| if i < count { 9 } else { 10 + stream.below(20) as i64 })
            .collect(),
    };
    let pairs: Vec<(Example, Example)> = (0..500)
        .map(|i| {
            let n = i % 4;
            (side(n + 2), side(n))
        })
        .collect();
    let mut coin = Stream::new(9, "coin", 0, 0);
    let sides: Vec<(Example, Example)> = pairs
        .into_iter()
        .map(|(a, b)| if shuffled && coin.uniform() < 0.5 { (b, a) } else { (a, b) })
        .collect();
    let (held_out, train) = sides.split_at(100);
    let params = &model.trunk.params;
    let config =
        AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, eps_form: EpsForm::Torch, weight_decay: 0.01 };
    let mut adamw = AdamW::new(config, &params.flat, params.decaying());
    let delta = |chunk: &[(Example, Example)]| {
        let rows: Vec<&Example> =
            chunk.iter().map(|p| &p.0).chain(chunk.iter().map(|p| &p.1)).collect();
        let packed = Packed::new(&rows, Device::Cpu);
        let n = chunk.len() as i64;
        let rewards = model.rewards(&packed);
        rewards.narrow(0, 0, n) - rewards.narrow(0, n, n)
    };
    for _ in 0..4 {
        for chunk in train.chunks(20) {
            let loss = preflow_stages::rl::preference_loss(&delta(chunk)).mean(Kind::Float);
            adamw.step(&params.flat, &params.gradient(&loss), 3e-3);
        }
    }
    no_grad(|| numbers(&delta(held_out)).iter().filter(|d| **d > 0.0).count() as f64 / 100.0)
}

#[test]
fn invariant_12_the_critic_starts_as_the_reward_model() {
    let mut reward = tiny_reward(2);
    reward.shift(0.7);
    let policy = tiny_policy(1);
    let critic = ValueModel::from_reward(&reward);
    let rollout = rollout(&policy, &policy.reference(), reward);
    // The value is read before the last token is drawn, the reward after it: they are the same
    // number only at the same place.
    no_grad(|| {
        let packed = Packed::new(&refs(&rollout.rows), Device::Cpu);
        let critic = RewardModel { trunk: critic.trunk };
        close(&numbers(&critic.rewards(&packed)), &rollout.raw_scores, 1e-5);
    });
}

#[test]
fn invariant_15_draws_follow_the_probabilities() {
    let weights = [0.5_f32, 0.25, 0.15, 0.07, 0.03];
    let mut counts = [0.0; 5];
    let mut stream = Stream::new(1, "chi", 0, 0);
    let n = 20_000;
    for _ in 0..n {
        counts[pick(&weights, &mut stream, &SAMPLING)] += 1.0;
    }
    let expected = weights.map(|w| f64::from(w) * f64::from(n));
    let chi: f64 = counts.iter().zip(expected).map(|(c, e)| (c - e) * (c - e) / e).sum();
    assert!(chi < 18.47, "χ² with 4 degrees of freedom is {chi}, p < .001");
    let support = |sampling: SamplingConfig| -> Vec<usize> {
        let mut seen: Vec<usize> =
            (0..2000).map(|i| pick(&weights, &mut Stream::new(2, "s", i, 0), &sampling)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    assert_eq!(support(SamplingConfig { top_k: 2, ..SAMPLING }), [0, 1]);
    assert_eq!(support(SamplingConfig { top_p: 0.8, ..SAMPLING }), [0, 1, 2]);
    assert_eq!(support(SamplingConfig { temperature: 0.0, ..SAMPLING }), [0]);
}

#[test]
fn invariant_16_what_a_row_draws_depends_on_its_key_alone() {
    let policy = tiny_policy(1);
    let prompts: Vec<Vec<i64>> = tiny_rows(9, 1).into_iter().map(|r| r.prompt).collect();
    let keys: Vec<u64> = (0..9).collect();
    let all = generate(&policy, &prompts, &keys, &SAMPLING);
    assert!(all.iter().any(|r| r.tokens != all[0].tokens), "the draws differ");
    for i in 0..9 {
        assert_eq!(generate(&policy, &prompts[i..=i], &keys[i..=i], &SAMPLING), all[i..=i]);
    }
    let (back, back_keys): (Vec<_>, Vec<_>) =
        (prompts.iter().rev().cloned().collect(), keys.iter().rev().copied().collect());
    let mut reversed = generate(&policy, &back, &back_keys, &SAMPLING);
    reversed.reverse();
    assert_eq!(reversed, all);
    tch::set_num_threads(2);
    assert_eq!(generate(&policy, &prompts, &keys, &SAMPLING), all);
    // A prompt that is answered several times is read once, and answered as when it is alone.
    let groups: Vec<Vec<i64>> = prompts.iter().flat_map(|prompt| vec![prompt.clone(); 4]).collect();
    let of_group: Vec<u64> = (0..groups.len() as u64).map(|key| 100 + key).collect();
    let together = generate(&policy, &groups, &of_group, &SAMPLING);
    for i in 0..groups.len() {
        let alone = generate(&policy, &groups[i..=i], &of_group[i..=i], &SAMPLING);
        assert_eq!(alone, together[i..=i]);
    }
    assert!(together.chunks(4).any(|group| group.iter().any(|answer| *answer != group[0])));
}

#[test]
fn value_loss_counts_the_worse_of_both() {
    let one = |x: f32| Tensor::from_slice(&[x]);
    let (loss, clipped) = value_loss(&one(0.5), &one(0.0), &one(0.6), &one(1.0), 0.2);
    close(&[numbers(&loss)[0], clipped], &[0.08, 1.0], 1e-6);
}

#[test]
fn a_duplicate_shares_nothing() {
    let policy = tiny_policy(1);
    let copy: Policy = policy.duplicate();
    let before = copy.trunk.params.fingerprint();
    let _ = no_grad(|| policy.trunk.params.flat.shallow_clone().fill_(0.0));
    assert_eq!(copy.trunk.params.fingerprint(), before);
    let params: &Params = &policy.trunk.params;
    assert!(params.tensors.iter().all(|t| t.abs().max().double_value(&[]) == 0.0), "views follow");
}
