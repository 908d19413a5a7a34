//! Text to token ids and back, and the template that turns a prompt into a turn.
//! Knows nothing of models.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use tokenizers::Tokenizer;

/// Fills a row up; never seen by attention or loss.
pub const PAD: i64 = 0;
/// Starts a document.
pub const BOS: i64 = 1;
/// Ends a document or an answer.
pub const EOS: i64 = 2;
/// Starts the turn of a person.
pub const USER: i64 = 3;
/// Starts the turn of the model.
pub const BOT: i64 = 4;

/// The special tokens in the order of their ids.
pub const SPECIAL: [&str; 5] = ["<pad>", "<bos>", "<eos>", "<user>", "<bot>"];

/// A tokenizer and the bytes it came from.
///
/// The template of a turn is `<bos><user>{prompt}<bot>{completion}<eos>`, without blanks between
/// the parts. Special tokens that stand in a text are read as such.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    bytes: Vec<u8>,
}

impl Vocabulary {
    /// Opens a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is no tokenizer or lacks the special tokens at their ids.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs_err::read(path)?;
        Self::from_bytes(bytes).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Vocabulary::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| anyhow!("{e}"))?;
        if tokenizer.token_to_id(SPECIAL[0]).is_some()
            && tokenizer.token_to_id(SPECIAL[0]) == tokenizer.token_to_id(SPECIAL[2])
        {
            bail!("<pad> and <eos> are one token: a model trained so never learns to stop");
        }
        for (id, token) in SPECIAL.iter().enumerate() {
            match tokenizer.token_to_id(token) {
                Some(found) if found as usize == id => {}
                Some(found) => bail!("token `{token}` has id {found}, not {id}"),
                None => bail!("token `{token}` is missing"),
            }
        }
        Ok(Self { tokenizer, bytes })
    }

    /// The bytes of the file, to copy it as it is and to compare two.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The ids of a text, with nothing added.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| anyhow!("{e}"))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// The text of ids, special tokens included; `<eos>` and `<pad>` leave no trace.
    ///
    /// # Errors
    /// When an id is unknown.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let ids: Vec<u32> =
            ids.iter().filter(|id| **id != EOS && **id != PAD).map(|id| *id as u32).collect();
        self.tokenizer.decode(&ids, false).map_err(|e| anyhow!("{e}"))
    }

    /// `<bos><user>{prompt}<bot>`.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn prompt(&self, prompt: &str) -> Result<Vec<i64>> {
        let mut ids = vec![BOS, USER];
        ids.extend(self.encode(prompt)?);
        ids.push(BOT);
        Ok(ids)
    }

    /// `{completion}`, and `<eos>` when it is finished.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn completion(&self, completion: &str, finished: bool) -> Result<Vec<i64>> {
        let mut ids = self.encode(completion)?;
        if finished {
            ids.push(EOS);
        }
        Ok(ids)
    }

    /// `<bos>{text}<eos>`.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn document(&self, text: &str) -> Result<Vec<i64>> {
        let mut ids = vec![BOS];
        ids.extend(self.encode(text)?);
        ids.push(EOS);
        Ok(ids)
    }
}
