//! Prompts that policies answer, as rows and as tokens.
//! Knows nothing of answers or of what becomes of them.

use anyhow::{Result, bail};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{Prompt, Table, Vocabulary};
use crate::model::Policy;

/// Prompts that policies answer: the rows of their table, and their tokens.
#[derive(Debug)]
pub struct Prompts {
    pub table: Table,
    /// The prompts, by row of the table.
    pub all: Vec<Prompt>,
    /// Tokens of each prompt, by row of the table.
    pub tokens: Vec<Vec<i64>>,
}

impl Prompts {
    /// The prompts of a table as tokens that leave `room` tokens of the context free.
    ///
    /// # Errors
    /// As [`encode_prompts`]; or a prompt is not understood.
    pub fn new(
        cx: &mut Context,
        vocabulary: &Vocabulary,
        policy: &Policy,
        table: Table,
        room: usize,
    ) -> Result<Self> {
        let all = table.prompts()?;
        let tokens = encode_prompts(cx, vocabulary, policy, &all, room)?;
        Ok(Self { table, all, tokens })
    }
}

/// Prompts as token rows that leave `room` tokens of the context free; warns of those cut.
///
/// # Errors
/// When no room is left for a prompt.
pub fn encode_prompts(
    cx: &mut Context,
    vocabulary: &Vocabulary,
    policy: &Policy,
    prompts: &[Prompt],
    room: usize,
) -> Result<Vec<Vec<i64>>> {
    let context = policy.trunk.config.context as usize;
    if room + 4 > context {
        bail!("max_tokens {room} leaves no room for a prompt in a context of {context} tokens");
    }
    let mut cut = 0;
    let mut rows = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let (row, was_cut) = vocabulary.prompt_within(prompt, context - room)?;
        if row.len() > context - room {
            bail!("the chat template alone leaves no room for {room} tokens in {context}");
        }
        cut += usize::from(was_cut);
        rows.push(row);
    }
    cx.warn_if((cut > 0).then(|| {
        format!("{cut} prompts were cut from the left to leave {room} tokens for the response")
    }))?;
    Ok(rows)
}

/// Refuses two models with different tokenizers; each comes with its name.
///
/// # Errors
/// When the tokenizer files differ in one byte.
pub fn same_tokenizer(a: (&str, &Vocabulary), b: (&str, &Vocabulary)) -> Result<()> {
    if a.1.bytes() != b.1.bytes() {
        let message = format!("the tokenizers of `{}` and `{}` differ", a.0, b.0);
        return Err(error_with_help(message, "train both from one tokenizer stage"));
    }
    Ok(())
}
