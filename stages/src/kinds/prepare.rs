//! `prepare`: any table or text becomes a canonical dataset.
//! Knows nothing of tokens or models.

mod conditions;
mod path;
mod similar;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use preflow::protocol::{InputDoc, OutputDoc};
use preflow::votes::pair_id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advice::{Advised, error_with_help};
use crate::context::Context;
use crate::data::{
    BadRow, BadRows, Column, Content, RowForm, RowType, Table, TextUnit, Wanted, files_of,
    part_of_prompt, read_head, read_table, settle_as,
};
use crate::kind::{Stage, Summary, input, optional, output};
use crate::preflight::{Preflight, one_file};
use conditions::Condition;
use path::at_path;
use similar::{Likeness, Similar};

/// What helps where a row is not understood.
const MEND: &str = "mend the row, or leave such rows out: `on_bad_row: skip`";

/// Rows named one by one before the rest is only counted.
const NAMED_ROWS: usize = 5;

/// Params of `prepare`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// What the rows are: `text` needs column text, `prompt` column prompt, `prompt_completion`
    /// columns prompt and completion, `messages` column messages, `pairs` columns prompt,
    /// response_a and response_b, `labels` columns prompt, chosen and rejected. Alpaca, ShareGPT,
    /// whole conversations and transcripts are known by their columns.
    #[serde(rename = "as")]
    target: RowType,
    /// Canonical column → column of the source, where the two differ; or a path into one, such as
    /// `chosen[-1].content` or `instances[0].output`.
    #[serde(default)]
    columns: BTreeMap<String, String>,
    /// The form of the rows: auto (their columns say it), plain (the columns of the type, texts are
    /// never read as transcripts), openai, sharegpt, alpaca, hh, or implicit. What is named must be
    /// there; columns of other forms do not count then.
    #[serde(default)]
    #[schemars(extend("x-later" = true))]
    form: RowForm,
    /// How plain text is cut into rows: lines, paragraphs, whole, or chars:N.
    #[serde(default = "lines")]
    unit: String,
    /// Which part of the rows to keep.
    #[serde(default)]
    split: Split,
    /// Drop rows whose canonical columns repeat an earlier row.
    #[serde(default)]
    dedupe: bool,
    /// Conditions that a row must meet to stay, all of them.
    #[serde(default, rename = "where")]
    #[schemars(extend("x-later" = true))]
    conditions: Vec<Condition>,
    /// Rows that are nearly the same as an earlier one: ignore, count, or drop them. Of a
    /// conversation the first message of the user counts.
    #[serde(default)]
    #[schemars(extend("x-later" = true))]
    near_duplicates: Similar,
    /// Rows whose prompt is nearly one of port `unseen`: ignore, count, or drop them.
    #[serde(default = "count")]
    #[schemars(extend("x-later" = true))]
    overlap: Similar,
    /// Share of its runs of three words that makes a text nearly the same.
    #[serde(default = "most")]
    #[schemars(range(min = 0.05, max = 1.0), extend("x-later" = true, "x-unit" = "fraction"))]
    near: f64,
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

fn lines() -> String {
    "lines".into()
}

fn count() -> Similar {
    Similar::Count
}

fn most() -> f64 {
    0.8
}

impl Stage for Prepare {
    const NAME: &'static str = "prepare";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "turn JSON, CSV, TSV, Parquet or text into a canonical dataset";
    const FIGURES: &'static [&'static str] = &["rows/*"];
    const THREADS: u32 = 1;

    fn inputs() -> Vec<InputDoc> {
        let tokenizers = &["tokenizer", "model/policy", "model/reward"];
        let prompts = &["dataset/prompt", "dataset/prompt_completion"];
        vec![
            input("data", &["*"], "the source: files or a dataset of another stage"),
            optional("tokenizer", tokenizers, "counts the tokens of `where`"),
            optional("unseen", prompts, "prompts that policies are judged by, for `overlap`"),
        ]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("data", "dataset/{as}", "parquet", "the rows, further columns untouched")]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("unit", self.unit.parse::<TextUnit>());
        let tokenizer = !look.inputs("tokenizer").is_empty();
        look.tell("where", conditions::check(&self.conditions, tokenizer));
        let Some(input) =
            look.inputs("data").first().filter(|i| look.sees_inputs() && !i.paths.is_empty())
        else {
            return;
        };
        let wanted = self.wanted(input.stage.is_none());
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
            Ok(head) => self.check_head(look, head, &input.name),
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
        let table = conditions::meeting(cx, &self.conditions, table)?;
        let likeness = Likeness {
            near_duplicates: self.near_duplicates,
            overlap: self.overlap,
            share: self.near,
        };
        let keys = &|table: &Table| self.keys(table);
        let (table, mut figures) = similar::without_similar(cx, likeness, table, keys)?;
        if table.rows() == 0 {
            bail!(
                "no row is left of {read}: see `split`, `dedupe`, `where`, `near_duplicates`, \
                 `overlap` and `on_bad_row`"
            );
        }
        let table = if self.target == RowType::Pairs { named(table)? } else { table };
        cx.write_table("data", &table)?;
        figures.extend([
            ("rows/read".into(), read as f64),
            ("rows/bad".into(), bad.len() as f64),
            ("rows/kept".into(), table.rows() as f64),
        ]);
        Ok(figures)
    }
}

impl Prepare {
    /// Notes what is wrong with the first rows of source `name`.
    fn check_head(&self, look: &mut Preflight, head: Table, name: &str) {
        let skip = self.on_bad_row == OnBadRow::Skip;
        let named = match self.named(head) {
            Ok(named) => named,
            Err(e) => {
                let help = e.downcast_ref::<Advised>().map(|a| a.help.clone());
                return look.refuse("columns", format!("source `{name}`: {e:#}"), help);
            }
        };
        let head = match settle_as(named, self.target.port_type(), self.form) {
            Ok(head) => head,
            Err(_) if skip => return,
            Err(e) => {
                let help = e.downcast_ref::<Advised>().map_or(MEND, |a| &a.help).to_owned();
                return look.refuse("data", format!("source `{name}`: {e:#}"), Some(help));
            }
        };
        for to in self.target.columns() {
            let column = match head.require(to) {
                Ok(column) => column,
                Err(e) => {
                    let help = format!("name it under `columns: {{ {to}: … }}`");
                    return look.refuse("as", format!("source `{name}`: {e:#}"), Some(help));
                }
            };
            let wrong = |i| self.content(column, to, i).err().map(|reason| (i, reason));
            let bad = (0..head.rows()).find_map(wrong);
            if let Some((i, reason)) = bad.filter(|_| !skip) {
                let message = format!("source `{name}`: {}: {reason}", head.place(i));
                return look.refuse("data", message, Some(MEND.into()));
            }
        }
    }

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
        table = self.named(table).with_context(|| path.display().to_string())?;
        let mut good = vec![true; table.rows()];
        table = self.settled(path, table, &mut good, bad)?;
        for name in self.target.columns() {
            let column = table.require(name).map_err(|e| {
                let help = format!("name it under `columns: {{ {name}: … }}`");
                error_with_help(format!("{}: {e}", path.display()), help)
            })?;
            let mut contents = Vec::with_capacity(column.len());
            for (i, good) in good.iter_mut().enumerate() {
                let reason = match self.content(column, name, i) {
                    Ok(content) => {
                        contents.push(content);
                        continue;
                    }
                    Err(reason) => reason,
                };
                contents.push(Content::Text(String::new()));
                if policy == BadRows::Fail {
                    bail!("{}: {reason}", table.place(i));
                }
                if std::mem::replace(good, false) {
                    let file = path.display().to_string();
                    bad.push(BadRow { file, row: table.row_number(i), reason });
                }
            }
            let role = if *name == "prompt" { "user" } else { "assistant" };
            table.set(name, Column::contents(contents.iter().map(Cow::Borrowed), role))?;
        }
        let rows: Vec<usize> = (0..table.rows()).filter(|i| good[*i]).collect();
        Ok(table.take(&rows))
    }

    /// The rows in the form of their type. Where that fails and bad rows are skipped, each row is
    /// tried by itself.
    fn settled(
        &self,
        path: &Path,
        table: Table,
        good: &mut Vec<bool>,
        bad: &mut Vec<BadRow>,
    ) -> Result<Table> {
        let port_type = self.target.port_type();
        let first = settle_as(table.clone(), port_type, self.form);
        if first.is_ok() || self.on_bad_row == OnBadRow::Fail {
            return first;
        }
        let mut all = Table::default();
        for row in 0..table.rows() {
            match settle_as(table.take(&[row]), port_type, self.form) {
                Ok(one) => all = all.stack(one)?,
                Err(e) => {
                    let file = path.display().to_string();
                    bad.push(BadRow { file, row: table.row_number(row), reason: format!("{e:#}") });
                }
            }
        }
        good.truncate(all.rows());
        Ok(all)
    }

    /// The table with its columns renamed; paths into columns become columns.
    ///
    /// # Errors
    /// A column or what a path names is not there.
    fn named(&self, mut table: Table) -> Result<Table> {
        let mut names = self.columns.clone();
        for from in names.values_mut() {
            let unknown = table.column(from).is_none() && !table.unreadable().contains_key(from);
            if unknown && let Some(column) = at_path(&table, from)? {
                table.set(from, column)?;
            }
        }
        table.rename(&names)?;
        Ok(table)
    }

    /// What the source calls a canonical column.
    fn source<'a>(&'a self, name: &'a str) -> &'a str {
        self.columns.get(name).map_or(name, String::as_str)
    }

    /// The columns to look for, by their names in the source.
    fn wanted(&self, named: bool) -> Wanted<'_> {
        let mut columns: Vec<&str> =
            self.target.columns().iter().map(|name| self.source(name)).collect();
        let base = |path: &'_ String| path.find(['[', '.']).unwrap_or(path.len());
        columns.extend(self.columns.values().flat_map(|path| [path, &path[..base(path)]]));
        if self.target != RowType::Text {
            columns.extend(["instruction", "conversations", "chosen", "messages"]);
        }
        let plain = columns.contains(&"text");
        Wanted { columns, plain, named }
    }

    /// The canonical columns, each as the texts by which equal cells are equal; of conversations
    /// what they begin with.
    fn keys(&self, table: &Table) -> Result<Vec<Vec<String>>> {
        let key = |name: &&str| match self.target {
            RowType::Messages => openings(table),
            _ => table.keys(name),
        };
        self.target.columns().iter().map(key).collect()
    }

    /// The rows of the part that is asked for, without repetitions when `dedupe`.
    fn choose(&self, table: &Table) -> Result<Table> {
        let columns = self.keys(table)?;
        let messages = match self.target {
            RowType::Messages => vec![table.keys("messages")?],
            _ => Vec::new(),
        };
        let whole = if messages.is_empty() { &columns } else { &messages };
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for (i, key) in columns[0].iter().enumerate() {
            let test = part_of_prompt(key, "split", self.split.test_fraction);
            let wanted = match self.split.part {
                Part::All => true,
                Part::Train => !test,
                Part::Test => test,
            };
            let row: Vec<&str> = whole.iter().map(|c| c[i].as_str()).collect();
            if wanted && (!self.dedupe || seen.insert(row)) {
                rows.push(i);
            }
        }
        Ok(table.take(&rows))
    }

    /// The content of a cell that must have one: messages only where the type has them.
    ///
    /// # Errors
    /// What is wrong with it.
    fn content(&self, column: &Column, name: &str, row: usize) -> Result<Content, String> {
        if let Column::Json(v) | Column::Text(v) = column
            && let Some(json) = v[row].as_deref().filter(|text| text.starts_with("[{"))
            && self.target != RowType::Text
            && (matches!(column, Column::Json(_)) || self.target == RowType::Messages)
        {
            let found = Content::from_json(json);
            return found.map_err(|why| format!("column `{name}` is not understood: {why}"));
        }
        match column.text_at(row) {
            Ok(Some(text)) if !text.is_empty() && self.target != RowType::Messages => {
                Ok(Content::Text(text.into_owned()))
            }
            Ok(text) if text.as_deref().is_none_or(str::is_empty) => {
                Err(format!("column `{name}` is empty"))
            }
            Ok(_) => Err(format!("column `{name}` holds text, not a list of messages")),
            Err(found) => {
                let wanted = if self.target == RowType::Text {
                    "not text"
                } else {
                    "neither text nor messages"
                };
                Err(format!("column `{name}` holds {found}, {wanted}: see docs/your-data.md"))
            }
        }
    }
}

/// What each conversation begins with: the first message of the user.
fn openings(table: &Table) -> Result<Vec<String>> {
    let opening = |content: &Content| match content {
        Content::Text(text) => text.clone(),
        Content::Messages(list) => {
            let first = list.iter().find(|m| m.role == "user").or(list.first());
            first.map(|m| m.text().to_owned()).unwrap_or_default()
        }
    };
    Ok(table.contents("messages")?.iter().map(opening).collect())
}

/// Adds the names by which votes know the pairs.
fn named(mut table: Table) -> Result<Table> {
    let prompts = table.keys("prompt")?;
    let (one, other) = (table.keys("response_a")?, table.keys("response_b")?);
    let names = (0..table.rows()).map(|i| pair_id(&prompts[i], &one[i], &other[i]));
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
