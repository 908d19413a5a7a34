//! Rows of unequal length as one rectangle, with the places where responses are predicted.
//! Knows nothing of losses.

use tch::{Device, Kind, Tensor};

use super::{Policy, Trunk, Window};
use crate::data::{Example, PAD};

/// A batch of right-padded rows, and of their completions every token in one ragged list.
///
/// `n` is the number of completion tokens of all rows together, row after row.
#[derive(Debug)]
pub struct Packed {
    /// `[batch, time]`
    pub ids: Tensor,
    /// Place in the flattened `[batch · time]` whose hidden state predicts each token, `[n]`: the
    /// one before it. `None`: every place, in order.
    pub places: Option<Tensor>,
    /// The tokens that are predicted, `[n]`.
    pub targets: Tensor,
    /// Place in the flattened `[batch · time]` of the last real token of each row, `[batch]`.
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
            last.push(end as i64 - 1);
            offsets.push(targets.len());
        }
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        Self {
            ids: tensor(&ids).view([rows.len() as i64, time as i64]),
            places: Some(tensor(&places)),
            targets: tensor(&targets),
            last: tensor(&last),
            offsets,
        }
    }

    /// Rows of one length, `time + 1`, of which every token but the first is predicted.
    pub fn dense(rows: &[&[i64]], device: Device) -> Self {
        let flat: Vec<i64> = rows.concat();
        let (batch, time) = (rows.len() as i64, rows.first().map_or(1, |r| r.len() as i64 - 1));
        let all = Tensor::from_slice(&flat).view([batch, time + 1]).to_device(device);
        Self {
            ids: all.narrow(1, 0, time),
            places: None,
            targets: all.narrow(1, 1, time).reshape([-1]),
            last: (Tensor::arange(batch, (Kind::Int64, device)) + 1) * time - 1,
            offsets: (0..=rows.len()).map(|b| b * time as usize).collect(),
        }
    }

    /// Number of completion tokens.
    pub fn tokens(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Hidden states that predict the completion tokens, `[n, hidden]`.
    pub fn hidden(&self, trunk: &Trunk) -> Tensor {
        let hidden = trunk.hidden(&self.ids, &Window::Right).reshape([-1, trunk.config.hidden]);
        match &self.places {
            Some(places) => hidden.index_select(0, places),
            None => hidden,
        }
    }

    /// Hidden states of the last real token of each row, `[batch, hidden]`.
    pub fn last_hidden(&self, trunk: &Trunk) -> Tensor {
        let hidden = trunk.hidden(&self.ids, &Window::Right);
        hidden.reshape([-1, trunk.config.hidden]).index_select(0, &self.last)
    }

    /// Log-probability of each completion token at `temperature`, `[n]`.
    pub fn log_probs(&self, policy: &Policy, temperature: f64) -> Tensor {
        token_log_probs(&self.logits(policy), &self.targets, temperature)
    }

    /// Logits over the token after each place, `[n, vocab]`.
    pub fn logits(&self, policy: &Policy) -> Tensor {
        policy.logits(&self.hidden(&policy.0))
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

/// Entropy of `softmax(logits / temperature)`, `[n]` of `[n, vocab]`, nats.
pub fn entropy(logits: &Tensor, temperature: f64) -> Tensor {
    let log_probs = (logits / temperature).log_softmax(-1, Kind::Float);
    -(log_probs.exp() * log_probs).sum_dim_intlist(-1, false, Kind::Float)
}
