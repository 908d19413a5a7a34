//! Prompts that policies answer, as rows and as tokens.
//! Knows nothing of answers or of what becomes of them.

use anyhow::{Result, bail};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{LeftOut, Prompt, Room, Table, TooLong, Vocabulary, named_rows};
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
    /// The prompts of a table as tokens that leave `room` tokens of the context free. Those that
    /// are too long lose their beginning, unless `too_long` says otherwise.
    ///
    /// # Errors
    /// As [`encode_prompts`]; or a prompt is not understood.
    pub fn new(
        cx: &mut Context,
        vocabulary: &Vocabulary,
        policy: &Policy,
        table: Table,
        room: usize,
        too_long: TooLong,
    ) -> Result<Self> {
        let mut all = table.prompts()?;
        let (mut tokens, cut) = encoded(vocabulary, policy, &all, room)?;
        match too_long {
            TooLong::Auto | TooLong::CutLeft => {
                warn_of_cut(cx, &cut, room)?;
                return Ok(Self { table, all, tokens });
            }
            TooLong::Drop | TooLong::Fail => {}
        }
        let free = policy.trunk.config.context as usize - room;
        let at_most = Room { too_long, ..Room::new(free) };
        cut.first().map_or(Ok(()), |row| at_most.refuse(*row))?;
        let left = LeftOut { too_long: cut, ..LeftOut::default() };
        let kept: Vec<usize> =
            (0..all.len()).filter(|row| left.too_long.binary_search(row).is_err()).collect();
        if kept.is_empty() {
            bail!("no prompt is left: all {} are longer than {free} tokens", all.len());
        }
        cx.warn_if(left.warning(free))?;
        all = kept.iter().map(|row| all[*row].clone()).collect();
        tokens = kept.iter().map(|row| std::mem::take(&mut tokens[*row])).collect();
        Ok(Self { table: table.take(&kept), all, tokens })
    }
}

/// Prompts as token rows that leave `room` tokens of the context free; warns of those that lost
/// their beginning.
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
    let (rows, cut) = encoded(vocabulary, policy, prompts, room)?;
    warn_of_cut(cx, &cut, room)?;
    Ok(rows)
}

fn warn_of_cut(cx: &mut Context, cut: &[usize], room: usize) -> Result<()> {
    cx.warn_if((!cut.is_empty()).then(|| {
        let rows = named_rows(cut);
        format!("{rows} lost the beginning of their prompt, to leave {room} tokens for the answer")
    }))
}

/// As [`encode_prompts`], and which of them lost their beginning.
fn encoded(
    vocabulary: &Vocabulary,
    policy: &Policy,
    prompts: &[Prompt],
    room: usize,
) -> Result<(Vec<Vec<i64>>, Vec<usize>)> {
    let context = policy.trunk.config.context as usize;
    if room + 4 > context {
        bail!("max_tokens {room} leaves no room for a prompt in a context of {context} tokens");
    }
    let mut cut = Vec::new();
    let mut rows = Vec::with_capacity(prompts.len());
    for (place, prompt) in prompts.iter().enumerate() {
        let (row, was_cut) = vocabulary.prompt_within(prompt, context - room)?;
        if row.len() > context - room {
            bail!("the chat template alone leaves no room for {room} tokens in {context}");
        }
        if was_cut {
            cut.push(place);
        }
        rows.push(row);
    }
    Ok((rows, cut))
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
