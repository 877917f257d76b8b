//! Journals changes and writes pages.
use super::kv::CommitError;
use crate::coordinator::command::TextChange;
use crate::coordinator::{Change, Coordinator, Row, RowKey};

/// Where the ledger looks up the rows of a page that it is about to write: the live state after the commit's changes.
pub trait Rows {
    /// The row as it stands; `None` if there is none.
    fn row(&self, key: RowKey) -> Option<Row>;
}

impl Rows for Coordinator {
    fn row(&self, key: RowKey) -> Option<Row> {
        Coordinator::row(self, key)
    }
}

/// The durable state of one data directory; the pipeline owns it.
pub struct Ledger;

impl Ledger {
    /// Makes `changes` and `texts` durable, all or nothing; durable when it returns `Ok`. `rows` is the live state after them.
    ///
    /// # Errors
    /// Nothing of the commit may be acknowledged; end the process. Every later call fails too.
    pub fn commit(&mut self, _changes: &[Change], _texts: &[TextChange], _rows: &impl Rows) -> Result<(), CommitError> {
        todo!()
    }

    /// Number of the last durable journal record; rises with every commit.
    pub fn sequence(&self) -> u64 {
        todo!()
    }
}
