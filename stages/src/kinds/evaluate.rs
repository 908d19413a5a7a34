//! `evaluate`: several policies answer the same prompts; rules and a reward model judge.
//! Knows nothing of how the policies came about.
//!
//! Every policy answers with the same noise, so differences are paired prompt by prompt. Shares
//! come with Wilson intervals over answers, everything else with a bootstrap over prompts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evaluate_measures::{
    Answers, Figure, Judged, completion_losses, score, table_of, win_rate,
};
use super::train::{encode_prompts, same_tokenizer, within};
use crate::context::{Context, advise};
use crate::data::{Answer, Column, Example, Rule, RuleBook, Table, Vocabulary};
use crate::kind::{Stage, Summary, input, many, optional, output};
use crate::model::{Policy, Scorer};
use crate::sampling::{Sampler, generate};
use crate::stats::{Estimate, bootstrap, wilson};

/// The bucket that holds every prompt.
const ALL: &str = "all";

/// Params of `evaluate`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// What to count in the answers; their scores add up to the gold score.
    rules: Vec<Rule>,
    /// Column of the prompts that names their bucket.
    buckets: String,
    /// Further buckets, each made of several: name → buckets.
    groups: BTreeMap<String, Vec<String>>,
    /// The bucket or group whose figures are the headline; empty: all prompts.
    headline: String,
    /// Answers to each prompt.
    #[schemars(range(min = 1))]
    samples: u32,
    /// Longest answer, tokens.
    #[schemars(extend("x-unit" = "count"))]
    max_tokens: u32,
    /// Divides the logits; 0 takes the most likely token.
    temperature: f64,
    /// Draws of the bootstrap.
    #[schemars(extend("x-unit" = "count"))]
    bootstrap: u32,
    /// Name of the policy that all others are compared with; empty: each with the one before it.
    baseline: String,
    /// Prompts of each bucket whose answers are shown, chosen by place, not by quality.
    show: u32,
    /// Names the random streams: the draws.
    seed: u64,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            buckets: "bucket".into(),
            groups: BTreeMap::new(),
            headline: String::new(),
            samples: 4,
            max_tokens: 24,
            temperature: 1.0,
            bootstrap: 2000,
            baseline: String::new(),
            show: 5,
            seed: 0,
        }
    }
}

/// A number that is better when it is larger.
type Quality<'a> = &'a dyn Fn(&Judged) -> f64;

impl Stage for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "compare policies on the same prompts, with confidence intervals";

    fn inputs() -> Vec<InputDoc> {
        let prompts = &["dataset/prompt", "dataset/prompt_completion"];
        vec![
            many("policies", &["model/policy"], "the policies, the earliest first"),
            input("prompts", prompts, "what they answer; columns that rules name are read"),
            optional("reward", &["model/reward"], "scores the answers as well"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![
            output("evaluation", "dataset/evaluation", "parquet", "figures by policy and bucket"),
            output(
                "samples",
                "dataset/samples",
                "parquet",
                "answers to the same prompts side by side",
            ),
            output("metrics", "dataset/metrics", "parquet", "the headline figures"),
        ]
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        within("temperature", self.temperature, 0.0, 100.0)?;
        let mut rules = RuleBook::new(&self.rules)?;
        let prompts = cx.table("prompts")?;
        let buckets = self.buckets(&prompts)?;
        let answers = self.answers(cx, &prompts, &mut rules)?;
        let has_reward = !cx.inputs("reward").is_empty();
        let mut figures = Vec::new();
        for (bucket, rows) in &buckets {
            for policy in 0..answers.len() {
                self.measure(
                    &answers,
                    policy,
                    bucket,
                    rows,
                    &rules.names(),
                    has_reward,
                    &mut figures,
                );
            }
        }
        cx.write_table("evaluation", &table_of(&figures)?)?;
        let samples = self.shown(&prompts, &answers, &buckets)?;
        cx.write_table("samples", &samples)?;
        let summary = self.headline(&figures, &answers)?;
        let values: Vec<(&str, f64)> = summary.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        cx.metric(0, &values)?;
        cx.write_metrics()?;
        Ok(summary)
    }
}

impl Evaluate {
    /// Rows of each bucket: those of the column, the groups, and all.
    fn buckets(&self, prompts: &Table) -> Result<Vec<(String, Vec<usize>)>> {
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        if let Some(column) = prompts.column(&self.buckets) {
            for row in 0..prompts.rows() {
                by_name.entry(column.display(row).unwrap_or_default()).or_default().push(row);
            }
        }
        let mut out: Vec<(String, Vec<usize>)> = by_name.clone().into_iter().collect();
        for (group, members) in &self.groups {
            let mut rows = Vec::new();
            for member in members {
                match by_name.get(member) {
                    Some(found) => rows.extend(found),
                    None => {
                        let have: Vec<&str> = by_name.keys().map(String::as_str).collect();
                        let help = format!("the buckets are {}", have.join(", "));
                        let message =
                            format!("group `{group}` names the unknown bucket `{member}`");
                        return Err(advise(message, help));
                    }
                }
            }
            rows.sort_unstable();
            out.push((group.clone(), rows));
        }
        out.push((ALL.into(), (0..prompts.rows()).collect()));
        let headline = self.headline_bucket();
        if !out.iter().any(|(name, _)| name == headline) {
            bail!("headline `{headline}` is neither a bucket nor a group");
        }
        Ok(out)
    }

    fn headline_bucket(&self) -> &str {
        if self.headline.is_empty() { ALL } else { &self.headline }
    }

    /// Answers of all policies, judged. Only two policies are in memory at a time.
    fn answers(
        &self,
        cx: &mut Context,
        prompts: &Table,
        rules: &mut RuleBook,
    ) -> Result<Vec<Answers>> {
        let inputs: Vec<(String, PathBuf)> = cx
            .inputs("policies")
            .iter()
            .map(|i| (i.name.clone(), PathBuf::from(&i.paths[0])))
            .collect();
        let names: Vec<&str> = inputs.iter().map(|(n, _)| n.as_str()).collect();
        let fixed = match names.iter().position(|n| *n == self.baseline) {
            None if !self.baseline.is_empty() => {
                bail!(
                    "baseline `{}` is not one of the policies {}",
                    self.baseline,
                    names.join(", ")
                )
            }
            found => found,
        };
        let vocabulary = cx.vocabulary(&inputs[0].1)?;
        for (name, folder) in &inputs[1..] {
            same_tokenizer((names[0], &vocabulary), (name, &cx.vocabulary(folder)?))?;
        }
        let reward = self.reward(cx, &vocabulary)?;
        let mut out = Vec::new();
        for (i, (name, folder)) in inputs.iter().enumerate() {
            let baseline = fixed.or(i.checked_sub(1)).filter(|b| *b != i);
            let policy = Policy::open(folder)?;
            let other = baseline.map(|b| Policy::open(&inputs[b].1)).transpose()?;
            let judged = self.answer(
                cx,
                &vocabulary,
                prompts,
                &policy,
                other.as_ref(),
                reward.as_ref(),
                rules,
            )?;
            let completion_loss = completion_losses(&policy, &vocabulary, prompts)?;
            out.push(Answers { name: name.clone(), baseline, judged, completion_loss });
            cx.progress(i as u64 + 1, inputs.len() as u64, "policies")?;
        }
        Ok(out)
    }

    fn reward(&self, cx: &Context, vocabulary: &Vocabulary) -> Result<Option<Scorer>> {
        if cx.inputs("reward").is_empty() {
            return Ok(None);
        }
        let folder = cx.path("reward")?;
        same_tokenizer(("policies", vocabulary), ("reward", &cx.vocabulary(folder)?))?;
        Scorer::open(folder).map(Some)
    }

    /// The answers of one policy. The noise depends on the prompt's row and the sample alone.
    #[expect(clippy::too_many_arguments, reason = "one call; a struct would only rename them")]
    fn answer(
        &self,
        cx: &mut Context,
        vocabulary: &Vocabulary,
        prompts: &Table,
        policy: &Policy,
        baseline: Option<&Policy>,
        reward: Option<&Scorer>,
        rules: &mut RuleBook,
    ) -> Result<Vec<Judged>> {
        let texts = prompts.texts("prompt")?;
        let encoded = encode_prompts(cx, vocabulary, policy, &texts, self.max_tokens as usize)?;
        let samples = self.samples.max(1) as usize;
        let places: Vec<usize> = (0..texts.len()).flat_map(|p| vec![p; samples]).collect();
        let rows: Vec<Vec<i64>> = places.iter().map(|p| encoded[*p].clone()).collect();
        let keys: Vec<u64> = (0..rows.len() as u64).collect();
        let sampler = Sampler {
            temperature: self.temperature,
            top_k: 0,
            top_p: 1.0,
            max_tokens: self.max_tokens as usize,
            seed: self.seed,
            step: 0,
        };
        let responses = generate(policy, &rows, &keys, &sampler);
        let mut judged = Vec::with_capacity(rows.len());
        let mut examples = Vec::with_capacity(rows.len());
        for ((place, prompt), response) in places.into_iter().zip(rows).zip(responses) {
            let text = vocabulary.decode(&response.tokens)?.trim().to_owned();
            let answer = Answer { text: &text, finished: response.finished };
            let (holds, gold) = rules.judge(answer, prompts, place)?;
            judged.push(Judged {
                finished: response.finished,
                tokens: response.tokens.len(),
                holds,
                gold,
                reward: f64::NAN,
                kl: f64::NAN,
                text,
            });
            examples.push(Example { prompt, completion: response.tokens });
        }
        let temperature = if self.temperature > 0.0 { self.temperature } else { 1.0 };
        score(&mut judged, &examples, policy, baseline, reward, temperature);
        Ok(judged)
    }

    /// All figures of one policy on one bucket.
    #[expect(clippy::too_many_arguments, reason = "two callers' worth of context, all read-only")]
    fn measure(
        &self,
        answers: &[Answers],
        policy: usize,
        bucket: &str,
        rows: &[usize],
        rules: &[String],
        has_reward: bool,
        out: &mut Vec<Figure>,
    ) {
        let mine = &answers[policy];
        let theirs = mine.baseline.map(|b| &answers[b]);
        let samples = self.samples.max(1) as usize;
        let of = |a: &Answers, f: &dyn Fn(&Judged) -> f64| -> Vec<f64> {
            let one = |row: &usize| {
                a.judged[row * samples..(row + 1) * samples].iter().map(f).sum::<f64>()
            };
            rows.iter().map(|row| one(row) / samples as f64).collect()
        };
        let mut push = |name: String, estimate: Estimate| {
            out.push(Figure { policy: mine.name.clone(), bucket: bucket.into(), name, estimate });
        };
        let n = (rows.len() * samples) as u64;
        let interval = |per_prompt: &[f64]| bootstrap(per_prompt, self.bootstrap, self.seed);
        let share = |f: &dyn Fn(&Judged) -> f64| {
            wilson(of(mine, f).iter().sum::<f64>() * samples as f64, n)
        };
        let difference = |f: &dyn Fn(&Judged) -> f64| {
            theirs.map(|t| {
                let pairs: Vec<f64> =
                    of(mine, f).iter().zip(of(t, f)).map(|(a, b)| a - b).collect();
                interval(&pairs)
            })
        };
        for (i, rule) in rules.iter().enumerate() {
            let holds = move |j: &Judged| f64::from(u8::from(j.holds[i]));
            push(rule.clone(), share(&holds));
            if let Some(estimate) = difference(&holds) {
                push(format!("{rule}_gain"), estimate);
            }
        }
        let gold = |j: &Judged| j.gold;
        let reward = |j: &Judged| j.reward;
        let quality: &[(&str, Quality, bool)] =
            &[("gold", &gold, !rules.is_empty()), ("reward", &reward, has_reward)];
        for (name, value, _) in quality.iter().filter(|q| q.2) {
            push((*name).to_owned(), interval(&of(mine, value)));
            if let Some(estimate) = difference(value) {
                push(format!("{name}_gain"), estimate);
            }
        }
        if let Some((_, value, _)) = quality.iter().find(|q| q.2)
            && let Some(theirs) = theirs
        {
            push("win_rate".into(), win_rate(mine, theirs, rows, samples, value));
        }
        push("eos_rate".into(), share(&|j| f64::from(u8::from(j.finished))));
        push("length".into(), interval(&of(mine, &|j| j.tokens as f64)));
        if theirs.is_some() {
            push("kl".into(), interval(&of(mine, &|j| j.kl)));
        }
        let texts = rows.iter().flat_map(|r| &mine.judged[r * samples..(r + 1) * samples]);
        let distinct: BTreeSet<&str> = texts.map(|j| j.text.as_str()).collect();
        let value = distinct.len() as f64 / n.max(1) as f64;
        push("distinct".into(), Estimate { value, low: value, high: value, n });
        if !mine.completion_loss.is_empty() {
            let losses: Vec<f64> = rows.iter().map(|r| mine.completion_loss[*r]).collect();
            let e = interval(&losses);
            let exp =
                Estimate { value: e.value.exp(), low: e.low.exp(), high: e.high.exp(), n: e.n };
            push("perplexity".into(), exp);
        }
    }

    /// Answers to the same few prompts of each bucket, the first sample of each policy.
    fn shown(
        &self,
        prompts: &Table,
        answers: &[Answers],
        buckets: &[(String, Vec<usize>)],
    ) -> Result<Table> {
        let texts = prompts.texts("prompt")?;
        let samples = self.samples.max(1) as usize;
        let named = buckets.len() - self.groups.len() - 1;
        let shown = if named > 0 { &buckets[..named] } else { buckets };
        let mut rows: Vec<(&str, &str, &str, &Judged)> = Vec::new();
        for (bucket, members) in shown {
            let count = (self.show as usize).min(members.len());
            for i in 0..count {
                let row = members[i * members.len() / count];
                for policy in answers {
                    rows.push((&policy.name, bucket, texts[row], &policy.judged[row * samples]));
                }
            }
        }
        let score = |j: &Judged| if self.rules.is_empty() { j.reward } else { j.gold };
        Table::new(vec![
            ("step", Column::ints(rows.iter().map(|_| 0))),
            ("source", Column::text(rows.iter().map(|r| r.0))),
            ("bucket", Column::text(rows.iter().map(|r| r.1))),
            ("prompt", Column::text(rows.iter().map(|r| r.2))),
            ("response", Column::text(rows.iter().map(|r| r.3.text.as_str()))),
            ("score", Column::floats(rows.iter().map(|r| score(r.3)))),
        ])
    }

    /// `eval/NAME/POLICY` of the headline bucket, and `eval/NAME` of the last policy's comparison.
    fn headline(&self, figures: &[Figure], answers: &[Answers]) -> Result<Summary> {
        let bucket = self.headline_bucket();
        let last = answers.last().map_or("", |a| a.name.as_str());
        let mut summary = Summary::new();
        for figure in figures.iter().filter(|f| f.bucket == bucket) {
            let Figure { policy, name, estimate, .. } = figure;
            summary.insert(format!("eval/{name}/{policy}"), estimate.value);
            let compares = name == "win_rate" || name.ends_with("_gain");
            if policy == last && compares {
                summary.insert(format!("eval/{name}"), estimate.value);
                summary.insert(format!("eval/{name}_low"), estimate.low);
                summary.insert(format!("eval/{name}_high"), estimate.high);
            }
        }
        Ok(summary)
    }
}
