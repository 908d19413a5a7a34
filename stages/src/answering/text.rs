//! The text of one answer while it is drawn: what may be told already, and whether it has come to a
//! text that stops it. Knows nothing of models.

use anyhow::Result;
use preflow::protocol::questions::TokenDoc;

use crate::data::{Incremental, Vocabulary};

/// What is drawn of an answer, and what was told of it.
#[derive(Default)]
pub struct AnswerText {
    growing: Incremental,
    /// Characters that stand before what is drawn: the prompt, where the answer begins with it.
    before: u64,
    text: String,
    /// Bytes of the text that were told.
    told: usize,
    /// Tokens that were not told, each with the byte of the text where it begins.
    tokens: Vec<(usize, TokenDoc)>,
}

impl AnswerText {
    /// An answer that begins after so many characters.
    pub fn after(before: u64) -> Self {
        Self { before, ..Self::default() }
    }

    /// Where the next token begins, in characters.
    pub fn at(&self) -> u64 {
        self.before + self.text.chars().count() as u64
    }

    /// One more token, and what is said of it. True: the text has come to one of `stop`, and ends
    /// before it.
    ///
    /// # Errors
    /// When the id is unknown.
    pub fn push(
        &mut self,
        vocabulary: &Vocabulary,
        id: i64,
        said: Option<TokenDoc>,
        stop: &[String],
    ) -> Result<bool> {
        let begin = self.text.len();
        self.tokens.extend(said.map(|said| (begin, said)));
        let piece = self.growing.push(vocabulary, id)?;
        self.text.push_str(&piece);
        Ok(self.cut(begin, stop))
    }

    /// Nothing more is drawn. True as for [`AnswerText::push`].
    ///
    /// # Errors
    /// When an id is unknown.
    pub fn finish(&mut self, vocabulary: &Vocabulary, stop: &[String]) -> Result<bool> {
        let begin = self.text.len();
        let piece = self.growing.finish(vocabulary)?;
        self.text.push_str(&piece);
        Ok(self.cut(begin, stop))
    }

    /// Ends the text before the first of `stop` that what came after `begin` completes.
    fn cut(&mut self, begin: usize, stop: &[String]) -> bool {
        let longest = stop.iter().map(String::len).max().unwrap_or_default();
        let from = self.text.floor_char_boundary(begin.saturating_sub(longest));
        let found = stop.iter().filter_map(|stop| self.text[from..].find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(from + at);
            self.tokens.retain(|(begin, _)| *begin < from + at);
        }
        found.is_some()
    }

    /// What can be told now. `whole`: nothing more is drawn; else what may be the beginning of one
    /// of `stop` waits.
    pub fn take(&mut self, stop: &[String], whole: bool) -> (String, Vec<TokenDoc>) {
        let held = if whole { 0 } else { held(&self.text, stop) };
        let safe = self.text.len() - held;
        let text = self.text[self.told.min(safe)..safe].to_owned();
        self.told = self.told.max(safe);
        let waiting = self.tokens.iter().position(|(begin, _)| !whole && *begin >= safe);
        let count = waiting.unwrap_or(self.tokens.len());
        (text, self.tokens.drain(..count).map(|(_, token)| token).collect())
    }
}

/// Bytes at the end of a text with which one of `stop` begins.
fn held(text: &str, stop: &[String]) -> usize {
    let begins = |stop: &String| {
        let ends = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
        ends.filter(|at| text.ends_with(&stop[..*at])).max()
    };
    stop.iter().filter_map(begins).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is told of a text that comes in pieces, each time, and whether it was stopped.
    fn told(pieces: &[String], stop: &[String]) -> (Vec<String>, bool) {
        let (mut answer, mut told) = (AnswerText::default(), Vec::new());
        for piece in pieces {
            let begin = answer.text.len();
            answer.text.push_str(piece);
            let over = answer.cut(begin, stop);
            told.push(answer.take(stop, over).0);
            if over {
                return (told, true);
            }
        }
        told.push(answer.take(stop, true).0);
        (told, false)
    }

    #[test]
    fn what_may_become_a_stop_waits() {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let stop = texts(&["\n\nQ:", "é!"]);
        let (pieces, stopped) = told(&texts(&["yes\n", "\n", "é", "?\n\nQ", ": more"]), &stop);
        assert_eq!((pieces, stopped), (texts(&["yes", "", "\n\n", "é?", ""]), true));
        assert_eq!(told(&texts(&["a", "b"]), &[]), (texts(&["a", "b", ""]), false));
    }

    proptest! {
        #[test]
        fn a_text_ends_before_the_first_stop_however_it_comes(
            pieces in prop::collection::vec("[abé]{0,3}", 0..12),
            stop in prop::collection::vec("[abé]{1,4}", 0..3),
        ) {
            let (parts, stopped) = told(&pieces, &stop);
            let mut so_far = String::new();
            // The piece that completes one first decides; of those that it completes, the earliest.
            let mut wanted = None;
            for piece in &pieces {
                so_far.push_str(piece);
                let found = stop.iter().filter_map(|stop| so_far.find(stop.as_str())).min();
                if let Some(at) = found {
                    wanted = Some(so_far[..at].to_owned());
                    break;
                }
            }
            prop_assert_eq!(stopped, wanted.is_some());
            prop_assert_eq!(parts.concat(), wanted.unwrap_or(so_far));
        }
    }
}
