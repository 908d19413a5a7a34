//! Conversations as rows of tokens, and which of them the assistant wrote.
//! Knows nothing of models.

use anyhow::{Result, anyhow, bail};
use preflow::conversation::Message;

use super::super::chat::ChatTemplate;
use super::answer::{cuts, first_fitting};
use super::{BOT, Row, TemplateValues, Turns, USER, Vocabulary};
use crate::advice::error_with_help;

/// Refuses conversations from which no model can learn.
///
/// # Errors
/// No message that is to be learned is the assistant's.
pub fn check_turns(messages: &[Message]) -> Result<()> {
    if !messages.iter().any(is_learned) {
        bail!("no message of the assistant is to be learned");
    }
    Ok(())
}

/// Whether a model learns to write a message: those of the assistant, unless their `weight` is 0,
/// as OpenAI's files have it.
fn is_learned(message: &Message) -> bool {
    message.is_answer() && !message.field("weight").is_some_and(|w| w.starts_with('0'))
}

impl Vocabulary {
    /// A conversation as one row. What the assistant writes from message `from` on is learned, the
    /// token that ends each of its turns included.
    ///
    /// # Errors
    /// When nothing is to be learned, or the template refuses.
    pub fn conversation(
        &self,
        messages: &[Message],
        values: &TemplateValues,
        from: usize,
    ) -> Result<Row> {
        check_turns(&messages[from.min(messages.len())..])?;
        match &self.turns {
            Turns::Template(template) => self.templated(template, messages, values, from),
            Turns::Own | Turns::Plain => self.laid_out(messages, from),
        }
    }

    /// As [`Vocabulary::conversation`], without so many of the oldest turns that at most `room`
    /// tokens are left; what the system says first stays. `None`: no turn of the user can be the
    /// first so that it fits and something is learned.
    ///
    /// # Errors
    /// When the template refuses what is left.
    pub fn shortened(
        &self,
        messages: &[Message],
        values: &TemplateValues,
        from: usize,
        room: usize,
    ) -> Result<Option<Row>> {
        let (first, users) = cuts(messages);
        let without = |cut: usize| -> Result<Option<Row>> {
            let start = users[cut];
            let rest = [&messages[..first], &messages[start..]].concat();
            let from = (from + first).saturating_sub(start).max(first);
            match rest.iter().skip(from).any(is_learned) {
                true => self.conversation(&rest, values, from).map(Some),
                false => Ok(None),
            }
        };
        let fits = |cut| Ok(without(cut)?.is_none_or(|row| row.tokens.len() <= room));
        let cut = first_fitting(users.len(), fits)?;
        if cut == users.len() { Ok(None) } else { without(cut) }
    }

    /// A conversation without a template: each turn after its mark, each answer with its end.
    pub(super) fn laid_out(&self, messages: &[Message], from: usize) -> Result<Row> {
        let several = messages.iter().filter(|m| m.role == "user").count() > 1;
        if matches!(self.turns, Turns::Plain) && several {
            let help = "give the model one: `chat_template` of import_model";
            return Err(error_with_help(
                "the model has no chat template, so nothing would part the turns",
                help,
            ));
        }
        let mut row = Row::default();
        row.extend(self.start(), false);
        let mark = |id: i64| self.is_own().then_some(id);
        // What stands before, as far as it has a say in the tokens.
        let mut before = String::new();
        for (i, message) in messages.iter().enumerate() {
            let spoken = |name: &str| ["weight", "name"].contains(&name);
            if let Some((name, _)) = message.more.iter().find(|(name, _)| !spoken(name)) {
                bail!("the model has no chat template: `{name}` of a message has no form");
            }
            if message.role == "tool" {
                bail!("the model has no chat template: a message of a tool has no form");
            }
            let text = message.text();
            let ids = if self.glues && !before.is_empty() {
                self.continued(&before, text)?.1
            } else {
                self.encode(text)?
            };
            before.push_str(text);
            if message.is_answer() {
                let learned = i >= from && is_learned(message);
                row.extend(mark(BOT), false);
                row.extend(ids, learned);
                row.extend(self.special.eos.first().copied(), learned);
            } else {
                row.extend(mark(USER).filter(|_| message.role == "user"), false);
                row.extend(ids, false);
            }
        }
        Ok(row)
    }

    fn templated(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        values: &TemplateValues,
        from: usize,
    ) -> Result<Row> {
        let rendered = template.render(messages, values, false)?;
        let encoding =
            self.tokenizer.encode(rendered.text.as_str(), false).map_err(|e| anyhow!("{e}"))?;
        let tokens: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        let offsets = encoding.get_offsets();
        let mut mask = vec![false; tokens.len()];
        let learned = |i: usize| i >= from && is_learned(&messages[i]);
        let answers: Vec<usize> =
            (0..messages.len()).filter(|i| messages[*i].is_answer()).collect();
        if let Some(spans) = rendered.answers {
            let all = answers.iter().all(|i| learned(*i));
            if !all && spans.len() != answers.len() {
                bail!(
                    "the chat template marks {} stretches for {} messages of the assistant, of \
                     which some are not to be learned",
                    spans.len(),
                    answers.len()
                );
            }
            for (k, span) in spans.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
                if !all && !learned(answers[k]) {
                    continue;
                }
                // The first and the last token that touch the stretch, and all between.
                let first = offsets.iter().position(|(_, end)| *end > span.start);
                let last = offsets.iter().rposition(|(start, _)| *start < span.end);
                if let (Some(first), Some(last)) = (first, last) {
                    mask[first..=last].fill(true);
                }
            }
            return Ok(Row { tokens, mask });
        }
        for i in answers.into_iter().filter(|i| learned(*i)) {
            let before = template.render(&messages[..i], values, true)?.text;
            if !rendered.text.starts_with(&before) {
                bail!(
                    "the chat template renders what stands before turn {} in another way once it \
                     is answered: mark what the assistant writes by {{% generation %}} in it",
                    i + 1
                );
            }
            let to = |text: &str| offsets.iter().position(|(start, _)| *start >= text.len());
            let first = to(&before).unwrap_or(tokens.len());
            let after = template.render(&messages[..=i], values, false)?.text;
            let limit = if rendered.text.starts_with(&after) { to(&after) } else { None };
            let limit = limit.unwrap_or(tokens.len());
            let end = (first..limit).find(|t| self.special.eos.contains(&tokens[*t]));
            mask[first..end.map_or(limit, |e| e + 1)].fill(true);
        }
        Ok(Row { tokens, mask })
    }
}
