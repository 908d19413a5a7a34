//! `reinforce`: the policy gradient in its simplest form (Williams 1992), from scores or from ±1
//! verdicts. No critic. Knows nothing of how the reward came about.
//!
//! One update: reward = score − β·KL of the whole response, less a baseline; each response's
//! log-probability goes up or down by it. Verdicts on responses that were drawn earlier (labels, or
//! a column `verdict` or `label`) need no reward model: their ratio to the starting policy is
//! clipped.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Example, Room, Vocabulary};
use crate::kind::{Stage, Summary, check_range, optional};
use crate::model::Policy;
use crate::on_policy::{
    self, Candidate, Environment, OnPolicy, PolicyTrainer, Rollout, Scorer, StepLoss, Terms,
    check_memory, improve, open_policy,
};
use crate::preflight::Preflight;
use crate::prompts::Prompts;
use crate::rl::rloo_advantages;
use crate::sampling::Response;
use crate::stats::mean;
use crate::training::{check_verdicts, verdicts};

/// Params of `reinforce`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Reinforce {
    #[serde(flatten)]
    pub on_policy: OnPolicy,
    /// What is taken off the reward: ema (a moving mean of earlier rewards), batch (the mean of
    /// this update), leave_one_out (the mean of the others to the same prompt) or none.
    baseline: Baseline,
    /// Share of the moving mean that stays when an update's mean is added.
    #[schemars(range(min = 0.0, max = 1.0))]
    baseline_decay: f64,
    /// Responses to each prompt; `batch` counts responses, so it is a multiple of this.
    #[schemars(range(min = 1))]
    group: u32,
    /// Count a score as +1 when it is above verdict_at and as −1 when it is not.
    as_verdicts: bool,
    /// Where a good score begins.
    #[schemars(range(min = -1e12, max = 1e12))]
    verdict_at: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Baseline {
    #[default]
    Ema,
    Batch,
    LeaveOneOut,
    None,
}

impl Default for Reinforce {
    fn default() -> Self {
        Self {
            on_policy: OnPolicy::default(),
            baseline: Baseline::Ema,
            baseline_decay: 0.9,
            group: 1,
            as_verdicts: false,
            verdict_at: 0.0,
        }
    }
}

/// Responses that somebody judged before, and the verdicts.
struct Given {
    prompts: Prompts,
    responses: Vec<Response>,
    verdicts: Vec<f64>,
}

impl Stage for Reinforce {
    const NAME: &'static str = "reinforce";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str =
        "improve a policy by the plain policy gradient, from scores or ±1";
    const FIGURES: &'static [&'static str] = on_policy::FIGURES;
    const LIVE: &'static [&'static str] = &["objective/scores", "objective/kl"];

    fn inputs() -> Vec<InputDoc> {
        let verdicts = &["dataset/labels", "dataset/prompt_completion"];
        let doc =
            "learn from these instead: chosen +1, rejected −1, or a column `verdict` or `label`";
        let mut ports = on_policy::inputs("scores responses");
        ports.iter_mut().filter(|p| p.name == "prompts").for_each(|p| p.optional = true);
        ports.push(optional("verdicts", verdicts, doc));
        ports
    }

    fn outputs() -> Vec<OutputDoc> {
        on_policy::outputs()
    }

    fn check(&self, look: &mut Preflight) {
        let fresh = look.inputs("verdicts").is_empty();
        look.tell("verdicts", self.check_ports(fresh, !look.inputs("prompts").is_empty()));
        look.tell("group", self.on_policy.check_group(self.group, 1));
        look.tell("baseline", self.check_baseline(fresh));
        look.rows_of("verdicts", check_verdicts);
        if fresh {
            self.on_policy.check_ahead(look, false);
        } else {
            look.tell("", self.on_policy.check());
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let fresh = cx.inputs("verdicts").is_empty();
        self.check_ports(fresh, !cx.inputs("prompts").is_empty())?;
        if fresh {
            self.on_policy.rewards.check_combine(false)?;
            return improve(cx, &self.on_policy, |cx, policy, environment| {
                self.optimize(cx, policy, environment, None)
            });
        }
        self.on_policy.check()?;
        let (policy, vocabulary) = open_policy(cx, &self.on_policy)?;
        let given = self.given(cx, &vocabulary, &policy)?;
        check_memory(cx, &self.on_policy, &policy, None, 0, &given.prompts)?;
        let mut scorer = Known { rows: by_tokens(&given), verdicts: given.verdicts };
        let (vocabulary, prompts) = (&vocabulary, &given.prompts);
        let environment = Environment { vocabulary, prompts, scorer: &mut scorer };
        self.optimize(cx, &policy, environment, Some(&given.responses))
    }
}

impl Reinforce {
    /// Checks that either prompts or verdicts are connected. `fresh`: no verdicts are, so that
    /// responses are drawn.
    fn check_ports(&self, fresh: bool, prompts: bool) -> Result<()> {
        if fresh && !prompts {
            let help = "connect prompts to draw responses to, or verdicts on earlier ones";
            return Err(error_with_help("there is nothing to learn from", help));
        }
        if !fresh && prompts {
            let help = "leave one of the two ports open";
            return Err(error_with_help("both prompts and verdicts are connected", help));
        }
        if !fresh && self.on_policy.eval_fraction > 0.0 {
            let help = "set eval_fraction: 0, and let a stage of kind evaluate look at the result";
            return Err(error_with_help(
                "verdicts say nothing about fresh responses to held-out prompts",
                help,
            ));
        }
        Ok(())
    }

    fn check_baseline(&self, fresh: bool) -> Result<()> {
        if self.baseline == Baseline::LeaveOneOut && (self.group < 2 || !fresh) {
            bail!("baseline leave_one_out needs group 2 or more, and fresh responses");
        }
        Ok(())
    }

    /// Trains the policy over all updates and writes the outputs. `given`: responses to learn from,
    /// by row of the prompts; without them it draws.
    ///
    /// # Errors
    /// When a figure is no number or a file cannot be written.
    pub fn optimize(
        &self,
        cx: &mut Context,
        policy: &Policy,
        environment: Environment,
        given: Option<&[Response]>,
    ) -> Result<Summary> {
        check_range("baseline_decay", self.baseline_decay, 0.0, 1.0)?;
        self.on_policy.check_group(self.group, 1)?;
        self.check_baseline(given.is_none())?;
        let mut trainer = PolicyTrainer::new(cx, &self.on_policy, policy, environment, Vec::new())?;
        while trainer.next_update()?.is_some() {
            let rollout = match given {
                None => trainer.rollout(self.group, 0)?,
                // They were drawn from the policy as it started, and judged as they are.
                Some(responses) => trainer.rollout_of(responses)?.drawn_by_reference(),
            };
            let advantages = self.advantages(&rollout, trainer.beta(), &mut trainer.state.baseline);
            let what = StepLoss { advantages: &advantages, terms: Terms::Responses, kl: None };
            let stats = trainer.epochs(&rollout, what)?;
            let baseline = [("reward/baseline", trainer.state.baseline.unwrap_or(0.0))];
            trainer.record(cx, &rollout, &stats, &baseline)?;
            trainer.adapt_beta(&rollout);
            trainer.checkpoint(cx)?;
        }
        trainer.finish(cx)
    }

    fn advantages(&self, rollout: &Rollout, beta: f64, moving: &mut Option<f64>) -> Vec<f64> {
        let scores = rollout.scores.iter().map(|score| match self.as_verdicts {
            true if *score > self.verdict_at => 1.0,
            true => -1.0,
            false => *score,
        });
        let rewards = rollout.less_kl(&scores.collect::<Vec<_>>(), beta);
        let all = mean(&rewards);
        let before = moving.unwrap_or(all);
        *moving = Some(self.baseline_decay * before + (1.0 - self.baseline_decay) * all);
        match self.baseline {
            Baseline::Ema => rewards.iter().map(|r| r - before).collect(),
            Baseline::Batch => rewards.iter().map(|r| r - all).collect(),
            Baseline::LeaveOneOut => {
                rewards.chunks(self.group as usize).flat_map(rloo_advantages).collect()
            }
            Baseline::None => rewards,
        }
    }

    /// The responses and verdicts of port `verdicts`.
    fn given(&self, cx: &mut Context, vocabulary: &Vocabulary, policy: &Policy) -> Result<Given> {
        let table = cx.table("verdicts")?;
        let context = policy.trunk.config.context as usize;
        // Room for the response itself, and for the fresh ones that are shown.
        let OnPolicy { max_tokens, too_long, .. } = self.on_policy;
        let room = Room { context, free: max_tokens as usize, too_long };
        let judged = verdicts(cx, vocabulary, room, &table)?;
        let rows: Vec<usize> = judged.iter().map(|j| j.row).collect();
        let verdicts = judged.iter().map(|j| if j.good { 1.0 } else { -1.0 }).collect();
        let examples: Vec<Example> = judged.into_iter().map(|j| j.example).collect();
        let tokens = examples.iter().map(|e| e.prompt.clone());
        let responses = examples.iter().map(|e| Response {
            finished: e.completion.last().is_some_and(|t| vocabulary.special().eos.contains(t)),
            tokens: e.completion.clone(),
        });
        let table = table.take(&rows);
        let prompts = Prompts { tokens: tokens.collect(), all: table.prompts()?, table };
        Ok(Given { responses: responses.collect(), prompts, verdicts })
    }
}

/// Scores the responses of a list by their verdicts; any other response is NaN.
struct Known {
    rows: BTreeMap<(usize, Vec<i64>), usize>,
    verdicts: Vec<f64>,
}

impl Scorer for Known {
    fn scores(&mut self, _: &Prompts, responses: &[Candidate]) -> Result<Vec<f64>> {
        let known = responses.iter().map(|r| {
            let place = self.rows.get(&(r.row, r.example.completion.clone()));
            place.map_or(f64::NAN, |i| self.verdicts[*i])
        });
        Ok(known.collect())
    }
}

fn by_tokens(given: &Given) -> BTreeMap<(usize, Vec<i64>), usize> {
    given.responses.iter().enumerate().map(|(i, r)| ((i, r.tokens.clone()), i)).collect()
}
