//! Keeps the coordinator's rows and the tasks' keys on disk, so that what was answered once is never forgotten.
//!
//! ```text
//!   pipeline: changes, texts ──▶ Ledger::commit ──▶ one atomic, synced batch ──▶ answers may leave
//!   start:    open ──▶ lock, migrate, recover ──▶ Ledger, Texts, Coordinator
//! ```
pub mod kv;
pub mod ledger;
mod open;
pub mod texts;
pub mod verify;

pub use kv::{CommitError, CommitFailure};
pub use ledger::{Ledger, Rows};
pub use open::{OpenError, Opened, Recovery, open};
pub use texts::{TextError, Texts};
pub use verify::{VerifyError, VerifyReport, verify};
