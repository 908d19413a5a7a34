//! Rows of unequal length as one rectangle, with the places where responses are predicted.
//! Knows nothing of losses.

use tch::{Device, Kind, Tensor};

use super::{Layout, Policy, Trunk};
use crate::data::{Example, PAD, Row};

/// A batch of right-padded rows, and of their completions every token in one ragged list.
///
/// `n` is the number of completion tokens of all rows together, row after row.
#[derive(Debug)]
pub struct Packed {
    /// Tokens, `[batch, time]`.
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
    /// How the rows lie in the rectangle.
    pub layout: Layout,
}

impl Packed {
    /// Packs rows; each needs a prompt of one token or more.
    pub fn new(rows: &[&Example], device: Device) -> Self {
        let rows: Vec<Row> = rows.iter().map(|row| Row::from(*row)).collect();
        Self::rows(&rows.iter().collect::<Vec<_>>(), device)
    }

    /// Packs rows of which the masked tokens are predicted; the first of a row never is.
    pub fn rows(rows: &[&Row], device: Device) -> Self {
        let bins: Vec<Vec<usize>> = (0..rows.len()).map(|i| vec![i]).collect();
        Self::binned(rows, &bins, device)
    }

    /// As [`Packed::rows`], with several rows one after the other where `width` tokens have room
    /// for them. None sees another, and each has its own positions.
    pub fn dense_rows(rows: &[&Row], width: usize, device: Device) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|r| r.tokens.len()).collect();
        Self::binned(rows, &fill_bins(&lengths, width), device)
    }

    /// Two answers to a prompt a row, the prompt once where it is the same: all first answers are
    /// the rows of the batch, then all second ones. Gives what [`Packed::new`] gives of both, with
    /// fewer tokens to compute.
    pub fn pairs(pairs: &[(&Example, &Example)], device: Device) -> Self {
        let length = |e: &Example| e.prompt.len() + e.completion.len();
        let width = |(a, b): &(&Example, &Example)| length(a) + b.completion.len();
        let shared = pairs.iter().map(width).max().unwrap_or(0);
        let apart = pairs.iter().map(|(a, b)| length(a).max(length(b))).max().unwrap_or(0);
        // A mask of its own costs a little, which must pay.
        let pays = shared * 10 <= 2 * apart * 9;
        if !pays || pairs.iter().any(|(a, b)| a.prompt != b.prompt) {
            let (mut all, second): (Vec<&Example>, Vec<&Example>) = pairs.iter().copied().unzip();
            all.extend(second);
            return Self::new(&all, device);
        }
        let (rows, time) = (pairs.len(), shared.max(1));
        let mut ids = vec![PAD; rows * time];
        let (mut texts, mut parents) = (vec![-1; ids.len()], vec![-1; ids.len()]);
        let mut positions = vec![0; ids.len()];
        let mut answers = [Vec::with_capacity(rows), Vec::with_capacity(rows)];
        for (row, (first, second)) in pairs.iter().enumerate() {
            let prompt = first.prompt.len();
            let mut at = row * time;
            let parts = [&first.prompt, &first.completion, &second.completion];
            for (part, tokens) in parts.into_iter().enumerate() {
                let begin = if part == 0 { 0 } else { prompt };
                if part > 0 {
                    answers[part - 1].push((row * time + prompt - 1, at, tokens));
                }
                for (i, token) in tokens.iter().enumerate() {
                    ids[at] = *token;
                    (texts[at], parents[at]) = ((3 * row + part) as i64, 3 * row as i64);
                    positions[at] = (begin + i) as i64;
                    at += 1;
                }
            }
        }
        let (mut places, mut targets, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut offsets = vec![0];
        for (before, start, tokens) in answers.into_iter().flatten() {
            // The first token is predicted by the prompt's last one.
            let predicting = std::iter::once(before).chain(start..);
            places.extend(predicting.take(tokens.len()).map(|place| place as i64));
            targets.extend(tokens);
            let end = if tokens.is_empty() { before } else { start + tokens.len() - 1 };
            last.push(end as i64);
            offsets.push(targets.len());
        }
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        let shaped = |v: &[i64]| tensor(v).view([rows as i64, time as i64]);
        let (texts, parents) = (shaped(&texts), shaped(&parents));
        Self {
            ids: shaped(&ids),
            places: Some(tensor(&places)),
            targets: tensor(&targets),
            last: tensor(&last),
            offsets,
            layout: Layout::Shared { texts, parents, positions: shaped(&positions) },
        }
    }

    /// The part of a list over the predicted tokens, `[n]`, that belongs to each row.
    pub fn by_row(&self, list: &Tensor) -> Vec<Tensor> {
        let lengths: Vec<i64> = self.offsets.windows(2).map(|w| (w[1] - w[0]) as i64).collect();
        list.split_with_sizes(lengths, 0)
    }

    /// Sum of a list, `[n]`, over the predicted tokens of each row: `[rows]`.
    pub fn row_sums(&self, list: &Tensor) -> Tensor {
        let sum = |row: &Tensor| row.sum(Kind::Float);
        Tensor::stack(&self.by_row(list).iter().map(sum).collect::<Vec<_>>(), 0)
    }

    /// Mean of a list, `[n]`, over the predicted tokens of each row: `[rows]`.
    pub fn row_means(&self, list: &Tensor) -> Tensor {
        let mean = |row: &Tensor| row.mean(Kind::Float);
        Tensor::stack(&self.by_row(list).iter().map(mean).collect::<Vec<_>>(), 0)
    }

    /// Packs the rows of each bin one after the other.
    fn binned(rows: &[&Row], bins: &[Vec<usize>], device: Device) -> Self {
        let length = |bin: &Vec<usize>| bin.iter().map(|i| rows[*i].tokens.len()).sum();
        let time: usize = bins.iter().map(length).max().unwrap_or(0).max(1);
        let mut ids = vec![PAD; bins.len() * time];
        let (mut texts, mut positions) = (vec![-1; ids.len()], vec![0; ids.len()]);
        let mut starts = vec![0; rows.len()];
        for (b, bin) in bins.iter().enumerate() {
            let mut at = b * time;
            for i in bin {
                starts[*i] = at;
                for (t, token) in rows[*i].tokens.iter().enumerate() {
                    (ids[at], texts[at], positions[at]) = (*token, *i as i64, t as i64);
                    at += 1;
                }
            }
        }
        let (mut places, mut targets, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut offsets = vec![0];
        for (row, start) in rows.iter().zip(starts) {
            for (t, token) in row.tokens.iter().enumerate().skip(1).filter(|(t, _)| row.mask[*t]) {
                places.push((start + t - 1) as i64);
                targets.push(*token);
            }
            last.push((start + row.tokens.len()) as i64 - 1);
            offsets.push(targets.len());
        }
        let shape = [bins.len() as i64, time as i64];
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        let layout = if bins.len() == rows.len() {
            Layout::RightPadded
        } else {
            let (texts, positions) = (tensor(&texts).view(shape), tensor(&positions).view(shape));
            Layout::Packed { texts, positions }
        };
        Self {
            ids: tensor(&ids).view(shape),
            places: Some(tensor(&places)),
            targets: tensor(&targets),
            last: tensor(&last),
            offsets,
            layout,
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
            layout: Layout::RightPadded,
        }
    }

    /// Number of completion tokens.
    pub fn tokens(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Hidden states that predict the completion tokens, `[n, hidden]`.
    pub fn hidden(&self, trunk: &Trunk) -> Tensor {
        let hidden = trunk.hidden(&self.ids, &self.layout).reshape([-1, trunk.config.hidden]);
        match &self.places {
            Some(places) => hidden.index_select(0, places),
            None => hidden,
        }
    }

    /// Hidden states of the last real token of each row, `[batch, hidden]`.
    pub fn last_hidden(&self, trunk: &Trunk) -> Tensor {
        let hidden = trunk.hidden(&self.ids, &self.layout);
        hidden.reshape([-1, trunk.config.hidden]).index_select(0, &self.last)
    }

    /// Log-probability of each completion token at `temperature`, `[n]`.
    pub fn log_probs(&self, policy: &Policy, temperature: f64) -> Tensor {
        policy.predict(self, temperature, false).log_probs
    }

    /// Logits over the token after each place, `[n, vocab]`.
    pub fn logits(&self, policy: &Policy) -> Tensor {
        policy.logits(&self.hidden(&policy.trunk))
    }
}

/// Rows of these lengths to bins of `width`, each row into the first bin that has room, the longest
/// first; a row that is wider gets a bin of its own.
fn fill_bins(lengths: &[usize], width: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(lengths[*i]), *i));
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in order {
        match bins.iter_mut().find(|(used, _)| used + lengths[i] <= width) {
            Some((used, bin)) => {
                *used += lengths[i];
                bin.push(i);
            }
            None => bins.push((lengths[i], vec![i])),
        }
    }
    bins.into_iter().map(|(_, bin)| bin).collect()
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
