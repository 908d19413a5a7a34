//! Where the score of a fresh response comes from: reward models, rules, commands, judges, or a
//! weighted sum of them. Knows nothing of what is done with the score.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use preflow::exec::inputs::tell;
use serde_json::{Map, Value};
use tch::no_grad;

use super::judge::ScoringJudge;
use super::rewards::{Candidate, Connected, NamedScores, PartScores, RewardFrom, Rewards, Scorer};
use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Answer, Column, Content, Example, Examples, Room, RuleBook, Vocabulary};
use crate::endpoint::Chat;
use crate::model::{Packed, RewardModel, to_f64};
use crate::prompts::{Prompts, same_tokenizer};

/// Responses that a reward model scores at once.
const BATCH: usize = 64;

/// Every source of rewards that the params and ports name; the score is their weighted sum.
pub struct RewardSources<'a> {
    sources: Vec<Source<'a>>,
    vocabulary: &'a Vocabulary,
    models: Vec<Model>,
    /// The first of them is that of port `reward`.
    has_reward: bool,
    /// Variables that tell where the files at port `files` lie.
    files: Vec<(String, String)>,
}

/// A reward model, ready.
struct Model {
    model: RewardModel,
    /// Its own tokenizer when that differs from the policy's.
    other: Option<Vocabulary>,
}

/// A source of scores, ready.
struct Source<'a> {
    name: Option<&'a str>,
    weight: f64,
    from: From<'a>,
}

enum From<'a> {
    /// The model at this place of the list.
    Model(usize),
    Judge(&'a ScoringJudge, Box<Chat>),
    Rules(RuleBook),
    Command(&'a str),
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
        let folders: Vec<(String, String)> = ["reward", "reward_models"]
            .iter()
            .flat_map(|port| cx.inputs(port))
            .flat_map(|input| input.paths.iter().map(|path| (input.name.clone(), path.clone())))
            .collect();
        let has_reward = !cx.inputs("reward").is_empty();
        let first = usize::from(has_reward);
        let names = folders[first..].iter().map(|(name, _)| name.as_str());
        let connected = Connected { reward: has_reward, models: names.collect() };
        settings.check_sources(&connected)?;
        let mut sources = Vec::new();
        for part in settings.parts(has_reward) {
            let from = match part.from {
                RewardFrom::Model => From::Model(0),
                RewardFrom::ModelNamed(name) => {
                    let place = connected.models.iter().position(|model| *model == name);
                    From::Model(first + place.context("invariant: checked above")?)
                }
                RewardFrom::Judge(judge) => {
                    let chat = judge.open(cx.answers())?;
                    cx.warn_if(chat.warning())?;
                    From::Judge(judge, Box::new(chat))
                }
                RewardFrom::Rules(rules) => From::Rules(RuleBook::new(rules)?),
                RewardFrom::Command(command) => From::Command(command),
            };
            sources.push(Source { name: part.name, weight: part.weight, from });
        }
        let mut models = Vec::new();
        for (i, (name, folder)) in folders.iter().enumerate() {
            let folder = std::path::Path::new(folder);
            let own = cx.vocabulary(folder)?;
            let differs = own.bytes() != vocabulary.bytes();
            if differs && !settings.retokenize() {
                let name = if i < first { "reward" } else { name };
                same_tokenizer(("policy", vocabulary), (name, &own)).context(
                    "`rewards: { retokenize: true }` scores the text of responses instead",
                )?;
            }
            let model = RewardModel::open(folder)?.to(cx.device());
            models.push(Model { model, other: differs.then_some(own) });
        }
        let (mut files, mut warnings) = (Vec::new(), Vec::new());
        let command = |source: &Source<'a>| match source.from {
            From::Command(command) => Some(command),
            _ => None,
        };
        let commands = sources.iter().filter_map(command).collect::<Vec<_>>().join("\n");
        for input in cx.inputs("files") {
            let told = tell(&input.name, &input.paths, "\n", &commands, cx.scratch(), true)?;
            files.extend(told.variables);
            warnings.extend(told.warning);
        }
        for warning in warnings {
            cx.warn(warning)?;
        }
        Ok(Self { sources, vocabulary, models, has_reward, files })
    }

    /// The reward model at port `reward` when it shares the policy's tokenizer: a critic may start
    /// as its copy.
    pub fn model(&self) -> Option<&RewardModel> {
        let first = self.models.first().filter(|m| self.has_reward && m.other.is_none());
        first.map(|m| &m.model)
    }

    /// Number of weights of all reward models.
    pub fn weights(&self) -> i64 {
        self.models.iter().map(|m| m.model.trunk.params.numel()).sum()
    }

    /// What one source says of the responses.
    fn scores_of(
        &self,
        source: &mut From,
        prompts: &Prompts,
        responses: &[Candidate],
        texts: &[String],
    ) -> Result<Vec<f64>> {
        match source {
            From::Judge(judge, chat) => {
                let prompt = |r: &Candidate| prompts.all[r.row].content.transcript().into_owned();
                let both = responses.iter().zip(texts);
                let answers: Vec<_> = both.map(|(r, text)| (prompt(r), text.as_str())).collect();
                judge.scores(chat, &answers)
            }
            From::Model(place) => {
                let scores = self.model_scores(&self.models[*place], prompts, responses, texts)?;
                if scores.iter().any(|s| !s.is_finite()) {
                    let help = "look at the metrics of the stage that trained it";
                    return Err(error_with_help(
                        "the reward model gives a score that is no number",
                        help,
                    ));
                }
                Ok(scores)
            }
            From::Rules(rules) => {
                let mut scores = Vec::with_capacity(responses.len());
                for (response, text) in responses.iter().zip(texts) {
                    let answer = Answer { text, finished: response.finished };
                    scores.push(rules.judge(answer, &prompts.table, response.row)?.1);
                }
                Ok(scores)
            }
            From::Command(command) => self.command_scores(command, prompts, responses, texts),
        }
    }

    fn model_scores(
        &self,
        Model { model, other }: &Model,
        prompts: &Prompts,
        responses: &[Candidate],
        texts: &[String],
    ) -> Result<Vec<f64>> {
        let Some(other) = other else {
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
                examples.left.rows()
            );
            return Err(error_with_help(message, help));
        }
        Ok(score_rows(model, &examples.rows.iter().collect::<Vec<_>>()))
    }

    fn command_scores(
        &self,
        command: &str,
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
        Ok(self.scores_by_name(prompts, responses)?.total)
    }

    fn scores_by_name(
        &mut self,
        prompts: &Prompts,
        responses: &[Candidate],
    ) -> Result<NamedScores> {
        let mut scores = NamedScores { total: vec![0.0; responses.len()], parts: Vec::new() };
        let by_tokens = |source: &Source| match source.from {
            From::Model(place) => self.models[place].other.is_none(),
            _ => false,
        };
        let as_text = !self.sources.iter().all(by_tokens);
        let texts: Vec<String> = if as_text {
            let text = |r: &Candidate| {
                Ok(self.vocabulary.decode(&r.example.completion)?.trim().to_owned())
            };
            responses.iter().map(text).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        // Rules keep the expressions that they have made.
        let mut sources = std::mem::take(&mut self.sources);
        let done = sources.iter_mut().try_for_each(|source| {
            let raw = self.scores_of(&mut source.from, prompts, responses, &texts)?;
            for (sum, score) in scores.total.iter_mut().zip(&raw) {
                *sum += source.weight * score;
            }
            if let Some(name) = source.name {
                let (name, weight, counted) = (name.to_owned(), source.weight, raw.clone());
                scores.parts.push(PartScores { name, weight, raw, counted });
            }
            Ok(())
        });
        self.sources = sources;
        done.map(|()| scores)
    }

    fn fingerprint(&self) -> u64 {
        let all = self.models.iter().map(|m| m.model.trunk.params.fingerprint());
        all.fold(0, |sum, one| sum.rotate_left(1) ^ one)
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
