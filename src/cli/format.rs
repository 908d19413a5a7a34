//! `--format`: for whom a verb's output is written.

use clap::{Args, ValueEnum};

use crate::report::OutputStyle;

/// The option, for verbs that have it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct FormatArgs {
    /// text: for a terminal; markdown: for a pull request
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "json"
    )]
    pub format: OutputFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    #[default]
    Text,
    Markdown,
}

impl FormatArgs {
    #[must_use]
    pub fn is_markdown(self) -> bool {
        self.format == OutputFormat::Markdown
    }

    /// The style of output in that format.
    #[must_use]
    pub fn style(self, look: OutputStyle) -> OutputStyle {
        match self.format {
            OutputFormat::Text => look,
            OutputFormat::Markdown => {
                OutputStyle { markdown: true, colour: false, width: None, ..look }
            }
        }
    }
}
