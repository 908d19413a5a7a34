//! Tables, their files, tokens, and rules over answers.
//! Knows nothing of models, stages or events.

mod arrow_file;
mod chat;
mod column;
mod examples;
mod form;
mod forms;
mod jinja;
mod json;
mod labels;
mod near;
mod parquet_file;
mod prompt;
mod read;
mod row_type;
mod rows;
mod rules;
mod stream;
mod table;
mod token_file;
mod tokens;
mod verdicts;
mod write;

pub use chat::{ChatTemplate, Rendered, check_template};
pub use column::Column;
pub use examples::{
    Example, Examples, LEAST_PROMPT, LeftOut, Room, Row, RowFit, TooLong, fit_prompt, named_rows,
    part_of_prompt,
};
pub use form::{Wanted, files_of, refuse_others};
pub use forms::{RowForm, settle, settle_as};
pub use labels::{Chosen, check_labels, choices};
pub use near::NearTexts;
pub use parquet_file::{Batches, parquet_rows, read_parquet};
pub use preflow::conversation::{Content, Message};
pub use prompt::{Prompt, TemplateValues};
pub use read::{BadRow, BadRows, TextUnit, read_head, read_table, read_tables, split_text};
pub use row_type::RowType;
pub use rows::Rows;
pub use rules::{Answer, CompiledRule, Rule, RuleBook};
pub use stream::read_texts;
pub use table::Table;
pub use token_file::{TokenRows, TokenWriter};
pub use tokens::{
    BOS, BOT, EOS, Incremental, PAD, SPECIAL, Special, TemplateChange, USER, Vocabulary, token_ids,
};
pub use verdicts::verdicts_of;
pub use write::write_parquet;
