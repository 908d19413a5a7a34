//! Styles of our own words in a terminal, by what they mean.
//! Does not know whether there is colour.

use anstyle::AnsiColor;

/// What a piece of text is, so that it looks the same on every screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    #[default]
    Plain,
    /// What a line is about.
    Strong,
    /// What few people need.
    Dim,
    /// It is done, or as it should be.
    Good,
    /// Something runs, or will run.
    Busy,
    /// Something waits, or wants to be read.
    Warning,
    /// Something is not as it should be.
    Bad,
    /// The word before what went wrong.
    Error,
}

impl Style {
    pub(super) const fn ansi(self) -> anstyle::Style {
        let plain = anstyle::Style::new();
        match self {
            Self::Plain => plain,
            Self::Strong => plain.bold(),
            Self::Dim => plain.dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Busy => AnsiColor::Cyan.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Error => AnsiColor::Red.on_default().bold(),
        }
    }
}
