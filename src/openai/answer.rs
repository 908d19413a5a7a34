//! Answers as they come together from what the worker tells, whole or as a stream.
//! Does not know how they are written.

use std::collections::VecDeque;

use serde_json::Value;

use super::desk::Asked;
use super::error::ApiError;
use super::written::{Usage, WholeAnswer, Writer};
use crate::protocol::questions::{Refusal, Told};

/// A question that is being answered.
pub struct Answering {
    asked: Asked,
    writer: Writer,
    usage: Usage,
    /// Answers that have not ended.
    left: usize,
}

impl Answering {
    /// Waits until the question is understood; `answers`: how many are asked for.
    ///
    /// # Errors
    /// The worker refuses it.
    pub async fn begin(mut asked: Asked, writer: Writer, answers: usize) -> Result<Self, ApiError> {
        match asked.next().await {
            Some(Told::Begun { prompt_tokens, .. }) => {
                let usage = Usage { prompt_tokens, completion_tokens: 0 };
                Ok(Self { asked, writer, usage, left: answers })
            }
            told => Err(refused(told, &writer)),
        }
    }

    /// All answers.
    ///
    /// # Errors
    /// The worker fails.
    pub async fn whole(mut self) -> Result<Value, ApiError> {
        let mut choices = vec![WholeAnswer::default(); self.left];
        while self.left > 0 {
            match self.asked.next().await {
                Some(Told::Piece { answer, text, tokens, .. }) => {
                    if let Some(choice) = choices.get_mut(answer as usize) {
                        choice.text.push_str(&text);
                        choice.tokens.extend(tokens);
                    }
                }
                Some(Told::Ended { answer, cut, tokens, .. }) => {
                    self.usage.completion_tokens += tokens;
                    self.left -= 1;
                    if let Some(choice) = choices.get_mut(answer as usize) {
                        choice.cut = cut;
                    }
                }
                told => return Err(refused(told, &self.writer)),
            }
        }
        Ok(self.writer.whole(&choices, self.usage))
    }

    /// The answers as events of a stream; `usage`: the last of them tells the numbers of tokens.
    pub fn stream(self, usage: bool) -> Streaming {
        let waiting = (0..self.left).filter_map(|choice| self.writer.first(choice)).collect();
        Streaming { answering: self, usage, waiting, is_over: false }
    }
}

/// Answers whose pieces are passed on.
pub struct Streaming {
    answering: Answering,
    usage: bool,
    waiting: VecDeque<Value>,
    is_over: bool,
}

impl Streaming {
    /// The data of the next event; `None`: that was the last one.
    pub async fn next(&mut self) -> Option<String> {
        if let Some(event) = self.waiting.pop_front() {
            return Some(event.to_string());
        }
        if self.is_over {
            return None;
        }
        let Answering { asked, writer, usage, left } = &mut self.answering;
        if *left == 0 {
            self.is_over = true;
            return Some("[DONE]".into());
        }
        let event = match asked.next().await {
            Some(Told::Piece { answer, text, tokens, .. }) => {
                writer.piece(answer as usize, &text, &tokens)
            }
            Some(Told::Ended { answer, cut, tokens, .. }) => {
                usage.completion_tokens += tokens;
                *left -= 1;
                if *left == 0 && self.usage {
                    self.waiting.push_back(writer.usage(*usage));
                }
                writer.end(answer as usize, cut)
            }
            told => {
                self.is_over = true;
                refused(told, writer).body()
            }
        };
        Some(event.to_string())
    }
}

fn refused(told: Option<Told>, writer: &Writer) -> ApiError {
    match told {
        Some(Told::Refused { why, message, .. }) => {
            ApiError::refused(why, message, writer.route.prompts())
        }
        _ => {
            let message = "the worker is gone".to_owned();
            ApiError::refused(Refusal::Fault, message, writer.route.prompts())
        }
    }
}
