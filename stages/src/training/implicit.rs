//! Implicit rewards of pairs, for the kinds whose policy is its own reward model.
//! Knows nothing of losses.

use tch::Tensor;

use crate::model::to_f64;
use crate::stats::mean;

/// β times the log-ratio to the reference of both sides of some pairs (Rafailov et al. 2023,
/// section 4); of log-probabilities where there is no reference.
#[derive(Debug, Clone, Default)]
pub struct ImplicitRewards {
    /// Of the chosen and of the rejected side.
    pairs: Vec<[f64; 2]>,
}

impl ImplicitRewards {
    /// Adds pairs by the log-ratios of their chosen and rejected sides, `[n]` each.
    pub fn add(&mut self, ratios: [&Tensor; 2], beta: f64) {
        let [chosen, rejected] = ratios.map(|side| to_f64(&side.detach()));
        self.pairs.extend(chosen.iter().zip(&rejected).map(|(c, r)| [c * beta, r * beta]));
    }

    /// Share of pairs whose chosen side has the larger reward; equal ones count half.
    pub fn accuracy(&self) -> f64 {
        self.mean(|[c, r]| if c == r { 0.5 } else { f64::from(u8::from(c > r)) })
    }

    /// Means of both sides, their margin and the accuracy, named as TRL names them.
    pub fn figures(&self, prefix: &str) -> Vec<(String, f64)> {
        vec![
            (format!("{prefix}/chosen"), self.mean(|[c, _]| c)),
            (format!("{prefix}/rejected"), self.mean(|[_, r]| r)),
            (format!("{prefix}/margins"), self.mean(|[c, r]| c - r)),
            (format!("{prefix}/accuracies"), self.accuracy()),
        ]
    }

    fn mean(&self, of: impl Fn([f64; 2]) -> f64) -> f64 {
        mean(&self.pairs.iter().map(|pair| of(*pair)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_are_beta_times_the_ratios_and_equal_ones_count_half() {
        let mut rewards = ImplicitRewards::default();
        let sides = [[1.0_f32, 2.0, 0.5], [0.0, 3.0, 0.5]].map(|side| Tensor::from_slice(&side));
        rewards.add([&sides[0], &sides[1]], 0.5);
        let expected = [
            ("eval/chosen".to_owned(), 3.5 * 0.5 / 3.0),
            ("eval/rejected".to_owned(), 3.5 * 0.5 / 3.0),
            ("eval/margins".to_owned(), 0.0),
            ("eval/accuracies".to_owned(), 0.5),
        ];
        for ((name, value), (wanted, right)) in rewards.figures("eval").into_iter().zip(expected) {
            assert_eq!(name, wanted);
            assert!((value - right).abs() < 1e-12, "{name} {value} {right}");
        }
    }
}
