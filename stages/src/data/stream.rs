//! Reads texts one by one, so that a corpus need not fit into memory.
//! Knows nothing of what they are for.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use super::form::{Form, MARK, Wanted, files_of, open};
use super::json::field;
use super::parquet_file::parquet_texts;
use super::read::open_delimited;
use super::{BadRows, Table, TextUnit, read_table};

/// The column that is read.
const TEXT: &str = "text";

/// Texts, one after the other.
type Texts = Box<dyn Iterator<Item = Result<String>>>;

/// The column `text` of some files, one text after the other; the same texts as
/// [`super::read_tables`] gives. `named`: people named the files.
///
/// Parquet, JSON lines, tables as text and plain text are read piece by piece; blank lines of
/// plain text are left out.
pub fn read_texts(paths: &[String], named: bool) -> impl Iterator<Item = Result<String>> + use<> {
    let (files, failed) = match files_of(paths) {
        Ok(files) => (files, None),
        Err(e) => (Vec::new(), Some(Err(e))),
    };
    let texts = move |path: PathBuf| {
        let texts =
            texts_of(&path, named).with_context(|| format!("cannot read {}", path.display()));
        texts.unwrap_or_else(|e| Box::new(std::iter::once(Err(e))))
    };
    failed.into_iter().chain(files.into_iter().flat_map(texts))
}

fn texts_of(path: &Path, named: bool) -> Result<Texts> {
    let wanted = Wanted::text(named);
    Ok(match Form::of(path, &wanted)? {
        Form::Parquet => Box::new(parquet_texts(path, TEXT)?),
        Form::JsonLines => Box::new(json_texts(path)?),
        Form::Arrow | Form::JsonList => {
            let table = read_table(path, &wanted, TextUnit::Lines, BadRows::Fail, &mut Vec::new())?;
            let texts: Vec<String> = texts(&table)?;
            Box::new(texts.into_iter().map(Ok))
        }
        Form::Delimited(delimiter) => delimited_texts(path, delimiter)?,
        Form::Text => Box::new(
            lines(path)?
                .map(|(_, line)| line)
                .filter(|line| line.as_ref().map_or(true, |line| !line.trim().is_empty())),
        ),
    })
}

fn texts(table: &Table) -> Result<Vec<String>> {
    Ok(table.texts(TEXT)?.into_iter().map(str::to_owned).collect())
}

/// Lines with their numbers from 1.
fn lines(path: &Path) -> Result<impl Iterator<Item = (usize, Result<String>)> + use<>> {
    let file = BufReader::new(open(path)?);
    let name = path.display().to_string();
    let mark = std::str::from_utf8(MARK).expect("invariant: the mark is a character");
    Ok(file.lines().enumerate().map(move |(i, line)| {
        let line = line.map(|line| match line.strip_prefix(mark) {
            Some(rest) if i == 0 => rest.to_owned(),
            _ => line,
        });
        (i + 1, line.with_context(|| format!("line {} of {name} is not UTF-8 text", i + 1)))
    }))
}

fn json_texts(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let name = path.display().to_string();
    let one = move |(i, line): (usize, Result<String>)| -> Option<Result<String>> {
        let line = match line {
            Ok(line) if line.trim().is_empty() => return None,
            Ok(line) => line,
            Err(e) => return Some(Err(e)),
        };
        let text = field(line.as_bytes(), TEXT).map_err(|e| anyhow!("row {i} of {name}: {e}"));
        Some(text.and_then(|column| match column {
            None => bail!("row {i} of {name}: column `{TEXT}` is missing"),
            Some(column) => {
                let table = Table::new(vec![(TEXT, column)])?.from_file(&name, [i]);
                Ok(table.texts(TEXT)?[0].to_owned())
            }
        }))
    };
    Ok(lines(path)?.filter_map(one))
}

fn delimited_texts(path: &Path, delimiter: u8) -> Result<Texts> {
    let (reader, names) = open_delimited(path, delimiter)?;
    let mut places = (0..names.len()).filter(|i| names[*i] == TEXT);
    let place = places.next().with_context(|| format!("no column `{TEXT}`"))?;
    if places.next().is_some() {
        bail!("the first row of {}: two columns are named `{TEXT}`", path.display());
    }
    let name = path.display().to_string();
    Ok(Box::new(reader.into_records().enumerate().map(move |(i, record)| {
        let record = record.map_err(|e| match e.is_io_error() {
            true => anyhow!("{name}: {e}"),
            false => anyhow!("row {} of {name}: {e}", i + 1),
        })?;
        Ok(record.get(place).unwrap_or_default().to_owned())
    })))
}
