//! The rows of a dataset that a model learns to continue: prompts with completions, or whole
//! conversations. Knows nothing of losses.

use anyhow::{Result, bail};

use super::tokens::check_turns;
use super::{
    Column, Content, Examples, LeftOut, Message, Prompt, Room, Row, Table, TemplateValues, TooLong,
    Vocabulary,
};
use crate::advice::{Advised, error_with_help};

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
    /// Reads column `messages`, a conversation a row, or else the columns `prompt` and
    /// `completion`, which hold texts or messages.
    ///
    /// # Errors
    /// When neither is there, a cell is not understood (names file, row and column), or no row is
    /// left.
    pub fn read(vocabulary: &Vocabulary, room: Room, table: &Table) -> Result<Self> {
        if table.column("messages").is_some() {
            return Self::conversations(vocabulary, room, table);
        }
        refuse_verdicts(table)?;
        let prompts = table.prompts()?;
        let completions = table.contents("completion")?;
        let several = |c: &Content| matches!(c, Content::Messages(list) if list.len() > 1);
        if completions.iter().any(several) {
            return Self::with_turns(vocabulary, room, table, &prompts, &completions);
        }
        let rows = prompts.iter().zip(&completions).map(|(p, c)| (p, c, true));
        let examples = Examples::new(vocabulary, room, rows)?;
        Ok(Self {
            warning: examples.warning(room.context),
            prompts: examples.sources.iter().map(|i| prompts[*i].key().into_owned()).collect(),
            rows: examples.rows.iter().map(Row::from).collect(),
        })
    }

    /// Refuses rows that [`Rows::read`] would refuse whatever the model.
    ///
    /// # Errors
    /// Names file, row and column.
    pub fn check(table: &Table) -> Result<()> {
        table.template_values()?;
        if table.column("messages").is_none() {
            return refuse_verdicts(table);
        }
        for (i, messages) in conversations(table)?.iter().enumerate() {
            check_turns(messages)
                .map_err(|e| table.bad_cell(i, "messages", &format!("is not understood: {e:#}")))?;
        }
        Ok(())
    }

    fn conversations(vocabulary: &Vocabulary, room: Room, table: &Table) -> Result<Self> {
        let values = table.template_values()?;
        let mut list = RowList::new(vocabulary, room);
        for (i, messages) in conversations(table)?.iter().enumerate() {
            let opening = messages.iter().find(|m| m.role == "user").unwrap_or(&messages[0]);
            list.add(i, (messages, 0), &values[i], opening.text())
                .map_err(|e| told(table, i, "messages", e))?;
        }
        list.done()
    }

    /// Prompts with answers of several messages: those of the assistant are learned.
    fn with_turns(
        vocabulary: &Vocabulary,
        room: Room,
        table: &Table,
        prompts: &[Prompt],
        completions: &[Content],
    ) -> Result<Self> {
        let mut list = RowList::new(vocabulary, room);
        for (i, (prompt, completion)) in prompts.iter().zip(completions).enumerate() {
            let mut all = prompt.messages().into_owned();
            let from = all.len();
            all.extend_from_slice(&completion.messages("assistant"));
            list.add(i, (&all, from), &prompt.values, &prompt.key())
                .map_err(|e| told(table, i, "completion", e))?;
        }
        list.done()
    }
}

/// What is wrong with a cell, unless the error says what helps: then it is about the whole row.
fn told(table: &Table, row: usize, column: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Advised>() {
        Some(_) => error,
        None => table.bad_cell(row, column, &format!("is not understood: {error:#}")),
    }
}

/// Rows while they are read.
struct RowList<'a> {
    vocabulary: &'a Vocabulary,
    room: Room,
    left: LeftOut,
    rows: Rows,
}

impl<'a> RowList<'a> {
    fn new(vocabulary: &'a Vocabulary, room: Room) -> Self {
        Self { vocabulary, room, left: LeftOut::default(), rows: Rows::default() }
    }

    /// Adds the conversation in row `place` of the dataset, of which what the assistant writes from
    /// message `from` on is learned.
    fn add(
        &mut self,
        place: usize,
        (messages, from): (&[Message], usize),
        values: &TemplateValues,
        prompt: &str,
    ) -> Result<()> {
        let mut row = self.vocabulary.conversation(messages, values, from)?;
        let fits = |row: &Row| row.tokens.len() <= self.room.context;
        if !fits(&row) && self.room.too_long == TooLong::CutLeft {
            let cut = self.vocabulary.shortened(messages, values, from, self.room.context)?;
            if let Some(shorter) = cut {
                self.left.cut.push(place);
                row = shorter;
            }
        }
        if !fits(&row) {
            self.room.refuse(place)?;
            self.left.too_long.push(place);
        } else if row.learned() == 0 {
            self.left.empty.push(place);
        } else {
            self.rows.rows.push(row);
            self.rows.prompts.push(prompt.to_owned());
        }
        Ok(())
    }

    fn done(mut self) -> Result<Rows> {
        if self.rows.rows.is_empty() {
            bail!("no row is left: all {} conversations are empty or too long", self.left.rows());
        }
        self.rows.warning = self.left.warning(self.room.context);
        Ok(self.rows)
    }
}

/// The messages of column `messages`.
///
/// # Errors
/// A cell is missing or not understood: names file, row and column.
fn conversations(table: &Table) -> Result<Vec<Vec<Message>>> {
    let column = table.require("messages")?;
    let one = |row: usize| -> Result<Vec<Message>> {
        let wrong = |what: String| table.bad_cell(row, "messages", &what);
        // A column of text is what older versions wrote.
        let json = match column {
            Column::Text(v) | Column::Json(v) => v[row].as_deref(),
            _ => None,
        };
        let Some(json) = json else {
            return Err(wrong(match column.is_gap(row) {
                true => "is missing".into(),
                false => format!("holds {}, not a list of messages", column.describe(row)),
            }));
        };
        match Content::from_json(json) {
            Ok(Content::Messages(list)) => Ok(list),
            Err(why) if json.starts_with("[{") => Err(wrong(format!("is not understood: {why}"))),
            _ => Err(wrong(format!("holds {}, not a list of messages", column.describe(row)))),
        }
    };
    (0..table.rows()).map(one).collect()
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
