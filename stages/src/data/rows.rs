//! The rows of a dataset that a model learns to continue: prompts with completions, or whole
//! conversations. Knows nothing of losses.

use anyhow::{Context as _, Result, bail};

use super::{Examples, Message, Row, Table, Vocabulary};

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
    /// Reads column `messages`, a JSON list of `{"role", "content"}` a row, or else the columns
    /// `prompt` and `completion`.
    ///
    /// # Errors
    /// When neither is there, a conversation cannot be read (names the row, counted from 1), or no
    /// row is left.
    pub fn read(vocabulary: &Vocabulary, context: usize, table: &Table) -> Result<Self> {
        if table.column("messages").is_some() {
            return Self::conversations(vocabulary, context, &table.texts("messages")?);
        }
        let prompts = table.texts("prompt")?;
        let completions = table.texts("completion")?;
        let rows = prompts.iter().zip(&completions).map(|(p, c)| (*p, *c, true));
        let examples = Examples::new(vocabulary, context, rows)?;
        Ok(Self {
            warning: examples.warning(context),
            prompts: examples.sources.iter().map(|i| prompts[*i].to_owned()).collect(),
            rows: examples.rows.iter().map(Row::from).collect(),
        })
    }

    fn conversations(vocabulary: &Vocabulary, context: usize, texts: &[&str]) -> Result<Self> {
        let (mut out, mut skipped) = (Self::default(), 0);
        for (i, text) in texts.iter().enumerate() {
            let at = || format!("row {}: column `messages`", i + 1);
            let messages: Vec<Message> = serde_json::from_str(text)
                .context("no JSON list of {\"role\", \"content\"}")
                .with_context(at)?;
            let row = vocabulary.conversation(&messages).with_context(at)?;
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
        out.warning = (skipped > 0).then(|| {
            format!("{skipped} conversations were left out: they do not fit {context} tokens")
        });
        Ok(out)
    }
}
