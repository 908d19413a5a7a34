//! Draws responses from a policy with a key-value cache. What a row draws depends on its key
//! alone: not on the batch, its order or the number of threads.
//! Knows nothing of files, events or what the responses are for.

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
struct Row {
    /// Place in the caller's list.
    place: usize,
    stream: Stream,
    tokens: Vec<i64>,
}

impl Row {
    /// It ended by itself: on one of the model's end tokens.
    fn finished(&self, config: &ModelConfig) -> bool {
        self.tokens.last().is_some_and(|t| config.ends(*t))
    }

    fn ended(&self, config: &ModelConfig, sampling: &SamplingConfig) -> bool {
        self.finished(config) || self.tokens.len() >= sampling.max_tokens
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
    let stream = Stream::new(sampling.seed, "sample", sampling.step, 0);
    let row = Row { place: 0, stream, tokens: Vec::with_capacity(sampling.max_tokens) };
    let mut out = [None];
    let told = &mut |_: u64, rows: &[Row]| heard(&rows[0].tokens);
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
            let rows = chunk.iter().map(|place| Row {
                place: *place,
                stream: Stream::new(sampling.seed, "sample", sampling.step, keys[*place]),
                tokens: Vec::with_capacity(sampling.max_tokens),
            });
            let told = &mut |ended, _: &[Row]| told(before + ended);
            decode(&policy, prompts, rows.collect(), sampling, &mut out, told)?;
            before += chunk.len() as u64;
        }
        Ok(())
    })
    .map(|()| out.into_iter().map(|r| r.expect("invariant: every row was decoded")).collect())
}

/// Decodes rows until all have ended; `told` hears after each token how many have ended, and sees
/// those that are still decoded. Finished rows leave the batch when they are a quarter of it.
fn decode(
    policy: &Policy,
    prompts: &[Vec<i64>],
    mut rows: Vec<Row>,
    sampling: &SamplingConfig,
    out: &mut [Option<Response>],
    told: &mut dyn FnMut(u64, &[Row]) -> Result<()>,
) -> Result<()> {
    let all = rows.len();
    let (device, config) = (policy.trunk.params.flat.device(), &policy.trunk.config);
    let time = rows.iter().map(|r| prompts[r.place].len()).max().unwrap_or(0);
    let mut ids = vec![policy.trunk.config.pad; rows.len() * time];
    let mut starts = Vec::new();
    for (b, row) in rows.iter().enumerate() {
        let prompt = &prompts[row.place];
        ids[(b + 1) * time - prompt.len()..(b + 1) * time].copy_from_slice(prompt);
        starts.push((time - prompt.len()) as i64);
    }
    let start = Tensor::from_slice(&starts).to_device(device);
    let columns = (time + sampling.max_tokens) as i64;
    let mut cache = Cache::new(&policy.trunk, start, columns);
    let mut input = Tensor::from_slice(&ids).view([-1, time as i64]).to_device(device);
    loop {
        let hidden = policy.trunk.hidden_cached(&input, &mut cache);
        let last = hidden.select(1, hidden.size()[1] - 1);
        let next = draw(&policy.logits(&last), &mut rows, config, sampling);
        let ended = |row: &Row| row.ended(config, sampling);
        let open: Vec<i64> =
            (0..rows.len()).filter(|b| !ended(&rows[*b])).map(|b| b as i64).collect();
        told((all - open.len()) as u64, &rows)?;
        if open.is_empty() {
            break;
        }
        input = Tensor::from_slice(&next).view([-1, 1]).to_device(device);
        if open.len() * 4 <= rows.len() * 3 {
            let keep = Tensor::from_slice(&open).to_device(device);
            cache.keep(&keep);
            input = input.index_select(0, &keep);
            let (stay, leave) = rows.into_iter().partition(|row| !ended(row));
            rows = stay;
            finish(leave, config, out);
        }
    }
    finish(rows, config, out);
    Ok(())
}

fn finish(rows: Vec<Row>, config: &ModelConfig, out: &mut [Option<Response>]) {
    for row in rows {
        let finished = row.finished(config);
        out[row.place] = Some(Response { tokens: row.tokens, finished });
    }
}

/// Draws the next token of every row that has not ended; the others get padding.
fn draw(
    logits: &Tensor,
    rows: &mut [Row],
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
