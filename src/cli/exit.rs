//! What the exit code of `preflow` means.
//! Does not know what led to it.

use std::process::ExitCode;

use crate::project::Failure;
use crate::store::StoreError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything asked for is there.
    Done,
    /// 1: a stage failed, or something that was asked for is not there.
    StageFailed,
    /// 2: a file or the command line is wrong.
    Usage,
    /// 3: people must act first, or a gate is not met.
    Waiting,
    /// 4: the store is damaged, or it, the remote, or what the machine lends cannot be used.
    Store,
    /// 5: something would run, where that was asked (`plan --exit-code`).
    WouldRun,
    /// 70: a bug in preflow.
    Bug,
    /// 130: interrupted; the next run goes on from there.
    Interrupted,
}

impl Exit {
    /// The number itself.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::StageFailed => 1,
            Self::Usage => 2,
            Self::Waiting => 3,
            Self::Store => 4,
            Self::WouldRun => 5,
            Self::Bug => 70,
            Self::Interrupted => 130,
        }
    }
}

impl From<&Failure> for Exit {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Store(e) if e.is_storage() => Self::Store,
            Failure::Store(StoreError::Io(_)) | Failure::System { .. } => Self::Store,
            Failure::Remote(e) if !e.is_usage() => Self::Store,
            _ => Self::Usage,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
