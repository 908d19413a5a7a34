//! Why something that was asked for could not be done, and what helps.
//! Knows no exit code.

use crate::diagnostic::Diagnostic;
use crate::plan::UnknownStage;
use crate::remote::RemoteError;
use crate::report::diagnostics::diagnostics;
use crate::report::{OutputStyle, Style};
use crate::run::RunError;
use crate::store::StoreError;
use crate::text::clean;

/// What stands in the way.
#[derive(Debug)]
pub enum Failure {
    /// The pipeline file is wrong.
    Diagnostics(Vec<Diagnostic>),
    /// The command line, or something around it, is.
    Usage { message: String, help: Option<String> },
    /// The system refuses what is needed.
    System { message: String, help: String },
    /// The disk, the store.
    Store(StoreError),
    /// The place that the team shares.
    Remote(RemoteError),
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: None }
    }

    pub fn help(self, text: impl Into<String>) -> Self {
        match self {
            Self::Usage { message, .. } => Self::Usage { message, help: Some(text.into()) },
            other => other,
        }
    }

    /// All that is wrong, as a block of lines, each with what helps.
    #[must_use]
    pub fn text(&self, look: OutputStyle) -> String {
        let message = match self {
            Self::Diagnostics(problems) => return diagnostics(problems, look.colour),
            Self::Usage { message, .. } | Self::System { message, .. } => message.clone(),
            Self::Store(error) => error.to_string(),
            Self::Remote(error) => error.to_string(),
        };
        let mut text = format!("{} {}\n", look.paint(Style::Error, "error:"), clean(&message));
        if let Some(help) = self.remedy() {
            text.push_str(&format!("  = help: {help}\n"));
        }
        text
    }

    /// What can be done about it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Usage { help, .. } => help.clone(),
            Self::System { help, .. } => Some(help.clone()),
            Self::Remote(e) => e.help().map(str::to_owned),
            Self::Store(StoreError::ReadOnly { .. }) => Some(
                "make it writable, free space, or choose another place with --cache; what is \
                 stored there already can be used as it is"
                    .into(),
            ),
            Self::Store(StoreError::NoLocks { .. }) => Some(
                "choose a place on a local disk with --cache, or mount this one with locks (NFS: \
                 without `nolock`, its lock service running)"
                    .into(),
            ),
            Self::Store(StoreError::NoFolder { .. }) => {
                Some("remove it; the whole store may lie elsewhere, with --cache".into())
            }
            Self::Store(StoreError::Format { .. }) => {
                Some("use the newer preflow, or another --cache".into())
            }
            Self::Store(StoreError::BadEntry { .. }) => {
                Some("`preflow verify --repair` marks it for recomputation".into())
            }
            Self::Store(StoreError::BadHeads { .. }) => {
                Some("`preflow verify --repair` moves it aside".into())
            }
            _ => None,
        }
    }
}

/// In one line, with what helps.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Diagnostics(all) => {
                f.write_str(all.first().map_or("", |problem| problem.message.as_str()))?;
            }
            Self::Usage { message, .. } | Self::System { message, .. } => f.write_str(message)?,
            Self::Store(error) => error.fmt(f)?,
            Self::Remote(error) => error.fmt(f)?,
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self::Diagnostics(diagnostics)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Store(error) => Self::Store(error),
            other => Self::Remote(other),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Store(e) => Self::Store(e),
            RunError::Impossible(e) => Self::usage(e.to_string())
                .help("lower it under `run:` of the stage, or offer more with --memory or --gpus"),
        }
    }
}

impl From<UnknownStage> for Failure {
    fn from(error: UnknownStage) -> Self {
        let help = match &error.suggestion {
            Some(name) => format!("did you mean `{name}`?"),
            None => "`preflow graph` lists all stages".into(),
        };
        Self::usage(error.to_string()).help(help)
    }
}
