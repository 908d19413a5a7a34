//! Files of kinds that are not read, known by their first bytes, and what helps.
//! Knows nothing of rows or of who wanted to read.

/// What begins so, what it is, and what to do about it.
const FOREIGN: &[(&[u8], &str)] = &[
    (
        b"version https://git-lfs.github.com/spec/",
        "is a pointer of Git LFS: `git lfs pull` fetches the file",
    ),
    (b"BZh", "is compressed by bzip2: unpack it first (`bunzip2`)"),
    (b"\xfd7zXZ\0", "is compressed by xz: unpack it first (`unxz`)"),
    (b"\x04\x22\x4d\x18", "is compressed by lz4: unpack it first (`unlz4`)"),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet: unpack it, or save it as CSV"),
    (b"PARE", "is an encrypted Parquet file: write it without encryption"),
    (b"ARROW1", "is an Arrow file: write it with `to_parquet`"),
    (b"\xff\xff\xff\xff", "is a stream of Arrow: write it with `to_parquet`"),
    (b"SQLite format 3\0", "is a SQLite database: write the table as CSV or Parquet"),
    (b"Obj\x01", "is an Avro file: write it as Parquet"),
    (b"ORC", "is an ORC file: write it as Parquet"),
    (b"\xff\xfe", "is text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "is text in UTF-16: save it as UTF-8"),
];

/// What a file with these first bytes is, in words that follow its name: "is …: remedy". `None`: no
/// foreign file that is known.
#[must_use]
pub fn foreign(head: &[u8]) -> Option<&'static str> {
    let (start, what) = FOREIGN.iter().find(|(start, _)| head.starts_with(start))?;
    // Letters may be the first word of a text.
    let may_be_text = start.iter().all(u8::is_ascii_alphabetic) && is_text(head);
    (!may_be_text).then_some(what)
}

/// Whether the bytes are UTF-8 without control characters, but for a character cut at the end.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !valid.chars().any(|c| c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_foreign_is_named_and_a_word_is_not() {
        for (start, what) in FOREIGN {
            let head = [start, &[0xfe, 0, 0xff][..]].concat();
            assert_eq!(foreign(&head), Some(*what));
        }
        for text in ["ORCs are no elves", "BZh\u{e9}", "PARE down\n", "{}", ""] {
            assert_eq!(foreign(text.as_bytes()), None, "{text}");
        }
        assert_eq!(foreign(&"ORC \u{e9}".as_bytes()[..5]), None, "cut inside a character");
    }
}
