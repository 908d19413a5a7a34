//! Forms in which people keep conversations and preferences, as the columns that kinds read:
//! ShareGPT, Alpaca, OpenAI's, whole conversations with and without a prompt, transcripts.
//! Knows nothing of files or tokens.

use std::borrow::Cow;

use anyhow::{Result, anyhow};
use preflow::conversation::{Content, Message, preference, transcript};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Column, Table};
use crate::advice::error_with_help;

/// The form in which rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowForm {
    /// The columns say it.
    #[default]
    Auto,
    /// The columns are those of the type, and texts are texts whatever they look like.
    Plain,
    /// `messages`; preferences as `input`, `preferred_output` and `non_preferred_output`.
    Openai,
    /// `conversations` with `from` and `value`.
    Sharegpt,
    /// `instruction`, `input` and `output`.
    Alpaca,
    /// Transcripts with turns `Human:` and `Assistant:`.
    Hh,
    /// Two whole conversations; what they have in common is the prompt.
    Implicit,
}

/// The rows in `form` as the columns of their type.
///
/// # Errors
/// The rows are not in that form, or it is none of that type; as [`settle`].
pub fn settle_as(table: Table, port_type: &str, form: RowForm) -> Result<Table> {
    let answers = match port_type {
        "dataset/labels" => ["chosen", "rejected"],
        "dataset/pairs" => ["response_a", "response_b"],
        _ => ["", ""],
    };
    let labels = port_type == "dataset/labels";
    let chat = ["dataset/messages", "dataset/prompt"].contains(&port_type);
    let asks = ["dataset/prompt", "dataset/prompt_completion"].contains(&port_type);
    let pairs = !answers[0].is_empty();
    let (fits, columns): (bool, Vec<&str>) = match form {
        RowForm::Auto => return settle(table, port_type),
        RowForm::Plain => return Ok(table),
        RowForm::Openai if labels => {
            (true, vec!["input", "preferred_output", "non_preferred_output"])
        }
        RowForm::Openai => (chat, vec!["messages"]),
        RowForm::Sharegpt => {
            let name = if table.column("conversation").is_some() {
                "conversation"
            } else {
                "conversations"
            };
            (chat, vec![name])
        }
        RowForm::Alpaca => (asks, vec!["instruction"]),
        RowForm::Hh | RowForm::Implicit => (pairs, answers.to_vec()),
    };
    let name = format!("{form:?}").to_lowercase();
    if !fits {
        let what = port_type.trim_start_matches("dataset/");
        let help = "leave `form` out, and the columns say it";
        return Err(error_with_help(format!("`form: {name}` is no form of {what}"), help));
    }
    for column in columns {
        table.require(column)?;
    }
    if form == RowForm::Hh {
        for column in answers {
            for (row, content) in table.contents(column)?.iter().enumerate() {
                let is = matches!(content, Content::Text(text) if transcript(text).is_some());
                if !is {
                    let what = "is no transcript with turns `Human:` and `Assistant:`";
                    return Err(table.bad_cell(row, column, what));
                }
            }
        }
    }
    // Columns of other forms would count first.
    let mut table = table;
    let others: &[&str] = match form {
        RowForm::Openai => &["prompt", "conversations", "conversation", "instruction"],
        RowForm::Sharegpt => &["prompt", "messages", "instruction"],
        RowForm::Alpaca if table.column("output").is_some() => &["prompt", "completion"],
        _ => &["prompt"],
    };
    for column in others {
        table.remove(column);
    }
    settle(table, port_type)
}

/// The rows of a source as the columns of its type. Rows that have them already stay as they are.
///
/// # Errors
/// A cell is not understood: names file, row and column.
pub fn settle(table: Table, port_type: &str) -> Result<Table> {
    match port_type {
        "dataset/messages" => messages(table),
        "dataset/prompt" => prompts(alpaca(table)?),
        "dataset/prompt_completion" => alpaca(table),
        "dataset/labels" => preferences(openai_preferences(table)?, ["chosen", "rejected"]),
        "dataset/pairs" => preferences(table, ["response_a", "response_b"]),
        _ => Ok(table),
    }
}

/// Replaces a column and leaves out others.
fn with(table: &Table, put: &[(&str, Column)], without: &[&str]) -> Result<Table> {
    let mut out = table.clone();
    for (name, column) in put {
        out.set(name, column.clone())?;
    }
    for name in without {
        out.remove(name);
    }
    Ok(out)
}

/// ShareGPT keeps the messages in `conversations`, and what the system says in `system`.
fn messages(table: Table) -> Result<Table> {
    let from = ["messages", "conversations", "conversation"];
    let Some(name) = from.into_iter().find(|name| table.column(name).is_some()) else {
        return Ok(table);
    };
    let system = table.column("system").is_some();
    if name == "messages" && !system {
        return Ok(table);
    }
    let column = table.require(name)?;
    let systems = if system { optional_texts(&table, "system")? } else { Vec::new() };
    let mut cells = Vec::with_capacity(table.rows());
    for row in 0..table.rows() {
        let (Column::Json(v) | Column::Text(v)) = column else { return Ok(table) };
        let found = match v[row].as_deref() {
            None => return Err(table.bad_cell(row, name, "is missing")),
            Some(json) => Content::from_json(json),
        };
        let list = match found {
            Ok(Content::Messages(list)) => list,
            Ok(Content::Text(_)) => {
                return Err(table.bad_cell(row, name, "holds text, not a list of messages"));
            }
            Err(why) => {
                return Err(table.bad_cell(row, name, &format!("is not understood: {why}")));
            }
        };
        let said = systems.get(row).and_then(Option::as_deref).filter(|said| !said.is_empty());
        let first = said.map(|said| Message::new("system", said));
        if first.is_some() && list.iter().any(|m| m.role == "system") {
            return Err(table.bad_cell(row, "system", "stands beside a message of the system"));
        }
        let all: Vec<Message> = first.into_iter().chain(list).collect();
        cells.push(Some(Content::Messages(all).to_json()));
    }
    let without: Vec<&str> = [name, "system"].into_iter().filter(|n| *n != "messages").collect();
    with(&table, &[("messages", Column::Json(cells))], &without)
}

/// Texts of a column in which gaps are allowed.
fn optional_texts(table: &Table, name: &str) -> Result<Vec<Option<String>>> {
    let column = table.require(name)?;
    let text = |row| match column.text_at(row) {
        Ok(text) => Ok(text.map(Cow::into_owned)),
        Err(found) => Err(table.bad_cell(row, name, &format!("holds {found}, not text"))),
    };
    (0..table.rows()).map(text).collect()
}

/// Alpaca keeps the prompt in `instruction` and `input`, which a blank line parts, the answer in
/// `output`; some files add `system` and `history`, earlier questions with their answers.
fn alpaca(table: Table) -> Result<Table> {
    let has = |name: &str| table.column(name).is_some();
    if has("prompt") || !has("instruction") {
        return Ok(table);
    }
    let instructions = optional_texts(&table, "instruction")?;
    let optional = |name: &str| {
        if table.column(name).is_some() { optional_texts(&table, name) } else { Ok(Vec::new()) }
    };
    let (inputs, systems) = (optional("input")?, optional("system")?);
    let at = |list: &[Option<String>], row: usize| {
        list.get(row).cloned().flatten().filter(|text| !text.is_empty())
    };
    let mut prompts = Vec::with_capacity(table.rows());
    for row in 0..table.rows() {
        let Some(instruction) = at(&instructions, row) else {
            return Err(table.bad_cell(row, "instruction", "is empty"));
        };
        let asked = match at(&inputs, row) {
            Some(input) => format!("{instruction}\n\n{input}"),
            None => instruction,
        };
        let before = history(&table, row)?;
        let system = at(&systems, row).map(|said| Message::new("system", &said));
        let earlier: Vec<Message> = system.into_iter().chain(before).collect();
        prompts.push(match earlier.is_empty() {
            true => Content::Text(asked),
            false => {
                let last = Message::new("user", &asked);
                Content::Messages(earlier.into_iter().chain([last]).collect())
            }
        });
    }
    let mut put = vec![("prompt", Column::contents(prompts.iter().map(Cow::Borrowed), "user"))];
    let mut without = vec!["instruction", "input", "system", "history"];
    if let Some(output) = table.column("output").filter(|_| !has("completion")) {
        put.push(("completion", output.clone()));
        without.push("output");
    }
    with(&table, &put, &without)
}

/// Earlier questions and answers of a row of Alpaca.
fn history(table: &Table, row: usize) -> Result<Vec<Message>> {
    let Some(Column::Json(cells)) = table.column("history") else { return Ok(Vec::new()) };
    let Some(json) = cells[row].as_deref() else { return Ok(Vec::new()) };
    let turns: Vec<[String; 2]> = serde_json::from_str(json)
        .map_err(|_| table.bad_cell(row, "history", "holds no list of [question, answer]"))?;
    let both = |[asked, said]: &[String; 2]| {
        [Message::new("user", asked), Message::new("assistant", said)]
    };
    Ok(turns.iter().flat_map(both).collect())
}

/// The prompts of conversations: all up to the last message of the user.
fn prompts(table: Table) -> Result<Table> {
    if table.column("prompt").is_some() {
        return Ok(table);
    }
    let table = messages(table)?;
    if table.column("messages").is_none() {
        return Ok(table);
    }
    let mut prompts = Vec::with_capacity(table.rows());
    for (row, content) in table.contents("messages")?.into_iter().enumerate() {
        let Content::Messages(mut list) = content else {
            return Err(table.bad_cell(row, "messages", "holds text, not a list of messages"));
        };
        while list.last().is_some_and(Message::is_answer) {
            list.pop();
        }
        if list.is_empty() {
            return Err(table.bad_cell(row, "messages", "holds no message to answer"));
        }
        prompts.push(Content::Messages(list));
    }
    let column = Column::contents(prompts.iter().map(Cow::Borrowed), "user");
    with(&table, &[("prompt", column)], &["messages"])
}

/// OpenAI's files of preferences: `input` with `messages`, `preferred_output` and
/// `non_preferred_output`.
fn openai_preferences(table: Table) -> Result<Table> {
    let names = ["input", "preferred_output", "non_preferred_output"];
    if names.iter().any(|name| !matches!(table.column(name), Some(Column::Json(_)))) {
        return Ok(table);
    }
    let Some(Column::Json(inputs)) = table.column("input") else { return Ok(table) };
    let mut prompts = Vec::with_capacity(inputs.len());
    let mut tools = Vec::with_capacity(inputs.len());
    for (row, input) in inputs.iter().enumerate() {
        let wrong = |why: &str| table.bad_cell(row, "input", why);
        let input = input.as_deref().ok_or_else(|| wrong("is missing"))?;
        let fields = preflow::conversation::ordered_fields(input);
        let fields = fields.ok_or_else(|| wrong("is no map with `messages`"))?;
        let get = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, v)| v.get());
        prompts.push(get("messages").map(str::to_owned));
        tools.push(get("tools").filter(|json| *json != "null").map(str::to_owned));
    }
    let get = |name: &str| table.require(name).cloned();
    let mut put = vec![
        ("prompt", Column::Json(prompts)),
        ("chosen", get("preferred_output")?),
        ("rejected", get("non_preferred_output")?),
    ];
    if tools.iter().any(Option::is_some) {
        put.push(("tools", Column::Json(tools)));
    }
    with(&table, &put, &names)
}

/// Whole conversations and transcripts become a prompt and two answers.
fn preferences(table: Table, answers: [&str; 2]) -> Result<Table> {
    let has = |name: &str| table.column(name).is_some();
    let is_text = |name: &str| matches!(table.column(name), Some(Column::Text(_)));
    let texts = answers.iter().all(|name| is_text(name));
    if !answers.iter().all(|name| has(name)) || (has("prompt") && texts) {
        return Ok(table);
    }
    // Texts that are no transcripts lack a prompt, as the reader of the column says.
    let is_transcript = |column: &Column| {
        let first = column.text_at(0).ok().flatten();
        first.is_some_and(|text| transcript(&text).is_some())
    };
    if texts && table.rows() > 0 && !table.column(answers[0]).is_some_and(is_transcript) {
        return Ok(table);
    }
    let prompts = if has("prompt") { Some(table.contents("prompt")?) } else { None };
    let [one, other] = answers.map(|name| table.contents(name));
    let both = one?.into_iter().zip(other?);
    let mut found = Vec::with_capacity(table.rows());
    for (row, (one, other)) in both.enumerate() {
        let prompt = prompts.as_ref().map(|all| all[row].clone());
        let parted = preference(prompt, one, other).map_err(|why| {
            let [a, b] = answers;
            anyhow!("{}: columns `{a}` and `{b}`: {why}", table.place(row))
        });
        found.push(parted?);
    }
    let prompt = Column::contents(found.iter().map(|f| Cow::Borrowed(&f.prompt)), "user");
    let answer = |i: usize| {
        Column::contents(found.iter().map(|f| Cow::Borrowed(&f.answers[i])), "assistant")
    };
    with(&table, &[("prompt", prompt), (answers[0], answer(0)), (answers[1], answer(1))], &[])
}
