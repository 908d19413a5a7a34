//! The formulas of `rl` against the vectors of their sources and slow twins.

use preflow_stages::model::entropy;
use preflow_stages::rl::*;
use preflow_stages::rng::Stream;
use tch::{Kind, Tensor};

use crate::harness::{close, numbers};

fn tensor(xs: &[f64]) -> Tensor {
    Tensor::from_slice(xs)
}

/// Σ over later steps of (γλ)^k δ, the definition, in O(T²).
fn slow_gae(r: &[f64], v: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
    let value = |t: usize| v.get(t).copied().unwrap_or(0.0);
    let delta = |t: usize| r[t] + gamma * value(t + 1) - v[t];
    (0..r.len())
        .map(|t| (t..r.len()).map(|s| (gamma * lambda).powi((s - t) as i32) * delta(s)).sum())
        .collect()
}

#[test]
fn invariant_07_gae() {
    let (a, r) = gae(&[-0.01, 0.02, 0.97], &[0.2, 0.3, 0.4], 1.0, 0.95);
    close(&a, &[0.718425, 0.6615, 0.57], 1e-12);
    close(&r, &[0.918425, 0.9615, 0.97], 1e-12);
    close(
        &gae(&[0.0, 0.0, 1.0, 0.0], &[0.0, 1.0, 2.0, 3.0], 0.5, 0.0).0,
        &[0.5, 0.0, 0.5, -3.0],
        1e-12,
    );
    close(&gae(&[0.0, 0.0, 1.0], &[0.2, 0.3, 0.4], 1.0, 0.95).0, &[0.7365, 0.67, 0.6], 1e-12);
    let mut stream = Stream::new(1, "gae", 0, 0);
    for length in 1..40 {
        let rewards: Vec<f64> = (0..length).map(|_| stream.normal()).collect();
        let values: Vec<f64> = (0..length).map(|_| stream.normal()).collect();
        for (gamma, lambda) in [(1.0, 0.95), (0.9, 0.5), (1.0, 0.0), (1.0, 1.0)] {
            let (fast, _) = gae(&rewards, &values, gamma, lambda);
            close(&fast, &slow_gae(&rewards, &values, gamma, lambda), 1e-9);
        }
        let (monte_carlo, _) = gae(&rewards, &values, 1.0, 1.0);
        let rest = |t: usize| rewards[t..].iter().sum::<f64>() - values[t];
        close(&monte_carlo, &(0..length).map(rest).collect::<Vec<_>>(), 1e-9);
    }
}

#[test]
fn invariant_08_the_score_lies_at_the_last_token() {
    assert_eq!(token_rewards(&[0.0, 0.5, -1.0], 2.0, 0.1), [0.0, -0.05, 0.1 + 2.0]);
    assert_eq!(EosMode::Replace.apply(3.0, false, -1.0), -1.0);
    assert_eq!(EosMode::Subtract.apply(3.0, false, -1.0), 2.0);
    assert_eq!(EosMode::Replace.apply(3.0, true, -1.0), 3.0);
    assert_eq!(EosMode::Subtract.apply(3.0, true, -1.0), 3.0);
}

#[test]
fn invariant_10_bradley_terry() {
    let delta = tensor(&[0.0, 1.0, 100.0, -100.0]).set_requires_grad(true);
    let loss = preference_loss(&delta);
    close(&numbers(&loss), &[2.0_f64.ln(), 0.313262, 0.0, 100.0], 1e-6);
    let grad = Tensor::run_backward(&[loss.sum(Kind::Double)], &[&delta], false, false);
    close(&numbers(&grad[0]), &[-0.5, -0.268941, 0.0, -1.0], 1e-6);
    close(&numbers(&half_tie_loss(&tensor(&[0.0, 1.0]))), &[2.0_f64.ln(), 0.813262], 1e-6);
}

#[test]
fn invariant_10_rao_kupper_adds_up_to_one() {
    for nu in [1e-3, 0.5, 3.0] {
        for delta in [-30.0, -1.0, 0.0, 0.3, 30.0] {
            let nu_t = tensor(&[nu]);
            let (won, tied) = rao_kupper_losses(&tensor(&[delta]), &nu_t);
            let (lost, _) = rao_kupper_losses(&tensor(&[-delta]), &nu_t);
            let p: f64 = [won, tied, lost].iter().map(|l| (-numbers(l)[0]).exp()).sum();
            assert!((p - 1.0).abs() < 1e-9, "ν {nu}, Δ {delta}: {p}");
        }
    }
}

#[test]
fn invariant_13_kl_estimators() {
    let (p, q) = ([0.5_f64, 0.3, 0.15, 0.05], [0.2_f64, 0.3, 0.3, 0.2]);
    let l: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (p / q).ln()).collect();
    let expected = |e: KlEstimator| -> f64 {
        numbers(&e.of(&tensor(&l))).iter().zip(&p).map(|(k, p)| k * p).sum()
    };
    close(
        &[expected(KlEstimator::K1), expected(KlEstimator::K2), expected(KlEstimator::K3)],
        &[0.2849, 0.2940, 0.2849],
        1e-4,
    );
    // As a loss on samples, k2 follows KL(π‖ρ) and k3 follows KL(ρ‖π).
    let logits = tensor(&p.map(f64::ln)).set_requires_grad(true);
    for (estimator, gradient) in [
        (KlEstimator::K2, [0.3157, -0.0855, -0.1467, -0.0836]),
        (KlEstimator::K3, [0.3, 0.0, -0.15, -0.15]),
    ] {
        let log_ratio = logits.log_softmax(-1, Kind::Double) - tensor(&q.map(f64::ln));
        let loss = (estimator.of(&log_ratio) * tensor(&p)).sum(Kind::Double);
        let grad = Tensor::run_backward(&[loss], &[&logits], false, false);
        close(&numbers(&grad[0]), &gradient, 1e-4);
    }
    let mut stream = Stream::new(2, "kl", 0, 0);
    let n = 40_000;
    let draws: Vec<f64> = (0..n)
        .map(|_| {
            let mut u = stream.uniform();
            l[p.iter()
                .position(|p| {
                    u -= p;
                    u < 0.0
                })
                .unwrap_or(3)]
        })
        .collect();
    for estimator in [KlEstimator::K1, KlEstimator::K3] {
        let k = numbers(&estimator.of(&tensor(&draws)));
        let error = preflow_stages::stats::std(&k) / f64::from(n).sqrt();
        assert!((preflow_stages::stats::mean(&k) - 0.2849).abs() < 3.0 * error);
    }
}

#[test]
fn invariant_14_whitening() {
    let mut x = [1.0, 2.0, 3.0, 4.0, 10.0];
    whiten(&mut x, false);
    close(&x, &[-0.9487, -0.6325, -0.3162, 0.0, 1.8974], 1e-4);
    let mut x = [1.0, 2.0, 3.0, 4.0, 10.0];
    whiten(&mut x, true);
    close(&x, &[3.0513, 3.3675, 3.6838, 4.0, 5.8974], 1e-4);
    let mut one = [5.0];
    whiten(&mut one, false);
    assert_eq!(one, [5.0]);
}

#[test]
fn invariant_14_adaptive_kl() {
    for (kl, beta) in [(2.0, 0.148464), (6.0, 0.15), (20.0, 0.151536)] {
        let mut controller = AdaptiveKl { beta: 0.15, target: 6.0, horizon: 10_000.0 };
        controller.update(kl, 512.0);
        close(&[controller.beta], &[beta], 1e-9);
    }
}

#[test]
fn invariant_14_policy_and_value_loss_clip_on_the_right_side() {
    let one = |x: f32| Tensor::from_slice(&[x]);
    // With a dual clip of 3 a negative advantage never costs more than three times itself.
    for (advantage, ratio, clip, loss, live) in [
        (1.0, 1.5, Clip::symmetric(0.2), -1.2, false),
        (-1.0, 1.5, Clip::symmetric(0.2), 1.5, true),
        (-1.0, 0.5, Clip::symmetric(0.2), 0.8, false),
        (1.0, 0.5, Clip::symmetric(0.2), -0.5, true),
        (1.0, 1.25, Clip { low: 0.2, high: 0.28, dual: 0.0 }, -1.25, true),
        (1.0, 1.5, Clip { low: 0.2, high: 0.28, dual: 0.0 }, -1.28, false),
        (-1.0, 5.0, Clip { low: 0.2, high: 0.2, dual: 3.0 }, 3.0, false),
        (-1.0, 2.0, Clip { low: 0.2, high: 0.2, dual: 3.0 }, 2.0, true),
        (1.0, 5.0, Clip { low: 0.2, high: 0.2, dual: 3.0 }, -1.2, false),
    ] {
        let new = tensor(&[f64::ln(ratio)]).to_kind(Kind::Float).set_requires_grad(true);
        let found = policy_loss(&new, &one(0.0), &one(advantage), &one(1.0), clip);
        let grad = Tensor::run_backward(&[&found.loss], &[&new], false, false);
        close(&numbers(&found.loss), &[loss], 1e-4);
        assert_eq!(numbers(&grad[0])[0] != 0.0, live, "advantage {advantage}, ratio {ratio}");
        close(&[found.sums.ratio_mean()], &[ratio], 1e-5);
        close(&[found.sums.approx_kl()], &[ratio.ln().powi(2) / 2.0], 1e-5);
    }
    let (loss, clipped) = value_loss(&one(1.0), &one(0.0), &one(0.5), &one(1.0), 0.2);
    close(&[numbers(&loss)[0], clipped], &[0.125, 0.0], 1e-6);
    let (free, _) = value_loss(&one(0.1), &one(0.9), &one(0.5), &one(1.0), 0.0);
    close(&numbers(&free), &[0.08], 1e-6);
}

#[test]
fn aggregations_weigh_long_responses_as_they_say() {
    let of = |aggregation: Aggregation| -> Vec<f64> {
        aggregation.weights(&[1, 3], 8).into_iter().map(f64::from).collect()
    };
    close(&of(Aggregation::TokenMean), &[0.25; 4], 1e-6);
    close(&of(Aggregation::SeqMean), &[0.5, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0], 1e-6);
    close(&of(Aggregation::SeqSumConst), &[1.0 / 16.0; 4], 1e-6);
}

#[test]
fn invariant_14_rloo_grpo_dpo() {
    close(&rloo_advantages(&[1.0, 2.0, 3.0, 6.0]), &[-2.6667, -1.3333, 0.0, 4.0], 1e-3);
    close(&grpo_advantages(&[1.0, 2.0, 3.0, 6.0], true), &[-0.9258, -0.4629, 0.0, 1.3887], 1e-3);
    close(&grpo_advantages(&[1.0, 2.0, 3.0, 6.0], false), &[-2.0, -1.0, 0.0, 3.0], 1e-12);
    assert_eq!(grpo_advantages(&[2.0, 2.0], true), [0.0, 0.0]);
    assert_eq!(rloo_advantages(&[5.0]), [0.0]);
    let (h, none) = (tensor(&[0.0, 2.5]), tensor(&[0.0, 0.0]));
    let of = |loss, smoothing: &Tensor| {
        let of = PairLoss { loss, beta: 0.1, margin: 0.0 };
        numbers(&of.of([&h, &h.zeros_like()], smoothing))
    };
    let dpo = of(DpoLoss::Sigmoid, &none);
    close(&dpo, &[2.0_f64.ln(), 0.5759], 1e-4);
    close(&of(DpoLoss::Ipo, &none), &[25.0, 6.25], 1e-6);
    close(&of(DpoLoss::Hinge, &none), &[1.0, 0.75], 1e-9);
    // Half the smoothing's weight goes to the label turned round: at ½ both sides count alike.
    let half = tensor(&[0.5, 0.5]);
    let tie = numbers(&half_tie_loss(&(&h * 0.1)));
    close(&of(DpoLoss::Sigmoid, &half), &tie, 1e-9);
    close(&of(DpoLoss::Robust, &half), &tie, 1e-9);
    let smooth = tensor(&[0.1, 0.1]);
    let cdpo = 0.9 * (1.0 + (-0.25_f64).exp()).ln() + 0.1 * (1.0 + 0.25_f64.exp()).ln();
    close(&of(DpoLoss::Sigmoid, &smooth)[1..], &[cdpo], 1e-9);
    // Labels of which a tenth are turned round teach on average what clean ones do.
    let robust = |h: f64| {
        let side = tensor(&[h]);
        let of = PairLoss { loss: DpoLoss::Robust, beta: 0.1, margin: 0.0 };
        numbers(&of.of([&side, &side.zeros_like()], &tensor(&[0.1])))[0]
    };
    close(&[0.9 * robust(2.5) + 0.1 * robust(-2.5)], &dpo[1..], 1e-9);
    // A certain answer has no odds, and no loss that is no number.
    let of = PairLoss { loss: DpoLoss::Orpo, beta: 0.1, margin: 0.0 };
    let sure = numbers(&of.of([&tensor(&[0.0]), &tensor(&[-1.0])], &tensor(&[0.0])))[0];
    assert!(sure.is_finite() && sure >= 0.0, "{sure}");
}

#[test]
fn overlong_responses_lose_by_how_far_they_go() {
    let lose = |tokens| overlong_penalty(tokens, 20, 4);
    assert_eq!([10, 16, 17, 20].map(lose), [0.0, 0.0, 0.25, 1.0]);
    assert_eq!(overlong_penalty(20, 20, 0), 0.0);
}

#[test]
fn entropy_of_a_uniform_choice() {
    let logits = Tensor::zeros([2, 8], (Kind::Float, tch::Device::Cpu));
    close(&numbers(&entropy(&logits, 0.7)), &[8.0_f64.ln(); 2], 1e-5);
}
