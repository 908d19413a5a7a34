//! The answers to one question while they are drawn.
//! Knows nothing of other questions.

use std::collections::BTreeMap;

use anyhow::Result;
use preflow::protocol::questions::{QuestionSpec, TokenDoc, Told};
use tch::Tensor;

use super::reading::{TokenizedPrompt, read_all};
use super::text::AnswerText;
use super::{Model, Tell, Unfit, likely};
use crate::data::Incremental;
use crate::model::ModelConfig;
use crate::sampling::{BATCH, Drawing, DrawnRow, SamplingConfig};

/// Most columns of a batch, all rows together, unless one row alone has more.
const COLUMNS: usize = 1 << 14;
/// Tokens of an answer for which there is room at once: few are as long as they may be.
const ROOM: usize = 256;
/// Tokens that one line tells at most, since a reader has a limit.
const TOLD_AT_ONCE: usize = 64;
/// Temperatures below it would overflow, and mean the likeliest token.
const COLDEST: f64 = 1e-5;

/// A question, and how far its answers are.
pub struct Writing {
    pub question: QuestionSpec,
    prompts: Vec<TokenizedPrompt>,
    sampling: SamplingConfig,
    /// Answers that are not begun, as they will be drawn together.
    batches: Vec<Vec<usize>>,
    /// Those that are drawn, whether their prompts were passed, and their texts.
    drawing: Option<Drawing>,
    is_first: bool,
    texts: BTreeMap<usize, AnswerText>,
}

impl Writing {
    /// Reads a question; nothing is drawn yet.
    pub fn begin(model: &Model, question: QuestionSpec) -> Result<Self, Unfit> {
        let (prompts, max_tokens) = read_all(model, &question)?;
        let temperature = question.temperature;
        let sampling = SamplingConfig {
            temperature: if temperature < COLDEST { 0.0 } else { temperature },
            top_k: 0,
            top_p: question.top_p,
            max_tokens,
            seed: question.seed,
            step: 0,
        };
        let n = question.n.max(1) as usize;
        let lengths: Vec<usize> = (0..prompts.len() * n)
            .map(|answer| prompts[answer / n].tokens.len() + max_tokens)
            .collect();
        let mut batches = batches(&lengths);
        // The next one is taken from the end.
        batches.reverse();
        let (drawing, texts) = (None, BTreeMap::new());
        Ok(Self { question, prompts, sampling, batches, drawing, is_first: false, texts })
    }

    /// How many tokens its prompts have.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompts.iter().map(|prompt| prompt.tokens.len() as u64).sum()
    }

    /// Draws one token for each answer of the batch. True: all answers are told.
    pub fn step(&mut self, model: &Model, tell: Tell) -> Result<bool> {
        let mut drawing = match self.drawing.take() {
            Some(drawing) => drawing,
            None => match self.batches.pop() {
                Some(batch) => self.next_batch(model, &batch),
                None => return Ok(true),
            },
        };
        let hidden = drawing.pass(&model.policy);
        if std::mem::take(&mut self.is_first) && self.question.echo {
            self.echo(model, &drawing.rows, &hidden, tell)?;
        }
        let config = &model.policy.trunk.config;
        let drawn = drawing.open(config);
        if drawn.is_empty() {
            // Answers of no tokens: the prompts alone were asked for.
            drawing.rows.iter().for_each(|row| tell(self.ended(row, config)));
            return Ok(self.batches.is_empty());
        }
        let logits = drawing.draw(&model.policy, &hidden);
        let said = self.said(&logits, &drawing.rows, &drawn);
        for (place, b) in drawn.iter().enumerate() {
            let row = &mut drawing.rows[*b as usize];
            let said = said.as_ref().map(|all| &all[place]);
            row.stopped |= self.add(model, row, said)?;
            let whole = row.ended(config, &self.sampling);
            self.tell_more(row.place, whole, tell);
            if whole {
                tell(self.ended(row, config));
            }
        }
        drop(drawing.release(config));
        self.drawing = (!drawing.rows.is_empty()).then_some(drawing);
        Ok(self.drawing.is_none() && self.batches.is_empty())
    }

    fn ended(&self, row: &DrawnRow, config: &ModelConfig) -> Told {
        let by_itself = row.tokens.last().is_some_and(|token| config.ends(*token));
        Told::Ended {
            question: self.question.id,
            answer: row.place as u32,
            cut: !row.stopped && !by_itself,
            tokens: row.tokens.len() as u64,
        }
    }

    fn next_batch(&mut self, model: &Model, batch: &[usize]) -> Drawing {
        let n = self.question.n.max(1) as usize;
        let prompts: Vec<&[i64]> =
            batch.iter().map(|answer| self.prompts[answer / n].tokens.as_slice()).collect();
        let rows =
            batch.iter().map(|answer| DrawnRow::new(*answer, *answer as u64, &self.sampling));
        self.texts = batch.iter().map(|answer| (*answer, AnswerText::default())).collect();
        self.is_first = true;
        let room = self.sampling.max_tokens.min(ROOM);
        Drawing::new(&model.policy, &prompts, rows.collect(), self.sampling, room)
    }

    /// Tells the prompts that answers begin with; `hidden` is what the model makes of them.
    fn echo(
        &mut self,
        model: &Model,
        rows: &[DrawnRow],
        hidden: &Tensor,
        tell: Tell,
    ) -> Result<()> {
        let n = self.question.n.max(1) as usize;
        let prompts: Vec<&TokenizedPrompt> =
            rows.iter().map(|row| &self.prompts[row.place / n]).collect();
        let tokens: Vec<&[i64]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let likely = self
            .question
            .logprobs
            .map(|count| likely::of_prompts(&model.policy, hidden, &tokens, i64::from(count)));
        for (i, (row, prompt)) in rows.iter().zip(prompts).enumerate() {
            let likely = likely.as_ref().map(|all| all[i].as_slice());
            let (text, tokens, length) = echoed(model, prompt, likely)?;
            self.texts.insert(row.place, AnswerText::after(length));
            told_in_parts(self.question.id, row.place, text, tokens, tell);
        }
        Ok(())
    }

    /// How likely the tokens were that rows `drawn` drew last, where that is asked for.
    fn said(
        &self,
        logits: &Tensor,
        rows: &[DrawnRow],
        drawn: &[i64],
    ) -> Option<Vec<likely::Likely>> {
        let count = self.question.logprobs?;
        let logits = logits.index_select(0, &Tensor::from_slice(drawn).to_device(logits.device()));
        let last = |b: &i64| rows[*b as usize].tokens.last().copied().unwrap_or_default();
        let tokens: Vec<i64> = drawn.iter().map(last).collect();
        Some(likely::by_logits(&logits, &tokens, i64::from(count)))
    }

    /// Adds the token that a row drew last to its text. True: that stops it.
    fn add(
        &mut self,
        model: &Model,
        row: &DrawnRow,
        said: Option<&likely::Likely>,
    ) -> Result<bool> {
        let Some(text) = self.texts.get_mut(&row.place) else { return Ok(false) };
        let Some(id) = row.tokens.last().copied() else { return Ok(false) };
        let said = said.map(|said| model.told(id, text.at(), Some(said))).transpose()?;
        let stop = &self.question.stop;
        if text.push(&model.vocabulary, id, said, stop)? {
            return Ok(true);
        }
        let whole = row.ended(&model.policy.trunk.config, &self.sampling);
        Ok(whole && text.finish(&model.vocabulary, stop)?)
    }

    fn tell_more(&mut self, answer: usize, whole: bool, tell: Tell) {
        let Some(text) = self.texts.get_mut(&answer) else { return };
        let (text, tokens) = text.take(&self.question.stop, whole);
        told_in_parts(self.question.id, answer, text, tokens, tell);
    }
}

/// The text and the tokens of a prompt, and how many characters it has.
fn echoed(
    model: &Model,
    prompt: &TokenizedPrompt,
    likely: Option<&[likely::Likely]>,
) -> Result<(String, Vec<TokenDoc>, u64)> {
    let vocabulary = &model.vocabulary;
    let (mut growing, mut length, mut text) = (Incremental::default(), 0, String::new());
    let mut tokens = Vec::new();
    for (i, id) in prompt.tokens.iter().enumerate() {
        if let Some(likely) = likely {
            let said = i.checked_sub(1).map(|before| &likely[before]);
            tokens.push(model.told(*id, length, said)?);
        }
        if i >= prompt.lead {
            let piece = growing.push(vocabulary, *id)?;
            length += piece.chars().count() as u64;
            text.push_str(&piece);
        }
    }
    text.push_str(&growing.finish(vocabulary)?);
    let text = prompt.text.clone().unwrap_or(text);
    let length = text.chars().count() as u64;
    Ok((text, tokens, length))
}

fn told_in_parts(
    question: u64,
    answer: usize,
    mut text: String,
    mut tokens: Vec<TokenDoc>,
    tell: Tell,
) {
    let answer = answer as u32;
    loop {
        let rest = tokens.split_off(tokens.len().min(TOLD_AT_ONCE));
        let (text, tokens) = (std::mem::take(&mut text), std::mem::replace(&mut tokens, rest));
        if text.is_empty() && tokens.is_empty() {
            return;
        }
        tell(Told::Piece { question, answer, text, tokens });
    }
}

/// Answers of these lengths as batches, in order of their length, so that few columns are padding.
fn batches(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| lengths[*i]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match batches.last_mut() {
            // The longest of a batch is its last one.
            Some(batch) if batch.len() < BATCH && (batch.len() + 1) * lengths[i] <= COLUMNS => {
                batch.push(i);
            }
            _ => batches.push(vec![i]),
        }
    }
    batches
}
