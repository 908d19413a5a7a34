//! What a file is, by its first bytes: its ending may say anything.
//! Knows nothing of rows.

use std::path::Path;

use crate::foreign::foreign;

/// Forms of files that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Parquet,
    /// One object a line, or one list of objects.
    Json,
    /// Cells with a comma, a tab or a semicolon between them.
    Csv,
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Json => "JSON",
            Self::Csv => "CSV",
        }
    }
}

/// Why a path is no file that can be read, if it is none.
pub fn no_file(path: &Path) -> Option<&'static str> {
    let kind = std::fs::metadata(path).ok()?;
    if !kind.is_dir() {
        return (!kind.is_file()).then_some("is no regular file");
    }
    let saved = ["dataset_info.json", "state.json", "dataset_dict.json"];
    Some(if saved.iter().any(|name| path.join(name).is_file()) {
        "is a folder of `datasets.save_to_disk`: write it with `to_parquet` or `to_json`"
    } else {
        "is a folder: name the files in it, such as `FOLDER/*.parquet`"
    })
}

/// What a file holds, and its bytes without the mark that some programs put before UTF-8.
///
/// # Errors
/// It is nothing that is read here, or not what was asked for: says which, and what to do.
pub fn sniff(bytes: &[u8], asked: Option<Encoding>) -> Result<(Encoding, &[u8]), String> {
    let found = if bytes.starts_with(b"PAR1") {
        return match asked {
            None | Some(Encoding::Parquet) => Ok((Encoding::Parquet, bytes)),
            Some(other) => Err(format!("is a Parquet file, not {}", other.name())),
        };
    } else if let Some(what) = foreign(bytes) {
        what
    } else if bytes.iter().take(1024).any(|b| *b == 0) {
        "holds NUL characters: it is binary, or text in UTF-16; save it as UTF-8"
    } else {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        return text(bytes, asked).map(|encoding| (encoding, bytes));
    };
    Err(found.to_owned())
}

fn text(bytes: &[u8], asked: Option<Encoding>) -> Result<Encoding, String> {
    let start = bytes.trim_ascii_start();
    let json = start.starts_with(b"{") || start.starts_with(b"[");
    match asked {
        Some(Encoding::Parquet) => Err("is not a Parquet file: it does not start with PAR1".into()),
        Some(asked) => Ok(asked),
        None if json || start.is_empty() => Ok(Encoding::Json),
        None if delimiter(bytes).is_some() => Ok(Encoding::Csv),
        None => {
            let line = start.split(|b| *b == b'\n').next().unwrap_or_default();
            let line: String = String::from_utf8_lossy(line).trim().chars().take(40).collect();
            Err(format!("is neither JSON nor CSV: it begins with `{line}`"))
        }
    }
}

/// What stands between the cells of the first line, outside quotes: the most frequent one.
pub fn delimiter(bytes: &[u8]) -> Option<u8> {
    let mut quoted = false;
    let line = bytes.iter().copied().take_while(|b| {
        quoted ^= *b == b'"';
        quoted || *b != b'\n'
    });
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    for byte in line {
        quoted ^= byte == b'"';
        if let Some((_, n)) = counts.iter_mut().find(|(d, _)| *d == byte && !quoted) {
            *n += 1;
        }
    }
    counts.into_iter().filter(|(_, n)| *n > 0).max_by_key(|(_, n)| *n).map(|(d, _)| d)
}
