//! The text of tokens that come one after another, and of one token alone.
//! Knows nothing of models.

use anyhow::Result;

use super::Vocabulary;

/// What stands for bytes that are no character, or not yet.
const BROKEN: char = char::REPLACEMENT_CHARACTER;
/// Tokens that are decoded again with each new one at most, while characters are whole.
const WINDOW: usize = 32;
/// Of those, how many stay: what stands before a token may change its text.
const OVERLAP: usize = 8;

/// The last tokens of a text that grows.
#[derive(Debug, Default)]
pub struct Incremental {
    ids: Vec<i64>,
    /// Characters of their text that were given out.
    given: usize,
}

impl Incremental {
    /// What one more token adds to the text: nothing while a character is not whole.
    ///
    /// # Errors
    /// When the id is unknown.
    pub fn push(&mut self, vocabulary: &Vocabulary, id: i64) -> Result<String> {
        self.ids.push(id);
        let text = vocabulary.decode(&self.ids)?;
        let whole = text.trim_end_matches(BROKEN);
        let piece = self.give(whole);
        if whole.len() == text.len() && self.ids.len() >= WINDOW {
            self.ids.drain(..self.ids.len() - OVERLAP);
            self.given = vocabulary.decode(&self.ids)?.chars().count();
        }
        Ok(piece)
    }

    /// What is left when no more tokens come: what never became a character.
    ///
    /// # Errors
    /// As [`Incremental::push`].
    pub fn finish(&mut self, vocabulary: &Vocabulary) -> Result<String> {
        let text = vocabulary.decode(&self.ids)?;
        Ok(self.give(&text))
    }

    fn give(&mut self, whole: &str) -> String {
        let piece: String = whole.chars().skip(self.given).collect();
        self.given += piece.chars().count();
        piece
    }
}

impl Vocabulary {
    /// The text of a token that stands behind another one; as the vocabulary spells it where it is
    /// no whole text, as an end token or a part of a character.
    ///
    /// # Errors
    /// When the id is unknown.
    pub fn alone(&self, id: i64) -> Result<String> {
        // Many tokenizers take the blank from the beginning of a text.
        let before: Vec<i64> = self.encode("a")?.into_iter().next_back().into_iter().collect();
        let lead = self.decode(&before)?;
        let text = self.decode(&[before, vec![id]].concat())?;
        let own = text.strip_prefix(&lead).unwrap_or_default();
        match own.is_empty() || own.contains(BROKEN) {
            true => Ok(self.token(id).unwrap_or_default()),
            false => Ok(own.to_owned()),
        }
    }
}
