//! Params of a language model that judges, and how an answer of it is asked for until it can be
//! read. Knows nothing of what is judged.

use std::marker::PhantomData;
use std::path::PathBuf;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Chat, ChatMessage, Endpoint, checked};

/// How often an answer that cannot be read is asked for again.
const REMINDERS: usize = 2;

/// What one use of a judge has of its own.
pub trait Judging {
    /// The param that holds the judge, for messages.
    const FIELD: &str;
    /// What it is asked where the pipeline does not say.
    const QUESTION: &str;
    /// What it is told when its answer cannot be read.
    const REMINDER: &str;
}

/// A language model as judge. No opinion of it is a person's.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "J: Judging")]
#[schemars(bound = "J: Judging", rename = "Judge")]
pub struct JudgeParams<J: Judging> {
    /// Base of an OpenAI-compatible API, for example `https://api.openai.com/v1`.
    pub endpoint: String,
    /// Name of the model there.
    pub model: String,
    /// What the judge is asked.
    #[serde(default = "JudgeParams::<J>::default_question")]
    question: String,
    /// What makes an answer good, in your words; added to the question.
    #[serde(default)]
    rubric: String,
    /// Temperature of its answers.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 2.0))]
    temperature: f64,
    /// Longest answer, in tokens; models that think first need more.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    max_tokens: u32,
    /// Questions asked at a time.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: u32,
    /// Time after which a request is given up.
    #[serde(default = "timeout")]
    #[schemars(range(min = 0.001, max = 86400.0), extend("x-unit" = "seconds"))]
    pub timeout: f64,
    /// Further tries of a request after a timeout, 429 or 5xx, with growing waits between them.
    #[serde(default = "retries")]
    #[schemars(range(max = 20))]
    retries: u32,
    /// Environment variable that holds the key, passed on by `run: { env: [NAME] }`; empty: the
    /// server asks for none.
    #[serde(default = "key_env")]
    key_env: String,
    #[serde(skip)]
    judging: PhantomData<J>,
}

fn max_tokens() -> u32 {
    512
}

fn concurrency() -> u32 {
    4
}

fn timeout() -> f64 {
    60.0
}

fn retries() -> u32 {
    5
}

fn key_env() -> String {
    "OPENAI_API_KEY".to_owned()
}

impl<J: Judging> JudgeParams<J> {
    fn default_question() -> String {
        J::QUESTION.to_owned()
    }

    /// Refuses an address that cannot be one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<()> {
        checked(&self.endpoint, J::FIELD).map(|_| ())
    }

    /// The way to the judge; `answers` is the folder in which its answers are kept.
    ///
    /// # Errors
    /// When the address cannot be one, or the key is not in the environment.
    pub fn open(&self, answers: PathBuf) -> Result<Chat> {
        let endpoint = Endpoint {
            field: J::FIELD,
            url: &self.endpoint,
            key_env: &self.key_env,
            model: &self.model,
            temperature: self.temperature,
            max_tokens: self.max_tokens,
            timeout: self.timeout,
            retries: self.retries,
        };
        Chat::new(&endpoint, answers)
    }

    /// What the judge is asked, followed by what makes an answer good.
    pub fn question(&self) -> String {
        match self.rubric.trim() {
            "" => self.question.clone(),
            rubric => format!("{}\n\n{rubric}", self.question),
        }
    }

    /// What the judge answers to `task`, as `read` reads it; reminded of the form where it cannot
    /// be read. `None`: not even then.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached after all retries.
    pub fn ask<T>(
        &self,
        chat: &Chat,
        task: String,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let mut messages = vec![ChatMessage { role: "user", content: task }];
        for _ in 0..=REMINDERS {
            let reply = chat.ask(&messages, |reply| read(reply).is_some())?;
            if let Some(said) = read(&reply) {
                return Ok(Some(said));
            }
            messages.push(ChatMessage { role: "assistant", content: reply });
            messages.push(ChatMessage { role: "user", content: J::REMINDER.to_owned() });
        }
        Ok(None)
    }
}

/// What stands in the last line that is not blank, behind a word such as `Verdict:`.
pub fn last_words(reply: &str) -> Option<&str> {
    let last = reply.lines().rev().find(|l| l.chars().any(char::is_alphanumeric))?;
    Some(last.rsplit(':').next().unwrap_or(last))
}
