//! What `evaluate` computes of answers: scores, shares, win rates, losses, and the table of
//! figures. Knows nothing of buckets or of the order of things.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::text::{distinct_ngrams, self_overlap};
use crate::data::{Column, Example, Examples, Room, Table, Vocabulary};
use crate::model::{Packed, Policy, RewardModel};
use crate::stats::{Estimate, bootstrap, correlation, mean, quantile, wilson};

/// What decides which of two answers wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JudgeBy {
    Auto,
    Gold,
    Reward,
}

/// One answer with its measures; NaN stands for a number that is not measured.
#[derive(Clone)]
pub struct Judged {
    pub text: String,
    pub finished: bool,
    pub tokens: usize,
    pub holds: Vec<bool>,
    pub gold: f64,
    pub reward: f64,
    /// Nats from the reference: see [`token_kl`].
    pub kl: f64,
    /// 1 when it is a completion of the training data, else 0.
    pub copied: f64,
    /// Share of its words in the longest run that a training completion holds.
    pub shared: f64,
}

/// All answers of one policy, `samples` to a prompt, prompt after prompt.
pub struct Answers {
    pub name: String,
    pub baseline: Option<usize>,
    pub samples: usize,
    /// Weight of each answer among those to its prompt; empty: all the same.
    pub weights: Vec<f64>,
    pub judged: Vec<Judged>,
    /// Mean loss of given completions, by row of the prompts; empty when there are none.
    pub completion_loss: Vec<f64>,
    /// The KL is not measured, but known to be no more than this.
    pub kl_at_most: Option<f64>,
}

/// A row of the evaluation table.
pub struct Figure {
    pub policy: String,
    pub bucket: String,
    pub name: String,
    pub estimate: Estimate,
}

/// Reads a number off one answer.
type Value<'a> = &'a dyn Fn(&Judged) -> f64;

impl Answers {
    /// The answers to one prompt.
    pub fn to(&self, row: usize) -> &[Judged] {
        &self.judged[row * self.samples..(row + 1) * self.samples]
    }

    /// The answer that stands for all of them: the first, or the one that counts most.
    pub fn shown(&self, row: usize) -> &Judged {
        let heaviest = (0..self.samples)
            .max_by(|a, b| self.weight(row, *a).total_cmp(&self.weight(row, *b)).then(b.cmp(a)));
        &self.to(row)[heaviest.unwrap_or(0)]
    }

    fn weight(&self, row: usize, sample: usize) -> f64 {
        let given = self.weights.get(row * self.samples + sample);
        given.copied().unwrap_or(1.0 / self.samples as f64)
    }

    /// Mean over the answers to each prompt.
    pub fn means(&self, rows: &[usize], value: Value) -> Vec<f64> {
        let means = rows.iter().map(|row| {
            let answers = self.to(*row).iter().enumerate();
            answers
                .filter(|(i, _)| self.weight(*row, *i) > 0.0)
                .map(|(i, j)| self.weight(*row, i) * value(j))
                .sum()
        });
        means.collect()
    }
}

/// How the figures of one set of prompts are measured.
pub struct Measures<'a> {
    pub answers: &'a [Answers],
    /// Names of the rules that judged the answers.
    pub rules: &'a [String],
    pub has_reward: bool,
    /// There is training data to compare with.
    pub has_trained: bool,
    pub judge_by: JudgeBy,
    pub bootstrap: u32,
    pub seed: u64,
}

/// Adds the figures of one policy on one bucket to the table.
struct Page<'a> {
    of: &'a Measures<'a>,
    mine: &'a Answers,
    theirs: Option<&'a Answers>,
    bucket: &'a str,
    rows: &'a [usize],
    out: &'a mut Vec<Figure>,
}

impl Measures<'_> {
    /// All figures of one policy on one bucket.
    pub fn measure(&self, policy: usize, bucket: &str, rows: &[usize], out: &mut Vec<Figure>) {
        let mine = &self.answers[policy];
        let theirs = mine.baseline.map(|b| &self.answers[b]);
        let mut page = Page { of: self, mine, theirs, bucket, rows, out };
        for (i, rule) in self.rules.iter().enumerate() {
            page.share(rule, &|j| f64::from(u8::from(j.holds[i])), true);
        }
        page.qualities();
        page.share("eos_rate", &|j| f64::from(u8::from(j.finished)), false);
        page.lengths();
        page.distance();
        page.variety();
        if self.has_trained {
            page.share("copied", &|j| j.copied, false);
            page.mean("copied_words", &|j| j.shared, false);
        }
        page.perplexity();
    }
}

impl Page<'_> {
    fn push(&mut self, name: &str, estimate: Estimate) {
        let (policy, bucket) = (self.mine.name.clone(), self.bucket.to_owned());
        self.out.push(Figure { policy, bucket, name: name.to_owned(), estimate });
    }

    /// A figure without an interval.
    fn bare(&mut self, name: &str, value: f64, n: usize) {
        if value.is_finite() {
            self.push(name, bare(value, n));
        }
    }

    fn interval(&self, per_prompt: &[f64]) -> Estimate {
        bootstrap(per_prompt, self.of.bootstrap, self.of.seed)
    }

    /// Adds a share of the answers and, when `gains`, its difference to the baseline.
    fn share(&mut self, name: &str, value: Value, gains: bool) {
        let means = self.mine.means(self.rows, value);
        let samples = self.mine.samples;
        // Weighted answers are not so many observations.
        let estimate = if self.mine.weights.is_empty() {
            wilson(means.iter().sum::<f64>() * samples as f64, (means.len() * samples) as u64)
        } else {
            self.interval(&means)
        };
        self.push(name, estimate);
        if gains {
            self.gain(name, &means, value);
        }
    }

    /// Adds a mean over prompts and, when `gains`, its difference to the baseline.
    fn mean(&mut self, name: &str, value: Value, gains: bool) {
        let means = self.mine.means(self.rows, value);
        let estimate = self.interval(&means);
        self.push(name, estimate);
        if gains {
            self.gain(name, &means, value);
        }
    }

    fn gain(&mut self, name: &str, means: &[f64], value: Value) {
        let Some(theirs) = self.theirs else { return };
        let other = theirs.means(self.rows, value);
        let pairs: Vec<f64> = means.iter().zip(other).map(|(a, b)| a - b).collect();
        let estimate = self.interval(&pairs);
        self.push(&format!("{name}_gain"), estimate);
    }

    /// Adds gold, reward and the win rate.
    fn qualities(&mut self) {
        let (gold, reward): (Value, Value) = (&|j| j.gold, &|j| j.reward);
        let (has_gold, has_reward) = (!self.of.rules.is_empty(), self.of.has_reward);
        if has_gold {
            self.mean("gold", gold, true);
        }
        if has_reward {
            self.mean("reward", reward, true);
        }
        let by_gold = match self.of.judge_by {
            JudgeBy::Auto => has_gold,
            JudgeBy::Gold => true,
            JudgeBy::Reward => false,
        };
        if let Some(theirs) = self.theirs
            && (has_gold || has_reward)
        {
            let value = if by_gold { gold } else { reward };
            let estimate = self.win_rate(theirs, value);
            self.push("win_rate", estimate);
        }
    }

    /// Share of answers that beat the baseline's to the same prompt; ties count half. Answers of
    /// equal weight are paired by their noise, weighted ones with every answer of the baseline.
    fn win_rate(&self, theirs: &Answers, value: Value) -> Estimate {
        let beats = |a: &Judged, b: &Judged| {
            let gap = value(a) - value(b);
            if gap.abs() < 1e-9 { 0.5 } else { f64::from(u8::from(gap > 0.0)) }
        };
        let paired = self.mine.weights.is_empty() && theirs.weights.is_empty();
        if paired {
            let pairs = self.rows.iter().flat_map(|r| self.mine.to(*r).iter().zip(theirs.to(*r)));
            let wins = pairs.map(|(a, b)| beats(a, b)).sum();
            return wilson(wins, (self.rows.len() * self.mine.samples) as u64);
        }
        let mut per_prompt = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            let answers = self.mine.to(*row).iter().enumerate();
            let shares = answers.map(|(i, answer)| {
                let others = theirs.to(*row).iter().enumerate();
                let wins = others.map(|(j, other)| theirs.weight(*row, j) * beats(answer, other));
                self.mine.weight(*row, i) * wins.sum::<f64>()
            });
            per_prompt.push(shares.sum());
        }
        self.interval(&per_prompt)
    }

    fn lengths(&mut self) {
        self.mean("length", &|j| j.tokens as f64, false);
        if !self.mine.weights.is_empty() {
            return;
        }
        let answers: Vec<&Judged> = self.rows.iter().flat_map(|r| self.mine.to(*r)).collect();
        let lengths: Vec<f64> = answers.iter().map(|j| j.tokens as f64).collect();
        let mut sorted = lengths.clone();
        sorted.sort_by(f64::total_cmp);
        self.bare("length_p90", quantile(&sorted, 0.9), sorted.len());
        if self.of.has_reward {
            let rewards: Vec<f64> = answers.iter().map(|j| j.reward).collect();
            self.bare("reward_length_corr", correlation(&rewards, &lengths), lengths.len());
        }
    }

    /// Adds the KL to the reference, nats an answer, and its square root, the axis of curves of
    /// gain.
    fn distance(&mut self) {
        if let Some(most) = self.mine.kl_at_most {
            self.bare("kl_at_most", most, self.rows.len());
        }
        let means = self.mine.means(self.rows, &|j| j.kl);
        if means.iter().all(|kl| kl.is_finite()) && !means.is_empty() {
            let kl = self.interval(&means);
            self.push("kl", kl);
            let root = |x: f64| x.max(0.0).sqrt();
            let root =
                Estimate { value: root(kl.value), low: root(kl.low), high: root(kl.high), n: kl.n };
            self.push("sqrt_kl", root);
        }
    }

    /// Adds how varied the answers are; not of weighted answers, which are no draws.
    fn variety(&mut self) {
        if !self.mine.weights.is_empty() {
            return;
        }
        let texts: Vec<&str> =
            self.rows.iter().flat_map(|r| self.mine.to(*r)).map(|j| j.text.as_str()).collect();
        let unique: std::collections::BTreeSet<&str> = texts.iter().copied().collect();
        let n = texts.len();
        self.bare("distinct", unique.len() as f64 / n.max(1) as f64, n);
        self.bare("distinct_1", distinct_ngrams(&texts, 1), n);
        self.bare("distinct_2", distinct_ngrams(&texts, 2), n);
        if self.mine.samples > 1 {
            let overlaps = self.rows.iter().map(|row| {
                let answers = self.mine.to(*row).iter().map(|j| j.text.as_str());
                self_overlap(&answers.collect::<Vec<_>>())
            });
            let estimate = self.interval(&overlaps.collect::<Vec<f64>>());
            self.push("self_overlap", estimate);
        }
    }

    /// Adds the perplexity of the given completions.
    fn perplexity(&mut self) {
        if self.mine.completion_loss.is_empty() {
            return;
        }
        let losses = self.rows.iter().map(|r| self.mine.completion_loss[*r]);
        let losses: Vec<f64> = losses.filter(|loss| loss.is_finite()).collect();
        if losses.is_empty() {
            return;
        }
        let e = self.interval(&losses);
        let (value, low, high) = (e.value.exp(), e.low.exp(), e.high.exp());
        self.push("perplexity", Estimate { value, low, high, n: e.n });
    }
}

/// A value without an interval.
pub fn bare(value: f64, n: usize) -> Estimate {
    Estimate { value, low: f64::NAN, high: f64::NAN, n: n as u64 }
}

/// Fills in rewards and the KL to the reference, batch by batch.
pub fn score(
    judged: &mut [Judged],
    examples: &[Example],
    policy: &Policy,
    reference: Option<&Policy>,
    reward: Option<&RewardModel>,
    temperature: f64,
) {
    no_grad(|| {
        // Two whole distributions a token are in memory at once.
        let rows = (2_000_000 / policy.trunk.config.vocab.max(1)).clamp(4, 64) as usize;
        for (judged, examples) in judged.chunks_mut(rows).zip(examples.chunks(rows)) {
            let packed = Packed::new(
                &examples.iter().collect::<Vec<_>>(),
                policy.trunk.params.flat.device(),
            );
            if let Some(reward) = reward {
                let rewards = reward.rewards(&packed);
                for (b, j) in judged.iter_mut().enumerate() {
                    j.reward = rewards.double_value(&[b as i64]);
                }
            }
            if let Some(reference) = reference {
                let kl = token_kl(policy, reference, &packed, temperature);
                for (j, span) in judged.iter_mut().zip(packed.offsets.windows(2)) {
                    let (start, n) = (span[0] as i64, (span[1] - span[0]) as i64);
                    j.kl = kl.narrow(0, start, n).sum(Kind::Double).double_value(&[]);
                }
            }
        }
    });
}

/// KL(policy ‖ reference) of the next token at every place of the answers, nats, `[n]`.
///
/// Its sum over an answer that the policy drew has the KL of the answers as its mean, like the sum
/// of k1 = ln π − ln ρ, but is never negative and far less noisy: the token that happened to be
/// drawn is averaged out (Rao and Blackwell).
pub fn token_kl(policy: &Policy, reference: &Policy, batch: &Packed, temperature: f64) -> Tensor {
    let log_softmax = |p: &Policy| (batch.logits(p) / temperature).log_softmax(-1, Kind::Float);
    let (own, other) = (log_softmax(policy), log_softmax(reference));
    (own.exp() * (own - other)).sum_dim_intlist([-1].as_slice(), false, Kind::Float)
}

/// Mean loss of each row's given completion; empty when the prompts have none.
pub fn completion_losses(
    policy: &Policy,
    vocabulary: &Vocabulary,
    prompts: &Table,
) -> Result<Vec<f64>> {
    if prompts.column("completion").is_none() {
        return Ok(Vec::new());
    }
    let (texts, completions) = (prompts.prompts()?, prompts.contents("completion")?);
    let rows = texts.iter().zip(&completions).map(|(p, c)| (p, c, true));
    let examples =
        Examples::new(vocabulary, Room::new(policy.trunk.config.context as usize), rows)?;
    // A row that does not fit the context has none.
    let mut losses = vec![f64::NAN; texts.len()];
    let device = policy.trunk.params.flat.device();
    for (rows, sources) in examples.rows.chunks(64).zip(examples.sources.chunks(64)) {
        let packed = Packed::new(&rows.iter().collect::<Vec<_>>(), device);
        let log_probs = no_grad(|| policy.predict(&packed, 1.0, false).log_probs);
        for (source, span) in sources.iter().zip(packed.offsets.windows(2)) {
            let (start, n) = (span[0] as i64, (span[1] - span[0]) as i64);
            let sum = log_probs.narrow(0, start, n).sum(Kind::Double).double_value(&[]);
            losses[*source] = -sum / n as f64;
        }
    }
    Ok(losses)
}

/// What is wrong with the answers of a policy, in words: signs of a policy that has collapsed or
/// pleases the reward model by length alone.
pub fn alarms(answers: &Answers, rows: &[usize], has_reward: bool) -> Vec<String> {
    let all: Vec<&Judged> = rows.iter().flat_map(|r| answers.to(*r)).collect();
    let mut found = Vec::new();
    let mut alarm = |text: String| found.push(format!("`{}`: {text}", answers.name));
    let ended = mean(&all.iter().map(|j| f64::from(u8::from(j.finished))).collect::<Vec<_>>());
    if ended < 0.5 {
        alarm(format!("only {:.0} % of the answers end by themselves", ended * 100.0));
    }
    let texts: std::collections::BTreeSet<&str> = all.iter().map(|j| j.text.as_str()).collect();
    if (texts.len() as f64) < 0.2 * rows.len() as f64 {
        alarm(format!("{} different answers to {} prompts", texts.len(), rows.len()));
    }
    if has_reward {
        let rewards: Vec<f64> = all.iter().map(|j| j.reward).collect();
        let lengths: Vec<f64> = all.iter().map(|j| j.tokens as f64).collect();
        let c = correlation(&rewards, &lengths);
        if c.abs() > 0.6 {
            alarm(format!("reward and length correlate by {c:.2}: the reward may be length"));
        }
    }
    found
}

pub fn table_of(figures: &[Figure]) -> Result<Table> {
    Table::new(vec![
        ("policy", Column::text(figures.iter().map(|f| f.policy.as_str()))),
        ("bucket", Column::text(figures.iter().map(|f| f.bucket.as_str()))),
        ("name", Column::text(figures.iter().map(|f| f.name.as_str()))),
        ("value", Column::floats(figures.iter().map(|f| f.estimate.value))),
        ("low", Column::floats(figures.iter().map(|f| f.estimate.low))),
        ("high", Column::floats(figures.iter().map(|f| f.estimate.high))),
        ("n", Column::ints(figures.iter().map(|f| f.estimate.n as i64))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelConfig, Trunk};
    use crate::sampling::{SamplingConfig, generate};

    #[test]
    fn the_kl_of_answers_is_the_mean_of_k1_with_less_noise() {
        tch::set_num_threads(1);
        let policy = |seed: u64| {
            let config = ModelConfig {
                vocab: 16,
                hidden: 8,
                layers: 1,
                heads: 2,
                kv_heads: 2,
                intermediate: 16,
                head_dim: 4,
                context: 16,
                ..ModelConfig::default()
            };
            let policy = Policy { trunk: Trunk::init(config, false, seed) };
            let n = policy.trunk.params.decaying();
            let _ = no_grad(|| policy.trunk.params.flat.narrow(0, 0, n).g_mul_scalar_(12.0));
            policy
        };
        let (own, other) = (policy(1), policy(2));
        let prompts = vec![vec![1, 3, 7, 4]; 200];
        let keys: Vec<u64> = (0..200).collect();
        let sampling = SamplingConfig {
            temperature: 0.8,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 6,
            seed: 1,
            step: 0,
        };
        let rows: Vec<Example> = generate(&own, &prompts, &keys, &sampling)
            .into_iter()
            .map(|r| Example { prompt: prompts[0].clone(), completion: r.tokens })
            .collect();
        let (mut exact, mut k1) = (Vec::new(), Vec::new());
        for row in &rows {
            let packed = Packed::new(&[row], tch::Device::Cpu);
            no_grad(|| {
                let sum = |x: Tensor| x.sum(Kind::Double).double_value(&[]);
                exact.push(sum(token_kl(&own, &other, &packed, 0.8)));
                let log_probs = |p: &Policy| p.predict(&packed, 0.8, false).log_probs;
                k1.push(sum(log_probs(&own) - log_probs(&other)));
                assert_eq!(sum(token_kl(&own, &own, &packed, 0.8)), 0.0);
            });
        }
        let error = crate::stats::std(&k1) / (k1.len() as f64).sqrt();
        assert!((mean(&exact) - mean(&k1)).abs() < 4.0 * error, "{} {}", mean(&exact), mean(&k1));
        assert!(crate::stats::std(&exact) < crate::stats::std(&k1));
        assert!(exact.iter().all(|kl| *kl >= 0.0) && mean(&exact) > 0.1);
    }
}
