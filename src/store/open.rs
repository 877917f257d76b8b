//! Opens a data directory.
use std::path::{Path, PathBuf};

use super::{Ledger, Texts};
use crate::coordinator::{self, Coordinator};
use crate::types::{InstanceId, Tick};

/// An open data directory, locked until the ledger is dropped.
pub struct Opened {
    /// Where commits go.
    pub ledger: Ledger,
    /// Where keys are read.
    pub texts: Texts,
    /// The state as it was recovered; has not seen `Command::Boot` yet.
    pub coordinator: Coordinator,
    /// Whose directory it is.
    pub instance: InstanceId,
    /// What was found.
    pub recovery: Recovery,
}

/// What opening found; for the log and the person who starts the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The directory was new.
    pub fresh: bool,
    /// Number of the last journal record.
    pub sequence: u64,
    /// Journal records replayed.
    pub journal_records: u64,
    /// Bytes of those.
    pub journal_bytes: u64,
    /// Pages read.
    pub pages: u64,
    /// Bytes of those.
    pub page_bytes: u64,
    /// Anything unusual, as sentences.
    pub notes: Vec<String>,
}

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data directory {} is in use by {holder}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as it said.
        holder: String,
    },
    /// A newer version wrote it. Nothing was touched.
    #[error("{} has format {found}; this version knows formats up to {known}", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// What is stored contradicts itself or cannot be read.
    #[error("the data directory {} is damaged: {what}", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What and where.
        what: String,
    },
    /// The directory holds something else. Nothing was touched.
    #[error("{} is not a data directory: {why}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// The operating system failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The store below failed, or does not sync.
    #[error("the store failed: {what}")]
    Store {
        /// What it said.
        what: String,
    },
}

/// Locks, migrates and recovers a data directory; makes it if it is not there.
///
/// `holder` is told to whoever finds the directory locked. `fresh_instance` becomes its identity if it is new.
///
/// # Errors
/// See [`OpenError`]; no count is ever read lower than it was acknowledged.
pub fn open(
    _path: &Path,
    _holder: &str,
    _fresh_instance: InstanceId,
    _options: coordinator::Options,
    _now: Tick,
) -> Result<Opened, OpenError> {
    todo!()
}
