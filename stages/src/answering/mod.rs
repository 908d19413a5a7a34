//! A model that stays: it takes questions and answers them in turns, a token of each at a time, so
//! that a short one never waits for a long one. Answers to one question are drawn together, those
//! to different ones never: equal questions have equal answers, to the bit.
//! Knows nothing of where questions come from.

mod likely;
mod reading;
mod text;
mod writing;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::Path;

use anyhow::Result;
use preflow::protocol::questions::{QuestionSpec, Refusal, TokenDoc, Told};
use tch::{Device, no_grad};

use crate::data::Vocabulary;
use crate::model::Policy;
use writing::Writing;

/// Questions that are answered at a time, since each holds keys and values; others wait their turn.
const AT_ONCE: usize = 16;

/// Hears what is told.
pub type Tell<'t> = &'t mut dyn FnMut(Told);

/// A model, and what it is asked.
pub struct AnsweringModel {
    model: Model,
    /// The next one to have a turn first.
    answered: VecDeque<Writing>,
    waiting: VecDeque<Writing>,
    /// Whose turn it is.
    turn: Option<u64>,
}

/// What answers are made with.
struct Model {
    policy: Policy,
    vocabulary: Vocabulary,
    /// Texts of tokens that were needed before.
    alone: RefCell<HashMap<i64, String>>,
}

impl AnsweringModel {
    /// Opens a `model/policy` folder.
    ///
    /// # Errors
    /// When a file is missing or its parts do not fit each other.
    pub fn open(folder: &Path, device: Device) -> Result<Self> {
        let mut policy = Policy::open(folder)?.to(device);
        let vocabulary = Vocabulary::open(&folder.join("tokenizer.json"))?;
        policy.draw_only_known(&vocabulary);
        // The weights as they are needed for drawing, made once.
        let policy = Policy { trunk: policy.trunk.for_inference() };
        let model = Model { policy, vocabulary, alone: RefCell::default() };
        Ok(Self { model, answered: VecDeque::new(), waiting: VecDeque::new(), turn: None })
    }

    /// Most tokens of a prompt and its answer.
    pub fn context(&self) -> u64 {
        self.model.context() as u64
    }

    /// Takes a question, and tells whether it is understood.
    pub fn take(&mut self, question: QuestionSpec, tell: Tell) {
        let id = question.id;
        self.turn = Some(id);
        match Writing::begin(&self.model, question) {
            Ok(writing) => {
                tell(Told::Begun { question: id, prompt_tokens: writing.prompt_tokens() });
                self.waiting.push_back(writing);
            }
            Err(Unfit { why, message }) => tell(refused(id, why, message)),
        }
        self.turn = None;
    }

    /// Nobody waits for the answers to this question any more.
    pub fn forget(&mut self, id: u64) {
        self.answered.retain(|writing| writing.question.id != id);
        self.waiting.retain(|writing| writing.question.id != id);
    }

    /// Whether nothing is asked.
    pub fn is_idle(&self) -> bool {
        self.answered.is_empty() && self.waiting.is_empty()
    }

    /// One step of the question whose turn it is.
    pub fn step(&mut self, tell: Tell) {
        let free = AT_ONCE.saturating_sub(self.answered.len()).min(self.waiting.len());
        self.answered.extend(self.waiting.drain(..free));
        let Some(mut writing) = self.answered.pop_front() else { return };
        let id = writing.question.id;
        self.turn = Some(id);
        match no_grad(|| writing.step(&self.model, tell)) {
            Ok(true) => {}
            Ok(false) => self.answered.push_back(writing),
            Err(error) => tell(refused(id, Refusal::Fault, format!("{error:#}"))),
        }
        self.turn = None;
    }

    /// The question whose turn ended in a panic: it is forgotten.
    pub fn fallen(&mut self) -> Option<u64> {
        self.turn.take()
    }
}

/// Why a question has no answer.
struct Unfit {
    why: Refusal,
    message: String,
}

impl From<anyhow::Error> for Unfit {
    fn from(error: anyhow::Error) -> Self {
        Self { why: Refusal::Unfit, message: format!("{error:#}") }
    }
}

/// Tells that a question has no answer.
pub fn refused(question: u64, why: Refusal, message: String) -> Told {
    Told::Refused { question, why, message }
}

impl Model {
    fn context(&self) -> usize {
        usize::try_from(self.policy.trunk.config.context).unwrap_or_default()
    }

    /// The text of a token, and of those that were likeliest at its place.
    fn told(&self, id: i64, at: u64, said: Option<&likely::Likely>) -> Result<TokenDoc> {
        let text = self.alone(id)?;
        let Some(said) = said else {
            return Ok(TokenDoc { text, at, logprob: None, likeliest: Vec::new() });
        };
        let likeliest = said.likeliest.iter().map(|(id, log)| Ok((self.alone(*id)?, *log)));
        let likeliest = likeliest.collect::<Result<_>>()?;
        Ok(TokenDoc { text, at, logprob: Some(said.logprob), likeliest })
    }

    fn alone(&self, id: i64) -> Result<String> {
        if let Some(text) = self.alone.borrow().get(&id) {
            return Ok(text.clone());
        }
        let text = self.vocabulary.alone(id)?;
        self.alone.borrow_mut().insert(id, text.clone());
        Ok(text)
    }
}
