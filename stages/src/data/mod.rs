//! Tables, their files, tokens, and rules over answers.
//! Knows nothing of models, stages or events.

mod examples;
mod read;
mod rules;
mod stream;
mod table;
mod tokens;
mod write;

pub use examples::{Example, Examples, fit_prompt, part_of_prompt};
pub use read::{BadRow, BadRows, TextUnit, read_table, read_tables, split_text};
pub use rules::{Answer, CompiledRule, Rule, RuleBook};
pub use stream::{Batches, read_texts};
pub use table::{Column, Table};
pub use tokens::{BOS, BOT, EOS, PAD, SPECIAL, USER, Vocabulary};
pub use write::write_parquet;
