//! The wire to a worker that stays, `preflow-worker answer`: a question a line in, pieces of
//! answers out, for one model. Knows nothing of who asks, or over what.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Execution;

/// One line of the worker's stdin. The worker ends when its stdin does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// First line: the folder of the model that answers from here on.
    Open { protocol: u32, model: String, execution: Execution },
    /// Answers are wanted.
    Question(QuestionSpec),
    /// Nobody waits for the answers to this question any more.
    Forget { question: u64 },
}

/// What is asked, and how answers are drawn. All of it decides the answers, but for the id: equal
/// questions have equal answers, whatever else is asked beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionSpec {
    pub id: u64,
    pub prompts: Vec<PromptDoc>,
    /// Answers to each prompt: answer `i` is one to prompt `i / n`.
    pub n: u32,
    /// Longest answer, its end token included; 0: nothing is drawn. Absent: what the context has
    /// room for.
    pub max_tokens: Option<u32>,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Draw from the most likely tokens that together have this probability; 1: from all.
    pub top_p: f64,
    /// Names the random streams of the draws, as param `seed` of the kind `sample` does.
    pub seed: u64,
    /// An answer ends before the first of these texts.
    pub stop: Vec<String>,
    /// Each answer begins with its prompt.
    pub echo: bool,
    /// Tokens are told, each with its log-probability and those of so many likeliest ones.
    pub logprobs: Option<u32>,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptDoc {
    /// A conversation: a list of `role` and `content`, and arguments of the chat template.
    Conversation { messages: Value, arguments: Map<String, Value> },
    /// A text that goes on, without any template.
    Text(String),
    /// The same as tokens.
    Tokens(Vec<i64>),
}

/// One line of the worker's stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// First line: the model is open. `context`: most tokens of a prompt and its answer together.
    Ready { context: u64 },
    /// The question is understood. `prompt_tokens`: of all its prompts.
    Begun { question: u64, prompt_tokens: u64 },
    /// What comes next in an answer: text, and where they are asked for the tokens that it is of.
    Piece {
        question: u64,
        answer: u32,
        text: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tokens: Vec<TokenDoc>,
    },
    /// An answer is whole. `cut`: it has the most tokens that it may have; else it ended by itself
    /// or before a text that stops it. `tokens`: how many were drawn.
    Ended { question: u64, answer: u32, cut: bool, tokens: u64 },
    /// Nothing more comes for this question.
    Refused { question: u64, why: Refusal, message: String },
    /// Last line: the worker cannot go on. `chain`: causes, outermost first.
    Failed { message: String, chain: Vec<String>, help: Option<String> },
}

/// Whose fault it is that a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A prompt leaves no room for the answer in the model's context.
    TooLong,
    /// The question's, otherwise.
    Unfit,
    /// The worker's, or its machine's.
    Fault,
}

/// One token of an answer, or of the prompt that it begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenDoc {
    /// Its text on its own; as the vocabulary spells it where it is no whole text.
    pub text: String,
    /// Where it begins in the text of the answer, characters.
    pub at: u64,
    /// Absent: nothing stands before it that could predict it.
    pub logprob: Option<f64>,
    /// The likeliest tokens at its place, the first one first.
    pub likeliest: Vec<(String, f64)>,
}
