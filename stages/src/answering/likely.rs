//! How likely tokens are at their places, and which are likeliest there.
//! Knows nothing of texts.

use tch::{Device, Kind, Tensor};

use crate::model::{Policy, to_f64};

/// Most logits that exist at once.
const LOGITS: i64 = 1 << 24;

/// How likely a token was.
pub struct Likely {
    pub logprob: f64,
    /// Ids and log-probabilities, the likeliest first.
    pub likeliest: Vec<(i64, f64)>,
}

/// How likely `tokens` are by `logits`, `[n, vocab]`, one a row; with the `count` likeliest ones.
pub fn by_logits(logits: &Tensor, tokens: &[i64], count: i64) -> Vec<Likely> {
    let log_probs = logits.log_softmax(-1, Kind::Float);
    let ids = Tensor::from_slice(tokens).to_device(logits.device()).unsqueeze(1);
    let own = to_f64(&log_probs.gather(1, &ids, false));
    let count = count.min(logits.size()[1]);
    let (values, places) = log_probs.topk(count, -1, true, true);
    let places = places.to_device(Device::Cpu).reshape([-1]);
    let mut best = vec![0_i64; places.numel()];
    places.copy_data(&mut best, places.numel());
    let (values, count) = (to_f64(&values), usize::try_from(count).unwrap_or_default());
    let rows = own.into_iter().enumerate().map(|(row, logprob)| {
        let at = row * count..(row + 1) * count;
        let both = best[at.clone()].iter().copied().zip(values[at].iter().copied());
        Likely { logprob, likeliest: both.collect() }
    });
    rows.collect()
}

/// How likely the tokens of prompts are, each but its first: of hidden states, `[rows, time,
/// hidden]`, where row `b` ends in the last column with the tokens `prompts[b]`.
pub fn of_prompts(
    policy: &Policy,
    hidden: &Tensor,
    prompts: &[&[i64]],
    count: i64,
) -> Vec<Vec<Likely>> {
    let (time, width) = (hidden.size()[1], hidden.size()[2]);
    let (mut places, mut tokens) = (Vec::new(), Vec::new());
    for (b, prompt) in (0..).zip(prompts) {
        let start = (b + 1) * time - prompt.len() as i64;
        places.extend(start..start + prompt.len() as i64 - 1);
        tokens.extend_from_slice(&prompt[1..]);
    }
    let flat = hidden.reshape([-1, width]);
    let part = usize::try_from(LOGITS / policy.trunk.config.vocab).unwrap_or(1).max(1);
    let mut all = Vec::with_capacity(tokens.len());
    for (places, tokens) in places.chunks(part).zip(tokens.chunks(part)) {
        let places = Tensor::from_slice(places).to_device(flat.device());
        let logits = policy.logits(&flat.index_select(0, &places));
        all.extend(by_logits(&logits, tokens, count));
    }
    let mut all = all.into_iter();
    prompts.iter().map(|prompt| all.by_ref().take(prompt.len() - 1).collect()).collect()
}
