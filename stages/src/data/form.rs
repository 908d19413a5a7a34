//! What a file is: found from its content and from the columns that its reader wants, never from
//! its name, which differs between the place where a stage writes and the place where it is kept.
//! Knows nothing of how rows are read.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use preflow::files::unpacked;
use preflow::foreign::foreign;
use serde_json::Value;

/// Bytes at the start of a file that are looked at.
const HEAD: usize = 1 << 16;

/// Characters between the columns of a table as text.
const DELIMITERS: [u8; 3] = *b",\t;";

/// A mark that some programs put before UTF-8 text.
pub const MARK: &[u8] = "\u{feff}".as_bytes();

/// How a stream of Arrow begins.
const ARROW: [u8; 4] = [0xff; 4];

/// How the rows of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Parquet,
    /// A stream of Arrow, as `datasets.save_to_disk` writes it.
    Arrow,
    /// One JSON object a line.
    JsonLines,
    /// One list of JSON objects.
    JsonList,
    /// A table as text: the names of the columns in the first row, this byte between columns.
    Delimited(u8),
    /// Plain text.
    Text,
}

/// What a reader looks for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Columns by which the first row of a table as text is known.
    pub columns: Vec<&'a str>,
    /// Plain text will do: it becomes column `text`.
    pub plain: bool,
    /// A person named the file: an ending that its content contradicts is a mistake.
    pub named: bool,
}

impl Wanted<'_> {
    /// Texts to learn from.
    pub fn text(named: bool) -> Self {
        Self { columns: vec!["text"], plain: true, named }
    }
}

/// Refuses a file that is none of ours, by name.
///
/// # Errors
/// It is a pointer of Git LFS, compressed, or of another known format; or it cannot be read.
pub fn refuse_others(path: &Path) -> Result<()> {
    refuse(path, &head_of(path)?)
}

/// A file, unpacked where it is compressed.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> Result<Box<dyn Read>> {
    unpacked(fs_err::File::open(path)?).with_context(|| path.display().to_string())
}

/// All bytes of a file, unpacked where it is compressed.
///
/// # Errors
/// It cannot be read.
pub fn read_all(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(bytes)
}

fn refuse(path: &Path, head: &[u8]) -> Result<()> {
    match foreign(head) {
        Some(what) => bail!("{} {what}", path.display()),
        None => Ok(()),
    }
}

fn head_of(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let read = open(path)?.take(HEAD as u64).read_to_end(&mut head);
    read.with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(head)
}

impl Form {
    /// The form of a file.
    ///
    /// # Errors
    /// It cannot be read, is of a format that is not read, or is not what its name says.
    pub fn of(path: &Path, wanted: &Wanted) -> Result<Self> {
        let head = head_of(path)?;
        if head.starts_with(b"PAR1") {
            let mut start = [0; 4];
            fs_err::File::open(path)?.read_exact(&mut start)?;
            if start != *b"PAR1" {
                bail!("{} is a compressed Parquet file: unpack it first", path.display());
            }
            return Ok(Self::Parquet);
        }
        if head.starts_with(&ARROW) {
            return Ok(Self::Arrow);
        }
        refuse(path, &head)?;
        if head.contains(&0) {
            bail!(
                "{} holds zero bytes: it is no UTF-8 text (UTF-16? save it as UTF-8)",
                path.display()
            );
        }
        let form = Self::of_text(head.strip_prefix(MARK).unwrap_or(&head), wanted);
        if form == Self::Text {
            if wanted.named {
                check_ending(path, &head)?;
            }
            let returns = head.trim_ascii_end();
            if returns.contains(&b'\r') && !returns.contains(&b'\n') {
                bail!(
                    "{}: lines end with carriage returns alone: save it with line feeds",
                    path.display()
                );
            }
        }
        Ok(form)
    }

    fn of_text(head: &[u8], wanted: &Wanted) -> Self {
        let mut marks = head.iter().filter(|b| !b.is_ascii_whitespace());
        match (marks.next(), marks.next()) {
            (Some(b'{'), Some(b'"' | b'}')) => return Self::JsonLines,
            (Some(b'['), Some(b'{')) => return Self::JsonList,
            (Some(b'{'), _) if !wanted.plain => return Self::JsonLines,
            (Some(b'['), _) if !wanted.plain => return Self::JsonList,
            _ => {}
        }
        let hits = |delimiter: &u8| {
            let names = first_record(head, *delimiter);
            names.iter().filter(|n| wanted.columns.contains(&n.as_str())).count()
        };
        // Of equals the first.
        let best = |worth: &dyn Fn(&u8) -> usize| {
            DELIMITERS.into_iter().rev().max_by_key(worth).unwrap_or(b',')
        };
        let delimiter = best(&hits);
        match hits(&delimiter) {
            0 if wanted.plain => Self::Text,
            // The error that follows names the columns there are.
            0 => Self::Delimited(best(&|d| first_record(head, *d).len())),
            _ => Self::Delimited(delimiter),
        }
    }
}

/// The fields of the first row.
fn first_record(head: &[u8], delimiter: u8) -> Vec<String> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).from_reader(head);
    match reader.records().next() {
        Some(Ok(record)) => record.iter().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A file that would be read as plain text although its name says otherwise.
fn check_ending(path: &Path, head: &[u8]) -> Result<()> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = path.display();
    match ending.as_str() {
        "parquet" => bail!("{name} is not a Parquet file: it does not start with PAR1"),
        "json" | "jsonl" | "ndjson" if !head.iter().all(u8::is_ascii_whitespace) => {
            bail!("{name} holds no JSON objects: write one object a line, or one list of objects")
        }
        "csv" | "tsv" if !head.is_empty() => {
            let names = first_record(head, if ending == "tsv" { b'\t' } else { b',' });
            let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
            bail!(
                "{name} has no column that is wanted here; the columns are {}: name it under \
                 `columns` of a stage of kind `prepare`",
                names.join(", ")
            )
        }
        _ => Ok(()),
    }
}

/// The files of some paths: a folder stands for the files in it, in order of their names.
///
/// # Errors
/// A folder cannot be read, has no files, or is a data set in a form that is not read.
pub fn files_of(paths: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths.iter().map(PathBuf::from) {
        if path.is_dir() {
            parts(&path, &mut files)?;
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn parts(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let name = folder.display();
    if folder.join("dataset_dict.json").is_file() {
        bail!("{name} holds several splits of `datasets`: name the folder of one, {name}/train");
    }
    if folder.join("state.json").is_file() && folder.join("dataset_info.json").is_file() {
        return saved(folder, files);
    }
    let before = files.len();
    collect(folder, files)?;
    files[before..].sort();
    if files.len() == before {
        bail!("the folder {name} holds no files");
    }
    Ok(())
}

/// The files of a folder of `datasets.save_to_disk`, in the order of its rows.
fn saved(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let state: Value = serde_json::from_slice(&fs_err::read(folder.join("state.json"))?)
        .with_context(|| format!("{} is not JSON", folder.join("state.json").display()))?;
    if !state["_indices_data_files"].is_null() {
        bail!("{}: rows chosen by index; call `flatten_indices` before saving", folder.display());
    }
    let list = state["_data_files"].as_array().map_or(&[][..], Vec::as_slice);
    for file in list {
        let name = file["filename"].as_str().unwrap_or_default();
        let plain = Path::new(name).file_name().is_some_and(|f| f == name);
        if !plain || !folder.join(name).is_file() {
            bail!("{}: state.json names `{name}`, which is not there", folder.display());
        }
        files.push(folder.join(name));
    }
    if list.is_empty() {
        bail!("{}: state.json names no data files", folder.display());
    }
    Ok(())
}

/// Names that begin with `.` or `_` are notes of the programs that write parts.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(['.', '_']) || name.eq_ignore_ascii_case("readme.md") {
            continue;
        }
        if path.is_dir() {
            let key = name.split_once('=').map(|(key, _)| key).unwrap_or_default();
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            if !key.is_empty() && key.chars().all(is_name) {
                bail!(
                    "{}: column `{key}` stands in the names of folders only: write the rows with \
                     all their columns",
                    path.display()
                );
            }
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str, columns: &[&str], plain: bool) -> Form {
        Form::of_text(head.as_bytes(), &Wanted { columns: columns.to_vec(), plain, named: false })
    }

    #[test]
    fn content_and_wanted_columns_decide() {
        let text = |head: &str| of(head, &["text"], true);
        assert_eq!(text("{\"text\": \"a\"}\n"), Form::JsonLines);
        assert_eq!(text(" [\n {\"text\": \"a\"}]"), Form::JsonList);
        assert_eq!(text("id,text\n1,a\n"), Form::Delimited(b','));
        assert_eq!(text("\"text\"\tid\n"), Form::Delimited(b'\t'));
        // Plain text, whatever it looks like.
        for plain in ["", "{\\bf TeX}", "[1] A note", "the text, of this", "a;b", "textual"] {
            assert_eq!(text(plain), Form::Text, "{plain}");
        }
        let rows = |head: &str| of(head, &["prompt", "completion"], false);
        assert_eq!(rows("prompt;completion\na,b;c\n"), Form::Delimited(b';'));
        assert_eq!(rows("prompt,completion;x\n"), Form::Delimited(b','));
        assert_eq!(rows("question\tanswer\n"), Form::Delimited(b'\t'));
        assert_eq!(rows("[]"), Form::JsonList);
        assert_eq!(rows("{prompt: 1}"), Form::JsonLines);
    }

    #[test]
    fn columns_in_the_names_of_folders_are_not_lost() {
        let folder = tempfile::TempDir::new().expect("a folder");
        fs_err::create_dir(folder.path().join("year=2024")).expect("made");
        let paths = [folder.path().to_string_lossy().into_owned()];
        let error = files_of(&paths).expect_err("refused").to_string();
        assert!(error.contains("column `year`"), "{error}");
    }

    #[test]
    fn lines_that_no_line_feed_ends_are_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let of = |text: &str| {
            fs_err::write(file.path(), text).expect("written");
            Form::of(file.path(), &Wanted::text(true)).map_err(|e| e.to_string())
        };
        assert!(of("a\rb\r").expect_err("refused").ends_with("save it with line feeds"));
        assert_eq!(of("a\rb\nc"), Ok(Form::Text));
        assert_eq!(of("a\r\n"), Ok(Form::Text));
    }
}
