//! Rows of unequal length as one rectangle, with the places where responses are predicted.
//! Knows nothing of losses.

use tch::{Device, Kind, Tensor};

use super::{Policy, Scorer, Trunk, Window};
use crate::data::{Example, PAD};

/// A batch of right-padded rows, and of their completions every token in one ragged list.
///
/// `n` is the number of completion tokens of all rows together, row after row.
#[derive(Debug)]
pub struct Packed {
    /// `[batch, time]`
    pub ids: Tensor,
    /// Place in the flattened `[batch · time]` whose hidden state predicts each token, `[n]`: the
    /// one before it.
    pub places: Tensor,
    /// The tokens that are predicted, `[n]`.
    pub targets: Tensor,
    /// Column of the last real token of each row, `[batch]`.
    pub last: Tensor,
    /// First index of each row in the ragged list, and `n` at the end.
    pub offsets: Vec<usize>,
}

impl Packed {
    /// Packs rows; each needs a prompt of one token or more.
    pub fn new(rows: &[&Example], device: Device) -> Self {
        let time = rows.iter().map(|r| r.prompt.len() + r.completion.len()).max().unwrap_or(1);
        let mut ids = vec![PAD; rows.len() * time];
        let (mut places, mut targets, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut offsets = vec![0];
        for (b, row) in rows.iter().enumerate() {
            let (start, prompt) = (b * time, row.prompt.len());
            ids[start..start + prompt].copy_from_slice(&row.prompt);
            let end = start + prompt + row.completion.len();
            ids[start + prompt..end].copy_from_slice(&row.completion);
            places.extend((start + prompt - 1..end - 1).map(|i| i as i64));
            targets.extend_from_slice(&row.completion);
            last.push((end - start - 1) as i64);
            offsets.push(targets.len());
        }
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        Self {
            ids: tensor(&ids).view([rows.len() as i64, time as i64]),
            places: tensor(&places),
            targets: tensor(&targets),
            last: tensor(&last),
            offsets,
        }
    }

    /// Number of completion tokens.
    pub fn tokens(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Hidden states that predict the completion tokens, `[n, hidden]`.
    pub fn hidden(&self, trunk: &Trunk) -> Tensor {
        let hidden = trunk.hidden(&self.ids, &Window::Right);
        hidden.reshape([-1, trunk.config.hidden]).index_select(0, &self.places)
    }

    /// Log-probability of each completion token at `temperature`, `[n]`.
    pub fn log_probs(&self, policy: &Policy, temperature: f64) -> Tensor {
        token_log_probs(&self.logits(policy), &self.targets, temperature)
    }

    /// Logits over the token after each place, `[n, vocab]`.
    pub fn logits(&self, policy: &Policy) -> Tensor {
        policy.logits(&self.hidden(&policy.0))
    }

    /// Value at each place, `[n]`: what a critic expects before the token is drawn.
    pub fn values(&self, critic: &Scorer) -> Tensor {
        critic.score(&self.hidden(&critic.0))
    }
}

/// `log softmax(logits / temperature)` at `targets`: `[n]` of `[n, vocab]` and `[n]`.
pub fn token_log_probs(logits: &Tensor, targets: &Tensor, temperature: f64) -> Tensor {
    let scaled = if temperature == 1.0 { logits.shallow_clone() } else { logits / temperature };
    -scaled.to_kind(Kind::Float).cross_entropy_loss(
        targets,
        None::<Tensor>,
        tch::Reduction::None,
        -100,
        0.0,
    )
}
