//! Prompts, and prompts with their answers, as tokens; prompts that are too long lose their
//! beginning.
//! Knows nothing of models.

use anyhow::{Result, bail};
use preflow::conversation::{Content, Message};

use super::super::{Example, Prompt, fit_prompt};
use super::{BOS, BOT, Turns, USER, Vocabulary};
use crate::advice::error_with_help;

impl Vocabulary {
    /// A prompt as tokens, up to where the answer begins: what the chat template makes of its
    /// messages (a text is one of the user), `<bos><user>{prompt}<bot>` with a tokenizer of our
    /// own, or the text alone.
    ///
    /// # Errors
    /// When the tokenizer or the template refuses it.
    pub fn prompt(&self, prompt: &Prompt) -> Result<Vec<i64>> {
        match (&self.turns, &prompt.content) {
            (Turns::Own, Content::Text(text)) => {
                let mut ids = vec![BOS, USER];
                ids.extend(self.encode(text)?);
                ids.push(BOT);
                Ok(ids)
            }
            (Turns::Plain, Content::Text(text)) => {
                Ok(self.start().into_iter().chain(self.encode(text)?).collect())
            }
            (Turns::Template(_), _) => self.encode(&self.opened(prompt)?),
            (Turns::Own | Turns::Plain, Content::Messages(list)) => {
                let mut ids = self.laid_out(list, list.len())?.tokens;
                ids.extend(self.is_own().then_some(BOT));
                Ok(ids)
            }
        }
    }

    /// A prompt as text, up to where the answer begins.
    fn opened(&self, prompt: &Prompt) -> Result<String> {
        match &self.turns {
            Turns::Template(template) => {
                Ok(template.render(&prompt.messages(), &prompt.values, true)?.text)
            }
            _ => Ok(prompt.messages().iter().map(Message::text).collect()),
        }
    }

    /// As [`Vocabulary::prompt`], cut to at most `room` tokens where it can be: the beginning
    /// goes, the template stays. Returns whether it was cut.
    ///
    /// # Errors
    /// As [`Vocabulary::prompt`].
    pub fn prompt_within(&self, prompt: &Prompt, room: usize) -> Result<(Vec<i64>, bool)> {
        self.fit(prompt, self.prompt(prompt)?, room)
    }

    /// Cuts `ids`, those of `prompt`, as [`Vocabulary::prompt_within`] does: of messages the oldest
    /// go first, but for those of the system, then the beginning of the last one.
    ///
    /// # Errors
    /// As [`Vocabulary::prompt`].
    pub fn fit(&self, prompt: &Prompt, mut ids: Vec<i64>, room: usize) -> Result<(Vec<i64>, bool)> {
        if ids.len() <= room {
            return Ok((ids, false));
        }
        if let Content::Text(_) = prompt.content {
            match self.turns {
                Turns::Own => return Ok(fit_prompt(ids, room, 2)),
                Turns::Plain => {
                    let start = usize::from(self.start().is_some());
                    return Ok(fit_prompt(ids, room, start));
                }
                Turns::Template(_) => {}
            }
        }
        let mut messages = prompt.messages().into_owned();
        let again = |messages: &[Message]| {
            let content = Content::Messages(messages.to_vec());
            self.prompt(&Prompt { content, values: prompt.values.clone() })
        };
        let (first, users) = cuts(&messages);
        let without = |cut: usize| [&messages[..first], &messages[users[cut]..]].concat();
        let low = first_fitting(users.len(), |cut| Ok(again(&without(cut))?.len() <= room))?;
        if !users.is_empty() {
            messages = without(low.min(users.len() - 1));
            ids = again(&messages)?;
        }
        while ids.len() > room {
            let surplus = ids.len() - room;
            let Some(text) = messages.last_mut().and_then(|last| last.content.as_mut()) else {
                break;
            };
            if text.is_empty() {
                break;
            }
            // A token is one character or more but for the rarest, so no more is cut than needed.
            *text = text.char_indices().nth(surplus).map_or("", |(at, _)| &text[at..]).to_owned();
            ids = again(&messages)?;
        }
        Ok((ids, true))
    }

    /// A prompt and its answer as tokens, those that the two have together. The answer ends with
    /// its end token when it is `finished`; what a template writes behind that is left out.
    ///
    /// # Errors
    /// As [`Vocabulary::prompt`]; or the answer is no message of the assistant.
    pub fn example(&self, prompt: &Prompt, answer: &Content, finished: bool) -> Result<Example> {
        let text = match (answer, &self.turns) {
            (Content::Text(text), _) => text.as_str(),
            (Content::Messages(list), Turns::Own | Turns::Plain) => match list.as_slice() {
                [one] if one.is_answer() && one.more.is_empty() => one.text(),
                _ => bail!(
                    "the model has no chat template: an answer can only be one message of the \
                     assistant that calls no tools"
                ),
            },
            (Content::Messages(list), Turns::Template(_)) => {
                return self.templated_answer(prompt, list, finished);
            }
        };
        if !self.glues || self.is_own() {
            let (prompt, completion) = (self.prompt(prompt)?, self.completion(text, finished)?);
            return Ok(Example { prompt, completion });
        }
        let (mut ids, mut completion) = self.continued(&self.opened(prompt)?, text)?;
        if matches!(self.turns, Turns::Plain) {
            ids.splice(0..0, self.start());
        }
        if finished {
            completion.extend(self.special.eos.first());
        }
        Ok(Example { prompt: ids, completion })
    }

    /// A prompt and an answer of messages, as the template renders them together.
    fn templated_answer(
        &self,
        prompt: &Prompt,
        answer: &[Message],
        finished: bool,
    ) -> Result<Example> {
        let Turns::Template(template) = &self.turns else { bail!("no chat template") };
        if !answer.first().is_some_and(Message::is_answer) {
            bail!("the answer does not begin with a message of the assistant");
        }
        let before = self.opened(prompt)?;
        let mut all = prompt.messages().into_owned();
        all.extend_from_slice(answer);
        let whole = template.render(&all, &prompt.values, false)?.text;
        let Some(rest) = whole.strip_prefix(&before) else {
            let help = "use a template that renders a prompt alike with and without its answer \
                        (`chat_template` of import_model)";
            return Err(error_with_help(
                "the chat template renders the prompt in another way once it is answered",
                help,
            ));
        };
        let (prompt, mut completion) = self.continued(&before, rest)?;
        let last = completion.iter().rposition(|token| self.special.eos.contains(token));
        match last {
            Some(last) => completion.truncate(last + usize::from(finished)),
            None if finished => completion.extend(self.special.eos.first()),
            None => {}
        }
        Ok(Example { prompt, completion })
    }
}

/// The first of `cuts` ways to shorten a conversation, the least first, after which it fits; `cuts`
/// where it never does. Each is rendered anew, so not all of them are tried.
///
/// # Errors
/// Those of `fits`.
pub(super) fn first_fitting(
    cuts: usize,
    mut fits: impl FnMut(usize) -> Result<bool>,
) -> Result<usize> {
    let (mut low, mut high) = (0, cuts);
    while low < high {
        let middle = low + (high - low) / 2;
        match fits(middle)? {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Ok(low)
}

/// Where a conversation may lose its beginning: the end of what the system says first, which stays,
/// and the later messages of the user, any of which may follow it.
pub(super) fn cuts(messages: &[Message]) -> (usize, Vec<usize>) {
    let is_system = |m: &Message| ["system", "developer"].contains(&m.role.as_str());
    let first = messages.iter().position(|m| !is_system(m)).unwrap_or(messages.len());
    let users = (first + 1..messages.len()).filter(|i| messages[*i].role == "user");
    (first, users.collect())
}
