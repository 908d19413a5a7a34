//! `prepare`: any table or text becomes a canonical dataset.
//! Knows nothing of tokens or models.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use preflow::votes::pair_id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{
    BadRow, BadRows, Column, Table, TextUnit, Wanted, files_of, part_of_prompt, read_head,
    read_table,
};
use crate::kind::{Stage, Summary, input, output};
use crate::preflight::{Preflight, one_file};

/// Rows named one by one before the rest is only counted.
const NAMED_ROWS: usize = 5;

/// Params of `prepare`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// What the rows are: `text` needs column text, `prompt` column prompt, `prompt_completion`
    /// columns prompt and completion, `pairs` columns prompt, response_a and response_b.
    #[serde(rename = "as")]
    target: Target,
    /// Canonical column → column of the source, where the two differ.
    #[serde(default)]
    columns: BTreeMap<String, String>,
    /// How plain text is cut into rows: lines, paragraphs, whole, or chars:N.
    #[serde(default = "lines")]
    unit: String,
    /// Which part of the rows to keep.
    #[serde(default)]
    split: Split,
    /// Drop rows whose canonical columns repeat an earlier row.
    #[serde(default)]
    dedupe: bool,
    /// What a row that cannot be read does: fail the stage, or be skipped and named.
    #[serde(default)]
    on_bad_row: OnBadRow,
}

/// Rows chosen by a hash of their prompt (or text).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Split {
    /// all rows, those of the train part, or those of the test part; equal prompts always fall
    /// into one part.
    part: Part,
    /// Share of the prompts in the test part.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-unit" = "fraction"))]
    test_fraction: f64,
}

impl Default for Split {
    fn default() -> Self {
        Self { part: Part::All, test_fraction: 0.1 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Part {
    All,
    Train,
    Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnBadRow {
    #[default]
    Fail,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Target {
    Text,
    Prompt,
    PromptCompletion,
    Pairs,
}

impl Target {
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Text => &["text"],
            Self::Prompt => &["prompt"],
            Self::PromptCompletion => &["prompt", "completion"],
            Self::Pairs => &["prompt", "response_a", "response_b"],
        }
    }
}

fn lines() -> String {
    "lines".into()
}

impl Stage for Prepare {
    const NAME: &'static str = "prepare";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "turn JSON, CSV, TSV, Parquet or text into a canonical dataset";
    const FIGURES: &'static [&'static str] = &["rows/*"];
    const THREADS: u32 = 1;

    fn inputs() -> Vec<InputDoc> {
        vec![input("data", &["*"], "the source: files or a dataset of another stage")]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("data", "dataset/{as}", "parquet", "the rows, further columns untouched")]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("unit", self.unit.parse::<TextUnit>());
        let Some(input) =
            look.inputs("data").first().filter(|i| look.sees_inputs() && !i.paths.is_empty())
        else {
            return;
        };
        let wanted = self.wanted(input.stage.is_none());
        let columns = || self.target.columns().iter().map(|c| (*c, self.source(c)));
        match read_head(Path::new(&input.paths[0]), &wanted) {
            Err(e) if self.on_bad_row == OnBadRow::Fail => {
                look.refuse("data", format!("source `{}`: {e:#}", input.name), None);
            }
            Err(_) => {}
            Ok(head) if head.names().is_empty() => {}
            Ok(head) if head.rows() == 0 && one_file(input) => {
                let message = format!("source `{}`: {} has no rows", input.name, input.paths[0]);
                look.refuse("data", message, None);
            }
            Ok(head) => {
                for (to, from) in columns() {
                    let column = match head.require(from) {
                        Ok(column) => column,
                        Err(e) => {
                            let help = format!("name it under `columns: {{ {to}: … }}`");
                            let field = if to == from { "as" } else { "columns" };
                            let message = format!("source `{}`: {e:#}", input.name);
                            return look.refuse(field, message, Some(help));
                        }
                    };
                    let wrong = |i| text_of(column, from, i).err().map(|reason| (i, reason));
                    let bad = (0..head.rows()).find_map(wrong);
                    if let Some((i, reason)) = bad.filter(|_| self.on_bad_row == OnBadRow::Fail) {
                        let message =
                            format!("source `{}`: {}: {reason}", input.name, head.place(i));
                        let help = "mend the row, or leave such rows out: `on_bad_row: skip`";
                        return look.refuse("data", message, Some(help.into()));
                    }
                }
            }
        }
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let input = cx.input("data")?.clone();
        let files = files_of(&input.paths)?;
        let mut bad = Vec::new();
        let mut table = Table::default();
        let mut read = 0;
        for path in &files {
            let kept = self.read(path, input.source, &mut bad)?;
            read += kept.rows();
            table = table.stack(kept)?;
        }
        read += bad.len();
        if read == 0 {
            let help = "check the path, and that the file is not empty";
            return Err(error_with_help(
                format!("the source is empty: {}", input.paths.join(", ")),
                help,
            ));
        }
        cx.warn_if(name_bad_rows(&bad, files.len() > 1))?;
        cx.warn_if(name_unreadable(&table))?;
        let table = self.choose(&table)?;
        if table.rows() == 0 {
            bail!("no row is left of {read}: see `split`, `dedupe` and `on_bad_row`");
        }
        let table = if self.target == Target::Pairs { named(table)? } else { table };
        cx.write_table("data", &table)?;
        Ok(Summary::from([
            ("rows/read".into(), read as f64),
            ("rows/bad".into(), bad.len() as f64),
            ("rows/kept".into(), table.rows() as f64),
        ]))
    }
}

impl Prepare {
    /// One file with its columns renamed; rows without text in a canonical column are bad.
    fn read(&self, path: &Path, named: bool, bad: &mut Vec<BadRow>) -> Result<Table> {
        let policy = match self.on_bad_row {
            OnBadRow::Fail => BadRows::Fail,
            OnBadRow::Skip => BadRows::Skip,
        };
        let wanted = self.wanted(named);
        let mut table = read_table(path, &wanted, self.unit.parse()?, policy, bad)?;
        if table.rows() == 0 {
            return Ok(Table::default());
        }
        table.rename(&self.columns).with_context(|| path.display().to_string())?;
        let mut good = vec![true; table.rows()];
        for name in self.target.columns() {
            let column = table.require(name).map_err(|e| {
                let help = format!("name it under `columns: {{ {name}: … }}`");
                error_with_help(format!("{}: {e}", path.display()), help)
            })?;
            let mut texts = Vec::with_capacity(column.len());
            for (i, good) in good.iter_mut().enumerate() {
                let reason = match text_of(column, name, i) {
                    Ok(text) => {
                        texts.push(Some(text.into_owned()));
                        continue;
                    }
                    Err(reason) => reason,
                };
                texts.push(None);
                if policy == BadRows::Fail {
                    bail!("{}: {reason}", table.place(i));
                }
                if std::mem::replace(good, false) {
                    let file = path.display().to_string();
                    bad.push(BadRow { file, row: table.row_number(i), reason });
                }
            }
            table.set(name, Column::Text(texts))?;
        }
        let rows: Vec<usize> = (0..table.rows()).filter(|i| good[*i]).collect();
        Ok(table.take(&rows))
    }

    /// What the source calls a canonical column.
    fn source<'a>(&'a self, name: &'a str) -> &'a str {
        self.columns.get(name).map_or(name, String::as_str)
    }

    /// The columns to look for, by their names in the source.
    fn wanted(&self, named: bool) -> Wanted<'_> {
        let mut columns: Vec<&str> =
            self.target.columns().iter().map(|name| self.source(name)).collect();
        columns.extend(self.columns.values().map(String::as_str));
        let plain = columns.contains(&"text");
        Wanted { columns, plain, named }
    }

    /// The rows of the part that is asked for, without repetitions when `dedupe`.
    fn choose(&self, table: &Table) -> Result<Table> {
        let keys = table.texts(self.target.columns()[0])?;
        let columns = self.target.columns().iter().map(|c| table.texts(c));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let test = part_of_prompt(key, "split", self.split.test_fraction);
            let wanted = match self.split.part {
                Part::All => true,
                Part::Train => !test,
                Part::Test => test,
            };
            let row: Vec<&str> = columns.iter().map(|c| c[i]).collect();
            if wanted && (!self.dedupe || seen.insert(row)) {
                rows.push(i);
            }
        }
        Ok(table.take(&rows))
    }
}

/// The text of a cell that must have one.
///
/// # Errors
/// What is wrong with it.
fn text_of<'a>(column: &'a Column, name: &str, row: usize) -> Result<Cow<'a, str>, String> {
    match column.text_at(row) {
        Ok(Some(text)) if !text.is_empty() => Ok(text),
        Ok(_) => Err(format!("column `{name}` is empty")),
        Err(found) => {
            Err(format!("column `{name}` holds {found}, not text: see docs/your-data.md"))
        }
    }
}

/// Adds the names by which votes know the pairs.
fn named(mut table: Table) -> Result<Table> {
    let prompts = table.texts("prompt")?;
    let (one, other) = (table.texts("response_a")?, table.texts("response_b")?);
    let names = (0..table.rows()).map(|i| pair_id(prompts[i], one[i], other[i]));
    let names = Column::text(names.collect::<Vec<_>>());
    table.set("pair", names)?;
    Ok(table)
}

/// One line about rows that were left out.
fn name_bad_rows(bad: &[BadRow], several: bool) -> Option<String> {
    let name = |b: &BadRow| match several {
        true => format!("row {} of {}: {}", b.row, b.file, b.reason),
        false => format!("row {}: {}", b.row, b.reason),
    };
    let named: Vec<String> = bad.iter().take(NAMED_ROWS).map(name).collect();
    let more = bad.len().saturating_sub(NAMED_ROWS);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!bad.is_empty()).then(|| format!("skipped {} rows: {}{more}", bad.len(), named.join("; ")))
}

/// One line about columns that cannot be carried along.
fn name_unreadable(table: &Table) -> Option<String> {
    let names: Vec<String> =
        table.unreadable().iter().map(|(name, why)| format!("`{name}` ({why})")).collect();
    (!names.is_empty())
        .then(|| format!("left out columns that cannot be read: {}", names.join("; ")))
}
