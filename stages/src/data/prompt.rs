//! What a policy is asked, and the columns of a table that hold texts or messages.
//! Knows nothing of tokens or of how templates render.

use std::borrow::Cow;

use anyhow::Result;
use preflow::conversation::{Content, Message};

use super::{Column, Table};

/// What a policy is asked: a text or messages, and what its chat template is shown besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub content: Content,
    pub values: TemplateValues,
}

/// What a chat template is shown besides the messages, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateValues {
    /// A list of tools: column `tools`.
    pub tools: Option<String>,
    /// A map of further arguments, such as `{"enable_thinking": false}`: column
    /// `chat_template_kwargs`.
    pub arguments: Option<String>,
}

impl Prompt {
    /// A prompt that is a text.
    pub fn text(text: &str) -> Self {
        Self { content: Content::Text(text.into()), values: TemplateValues::default() }
    }

    /// The text by which equal prompts are equal: rows that share it never straddle training and
    /// held-out rows.
    pub fn key(&self) -> Cow<'_, str> {
        self.content.written()
    }

    /// Its messages; a text is one of the user.
    pub fn messages(&self) -> Cow<'_, [Message]> {
        self.content.messages("user")
    }
}

impl Table {
    /// The prompts of the rows: column `prompt`, and `tools` and `chat_template_kwargs` where they
    /// are there.
    ///
    /// # Errors
    /// A cell is missing or not understood: names file, row and column.
    pub fn prompts(&self) -> Result<Vec<Prompt>> {
        let values = self.template_values()?;
        let contents = self.contents("prompt")?;
        let both = contents.into_iter().zip(values).enumerate();
        both.map(|(row, (content, values))| {
            let last = match &content {
                Content::Messages(list) => list.last(),
                Content::Text(_) => None,
            };
            if last.is_some_and(Message::is_answer) {
                let what = "ends with a message of the assistant: nothing is left to answer";
                return Err(self.bad_cell(row, "prompt", what));
            }
            Ok(Prompt { content, values })
        })
        .collect()
    }

    /// What chat templates are shown besides the messages of each row.
    ///
    /// # Errors
    /// A cell is not understood: names file, row and column.
    pub fn template_values(&self) -> Result<Vec<TemplateValues>> {
        let json = |name: &'static str, start: char, what: &'static str| {
            let column = self.column(name);
            move |row: usize| -> Result<Option<String>> {
                let Some(column) = column.filter(|c| !c.is_gap(row)) else { return Ok(None) };
                let text = match column {
                    Column::Text(v) | Column::Json(v) => v[row].as_deref().unwrap_or_default(),
                    _ => "",
                };
                let quoted = serde_json::from_str::<String>(text).ok();
                let text = quoted.as_deref().unwrap_or(text).trim();
                if ["", "[]", "{}", "null"].contains(&text) && !matches!(column, Column::Int(_)) {
                    return Ok(None);
                }
                let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
                if !is_json || !text.starts_with(start) {
                    let what = format!("holds {}, not {what}", column.describe(row));
                    return Err(self.bad_cell(row, name, &what));
                }
                Ok(Some(text.to_owned()))
            }
        };
        let tools = json("tools", '[', "a list of tools");
        let arguments = json("chat_template_kwargs", '{', "a map of arguments");
        let one = |row| Ok(TemplateValues { tools: tools(row)?, arguments: arguments(row)? });
        (0..self.rows()).map(one).collect()
    }

    /// The cells of a column that holds texts or lists of messages.
    ///
    /// # Errors
    /// The column is not there (names those that are), or a cell is missing or not understood:
    /// names file, row and column.
    pub fn contents(&self, name: &str) -> Result<Vec<Content>> {
        let column = self.require(name)?;
        let one = |row: usize| -> Result<Content> {
            if column.is_gap(row) {
                return Err(self.bad_cell(row, name, "is missing"));
            }
            match column {
                Column::Text(v) => Ok(Content::Text(v[row].clone().unwrap_or_default())),
                Column::Json(v) => {
                    let json = v[row].as_deref().unwrap_or_default();
                    Content::from_json(json).map_err(|why| {
                        let what = match json.starts_with("[{") {
                            true => format!("is not understood: {why}"),
                            false => format!(
                                "holds {}, neither text nor messages: see docs/your-data.md",
                                column.describe(row)
                            ),
                        };
                        self.bad_cell(row, name, &what)
                    })
                }
                _ => {
                    let what =
                        format!("holds {}, not text: see docs/your-data.md", column.describe(row));
                    Err(self.bad_cell(row, name, &what))
                }
            }
        };
        (0..self.rows()).map(one).collect()
    }
}

impl Table {
    /// The cells of a column of texts or messages, each as the text by which equal ones are equal.
    ///
    /// # Errors
    /// As [`Table::contents`].
    pub fn keys(&self, name: &str) -> Result<Vec<String>> {
        let contents = self.contents(name)?;
        Ok(contents.iter().map(|content| content.written().into_owned()).collect())
    }

    /// The cells of a column of texts or messages as people read them.
    ///
    /// # Errors
    /// As [`Table::contents`].
    pub fn transcripts(&self, name: &str) -> Result<Vec<String>> {
        let contents = self.contents(name)?;
        Ok(contents.iter().map(|content| content.transcript().into_owned()).collect())
    }
}

impl Column {
    /// A column of texts; one of messages where any cell is a list of them, in which a text is a
    /// message of `role`.
    pub fn contents<'a>(contents: impl IntoIterator<Item = Cow<'a, Content>>, role: &str) -> Self {
        let contents: Vec<Cow<Content>> = contents.into_iter().collect();
        let text = |content: &Cow<Content>| match content.as_ref() {
            Content::Text(text) => Some(text.clone()),
            Content::Messages(_) => None,
        };
        match contents.iter().map(text).collect::<Option<Vec<String>>>() {
            Some(texts) => Self::text(texts),
            None => {
                let list = |c: &Cow<Content>| Content::Messages(c.messages(role).into_owned());
                Self::Json(contents.iter().map(|c| Some(list(c).to_json())).collect())
            }
        }
    }

    /// A column of answers to prompts in `like`: messages of the assistant where the prompts are
    /// messages, texts otherwise, so that other programs find one form in all columns.
    pub fn answers<'a>(texts: impl IntoIterator<Item = &'a str>, like: &Self) -> Self {
        let as_messages = match like {
            Self::Json(cells) => cells.iter().flatten().any(|json| json.starts_with("[{")),
            _ => false,
        };
        if !as_messages {
            return Self::text(texts);
        }
        let message = |text: &str| Content::Messages(vec![Message::new("assistant", text)]);
        Self::Json(texts.into_iter().map(|text| Some(message(text).to_json())).collect())
    }
}
