//! What a response is worth: params, and the seam to what scores it.
//! Knows nothing of how models and programs are asked, or of what is done with the score.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::judge::ScoringJudge;
use crate::advice::error_with_help;
use crate::data::{Example, Rule};
use crate::preflight::Preflight;
use crate::prompts::Prompts;

/// What a response is worth.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewards {
    /// Weight of the reward model's score, when one is connected.
    #[schemars(range(min = -1e6, max = 1e6))]
    model: f64,
    /// Score by the text of a response when the reward model has another tokenizer, which is an
    /// error otherwise.
    retokenize: bool,
    /// Rules whose scores add up; usually `!include rules.yaml`.
    rules: Vec<Rule>,
    /// Weight of the rules' sum.
    #[schemars(range(min = -1e6, max = 1e6))]
    rules_weight: f64,
    /// A shell command that reads one JSON object a line (prompt, response, finished, and the
    /// prompt row's other columns) and writes one number a line. Files that it reads belong to port
    /// `files`, or their changes go unseen: `IN_<name>` holds the path of each, several one a line,
    /// and `IN_<name>_LIST` the path of a file with the same lines. Empty: not used.
    command: String,
    /// Weight of the command's number.
    #[schemars(range(min = -1e6, max = 1e6))]
    command_weight: f64,
    /// Rewards with a name and a curve each, in place of the fields above.
    #[schemars(extend("x-later" = true))]
    named: Vec<NamedReward>,
    /// How named rewards become one: sum; normalize_then_sum makes each comparable within a group
    /// first (GDPO), so that none rules by its scale alone, and wants kind `grpo`.
    #[schemars(extend("x-later" = true))]
    combine: Combine,
}

/// One reward: a name, a weight, and exactly one of model, rules, command and judge.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NamedReward {
    /// What its curves are called: `reward/NAME/mean` and `reward/NAME/std`.
    #[schemars(regex(pattern = r"^[a-z0-9_]+$"))]
    name: String,
    /// Weight of its score.
    #[schemars(range(min = -1e6, max = 1e6))]
    weight: f64,
    /// Whose score it is: true, that of the reward model at port `reward`; a name, that of the one
    /// at port `reward_models` that has this name.
    model: ModelRef,
    /// Rules whose scores add up; usually `!include rules.yaml`.
    rules: Vec<Rule>,
    /// A shell command, as `rewards.command`. Empty: not used.
    command: String,
    /// A language model that scores each answer.
    #[schemars(extend("x-later" = true))]
    judge: Option<ScoringJudge>,
}

/// Which reward model scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ModelRef {
    /// That of port `reward`, or none.
    Port(bool),
    /// The one of this name at port `reward_models`.
    Named(String),
}

impl Default for NamedReward {
    fn default() -> Self {
        let (name, command) = (String::new(), String::new());
        let (model, judge) = (ModelRef::Port(false), None);
        Self { name, weight: 1.0, model, rules: Vec::new(), command, judge }
    }
}

/// Reward models that a stage has.
#[derive(Debug, Clone)]
pub(super) struct Connected<'a> {
    /// One at port `reward`.
    pub(super) reward: bool,
    /// Names of those at port `reward_models`.
    pub(super) models: Vec<&'a str>,
}

/// How the scores of named rewards become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    // The weighted sum.
    #[default]
    Sum,
    // The weighted sum of advantages within a group, made comparable over the batch.
    NormalizeThenSum,
}

/// A source of scores.
#[derive(Debug, Clone, Copy)]
pub(super) enum RewardFrom<'a> {
    /// That of port `reward`.
    Model,
    /// One of port `reward_models`.
    ModelNamed(&'a str),
    Rules(&'a [Rule]),
    Command(&'a str),
    Judge(&'a ScoringJudge),
}

/// A source of scores with its weight; `name` where the pipeline gave it one.
#[derive(Debug, Clone, Copy)]
pub(super) struct RewardPart<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) weight: f64,
    pub(super) from: RewardFrom<'a>,
}

impl Default for Rewards {
    fn default() -> Self {
        Self {
            model: 1.0,
            retokenize: false,
            rules: Vec::new(),
            rules_weight: 1.0,
            command: String::new(),
            command_weight: 1.0,
            named: Vec::new(),
            combine: Combine::Sum,
        }
    }
}

impl Rewards {
    /// Before anything runs: reports rules that cannot be used, and rewards without any source.
    /// `groups`: the kind compares responses within groups.
    pub fn check(&self, look: &mut Preflight, groups: bool) {
        look.rules("rewards.rules", &self.rules, "prompts");
        for (i, named) in self.named.iter().enumerate() {
            look.rules(&format!("rewards.named.{i}.rules"), &named.rules, "prompts");
            if let Some(judge) = &named.judge {
                look.tell(&format!("rewards.named.{i}.judge.endpoint"), judge.check());
            }
        }
        let models = look.inputs("reward_models").iter().map(|input| input.name.as_str());
        let connected =
            Connected { reward: !look.inputs("reward").is_empty(), models: models.collect() };
        look.tell("rewards", self.check_sources(&connected));
        look.tell("rewards.combine", self.check_combine(groups));
    }

    /// How named rewards become one.
    pub fn combine(&self) -> Combine {
        self.combine
    }

    /// Checks that something says what a response is worth, and that nothing is said twice.
    ///
    /// # Errors
    /// Names the reward.
    pub(super) fn check_sources(&self, connected: &Connected) -> Result<()> {
        if self.named.is_empty() {
            if let Some(model) = connected.models.first() {
                let help =
                    format!("name it: rewards: {{ named: [ {{ name: …, model: {model} }} ] }}");
                let message = format!("no reward is that of `{model}` at port reward_models");
                return Err(error_with_help(message, help));
            }
            if !connected.reward && self.rules.is_empty() && self.command.is_empty() {
                let help = "connect a reward model, or give rewards.rules or rewards.command";
                return Err(error_with_help("nothing says what a response is worth", help));
            }
            return Ok(());
        }
        let weights = [self.model, self.rules_weight, self.command_weight];
        if !self.rules.is_empty() || !self.command.is_empty() || weights != [1.0; 3] {
            let help = "move them into rewards.named, with a name and a weight each";
            return Err(error_with_help(
                "rewards.named stands in place of model, rules, command and their weights",
                help,
            ));
        }
        for (i, reward) in self.named.iter().enumerate() {
            let name = &reward.name;
            if name.is_empty() {
                bail!("reward {} of rewards.named has no name", i + 1);
            }
            if self.named[..i].iter().any(|r| r.name == *name) {
                bail!("two rewards are named `{name}`");
            }
            let sources = usize::from(reward.model != ModelRef::Port(false))
                + usize::from(!reward.rules.is_empty())
                + usize::from(!reward.command.is_empty())
                + usize::from(reward.judge.is_some());
            if sources != 1 {
                bail!(
                    "reward `{name}` has {sources} sources; give exactly one of model, rules, \
                     command and judge"
                );
            }
            reward.check_model(connected)?;
        }
        let used = |which: &ModelRef| self.named.iter().any(|r| r.model == *which);
        if connected.reward && !used(&ModelRef::Port(true)) {
            let help = "name it, for example `{ name: helpful, model: true }`";
            return Err(error_with_help("no reward is that of the connected model", help));
        }
        for (i, model) in connected.models.iter().enumerate() {
            if connected.models[..i].contains(model) {
                let help = "give each a stage of its own";
                let message = format!("port reward_models has two models of the name `{model}`");
                return Err(error_with_help(message, help));
            }
            if !used(&ModelRef::Named((*model).to_owned())) {
                let help = format!("name it, for example {{ name: {model}, model: {model} }}");
                let message = format!("no reward is that of `{model}` at port reward_models");
                return Err(error_with_help(message, help));
            }
        }
        Ok(())
    }

    /// Checks that the kind can combine the rewards as asked.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_combine(&self, groups: bool) -> Result<()> {
        if self.combine == Combine::NormalizeThenSum && (!groups || self.named.is_empty()) {
            let help = "use combine: sum, or kind `grpo` with rewards.named";
            return Err(error_with_help(
                "normalize_then_sum compares named rewards within a group of responses",
                help,
            ));
        }
        Ok(())
    }

    /// The sources, in the order in which their scores are added up.
    pub(super) fn parts(&self, connected: bool) -> Vec<RewardPart<'_>> {
        if !self.named.is_empty() {
            let parts = self.named.iter().map(|r| RewardPart {
                name: Some(&r.name),
                weight: r.weight,
                from: match (&r.model, &r.judge, r.command.as_str()) {
                    (ModelRef::Port(true), ..) => RewardFrom::Model,
                    (ModelRef::Named(model), ..) => RewardFrom::ModelNamed(model),
                    (_, Some(judge), _) => RewardFrom::Judge(judge),
                    (_, None, "") => RewardFrom::Rules(&r.rules),
                    (_, None, command) => RewardFrom::Command(command),
                },
            });
            return parts.collect();
        }
        let part = |weight, from| RewardPart { name: None, weight, from };
        let mut parts = Vec::new();
        if connected {
            parts.push(part(self.model, RewardFrom::Model));
        }
        if !self.rules.is_empty() {
            parts.push(part(self.rules_weight, RewardFrom::Rules(&self.rules)));
        }
        if !self.command.is_empty() {
            parts.push(part(self.command_weight, RewardFrom::Command(&self.command)));
        }
        parts
    }

    /// Whether a reward model may have another tokenizer.
    pub(super) fn retokenize(&self) -> bool {
        self.retokenize
    }
}

impl NamedReward {
    /// Checks that the model it names is there.
    fn check_model(&self, connected: &Connected) -> Result<()> {
        let name = &self.name;
        let has_no_model =
            |help: String| Err(error_with_help(format!("reward `{name}` has no model"), help));
        match &self.model {
            ModelRef::Port(true) if !connected.reward => {
                has_no_model("connect a reward model at port `reward`".into())
            }
            ModelRef::Named(model) if !connected.models.contains(&model.as_str()) => {
                let there = match connected.models.as_slice() {
                    [] => "nothing is connected there".to_owned(),
                    models => format!("there are {}", models.join(", ")),
                };
                has_no_model(format!(
                    "connect `{model}` at port `reward_models`, as in reward_models: [{model}]; \
                     {there}"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// A response to be scored.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Row of its prompt.
    pub row: usize,
    pub example: &'a Example,
    pub finished: bool,
}

/// What says how good responses are: a reward model, rules, a command, or all of them.
pub trait Scorer {
    /// The score of each response, in order.
    ///
    /// # Errors
    /// When a source fails or its number is none.
    fn scores(&mut self, prompts: &Prompts, responses: &[Candidate]) -> Result<Vec<f64>>;

    /// As [`Scorer::scores`], with the scores of each reward that has a name.
    ///
    /// # Errors
    /// When a source fails or its number is none.
    fn scores_by_name(
        &mut self,
        prompts: &Prompts,
        responses: &[Candidate],
    ) -> Result<NamedScores> {
        Ok(NamedScores { total: self.scores(prompts, responses)?, parts: Vec::new() })
    }

    /// A hash of the weights that must not move; 0 without any.
    fn fingerprint(&self) -> u64 {
        0
    }
}

/// Scores of responses, one each, and those of each named reward that they are made of.
#[derive(Debug)]
pub struct NamedScores {
    pub total: Vec<f64>,
    pub parts: Vec<PartScores>,
}

/// Scores of responses by one named reward.
#[derive(Debug, Clone)]
pub struct PartScores {
    pub name: String,
    pub weight: f64,
    /// As the source gives them.
    pub raw: Vec<f64>,
    /// After the penalty for not ending, and clipped.
    pub counted: Vec<f64>,
}

impl PartScores {
    /// The scores of the responses at `chosen`, in that order.
    #[must_use]
    pub fn keep(&self, chosen: &[usize]) -> Self {
        let some = |list: &[f64]| chosen.iter().map(|i| list[*i]).collect();
        let (raw, counted) = (some(&self.raw), some(&self.counted));
        Self { name: self.name.clone(), weight: self.weight, raw, counted }
    }
}
