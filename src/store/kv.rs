//! The seam between the ledger and whatever keeps its records: atomic, durable batches of small values.

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitFailure {
    /// The store below failed.
    #[error("the store failed: {0}")]
    Store(String),
}

/// A commit that was not made durable. Nothing may be acknowledged, now or later: the process ends and a restart
/// recovers what was durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it was stored.
    #[error("nothing was stored: {cause}")]
    NotApplied {
        /// Why.
        cause: CommitFailure,
    },
    /// It may have been stored as a whole, or not at all.
    #[error("it is unknown whether the last commit was stored: {cause}")]
    Unknown {
        /// Why.
        cause: CommitFailure,
    },
}
