//! What the rows of a dataset are, by its port type.
//! Knows nothing of who makes or reads them.

use schemars::JsonSchema;
use serde::Deserialize;

/// What rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowType {
    Text,
    Prompt,
    PromptCompletion,
    Messages,
    Pairs,
    Labels,
}

impl RowType {
    /// The columns that every row has.
    #[must_use]
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Text => &["text"],
            Self::Prompt => &["prompt"],
            Self::PromptCompletion => &["prompt", "completion"],
            Self::Messages => &["messages"],
            Self::Pairs => &["prompt", "response_a", "response_b"],
            Self::Labels => &["prompt", "chosen", "rejected"],
        }
    }

    /// The type of ports that hold such rows.
    #[must_use]
    pub fn port_type(self) -> &'static str {
        match self {
            Self::Text => "dataset/text",
            Self::Prompt => "dataset/prompt",
            Self::PromptCompletion => "dataset/prompt_completion",
            Self::Messages => "dataset/messages",
            Self::Pairs => "dataset/pairs",
            Self::Labels => "dataset/labels",
        }
    }
}
