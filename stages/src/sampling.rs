//! Draws responses from a policy with a key-value cache. What a row draws depends on its key
//! alone: not on the batch, its order or the number of threads.
//! Knows nothing of files, events or what the responses are for.

use std::collections::HashMap;

use anyhow::Result;
use tch::{Kind, Tensor, no_grad};

use crate::model::{Cache, ModelConfig, Policy};
use crate::rng::Stream;

/// Most rows that are decoded together.
pub const BATCH: usize = 256;

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingConfig {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens that together have this probability; 1 keeps all.
    pub top_p: f64,
    /// Longest response, tokens, the end token included.
    pub max_tokens: usize,
    pub seed: u64,
    /// Which of the stage's many draws this is.
    pub step: u64,
}

/// A drawn response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The end token included, when there is one.
    pub tokens: Vec<i64>,
    /// It ended by itself.
    pub finished: bool,
}

/// One row that is being written.
#[derive(Debug)]
pub struct DrawnRow {
    /// Place in the caller's list.
    pub place: usize,
    stream: Stream,
    /// Drawn so far.
    pub tokens: Vec<i64>,
    /// Whoever draws it wants no more of it.
    pub stopped: bool,
}

impl DrawnRow {
    /// A row that is to answer prompt `place`; `key` names its stream.
    pub fn new(place: usize, key: u64, sampling: &SamplingConfig) -> Self {
        let stream = Stream::new(sampling.seed, "sample", sampling.step, key);
        Self { place, stream, tokens: Vec::new(), stopped: false }
    }

    /// It ended by itself: on one of the model's end tokens.
    fn finished(&self, config: &ModelConfig) -> bool {
        self.tokens.last().is_some_and(|t| config.ends(*t))
    }

    /// Nothing more is drawn for it.
    pub fn ended(&self, config: &ModelConfig, sampling: &SamplingConfig) -> bool {
        self.stopped || self.finished(config) || self.tokens.len() >= sampling.max_tokens
    }
}

/// Draws one response to each prompt. `keys[i]` names the stream of prompt `i`; two prompts with
/// one key and equal tokens get equal responses.
///
/// A prompt must leave `max_tokens` of the model's context free; see `data::fit_prompt`.
pub fn generate(
    policy: &Policy,
    prompts: &[Vec<i64>],
    keys: &[u64],
    sampling: &SamplingConfig,
) -> Vec<Response> {
    let told = generate_telling(policy, prompts, keys, sampling, &mut |_| Ok(()));
    told.expect("invariant: who hears nothing never fails")
}

/// As [`generate`] for one prompt; `heard` gets the tokens so far, again and again.
///
/// # Errors
/// Those of `heard`.
pub fn generate_streaming(
    policy: &Policy,
    prompt: &[i64],
    sampling: &SamplingConfig,
    heard: &mut dyn FnMut(&[i64]) -> Result<()>,
) -> Result<Response> {
    let policy = Policy { trunk: policy.trunk.for_inference() };
    let row = DrawnRow::new(0, 0, sampling);
    let mut out = [None];
    let told = &mut |_: u64, rows: &[DrawnRow]| heard(&rows[0].tokens);
    no_grad(|| decode(&policy, &[prompt.to_vec()], vec![row], sampling, &mut out, told))?;
    let [response] = out;
    Ok(response.expect("invariant: the row was decoded"))
}

/// As [`generate`]; `told` hears again and again how many responses have ended.
///
/// # Errors
/// Those of `told`.
pub fn generate_telling(
    policy: &Policy,
    prompts: &[Vec<i64>],
    keys: &[u64],
    sampling: &SamplingConfig,
    told: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<Response>> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|i| prompts[*i].len());
    let mut out: Vec<Option<Response>> = vec![None; prompts.len()];
    let policy = Policy { trunk: policy.trunk.for_inference() };
    let mut before = 0;
    no_grad(|| {
        for chunk in order.chunks(BATCH) {
            let rows = chunk.iter().map(|place| DrawnRow::new(*place, keys[*place], sampling));
            let told = &mut |ended, _: &[DrawnRow]| told(before + ended);
            decode(&policy, prompts, rows.collect(), sampling, &mut out, told)?;
            before += chunk.len() as u64;
        }
        Ok(())
    })
    .map(|()| out.into_iter().map(|r| r.expect("invariant: every row was decoded")).collect())
}

/// Decodes rows until all have ended; `told` hears after each token how many have ended, and sees
/// those that are still decoded.
fn decode(
    policy: &Policy,
    prompts: &[Vec<i64>],
    rows: Vec<DrawnRow>,
    sampling: &SamplingConfig,
    out: &mut [Option<Response>],
    told: &mut dyn FnMut(u64, &[DrawnRow]) -> Result<()>,
) -> Result<()> {
    let (all, config) = (rows.len(), &policy.trunk.config);
    let asked: Vec<&[i64]> = rows.iter().map(|row| prompts[row.place].as_slice()).collect();
    let mut drawing = Drawing::new(policy, &asked, rows, *sampling, sampling.max_tokens);
    while !drawing.rows.is_empty() {
        let hidden = drawing.pass(policy);
        let _ = drawing.draw(policy, &hidden);
        let open = drawing.open(config).len();
        told((all - open) as u64, &drawing.rows)?;
        finish(drawing.release(config), config, out);
    }
    Ok(())
}

/// Rows that are drawn together, token by token. Call it without gradients.
#[derive(Debug)]
pub struct Drawing {
    sampling: SamplingConfig,
    /// Those that are still part of the batch.
    pub rows: Vec<DrawnRow>,
    cache: Cache,
    /// Tokens that the model has not seen yet, `[rows, time]`: first the prompts, left-padded, each
    /// once.
    input: Tensor,
    /// Of each row the place of its prompt among those of the first pass, `[rows]`; `None`: every
    /// row has its own, or the prompts were passed.
    prompt_of: Option<Tensor>,
    /// The token that each row goes on with.
    next: Vec<i64>,
}

impl Drawing {
    /// Rows, and the prompt that each is to answer. `room`: columns that the cache has beyond the
    /// prompts at first; it grows when more is drawn.
    pub fn new(
        policy: &Policy,
        prompts: &[&[i64]],
        rows: Vec<DrawnRow>,
        sampling: SamplingConfig,
        room: usize,
    ) -> Self {
        let (device, pad) = (policy.trunk.params.flat.device(), policy.trunk.config.pad);
        let time = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let (once, prompt_of) = distinct(prompts);
        let mut ids = vec![pad; once.len() * time];
        let mut starts = Vec::new();
        for (b, prompt) in once.iter().enumerate() {
            ids[(b + 1) * time - prompt.len()..(b + 1) * time].copy_from_slice(prompt);
            starts.push((time - prompt.len()) as i64);
        }
        let prompt_of =
            (once.len() < prompts.len()).then(|| Tensor::from_slice(&prompt_of).to_device(device));
        let start = Tensor::from_slice(&starts).to_device(device);
        let cache = Cache::new(&policy.trunk, start, (time + room) as i64);
        let input = Tensor::from_slice(&ids).view([-1, time as i64]).to_device(device);
        Self { sampling, rows, cache, input, prompt_of, next: Vec::new() }
    }

    /// Passes what is new through the model: hidden states, `[rows, time, hidden]`, of the prompts
    /// at first and then of the tokens that were drawn last.
    pub fn pass(&mut self, policy: &Policy) -> Tensor {
        let hidden = policy.trunk.hidden_cached(&self.input, &mut self.cache);
        match self.prompt_of.take() {
            Some(of) => {
                self.cache.keep(&of);
                hidden.index_select(0, &of)
            }
            None => hidden,
        }
    }

    /// Draws the next token of every row that has not ended, from the last of the hidden states.
    /// Returns the logits, `[rows, vocab]`.
    pub fn draw(&mut self, policy: &Policy, hidden: &Tensor) -> Tensor {
        let logits = policy.logits(&hidden.select(1, hidden.size()[1] - 1));
        self.next = draw(&logits, &mut self.rows, &policy.trunk.config, &self.sampling);
        logits
    }

    /// Places in the batch of the rows that have not ended.
    pub fn open(&self, config: &ModelConfig) -> Vec<i64> {
        let all = self.rows.iter().enumerate();
        all.filter(|(_, row)| !row.ended(config, &self.sampling)).map(|(b, _)| b as i64).collect()
    }

    /// Lets rows go that have ended, once they are a quarter of the batch; the others go on.
    pub fn release(&mut self, config: &ModelConfig) -> Vec<DrawnRow> {
        let open = self.open(config);
        if open.is_empty() {
            return std::mem::take(&mut self.rows);
        }
        let device = self.input.device();
        self.input = Tensor::from_slice(&self.next).view([-1, 1]).to_device(device);
        if open.len() * 4 > self.rows.len() * 3 {
            return Vec::new();
        }
        let keep = Tensor::from_slice(&open).to_device(device);
        self.cache.keep(&keep);
        self.input = self.input.index_select(0, &keep);
        let all = std::mem::take(&mut self.rows).into_iter();
        let (stay, leave) = all.partition(|row| !row.ended(config, &self.sampling));
        self.rows = stay;
        leave
    }
}

/// The prompts without repeats, in the order of their first row, and of each row the place of its
/// own among them.
fn distinct<'a>(prompts: &[&'a [i64]]) -> (Vec<&'a [i64]>, Vec<i64>) {
    let (mut once, mut places) = (Vec::new(), HashMap::new());
    let of = prompts.iter().map(|prompt| {
        *places.entry(*prompt).or_insert_with(|| {
            once.push(*prompt);
            once.len() as i64 - 1
        })
    });
    let of = of.collect();
    (once, of)
}

fn finish(rows: Vec<DrawnRow>, config: &ModelConfig, out: &mut [Option<Response>]) {
    for row in rows {
        let finished = row.finished(config);
        out[row.place] = Some(Response { tokens: row.tokens, finished });
    }
}

/// Draws the next token of every row that has not ended; the others get padding.
fn draw(
    logits: &Tensor,
    rows: &mut [DrawnRow],
    config: &ModelConfig,
    sampling: &SamplingConfig,
) -> Vec<i64> {
    let vocab = logits.size()[1] as usize;
    let weights = if sampling.temperature > 0.0 {
        (logits / sampling.temperature).softmax(-1, Kind::Float)
    } else {
        logits.to_kind(Kind::Float)
    };
    let mut host = vec![0.0_f32; rows.len() * vocab];
    let n = host.len();
    weights.to_device(tch::Device::Cpu).contiguous().copy_data(&mut host, n);
    let each = rows.iter_mut().zip(host.chunks_exact(vocab));
    each.map(|(row, weights)| {
        if row.ended(config, sampling) {
            return config.pad;
        }
        let token = pick(weights, &mut row.stream, sampling) as i64;
        row.tokens.push(token);
        token
    })
    .collect()
}

/// One index by the probabilities `weights` (or the largest of the logits, at temperature 0),
/// with exactly one number of the stream.
pub fn pick(weights: &[f32], stream: &mut Stream, sampling: &SamplingConfig) -> usize {
    let uniform = stream.uniform();
    if sampling.temperature == 0.0 {
        return (0..weights.len())
            .rev()
            .max_by(|a, b| weights[*a].total_cmp(&weights[*b]))
            .unwrap_or(0);
    }
    let all = sampling.top_k == 0 && sampling.top_p >= 1.0;
    let kept: Vec<usize> = if all { (0..weights.len()).collect() } else { keep(weights, sampling) };
    let total: f64 = kept.iter().map(|i| f64::from(weights[*i])).sum();
    let mut rest = uniform * total;
    for i in &kept {
        rest -= f64::from(weights[*i]);
        if rest < 0.0 {
            return *i;
        }
    }
    kept.last().copied().unwrap_or(0)
}

/// The indices that top-k and then top-p leave, the most likely first.
fn keep(weights: &[f32], sampling: &SamplingConfig) -> Vec<usize> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let total: f64 = order.iter().map(|i| f64::from(weights[*i])).sum();
    let mut sum = 0.0;
    let enough = order.iter().position(|i| {
        sum += f64::from(weights[*i]);
        sum >= sampling.top_p * total
    });
    order.truncate(enough.map_or(order.len(), |i| i + 1));
    order
}
