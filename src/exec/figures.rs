//! Figures that a plain program reports: a JSON map of numbers at the path in `FIGURES`.
//! Does not know what they are for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Outcome;
use crate::files;

/// Room for a hundred thousand figures.
const LARGEST: u64 = 8 << 20;

/// Where the program of a task writes them.
pub fn path(logs: &Path) -> PathBuf {
    logs.join("figures.json")
}

/// What the program wrote; nothing where it wrote no such file.
pub fn read(logs: &Path) -> Result<BTreeMap<String, Option<f64>>, Outcome> {
    let path = path(logs);
    let text = match files::read_own(&path, LARGEST) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(wrong(&path, &e.to_string())),
    };
    serde_json::from_slice(&text).map_err(|e| wrong(&path, &e.to_string()))
}

fn wrong(path: &Path, reason: &str) -> Outcome {
    Outcome::Failed {
        message: "the figures that the program wrote cannot be read".to_owned(),
        chain: vec![format!("{}: {reason}", path.display())],
        help: Some(r#"write one JSON map of numbers to "$FIGURES": {"accuracy": 0.5}"#.to_owned()),
    }
}
