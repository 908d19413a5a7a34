//! Failures that say what helps.
//! Knows nothing of what failed.

/// A failure that comes with advice.
#[derive(Debug)]
pub struct Advised {
    pub message: String,
    pub help: String,
}

impl std::fmt::Display for Advised {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advised {}

/// An error with advice on what to do about it.
pub fn error_with_help(message: impl Into<String>, help: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Advised { message: message.into(), help: help.into() })
}
