//! Checks a stopped server's data directory without writing to it.
use std::path::Path;

pub use super::OpenError as VerifyError;

/// What a verification looked at and what it found in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// What was checked, one sentence each; all of it was in order.
    pub checked: Vec<String>,
    /// What could not be checked, one sentence each.
    pub unchecked: Vec<String>,
}

/// Checks everything that can be checked in the data directory of a stopped server, on a copy.
///
/// # Errors
/// The first damage found, or why it could not be looked for.
pub fn verify(_path: &Path) -> Result<VerifyReport, VerifyError> {
    todo!()
}
