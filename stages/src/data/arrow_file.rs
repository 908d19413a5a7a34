//! Streams of Arrow, as `datasets.save_to_disk` writes them, as tables.
//! Knows nothing of what the columns mean.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Result, bail};
use arrow_ipc::reader::StreamReader;

use super::Table;
use super::parquet_file::table_of;

/// All rows of a file. A column whose values have no form here is left out, with its reason.
///
/// # Errors
/// The file is damaged or no stream of Arrow.
pub fn read_arrow(path: &Path) -> Result<Table> {
    arrow_head(path, usize::MAX)
}

/// The first rows of a file, `most` or some more.
///
/// # Errors
/// As [`read_arrow`].
pub fn arrow_head(path: &Path, most: usize) -> Result<Table> {
    let reader = StreamReader::try_new(BufReader::new(fs_err::File::open(path)?), None)?;
    let schema = reader.schema();
    let names: Vec<&String> = schema.fields().iter().map(|f| f.name()).collect();
    if let Some((_, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        bail!("two columns are named `{name}`");
    }
    table_of(path, &schema.clone(), reader.map(|batch| Ok(batch?)), most)
}
