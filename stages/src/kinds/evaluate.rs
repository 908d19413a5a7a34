//! `evaluate`: several policies answer the same prompts; rules and a reward model judge.
//! Knows nothing of how the policies came about.
//!
//! Every policy answers with the same noise, so differences are paired prompt by prompt. Shares
//! come with Wilson intervals over answers, everything else with a bootstrap over prompts.

mod curves;
mod entrants;
mod evaluator;
mod measures;
mod people;
mod text;
mod told;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Rule, RuleBook, Table};
use crate::kind::{Stage, Summary, check_range, input, many, optional, output};
use crate::model::{Policy, RewardModel};
use crate::preflight::Preflight;
use crate::prompts::same_tokenizer;
use crate::sampling::SamplingConfig;
use crate::stats::best_of_kl;
use curves::{Curves, weights};
use entrants::Entrants;
use evaluator::{Distance, Evaluator, SamplingPlan};
use measures::{Answers, Figure, JudgeBy, Measures, alarms, completion_losses, table_of};
use people::{check_people, people_figures};
use text::Trained;

/// The bucket that holds every prompt.
const ALL: &str = "all";
/// The bucket of prompts that the policies were trained on.
const TRAIN: &str = "train";

/// Draws of one evaluation: each set of answers has noise of its own.
const MAIN: u64 = 0;
const BEST_OF: u64 = 1;
const SEEN: u64 = 2;

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
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    max_tokens: u32,
    /// Divides the logits; 0 takes the most likely token.
    #[schemars(range(min = 0.0, max = 100.0))]
    temperature: f64,
    /// Draws of the bootstrap.
    #[schemars(extend("x-unit" = "count"))]
    bootstrap: u32,
    /// Name of the policy that all others are compared with; empty: the reference, or each with the
    /// one before it where none is named.
    baseline: String,
    /// Name of the policy that KL is measured to, the origin of the curves over √KL; empty: the
    /// baseline, or the first policy where there is none.
    reference: String,
    /// What decides which answer wins: gold (the rules), reward (the reward model), or auto: gold
    /// where there are rules, else the reward.
    judge_by: JudgeBy,
    /// Policies whose answers people compared: policy → name of what is connected to `labels`,
    /// pairs whose first answer is the policy's (`sample_pairs` with `against`).
    people: BTreeMap<String, String>,
    /// What answers of the reference would be like if the reward model picked the best of some.
    best_of: BestOf,
    /// Prompts of `train` that are answered too, to be compared with unseen ones.
    train_prompts: u32,
    /// Prompts of each bucket whose answers are shown, chosen by place, not by quality.
    show: u32,
    /// Names the random streams: the draws.
    seed: u64,
}

/// Best-of-n sampling: the baseline that training has to beat.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BestOf {
    /// Answers drawn to each prompt; the curve holds every power of two up to it. 0: none.
    #[schemars(range(max = 1024))]
    n: u32,
    /// Name of the policy that draws them; empty: the reference.
    policy: String,
}

#[expect(clippy::derivable_impls, reason = "every params struct spells its defaults out")]
impl Default for BestOf {
    fn default() -> Self {
        Self { n: 0, policy: String::new() }
    }
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
            reference: String::new(),
            judge_by: JudgeBy::Auto,
            people: BTreeMap::new(),
            best_of: BestOf::default(),
            train_prompts: 256,
            show: 5,
            seed: 0,
        }
    }
}

/// Answers of all policies to the prompts, and to those of the training data where it is connected.
struct Gathered {
    main: Vec<Answers>,
    /// Best-of-n draws, without weights.
    draws: Option<Answers>,
    seen: Vec<Answers>,
}

impl Stage for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "compare policies on the same prompts, with confidence intervals";
    /// What is measured of each policy, besides its rules.
    const FIGURES: &'static [&'static str] = &[
        "gold",
        "reward",
        "win_rate",
        "win_rate_people",
        "eos_rate",
        "length",
        "length_p90",
        "reward_length_corr",
        "kl",
        "sqrt_kl",
        "distinct",
        "distinct_1",
        "distinct_2",
        "self_overlap",
        "copied",
        "copied_words",
        "perplexity",
        "best_of_*",
        "policy_fit/*",
    ];

    fn inputs() -> Vec<InputDoc> {
        let prompts = &["dataset/prompt", "dataset/prompt_completion"];
        vec![
            many("policies", &["model/policy"], "the policies, the earliest first"),
            input("prompts", prompts, "what they answer; columns that rules name are read"),
            optional("reward", &["model/reward"], "scores the answers as well"),
            optional(
                "train",
                &["dataset/prompt_completion"],
                "what they were trained on: is it learned or copied?",
            ),
            InputDoc {
                optional: true,
                ..many("labels", &["dataset/labels"], "comparisons of policies, see `people`")
            },
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

    fn check(&self, look: &mut Preflight) {
        look.room_to_answer("policies", self.max_tokens.into());
        look.rules("rules", &self.rules, "prompts");
        let policies = look.inputs("policies").iter().map(|i| (i.name.clone(), PathBuf::new()));
        look.tell("policies", self.entrants_of(policies.collect()));
        let names = |port| look.inputs(port).iter().map(|i| i.name.as_str()).collect::<Vec<_>>();
        let people = check_people(&self.people, &names("policies"), &names("labels"));
        look.tell("people", people);
        look.tell("judge_by", self.check_judge(!look.inputs("reward").is_empty()));
    }

    fn figures(&self, look: &Preflight) -> Vec<String> {
        self.announced(look)
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        check_range("temperature", self.temperature, 0.0, 100.0)?;
        let prompts = cx.table("prompts")?;
        let buckets = self.buckets(&prompts)?;
        let train = self.train(cx, &buckets)?;
        let entrants = self.entrants(cx)?;
        let mut evaluator = self.evaluator(cx, &entrants, train.as_ref().map(|(all, _)| all))?;
        let seen = train.as_ref().map(|(_, some)| some);
        let gathered = self.gather(cx, &entrants, &mut evaluator, &prompts, seen)?;
        let mut figures = self.figures(&entrants, &evaluator, &gathered, &buckets);
        figures.extend(people_figures(
            cx,
            &self.people,
            &entrants.policies,
            self.headline_bucket(),
        )?);
        let (_, headline) = self.headline_of(&buckets);
        // The reference and those before it are what training started from.
        for answers in &gathered.main[entrants.reference + 1..entrants.policies.len()] {
            for alarm in alarms(answers, headline, evaluator.reward.is_some()) {
                cx.warn(alarm)?;
            }
        }
        cx.write_table("evaluation", &table_of(&figures)?)?;
        let samples = self.shown(&prompts, &gathered.main, &buckets)?;
        cx.write_table("samples", &samples)?;
        let last = &entrants.policies[entrants.policies.len() - 1].0;
        let summary = self.headline(&figures, last);
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
                        return Err(error_with_help(message, help));
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

    fn headline_of<'a>(&self, buckets: &'a [(String, Vec<usize>)]) -> (&'a str, &'a [usize]) {
        let found = buckets.iter().find(|(name, _)| name == self.headline_bucket());
        found.map_or((ALL, &[]), |(name, rows)| (name, rows))
    }

    /// The completions of `train`, and some of its rows to be answered, evenly spaced among those
    /// with different prompts.
    fn train(
        &self,
        cx: &Context,
        buckets: &[(String, Vec<usize>)],
    ) -> Result<Option<(Table, Table)>> {
        if cx.inputs("train").is_empty() {
            return Ok(None);
        }
        if buckets.iter().any(|(name, _)| name == TRAIN) {
            let message = format!("the prompts have a bucket `{TRAIN}` of their own");
            return Err(error_with_help(
                message,
                "give it another name, or leave `train` unconnected",
            ));
        }
        let table = cx.table("train")?;
        table.contents("completion")?;
        let mut seen = std::collections::HashSet::new();
        let texts = table.keys("prompt")?;
        let rows: Vec<usize> =
            (0..texts.len()).filter(|i| seen.insert(texts[*i].as_str())).collect();
        let count = rows.len().min(self.train_prompts.max(1) as usize);
        let some: Vec<usize> = (0..count).map(|i| rows[i * rows.len() / count]).collect();
        let some = table.take(&some);
        Ok(Some((table, some)))
    }

    /// Checks that what decides who wins is there: rules or a reward model.
    fn check_judge(&self, has_reward: bool) -> Result<()> {
        if !has_reward && (self.best_of.n > 0 || self.judge_by == JudgeBy::Reward) {
            let message = "`best_of` and `judge_by: reward` need a reward model";
            return Err(error_with_help(message, "connect one to `reward`"));
        }
        if self.rules.is_empty() && self.judge_by == JudgeBy::Gold {
            return Err(error_with_help(
                "`judge_by: gold` needs rules",
                "add `rules`, or judge by reward",
            ));
        }
        Ok(())
    }

    fn evaluator(
        &self,
        cx: &Context,
        entrants: &Entrants,
        train: Option<&Table>,
    ) -> Result<Evaluator> {
        let (first, folder) = &entrants.policies[0];
        let vocabulary = cx.vocabulary(folder)?;
        for (name, folder) in &entrants.policies[1..] {
            same_tokenizer((first, &vocabulary), (name, &cx.vocabulary(folder)?))?;
        }
        let reward = if cx.inputs("reward").is_empty() {
            None
        } else {
            let folder = cx.path("reward")?;
            same_tokenizer(("policies", &vocabulary), ("reward", &cx.vocabulary(folder)?))?;
            Some(RewardModel::open(folder)?.to(cx.device()))
        };
        self.check_judge(reward.is_some())?;
        let trained = train.map(|t| -> Result<Trained> {
            let answers = t.transcripts("completion")?;
            Ok(Trained::new(&answers.iter().map(String::as_str).collect::<Vec<_>>()))
        });
        let trained = trained.transpose()?;
        let sampling = SamplingConfig {
            temperature: self.temperature,
            top_k: 0,
            top_p: 1.0,
            max_tokens: self.max_tokens as usize,
            seed: self.seed,
            step: MAIN,
        };
        let rules = RuleBook::new(&self.rules)?;
        Ok(Evaluator { sampling, vocabulary, reward, rules, trained, drawn: [0, 0] })
    }

    /// Answers of all policies, judged. Only two policies are in memory at a time.
    fn gather(
        &self,
        cx: &mut Context,
        entrants: &Entrants,
        evaluator: &mut Evaluator,
        prompts: &Table,
        seen: Option<&Table>,
    ) -> Result<Gathered> {
        let samples = self.samples.max(1) as usize;
        let rows = prompts.rows() + seen.map_or(0, Table::rows);
        let answers = entrants.policies.len() * rows * samples;
        let more = prompts.rows() * self.best_of.n as usize;
        evaluator.drawn = [0, (answers + more) as u64];
        let mut out = Gathered { main: Vec::new(), draws: None, seen: Vec::new() };
        let mut reference = Policy::open(&entrants.policies[entrants.reference].1)?.to(cx.device());
        reference.draw_only_known(&evaluator.vocabulary);
        for (i, (name, folder)) in entrants.policies.iter().enumerate() {
            let mut policy = Policy::open(folder)?.to(cx.device());
            // Of texts that are given, not drawn.
            let losses = completion_losses(&policy, &evaluator.vocabulary, prompts)?;
            let seen_losses = seen
                .map(|table| completion_losses(&policy, &evaluator.vocabulary, table))
                .transpose()?;
            policy.draw_only_known(&evaluator.vocabulary);
            let baseline = entrants.baseline.or(i.checked_sub(1)).filter(|b| *b != i);
            let answers = |judged, samples, completion_loss| Answers {
                name: name.clone(),
                baseline,
                samples,
                weights: Vec::new(),
                judged,
                completion_loss,
                kl_at_most: None,
            };
            let itself = i == entrants.reference;
            let distance = if itself { Distance::None } else { Distance::From(&reference) };
            let plan = SamplingPlan { prompts, samples, stream: MAIN, ruled: true };
            let judged = evaluator.answer(cx, &plan, &policy, distance)?;
            out.main.push(answers(judged, samples, losses));
            if let Some(table) = seen {
                let plan = SamplingPlan { prompts: table, samples, stream: SEEN, ruled: false };
                let judged = evaluator.answer(cx, &plan, &policy, distance)?;
                out.seen.push(answers(judged, samples, seen_losses.unwrap_or_default()));
            }
            if self.best_of.n > 0 && i == entrants.drawer {
                let samples = self.best_of.n as usize;
                let plan = SamplingPlan { prompts, samples, stream: BEST_OF, ruled: true };
                let judged = evaluator.answer(cx, &plan, &policy, Distance::Unknown)?;
                out.draws = Some(answers(judged, samples, Vec::new()));
            }
        }
        if let Some(draws) = &out.draws {
            let best = best_of(draws, entrants);
            out.main.push(best);
        }
        Ok(out)
    }

    /// Every figure of every bucket.
    fn figures(
        &self,
        entrants: &Entrants,
        evaluator: &Evaluator,
        gathered: &Gathered,
        buckets: &[(String, Vec<usize>)],
    ) -> Vec<Figure> {
        let mut figures = Vec::new();
        let rules = evaluator.rules.names();
        let measures = |answers, rules| Measures {
            answers,
            rules,
            has_reward: evaluator.reward.is_some(),
            has_trained: evaluator.trained.is_some(),
            judge_by: self.judge_by,
            bootstrap: self.bootstrap,
            seed: self.seed,
        };
        let curves = Curves {
            reference: &entrants.policies[entrants.reference].0,
            draws: gathered.draws.as_ref(),
            answers: &gathered.main[..entrants.policies.len()],
            place: entrants.reference,
            has_gold: !rules.is_empty(),
            has_reward: evaluator.reward.is_some(),
            bootstrap: self.bootstrap,
            seed: self.seed,
        };
        let main = measures(&gathered.main, &rules);
        for (bucket, rows) in buckets {
            for policy in 0..gathered.main.len() {
                main.measure(policy, bucket, rows, &mut figures);
            }
            curves.figures(bucket, rows, &mut figures);
        }
        let seen = measures(&gathered.seen, &[]);
        for policy in 0..gathered.seen.len() {
            let rows: Vec<usize> =
                (0..gathered.seen[policy].judged.len() / gathered.seen[policy].samples).collect();
            seen.measure(policy, TRAIN, &rows, &mut figures);
        }
        figures
    }
}

/// The best of all best-of-n draws, as the answers of one more policy.
fn best_of(draws: &Answers, entrants: &Entrants) -> Answers {
    Answers {
        name: format!("{}, best of {}", draws.name, draws.samples),
        baseline: Some(entrants.baseline.unwrap_or(entrants.drawer)),
        samples: draws.samples,
        weights: weights(draws, draws.samples),
        judged: draws.judged.clone(),
        completion_loss: Vec::new(),
        kl_at_most: Some(best_of_kl(draws.samples)),
    }
}
