//! Tokens of a corpus on disk, so that training holds no more of them than one batch.
//! Knows nothing of where they come from.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Bytes of one token.
const WIDTH: u64 = 4;

/// A list of tokens that is being written.
#[derive(Debug)]
pub struct TokenWriter {
    file: BufWriter<File>,
    len: u64,
}

/// A list of tokens in a file, cut into rows of one length that share their borders: the last
/// token of a row, which is only predicted, is the first of the next.
#[derive(Debug)]
pub struct TokenRows {
    file: File,
    len: u64,
    context: u64,
}

impl TokenWriter {
    /// A new file; one that is there is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file: BufWriter::new(file.into_file()), len: 0 })
    }

    /// Adds tokens at the end.
    ///
    /// # Errors
    /// When the disk is full, or an id is no id.
    pub fn push(&mut self, tokens: &[i64]) -> Result<()> {
        for token in tokens {
            let token = u32::try_from(*token).context("a token id is negative or too large")?;
            self.file.write_all(&token.to_le_bytes()).context("the tokens cannot be kept")?;
        }
        self.len += tokens.len() as u64;
        Ok(())
    }

    /// Ends writing. Rows hold `context` tokens and the one after them.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn rows(self, context: usize) -> Result<TokenRows> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(TokenRows { file, len: self.len, context: context as u64 })
    }
}

impl TokenRows {
    /// Number of tokens in the file.
    pub fn tokens(&self) -> u64 {
        self.len
    }

    /// Number of whole rows.
    pub fn count(&self) -> usize {
        (self.len.saturating_sub(1) / self.context) as usize
    }

    /// Row `i`, `context + 1` tokens.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn row(&self, i: usize) -> Result<Vec<i64>> {
        let mut bytes = vec![0; ((self.context + 1) * WIDTH) as usize];
        let place = i as u64 * self.context * WIDTH;
        self.file.read_exact_at(&mut bytes, place).context("the tokens cannot be read back")?;
        let word = |b: &[u8]| i64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(bytes.chunks_exact(WIDTH as usize).map(word).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_their_borders_and_a_rest_is_left_out() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let path = dir.path().join("tokens");
        let mut writer = TokenWriter::create(&path).expect("created");
        writer.push(&[0, 1, 2]).expect("written");
        writer.push(&[70_000, 4, 5, 6, 7]).expect("written");
        let rows = writer.rows(3).expect("rows");
        assert_eq!((rows.tokens(), rows.count()), (8, 2));
        assert_eq!(rows.row(0).expect("there"), [0, 1, 2, 70_000]);
        assert_eq!(rows.row(1).expect("there"), [70_000, 4, 5, 6]);
        assert!(rows.row(2).is_err());
        assert!(TokenWriter::create(&path).expect("created").push(&[-1]).is_err());
        assert_eq!(TokenWriter::create(&path).expect("created").rows(3).expect("none").count(), 0);
    }
}
