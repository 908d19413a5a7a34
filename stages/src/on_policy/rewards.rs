//! Where the score of a fresh response comes from: a reward model, rules, a command, or a weighted
//! sum of them. Knows nothing of what is done with the score.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use preflow::exec::inputs::tell;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::no_grad;

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Answer, Column, Content, Example, Examples, Room, Rule, RuleBook, Vocabulary};
use crate::model::{Packed, RewardModel, to_f64};
use crate::preflight::Preflight;
use crate::prompts::{Prompts, same_tokenizer};

/// Responses that a reward model scores at once.
const BATCH: usize = 64;

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
        }
    }
}

impl Rewards {
    /// Before anything runs: reports rules that cannot be used, and rewards without any source.
    pub fn check(&self, look: &mut Preflight) {
        look.rules("rewards.rules", &self.rules, "prompts");
        let connected = !look.inputs("reward").is_empty();
        look.tell("rewards", self.check_sources(connected));
    }

    fn check_sources(&self, connected: bool) -> Result<()> {
        if !connected && self.rules.is_empty() && self.command.is_empty() {
            let help = "connect a reward model, or give rewards.rules or rewards.command";
            return Err(error_with_help("nothing says what a response is worth", help));
        }
        Ok(())
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

    /// A hash of the weights that must not move; 0 without any.
    fn fingerprint(&self) -> u64 {
        0
    }
}

/// Every source of rewards that the params and ports name; the score is their weighted sum.
pub struct RewardSources<'a> {
    settings: &'a Rewards,
    vocabulary: &'a Vocabulary,
    model: Option<RewardModel>,
    /// The model's own tokenizer when it differs.
    other: Option<Vocabulary>,
    rules: RuleBook,
    /// Variables that tell where the files at port `files` lie.
    files: Vec<(String, String)>,
}

impl<'a> RewardSources<'a> {
    /// Opens the reward model, the rules and the files that params and ports name.
    ///
    /// # Errors
    /// When there is no source at all, a rule is wrong, or the tokenizers differ.
    pub fn open(
        cx: &mut Context,
        settings: &'a Rewards,
        vocabulary: &'a Vocabulary,
    ) -> Result<Self> {
        let rules = RuleBook::new(&settings.rules)?;
        let connected = !cx.inputs("reward").is_empty();
        settings.check_sources(connected)?;
        let (mut model, mut other) = (None, None);
        if connected {
            let folder = cx.path("reward")?.to_owned();
            let own = cx.vocabulary(&folder)?;
            if own.bytes() != vocabulary.bytes() {
                if !settings.retokenize {
                    same_tokenizer(("policy", vocabulary), ("reward", &own)).context(
                        "`rewards: { retokenize: true }` scores the text of responses instead",
                    )?;
                }
                other = Some(own);
            }
            model = Some(RewardModel::open(&folder)?.to(cx.device()));
        }
        let (mut files, mut warnings) = (Vec::new(), Vec::new());
        for input in cx.inputs("files") {
            let told =
                tell(&input.name, &input.paths, "\n", &settings.command, cx.scratch(), true)?;
            files.extend(told.variables);
            warnings.extend(told.warning);
        }
        for warning in warnings {
            cx.warn(warning)?;
        }
        Ok(Self { settings, vocabulary, model, other, rules, files })
    }

    /// The reward model when it shares the policy's tokenizer: a critic may start as its copy.
    pub fn model(&self) -> Option<&RewardModel> {
        self.model.as_ref().filter(|_| self.other.is_none())
    }

    /// Number of weights of the reward model.
    pub fn weights(&self) -> i64 {
        self.model.as_ref().map_or(0, |m| m.trunk.params.numel())
    }

    fn model_scores(
        &self,
        model: &RewardModel,
        prompts: &Prompts,
        responses: &[Candidate],
        texts: &[String],
    ) -> Result<Vec<f64>> {
        let Some(other) = &self.other else {
            let rows: Vec<&Example> = responses.iter().map(|r| r.example).collect();
            return Ok(score_rows(model, &rows));
        };
        let answers: Vec<Content> = texts.iter().cloned().map(Content::Text).collect();
        let both = responses.iter().zip(&answers);
        let triples = both.map(|(r, answer)| (&prompts.all[r.row], answer, r.finished));
        let context = model.trunk.config.context as usize;
        let examples = Examples::new(other, Room::new(context), triples)?;
        if examples.rows.len() != responses.len() {
            let help = "use a reward model with a longer context, or smaller max_tokens";
            let message = format!(
                "{} responses are empty or too long for the reward model's context of {context}",
                examples.left.skipped
            );
            return Err(error_with_help(message, help));
        }
        Ok(score_rows(model, &examples.rows.iter().collect::<Vec<_>>()))
    }

    fn command_scores(
        &self,
        prompts: &Prompts,
        responses: &[Candidate],
        texts: &[String],
    ) -> Result<Vec<f64>> {
        let mut input = Vec::new();
        for (response, text) in responses.iter().zip(texts) {
            let mut row = Map::new();
            for (name, column) in prompts.table.columns() {
                row.insert(name.clone(), value(column, response.row));
            }
            row.insert("response".into(), text.as_str().into());
            row.insert("finished".into(), response.finished.into());
            serde_json::to_writer(&mut input, &row)?;
            input.push(b'\n');
        }
        let command = &self.settings.command;
        let lines = converse(command, input, &self.files)
            .with_context(|| format!("rewards.command `{command}`"))?;
        if lines.len() != responses.len() {
            bail!(
                "rewards.command `{command}` wrote {} lines for {} responses",
                lines.len(),
                responses.len()
            );
        }
        let number = |(i, line): (usize, &String)| match line.trim().parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(x),
            _ => bail!("line {} of rewards.command is no number: {}", i + 1, line.escape_debug()),
        };
        lines.iter().enumerate().map(number).collect()
    }
}

impl Scorer for RewardSources<'_> {
    fn scores(&mut self, prompts: &Prompts, responses: &[Candidate]) -> Result<Vec<f64>> {
        let mut total = vec![0.0; responses.len()];
        let mut add = |scores: Vec<f64>, weight: f64| {
            for (sum, score) in total.iter_mut().zip(scores) {
                *sum += weight * score;
            }
        };
        let as_text =
            !self.rules.is_empty() || !self.settings.command.is_empty() || self.other.is_some();
        let texts: Vec<String> = if as_text {
            let text = |r: &Candidate| {
                Ok(self.vocabulary.decode(&r.example.completion)?.trim().to_owned())
            };
            responses.iter().map(text).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        if let Some(model) = &self.model {
            let scores = self.model_scores(model, prompts, responses, &texts)?;
            if scores.iter().any(|s| !s.is_finite()) {
                let help = "look at the metrics of the stage that trained it";
                return Err(error_with_help(
                    "the reward model gives a score that is no number",
                    help,
                ));
            }
            add(scores, self.settings.model);
        }
        if !self.rules.is_empty() {
            let mut scores = Vec::with_capacity(responses.len());
            for (response, text) in responses.iter().zip(&texts) {
                let answer = Answer { text, finished: response.finished };
                scores.push(self.rules.judge(answer, &prompts.table, response.row)?.1);
            }
            add(scores, self.settings.rules_weight);
        }
        if !self.settings.command.is_empty() {
            add(self.command_scores(prompts, responses, &texts)?, self.settings.command_weight);
        }
        Ok(total)
    }

    fn fingerprint(&self) -> u64 {
        self.model.as_ref().map_or(0, |m| m.trunk.params.fingerprint())
    }
}

fn score_rows(model: &RewardModel, rows: &[&Example]) -> Vec<f64> {
    let device = model.trunk.params.flat.device();
    let chunks = rows.chunks(BATCH);
    chunks
        .flat_map(|chunk| no_grad(|| to_f64(&model.rewards(&Packed::new(chunk, device)))))
        .collect()
}

fn value(column: &Column, row: usize) -> Value {
    let json = column.json(row);
    json.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Runs a shell command with `input` on its standard input. Returns the lines that it writes.
fn converse(command: &str, input: Vec<u8>, env: &[(String, String)]) -> Result<Vec<String>> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the shell does not start")?;
    let mut stdin = child.stdin.take().context("invariant: stdin is piped")?;
    // Beside reading: a command may answer before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let stdout = child.stdout.take().context("invariant: stdout is piped")?;
    let lines: Result<Vec<String>, _> = BufReader::new(stdout).lines().collect();
    let status = child.wait()?;
    let written = writer.join();
    if !status.success() {
        bail!("it ended with {status}; its messages are in the log of the stage");
    }
    if !matches!(written, Ok(Ok(()))) {
        bail!("it ended before it had read all responses");
    }
    Ok(lines?)
}

#[cfg(test)]
mod tests {
    use super::converse;

    #[test]
    fn a_command_that_fails_or_stops_early_is_an_error() {
        let input = b"a\nbb\n".to_vec();
        let lengths = converse(
            "awk '{ print length($0) + N }' N=$IN_n",
            input.clone(),
            &[("IN_n".into(), "1".into())],
        );
        assert_eq!(lengths.expect("two lines"), ["2", "3"]);
        let failed = format!("{:#}", converse("exit 3", input, &[]).expect_err("failed"));
        assert!(failed.contains("exit status: 3"), "{failed}");
        let early =
            format!("{:#}", converse("exec true", vec![b'x'; 1 << 20], &[]).expect_err("early"));
        assert!(early.contains("before it had read"), "{early}");
    }
}
