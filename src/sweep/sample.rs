//! Random trials: a function of the seed, the param and the number of the trial, so that more
//! trials leave the first ones as they are. Knows no clock and no generator state.

use super::{Random, Space, Values};
use crate::identity::Digest;
use crate::pipeline::{Node, NodeValue};

/// The trials of a random sweep.
pub fn trials(random: &Random) -> Vec<Values> {
    let one = |i: u64| {
        let draw = |(key, space): &(crate::pipeline::Key, Space)| {
            let u = uniform(random.seed, &key.name, i);
            let span = key.span.clone();
            let value = match space {
                Space::Choice(values) => values[below(u, values.len())].clone(),
                Space::Int(low, high) => {
                    #[expect(clippy::cast_precision_loss, reason = "bounds that people write")]
                    let x = u.mul_add((high - low + 1) as f64, *low as f64).floor();
                    #[expect(clippy::cast_possible_truncation, reason = "whole, within bounds")]
                    Node::new(NodeValue::Int(i128::from((x as i64).min(*high))), span)
                }
                Space::Uniform(low, high) => {
                    Node::new(NodeValue::Float(short(low + u * (high - low))), span)
                }
                Space::Log(low, high) => {
                    let x = (low.ln() + u * (high.ln() - low.ln())).exp();
                    Node::new(NodeValue::Float(short(x)), span)
                }
            };
            (key.clone(), value)
        };
        random.space.iter().map(draw).collect()
    };
    (0..random.trials).map(one).collect()
}

/// Uniform on [0, 1): the first 53 bits of a hash.
fn uniform(seed: u64, param: &str, trial: u64) -> f64 {
    let digest = Digest::of(format!("preflow.sweep/1 {seed} {param} {trial}").as_bytes());
    let bits = u64::from_str_radix(&digest.hex()[..16], 16).expect("invariant: hexadecimal");
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let x = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    x
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..n")]
#[expect(clippy::cast_precision_loss, reason = "few values")]
fn below(u: f64, n: usize) -> usize {
    ((u * n as f64) as usize).min(n - 1)
}

/// Four digits: nobody wants to read more, and nobody can tell them apart.
fn short(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
}
