//! How a command ends: its exit code, and what is said about it.
//!
//! Scripts decide by these numbers, so they are never given another meaning; `docs/CLI.md` lists them. Every command
//! returns `Result<Exit, Complaint>`; [`super::main`] prints the complaint and exits. Tested here and by every
//! `tests/cli_*.rs`.

use std::fmt;
use std::io;

use crate::store::OpenError;

/// What the exit code of a command means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was told.
    Ok,
    /// It did not, for a reason that no other code names.
    Failed,
    /// The command line is wrong; nothing was done.
    Usage,
    /// No server answered in time.
    Unreachable,
    /// There is no such campaign.
    NotFound,
    /// What is asked contradicts what is there: a name is taken, a data directory is in use, a state forbids it.
    Conflict,
    /// The time given with `--timeout` is over.
    TimedOut,
    /// What was waited for is settled, but some tasks are quarantined below their quota.
    Quarantined,
    /// What was waited for was cancelled.
    Cancelled,
}

impl Exit {
    /// The number the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::TimedOut => 7,
            Self::Quarantined => 10,
            Self::Cancelled => 11,
        }
    }
}

/// Why a command did not do what it was told, and what its user can do about it.
#[derive(Debug)]
pub struct Complaint {
    /// The exit code.
    pub exit: Exit,
    /// What happened; `None` ends quietly, because whoever read the output went away.
    pub error: Option<anyhow::Error>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Complaint {
    /// A complaint without a hint.
    pub fn new(exit: Exit, error: impl fmt::Display) -> Self {
        Self { exit, error: Some(anyhow::anyhow!("{error}")), hint: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<anyhow::Error> for Complaint {
    fn from(error: anyhow::Error) -> Self {
        if error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_broken_pipe)) {
            return Self { exit: Exit::Ok, error: None, hint: None };
        }
        Self { exit: Exit::Failed, error: Some(error), hint: None }
    }
}

/// A data directory cannot be opened: why, and what to do.
impl From<OpenError> for Complaint {
    fn from(error: OpenError) -> Self {
        let (exit, hint) = match &error {
            OpenError::InUse { .. } => (Exit::Conflict, Some("stop that server first, or choose another --data-dir")),
            OpenError::NewerFormat { .. } => (Exit::Failed, Some("nothing was touched; use the newer tenfold")),
            OpenError::Damaged { .. } => {
                (Exit::Failed, Some("restore a backup, and keep the damaged directory: do not delete anything in it"))
            }
            OpenError::NotOurs { .. } => (Exit::Failed, Some("nothing was touched; choose another --data-dir")),
            OpenError::Store { .. } => {
                (Exit::Failed, Some("what was durable is safe; look at the disk, then try again"))
            }
            OpenError::Io { .. } => (Exit::Failed, None),
        };
        // Its text names its cause already.
        Self { hint: hint.map(str::to_owned), ..Self::new(exit, error) }
    }
}

/// Writing to the output failed. A reader that has seen enough (`| head`) is no failure.
impl From<io::Error> for Complaint {
    fn from(error: io::Error) -> Self {
        if is_broken_pipe(&error) {
            return Self { exit: Exit::Ok, error: None, hint: None };
        }
        Self {
            exit: Exit::Failed,
            error: Some(anyhow::Error::new(error).context("cannot write the output")),
            hint: None,
        }
    }
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
