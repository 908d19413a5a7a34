//! The rows of a dataset that a model learns to continue: prompts with completions, or whole
//! conversations. Knows nothing of losses.

use anyhow::{Result, bail};
use serde_json::Value;

use super::tokens::check_turns;
use super::{Column, Examples, Message, Room, Row, Table, Vocabulary};
use crate::advice::error_with_help;

/// Token rows that fit a context.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: Vec<Row>,
    /// What each begins with: rows that share it must not straddle training and held-out rows.
    pub prompts: Vec<String>,
    /// What had to be cut or left out.
    pub warning: Option<String>,
}

impl Rows {
    /// Reads column `messages`, a list of `{"role", "content"}` a row, or else the columns `prompt`
    /// and `completion`.
    ///
    /// # Errors
    /// When neither is there, a cell is not understood (names file, row and column), or no row is
    /// left.
    pub fn read(vocabulary: &Vocabulary, context: usize, table: &Table) -> Result<Self> {
        if let Some(column) = table.column("messages") {
            return Self::conversations(vocabulary, context, table, column);
        }
        refuse_verdicts(table)?;
        let prompts = table.texts("prompt")?;
        let completions = table.texts("completion")?;
        let rows = prompts.iter().zip(&completions).map(|(p, c)| (*p, *c, true));
        let examples = Examples::new(vocabulary, Room::new(context), rows)?;
        Ok(Self {
            warning: examples.warning(context),
            prompts: examples.sources.iter().map(|i| prompts[*i].to_owned()).collect(),
            rows: examples.rows.iter().map(Row::from).collect(),
        })
    }

    /// Refuses rows that [`Rows::read`] would refuse whatever the model.
    ///
    /// # Errors
    /// Names file, row and column.
    pub fn check(table: &Table) -> Result<()> {
        let Some(column) = table.column("messages") else { return refuse_verdicts(table) };
        let one = |i| -> Result<()> {
            let wrong = |what: String| table.bad_cell(i, "messages", &what);
            let messages = conversation(column, i).map_err(wrong)?;
            check_turns(&messages).map_err(|e| wrong(format!("is not understood: {e:#}")))
        };
        (0..table.rows()).try_for_each(one)
    }

    fn conversations(
        vocabulary: &Vocabulary,
        context: usize,
        table: &Table,
        column: &Column,
    ) -> Result<Self> {
        let (mut out, mut skipped) = (Self::default(), 0);
        for i in 0..table.rows() {
            let wrong = |what: String| table.bad_cell(i, "messages", &what);
            let messages = conversation(column, i).map_err(wrong)?;
            let row = vocabulary
                .conversation(&messages)
                .map_err(|e| wrong(format!("is not understood: {e:#}")))?;
            if row.tokens.len() > context || row.learned() == 0 {
                skipped += 1;
                continue;
            }
            out.rows.push(row);
            let opening = messages.iter().find(|m| m.role == "user").unwrap_or(&messages[0]);
            out.prompts.push(opening.content.clone());
        }
        if out.rows.is_empty() {
            bail!("no row is left: all {skipped} conversations are empty or too long");
        }
        let mut said = Vec::new();
        if skipped > 0 {
            said.push(format!(
                "{skipped} conversations were left out: they do not fit {context} tokens"
            ));
        }
        let tools = |column: &Column| (0..column.len()).any(|i| offers_tools(column, i));
        if table.column("tools").is_some_and(tools) {
            said.push("column `tools` is not shown to the model".into());
        }
        out.warning = (!said.is_empty()).then(|| said.join("; "));
        Ok(out)
    }
}

/// Keys of a turn that templates and trainers give a meaning which is not understood here.
const MEANINGFUL: [&str; 7] = [
    "tool_calls",
    "function_call",
    "tool_call_id",
    "reasoning_content",
    "reasoning",
    "thinking",
    "weight",
];

/// The turns of one cell.
///
/// # Errors
/// What is wrong with it.
fn conversation(column: &Column, row: usize) -> Result<Vec<Message>, String> {
    // A column of text is what older versions wrote.
    let text = match column {
        Column::Text(v) | Column::Json(v) => v[row].as_deref(),
        _ => return Err(format!("holds {}, no list of {{role, content}}", column.describe(row))),
    };
    let Some(text) = text else { return Err("is missing".into()) };
    let Ok(Value::Array(turns)) = serde_json::from_str(text) else {
        return Err(format!("holds {}, no list of {{role, content}}", column.describe(row)));
    };
    let turn = |(i, turn): (usize, &Value)| {
        message(turn).map_err(|reason| format!("is not understood: turn {}: {reason}", i + 1))
    };
    turns.iter().enumerate().map(turn).collect()
}

fn message(turn: &Value) -> Result<Message, String> {
    let Value::Object(fields) = turn else { return Err("it is no {role, content}".into()) };
    let idle = |v: &Value| {
        v.is_null() || v.as_array().is_some_and(Vec::is_empty) || v.as_str() == Some("")
    };
    if let Some(key) = MEANINGFUL.iter().find(|k| fields.get(**k).is_some_and(|v| !idle(v))) {
        return Err(format!("`{key}` is not supported"));
    }
    let Some(role) = fields.get("role").and_then(Value::as_str) else {
        return Err("it has no `role`".into());
    };
    match fields.get("content") {
        Some(Value::String(content)) => Ok(Message::new(role, content)),
        Some(Value::Null) => Err("its `content` is null".into()),
        Some(Value::Array(_)) => {
            Err("its `content` is a list of parts, only text is supported".into())
        }
        Some(_) => Err("its `content` is no text".into()),
        None => Err("it has no `content`".into()),
    }
}

/// Whether a cell of column `tools` offers any.
fn offers_tools(column: &Column, row: usize) -> bool {
    let text = column.display(row).unwrap_or_default();
    !["", "[]", "null", "{}"].contains(&text.trim())
}

/// Column `label` of unpaired preferences says which completions are good; learning them all would
/// teach the bad ones.
fn refuse_verdicts(table: &Table) -> Result<()> {
    let Some(column) = table.column("label") else { return Ok(()) };
    let says_so = match column {
        Column::Bool(_) | Column::Json(_) => true,
        // What truth values become in a table as text; other words and numbers are labels.
        Column::Text(v) => v
            .iter()
            .flatten()
            .all(|text| ["", "true", "false"].contains(&text.trim().to_ascii_lowercase().as_str())),
        _ => false,
    };
    if !says_so {
        return Ok(());
    }
    let bad = (0..table.rows()).find(|row| column.bool_at(*row) == Ok(Some(false)));
    let Some(row) = bad else { return Ok(()) };
    Err(error_with_help(
        format!(
            "{}: column `label` is false: bad answers would be learned like good ones",
            table.place(row)
        ),
        "keep the good rows only, or learn from both by a stage of kind `kto` or `reinforce` \
         (port `verdicts`); if `label` means something else, rename it: `prepare` with \
         `columns: { note: label }`",
    ))
}
