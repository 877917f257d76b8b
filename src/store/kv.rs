//! The seam between the ledger and whatever keeps its records: small values, made durable in batches or one after the other.
//!
//! ```text
//!   Ledger ──▶ Batch   ──▶ Store::commit ──▶ durable, all or nothing
//!   Ledger ──▶ records ──▶ Store::append ──▶ durable; cut short, the first of them
//!   Texts, recovery ──▶ Reader
//! ```
//!
//! A store knows bytes only: what keys and values mean is decided in `keys.rs` and `codec.rs`.
//!
//! **Invariants.** What was written is durable when it returns `Ok`. After its first failure a store fails everything
//! further. Values never exceed [`limits::VALUE_BYTES_MAX`]. Deliberately absent: retries of anything.
//! Tested through [`super::memory`], [`super::sled`] and the ledger's histories.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::keys::Kind;
use crate::limits;

/// Keeps records. One owner commits; any number of [`Reader`]s look.
pub trait Store: Send {
    /// Makes a batch durable, all or nothing, in one go; durable when it returns `Ok`.
    ///
    /// # Errors
    /// See [`CommitError`]: nothing may be acknowledged any more, and the process ends.
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError>;

    /// Adds records with new keys, in order, in one go; durable when it returns `Ok`. After a failure or a power cut some of the
    /// first may be there, and none behind one that is missing. Cheaper than a batch.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    fn append(&mut self, records: &[Record]) -> Result<(), CommitError>;

    /// A way to look that can be handed to other threads.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// What a scan calls with every key and value; it may stop the scan.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Looks at what a [`Store`] keeps.
pub trait Reader: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// The store failed.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// The greatest key that is not above `key`, and its value.
    ///
    /// # Errors
    /// The store failed.
    fn at_or_below(&self, key: &[u8]) -> Result<Option<Record>, ReadError>;

    /// Shows the keys `from .. below` in ascending order, until the visitor breaks.
    ///
    /// # Errors
    /// The store failed.
    fn scan(&self, from: &[u8], below: &[u8], visit: &mut Visitor<'_>) -> Result<(), ReadError>;
}

/// The store could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct ReadError(pub String);

/// What is to be written together: the last word on a key counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<Operation>,
}

/// A key with its new value; `None` removes it.
pub type Operation = (Vec<u8>, Option<Vec<u8>>);

impl Batch {
    /// Adds a key's new value.
    ///
    /// # Errors
    /// The value is longer than [`limits::VALUE_BYTES_MAX`]: a mistake of the program, the commit must not happen.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), CommitFailure> {
        if value.len() > limits::VALUE_BYTES_MAX {
            return Err(CommitFailure::TooLarge { kind: Kind::name(&key), bytes: value.len() });
        }
        self.operations.push((key, Some(value)));
        Ok(())
    }

    /// Removes a key; one that is not there is no error.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.operations.push((key, None));
    }

    /// Takes over all of another batch's operations, after this one's.
    pub fn append(&mut self, mut other: Self) {
        self.operations.append(&mut other.operations);
    }

    /// What was added, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

/// A commit that did not become durable. Nothing may be acknowledged, now or later: the process ends, and a restart
/// recovers what was durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it was stored.
    #[error("the commit was not stored: {cause}")]
    NotApplied {
        /// Why.
        cause: CommitFailure,
    },
    /// It may have been stored as a whole, or not at all, or (appended) in part; a restart tells.
    #[error("it is unknown whether the commit was stored: {cause}")]
    Unknown {
        /// Why.
        cause: CommitFailure,
    },
}

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitFailure {
    /// A record did not fit. A mistake of the program.
    #[error("a record of kind {kind} would have {bytes} bytes, more than {}", limits::VALUE_BYTES_MAX)]
    TooLarge {
        /// What kind of record.
        kind: &'static str,
        /// How long it would be.
        bytes: usize,
    },
    /// The store below reported an error, of the disk as a rule.
    #[error("{0}")]
    Store(String),
    /// The store returned without one real sync: what it calls durable is not.
    #[error("the database was not synced to the disk")]
    NotSynced,
    /// A sync failed, now or earlier, perhaps in the background. What the operating system then keeps is unknown.
    #[error("a sync to the disk failed (error {errno} of the operating system)")]
    SyncFailed {
        /// The operating system's number.
        errno: i32,
    },
    /// The database keeps data in files that it never syncs.
    #[error("the database has put data into `blobs`, which is never synced")]
    Blobs,
    /// An earlier commit failed.
    #[error("an earlier commit failed")]
    Earlier,
    /// The thread that wrote it ended before it could say what came of it.
    #[error("the thread that wrote it has ended")]
    Lost,
    /// The small file beside the database could not be written; the commit itself is durable.
    #[error("the file of the last acknowledged number cannot be written: {0}")]
    Acked(String),
}
