//! Conversations as rows of tokens, and which of them the assistant wrote.
//! Knows nothing of models.

use anyhow::{Result, anyhow, bail};

use super::super::chat::{ChatTemplate, Message};
use super::{BOT, Row, Turns, USER, Vocabulary};

/// Refuses conversations from which no model can learn.
///
/// # Errors
/// A role is unknown, or no turn is the assistant's.
pub fn check_turns(messages: &[Message]) -> Result<()> {
    for message in messages {
        if !["system", "user", "assistant"].contains(&message.role.as_str()) {
            bail!("unknown role `{}`; one of system, user, assistant", message.role);
        }
    }
    if !messages.iter().any(Message::is_answer) {
        bail!("no turn of the assistant");
    }
    Ok(())
}

impl Vocabulary {
    /// A conversation as one row. What the assistant writes is learned, the token that ends each
    /// of its turns included.
    ///
    /// # Errors
    /// When a role is unknown, nothing is to be learned, or the template refuses.
    pub fn conversation(&self, messages: &[Message]) -> Result<Row> {
        check_turns(messages)?;
        match &self.turns {
            Turns::Template(template) => self.templated(template, messages),
            Turns::Own | Turns::Plain => self.laid_out(messages),
        }
    }

    /// A conversation without a template: each turn after its mark, each answer with its end.
    fn laid_out(&self, messages: &[Message]) -> Result<Row> {
        let mut row = Row::default();
        row.extend(self.start(), false);
        let mark = |id: i64| self.is_own().then_some(id);
        // What stands before, as far as it has a say in the tokens.
        let mut before = String::new();
        for message in messages {
            let ids = if self.glues && !before.is_empty() {
                self.continued(&before, &message.content)?.1
            } else {
                self.encode(&message.content)?
            };
            before.push_str(&message.content);
            match message.role.as_str() {
                "assistant" => {
                    row.extend(mark(BOT), false);
                    row.extend(ids, true);
                    row.extend(self.special.eos.first().copied(), true);
                }
                role => {
                    row.extend(mark(USER).filter(|_| role == "user"), false);
                    row.extend(ids, false);
                }
            }
        }
        Ok(row)
    }

    fn templated(&self, template: &ChatTemplate, messages: &[Message]) -> Result<Row> {
        let rendered = template.render(messages, false)?;
        let encoding =
            self.tokenizer.encode(rendered.text.as_str(), false).map_err(|e| anyhow!("{e}"))?;
        let tokens: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        let offsets = encoding.get_offsets();
        let mut mask = vec![false; tokens.len()];
        if let Some(answers) = rendered.answers {
            for span in answers.iter().filter(|s| !s.is_empty()) {
                // The first and the last token that touch the stretch, and all between.
                let first = offsets.iter().position(|(_, end)| *end > span.start);
                let last = offsets.iter().rposition(|(start, _)| *start < span.end);
                if let (Some(first), Some(last)) = (first, last) {
                    mask[first..=last].fill(true);
                }
            }
            return Ok(Row { tokens, mask });
        }
        for (i, _) in messages.iter().enumerate().filter(|(_, m)| m.is_answer()) {
            let before = template.render(&messages[..i], true)?.text;
            if !rendered.text.starts_with(&before) {
                bail!(
                    "the chat template renders what stands before turn {} in another way once it \
                     is answered: mark what the assistant writes by {{% generation %}} in it",
                    i + 1
                );
            }
            let to = |text: &str| offsets.iter().position(|(start, _)| *start >= text.len());
            let first = to(&before).unwrap_or(tokens.len());
            let after = template.render(&messages[..=i], false)?.text;
            let limit = if rendered.text.starts_with(&after) { to(&after) } else { None };
            let limit = limit.unwrap_or(tokens.len());
            let end = (first..limit).find(|t| self.special.eos.contains(&tokens[*t]));
            mask[first..end.map_or(limit, |e| e + 1)].fill(true);
        }
        Ok(Row { tokens, mask })
    }
}
