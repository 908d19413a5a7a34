//! Watches the quotes and line ends of a table as text while it is read. The reader behind it takes
//! whatever comes, so that a quote nobody closed would swallow rows in silence.
//! Knows nothing of columns.

use std::io::{self, Read};

/// A mark that some programs put before UTF-8 text.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Where in a cell the last byte stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FilePlace {
    /// Before the first byte of a cell.
    Start,
    Plain,
    Quoted,
    /// After a quote in a quoted cell: its end, or the first of two.
    Quote,
}

/// Bytes of a table as text, handed on as they are until something is wrong with them.
pub struct QuoteWatch<R> {
    inner: R,
    delimiter: u8,
    place: FilePlace,
    /// Bytes so far.
    at: usize,
    line: u64,
    /// Line of the quote that is open.
    opened: u64,
    /// The last byte was a carriage return that ends a row.
    after_return: bool,
    /// Rows end with a carriage return alone; with a line feed.
    returns: bool,
    feeds: bool,
    wrong: Option<String>,
}

impl<R: Read> QuoteWatch<R> {
    /// Watches `inner`, whose columns are separated by `delimiter`.
    pub fn new(inner: R, delimiter: u8) -> Self {
        Self {
            inner,
            delimiter,
            place: FilePlace::Start,
            at: 0,
            line: 1,
            opened: 0,
            after_return: false,
            returns: false,
            feeds: false,
            wrong: None,
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), String> {
        let marked = MARK.get(self.at) == Some(&byte);
        self.at += 1;
        if marked {
            return Ok(());
        }
        let returned = std::mem::take(&mut self.after_return);
        let ends_row = matches!(byte, b'\r' | b'\n');
        let place = match self.place {
            FilePlace::Quoted if byte == b'"' => FilePlace::Quote,
            FilePlace::Quoted => FilePlace::Quoted,
            FilePlace::Quote if byte == b'"' => FilePlace::Quoted,
            _ if byte == self.delimiter || ends_row => FilePlace::Start,
            FilePlace::Quote => {
                return Err(format!(
                    "line {}: text follows the quote that ends a cell: a cell that begins with a \
                     quote ends with one, and a quote within is written twice (`\"\"`)",
                    self.line
                ));
            }
            FilePlace::Start if byte == b'"' => {
                self.opened = self.line;
                FilePlace::Quoted
            }
            _ => FilePlace::Plain,
        };
        if place == FilePlace::Start {
            self.feeds |= byte == b'\n';
            self.returns |= returned && byte != b'\n';
            self.after_return = byte == b'\r';
        } else {
            self.returns |= returned;
        }
        if self.feeds && self.returns {
            return Err(format!(
                "line {}: a carriage return stands alone: a cell that holds one is written in \
                 quotes",
                self.line
            ));
        }
        self.line += u64::from(byte == b'\n');
        self.place = place;
        Ok(())
    }
}

impl<R: Read> Read for QuoteWatch<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let failed = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        if let Some(wrong) = &self.wrong {
            return Err(failed(wrong));
        }
        let n = self.inner.read(buffer)?;
        let mut result = buffer[..n].iter().try_for_each(|byte| self.take(*byte));
        if n == 0 && self.place == FilePlace::Quoted && !buffer.is_empty() {
            result = Err(format!("line {}: a quote opens a cell and none ends it", self.opened));
        }
        match result {
            Ok(()) => Ok(n),
            Err(wrong) => {
                let error = failed(&wrong);
                self.wrong = Some(wrong);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(), String> {
        let mut out = String::new();
        let mut watched = QuoteWatch::new(text.as_bytes(), b',');
        match watched.read_to_string(&mut out) {
            Ok(_) => {
                assert_eq!(out, text);
                Ok(())
            }
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn sound_tables_pass_unchanged() {
        for text in [
            "a,b\nc,d\n",
            "a,b\r\n\"c\rx\ny\",d\r\n",
            "a,b\rc,d\r",
            "\u{feff}\"a\",b\n\"say \"\"hi\"\"\",\"\"\n",
            "a,b\nc \"quoted\" word,d\"",
            "a,b\n\"c\",\"d\"",
        ] {
            assert_eq!(read(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn what_would_be_read_wrongly_is_named_by_its_line() {
        for (text, expected) in [
            ("a,b\nc,\"d\ne,f\n", "line 2: a quote opens a cell"),
            ("a,b\nc,d\n\"e\" f,g\n", "line 3: text follows the quote"),
            ("a,b\n\"say \\\"hi\\\"\",d\n", "line 2: text follows the quote"),
            ("a,b\nc\rd,e\n", "line 2: a carriage return stands alone"),
            ("a,b\nc,d\r\re,f\n", "line 2: a carriage return stands alone"),
            ("a,b\nc,d\n\re,f", "line 3: a carriage return stands alone"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
