//! Keeps the coordinator's rows and the tasks' keys on disk, so that what was answered once is never forgotten.
//!
//! ```text
//!   pipeline: changes, texts ──▶ Ledger::commit ──▶ one atomic, synced batch ──▶ answers may leave
//!   start:    open ──▶ lock, migrate, recover ──▶ Ledger, Texts, Coordinator
//!   sessions: Texts::keys
//! ```
//!
//! In reading order: [`kv`] (what a store must do), [`memory`] and [`mod@sled`] (who does it), `keys` and `codec` (which bytes),
//! `convert`, `pages`, [`ledger`] (what a commit is), [`texts`], `recovery`, `acked` (how it is read back), `directory`,
//! `migrate`, `open`, [`mod@verify`], [`dump`]. The byte map and the crash argument are in docs/STORAGE.md.
//!
//! **Invariants.** Nothing here decides what counts; nothing here reads a clock. Durable when `commit` returns `Ok`; after one failure
//! nothing more is taken. Damage is an error that names what and where, never a lower count.
//! Tested in `store/tests` and `tests/store_*.rs`.

mod acked;
mod codec;
mod convert;
mod directory;
pub mod dump;
mod keys;
pub mod kv;
pub mod ledger;
pub mod memory;
mod migrate;
mod open;
mod pages;
#[doc(hidden)]
pub mod probe;
mod recovery;
pub mod sled;
#[cfg(test)]
mod tests;
pub mod texts;
pub mod verify;

pub use self::sled::{steps, syncs};
pub use kv::{CommitError, CommitFailure};
pub use ledger::{Ledger, Pace, Rows, Writing, Written};
pub use migrate::FORMAT;
pub use open::{OpenError, Opened, Recovery, open, open_in_memory};
pub use texts::{TextError, Texts};
pub use verify::{VerifiedState, VerifyReport, verify, verify_in_memory, verify_state};
